"""The extension enabled in real Blender as a module, from this checkout, with a fresh user folder."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXTENSION = "bl_ext.user_default.viewport_diffusion"


def fresh_user_folder() -> tempfile.TemporaryDirectory[str]:
    """Point Blender at an empty user folder; call it before bpy is imported, which reads it once."""
    folder = tempfile.TemporaryDirectory(prefix="viewport-diffusion-user-")
    os.environ["BLENDER_USER_RESOURCES"] = folder.name
    return folder


def enable(source: Path = ROOT) -> ModuleType:
    """Link a checkout into the user's extensions and enable it; returns its package."""
    import bpy  # isort: skip - it puts Blender's own modules on the path
    import addon_utils

    target = Path(bpy.utils.user_resource("EXTENSIONS")) / "user_default" / "viewport_diffusion"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source, target_is_directory=True)
    addon_utils.enable(EXTENSION, default_set=True, handle_error=_raise)
    python = os.environ.get("VIEWPORT_DIFFUSION_PYTHON")  # where Blender's own Python has no torch
    if python:
        bpy.context.preferences.addons[EXTENSION].preferences.python = python
    return sys.modules[EXTENSION]


def disable() -> None:
    """Disable the extension again; what it raises is raised."""
    import addon_utils

    addon_utils.disable(EXTENSION, handle_error=_raise)


def part(name: str) -> Any:
    """Return a module of the enabled extension, by its name in there such as "addon.jobs"."""
    return sys.modules[f"{EXTENSION}.{name}"]


def _raise(error: Exception) -> None:
    raise error
