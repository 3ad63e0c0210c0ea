"""Real Blender as a module, with the extension enabled in its true namespace from a fresh user folder."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = "bl_ext.user_default.viewport_diffusion"

_user = tempfile.TemporaryDirectory(prefix="viewport-diffusion-user-")
os.environ["BLENDER_USER_RESOURCES"] = _user.name  # before bpy is imported: it is read once

import bpy  # noqa: E402  # isort: skip - it puts Blender's own modules on the path
import addon_utils  # noqa: E402


@pytest.fixture(scope="session")
def addon() -> Iterator[ModuleType]:
    """The enabled extension's package, linked into the user's extensions folder from this checkout."""
    target = Path(bpy.utils.user_resource("EXTENSIONS")) / "user_default" / "viewport_diffusion"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(ROOT, target_is_directory=True)

    def raise_it(error: Exception) -> None:
        raise error

    addon_utils.enable(EXTENSION, default_set=True, handle_error=raise_it)
    python = os.environ.get("VIEWPORT_DIFFUSION_PYTHON")
    if python:
        bpy.context.preferences.addons[EXTENSION].preferences.python = python
    yield sys.modules[EXTENSION]
    addon_utils.disable(EXTENSION, handle_error=raise_it)


@pytest.fixture
def scene(addon: ModuleType) -> bpy.types.Scene:
    """A small scene seen by a camera: a red cube in front of a blue plane."""
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=False)
    scene = bpy.context.scene
    scene.render.resolution_x = scene.render.resolution_y = 128
    scene.render.resolution_percentage = 100
    settings = scene.viewport_diffusion
    settings.capture.source = "CAMERA"
    settings.diffusion.prompt = "anime illustration of a woman, standing"
    settings.diffusion.steps = 4
    settings.diffusion.seed = 7
    return scene
