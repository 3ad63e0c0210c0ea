"""The half of Viewport Diffusion that lives in Blender: the only importer of bpy."""

from __future__ import annotations

from . import cli, jobs, panels, preferences, presets, properties
from .operators import (
    generate,
    install,
    interrogate,
    mannequin,
    models,
    outpaint,
    parameters,
    queue,
    results,
    sketch,
    upscale,
)

# In the order of need: what a later one uses is registered before it.
MODULES = (
    preferences,
    properties,
    jobs,
    presets,
    install,
    generate,
    sketch,
    outpaint,
    upscale,
    interrogate,
    results,
    parameters,
    mannequin,
    queue,
    models,
    panels,
    cli,
)


def register() -> None:
    """Register every module, in order."""
    for module in MODULES:
        module.register()


def unregister() -> None:
    """Unregister every module, in the reverse order."""
    for module in reversed(MODULES):
        module.unregister()
