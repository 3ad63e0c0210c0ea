"""What the panel says of a picture's steps, size and memory before it is made."""

from __future__ import annotations

import sys
from types import ModuleType

import bpy
import pytest

from tools.extension import EXTENSION


@pytest.fixture
def advice(addon: ModuleType) -> ModuleType:
    return sys.modules[f"{EXTENSION}.addon.scene.advice"]


def test_the_panel_says_steps_sizes_and_tiles(scene: bpy.types.Scene, advice: ModuleType) -> None:
    settings = scene.viewport_diffusion
    settings.diffusion.steps, settings.img2img.denoising_strength = 20, 0.75
    assert advice.size_line(bpy.context) == "16 of 20 steps, 320×320 → 128×128"
    settings.capture.size = "OWN"
    settings.diffusion.width, settings.diffusion.height = 1024, 576
    assert advice.size_line(bpy.context) == "16 of 20 steps, 424×240 → 1024×576"
    settings.img2img.large_canvas = "refine"
    assert advice.size_line(bpy.context) == "16 of 20 steps, 424×240 → 1024×576 in 8 tiles"
    settings.img2img.large_canvas = "as_is"
    assert advice.size_line(bpy.context) == "16 of 20 steps, 1024×576"
    settings.img2img.denoising_strength = 0
    assert "no steps" in advice.size_line(bpy.context)


def test_an_image_without_pixels_leaves_the_panel_standing(scene: bpy.types.Scene, advice: ModuleType) -> None:
    settings = scene.viewport_diffusion
    settings.capture.source, settings.capture.size, settings.capture.scale = "IMAGE", "SCALE", 0.05
    lost = bpy.data.images.new("Lost", 16, 16)
    lost.source, lost.filepath = "FILE", "//lost.png"
    assert tuple(lost.size) == (0, 0)
    for image in (lost, bpy.data.images.new("Small", 16, 16)):
        settings.capture.image = image
        assert "steps" in advice.size_line(bpy.context)
        assert advice.memory_line(bpy.context)[1]


def test_the_panel_says_how_much_memory_a_picture_takes_and_warns(
    scene: bpy.types.Scene, advice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = scene.viewport_diffusion
    monkeypatch.setattr(advice, "item_bytes", lambda precision, device: 2)  # on every processor
    monkeypatch.setattr(advice.jobs, "device", lambda: "")  # as before any backend has told
    monkeypatch.setattr(advice.jobs, "room", lambda: 0)
    text, suffices = advice.memory_line(bpy.context)
    assert suffices and text == "About 79 MB"
    for room, words, enough in (
        (8_000_000_000, "of 8.0 GB free", True),
        (20_000_000, "63 MB are needed and 20 MB free: choose", False),
    ):
        monkeypatch.setattr(advice.jobs, "room", lambda room=room: room)
        text, suffices = advice.memory_line(bpy.context)
        assert words in text and suffices is enough
    monkeypatch.setattr(advice.jobs, "room", lambda: 75_000_000)
    assert advice.memory_line(bpy.context)[0].endswith(", Low")
    monkeypatch.setattr(advice.jobs, "device", lambda: "cuda:0")  # where taking turns makes no copies
    monkeypatch.setattr(advice.jobs, "room", lambda: 185_000_000)
    assert advice.memory_line(bpy.context)[0].endswith(", Medium")
    settings.diffusion.model = "/nowhere"
    assert advice.memory_line(bpy.context) == ("", True)


def test_the_preference_reaches_the_engine(scene: bpy.types.Scene) -> None:
    preferences = sys.modules[f"{EXTENSION}.addon.preferences"]
    chosen = preferences.preferences()
    assert preferences.engine_options().memory == "automatic"
    chosen.memory = "low"
    try:
        assert preferences.engine_options().memory == "low"
    finally:
        chosen.memory = "automatic"
