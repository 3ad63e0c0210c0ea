"""Real Blender as a module, with the extension enabled in its true namespace from a fresh user folder."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from tools.extension import disable, enable, fresh_user_folder

_user = fresh_user_folder()

import bpy  # noqa: E402


@pytest.fixture(scope="session")
def addon() -> Iterator[ModuleType]:
    """The enabled extension's package."""
    yield enable()
    disable()


@pytest.fixture
def scene(addon: ModuleType) -> bpy.types.Scene:
    """Blender's factory scene, the cube seen by the camera at 128×128, with few steps and a settled seed."""
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    scene = bpy.context.scene
    scene.render.resolution_x = scene.render.resolution_y = 128
    settings = scene.viewport_diffusion
    settings.capture.source = "CAMERA"
    settings.diffusion.prompt = "anime illustration of a woman, standing"
    settings.diffusion.steps = 4
    settings.diffusion.seed = 7
    return scene
