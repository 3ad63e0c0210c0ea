"""Parameters in real Blender: pasted, read from files, copied, and results sent on, with what isn't taken told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bpy
import numpy as np
import pytest

from backend.imaging import files
from tools.extension import part

WEB_UI = (
    "masterpiece, 1girl,\n(solo:1.2)\nNegative prompt: lowres, bad hands\n"
    "Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 1234567890, Size: 512x768, Model: anime, "
    "Denoising strength: 0.6, Clip skip: 2, Version: v1.10.1"
)


def taken(scene: bpy.types.Scene, text: str) -> str:
    """Apply a text's parameters to a scene and return what was not taken."""
    module = part("addon.operators.parameters")
    return " ".join(module.apply_parameters(scene, module.settings_from_text(text)))


@pytest.fixture
def picture(scene: bpy.types.Scene) -> bpy.types.Image:
    """A 96×64 result of the scene that keeps the web UI's parameters."""
    image = bpy.data.images.new("Picture", 96, 64)
    image["parameters"] = WEB_UI
    scene.viewport_diffusion.result = image
    return image


def test_pasted_parameters_are_in_the_settings(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    settings.diffusion.style = "ink"
    settings.diffusion.extra_noise = 0.5
    assert bpy.ops.viewport_diffusion.paste_parameters(text=WEB_UI) == {"FINISHED"}
    diffusion = settings.diffusion
    assert diffusion.prompt == "masterpiece, 1girl, (solo:1.2)" and diffusion.style == ""
    assert diffusion.negative_prompt == "lowres, bad hands"
    assert (diffusion.steps, diffusion.sampler, diffusion.schedule) == (28, "DPM++ 2M", "Karras")
    assert (diffusion.cfg_scale, diffusion.seed, diffusion.clip_skip) == (7.5, 1234567890, 2)
    assert diffusion.extra_noise == 0 and settings.img2img.denoising_strength == pytest.approx(0.6)
    assert part("addon.scene.capture").picture_size(scene) == (512, 768)
    assert diffusion.model == "embedded"


def test_each_operation_takes_its_own_parameters(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    untouched = settings.img2img.denoising_strength
    bpy.ops.viewport_diffusion.paste_parameters(
        text="a\nSteps: 9, Seed: 3, Denoising strength: 0.25, Mask blur: 12, Inpaint area: Only masked, "
        "Postprocess upscale by: 3, Postprocess upscaler: Lanczos"
    )
    assert (settings.inpaint.mask_blur, settings.inpaint.inpaint_area) == (12, "only_masked")
    assert settings.inpaint.denoising_strength == 0.25 and settings.img2img.denoising_strength == untouched
    assert (settings.upscale.scale, settings.upscale.upscaler) == (3.0, "Lanczos")
    bpy.ops.viewport_diffusion.paste_parameters(text="a\nSteps: 9, Seed: 3, Outpaint: 64 0 8 0, Mask blur: 2")
    outpaint = settings.outpaint
    assert (outpaint.pixels_left, outpaint.pixels_right, outpaint.pixels_up, outpaint.mask_blur) == (64, 0, 8, 2)
    assert settings.inpaint.mask_blur == 12


def test_a_script_comes_back_and_goes_again(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    text = "a\nSteps: 9, Seed: 3, Denoising strength: 0.25, Script: Loopback, Loopback loops: 7"
    bpy.ops.viewport_diffusion.paste_parameters(text=text)
    assert settings.script == "loopback" and settings.loopback.loops == 7
    assert settings.img2img.denoising_strength == settings.inpaint.denoising_strength == 0.25
    bpy.ops.viewport_diffusion.paste_parameters(text="only a prompt")
    assert settings.script == "loopback" and settings.diffusion.prompt == "only a prompt"
    bpy.ops.viewport_diffusion.paste_parameters(text=WEB_UI)
    assert settings.script == "NONE"


def test_what_is_not_taken_is_told(scene: bpy.types.Scene) -> None:
    told = taken(scene, WEB_UI.replace("DPM++ 2M Karras", "Sketchy").replace("1234567890", "3022743107"))
    assert "Sampler “Sketchy” is not available here; the one set is kept." in told
    assert "Seed 3022743107 is more than the 2147483647 that Blender can hold; 7 is kept." in told
    assert scene.viewport_diffusion.diffusion.sampler == "Automatic" and scene.viewport_diffusion.diffusion.seed == 7
    assert taken(scene, WEB_UI) == ""


def test_the_size_of_the_scene_stays_its_own_where_it_is_the_same(scene: bpy.types.Scene) -> None:
    taken(scene, "a\nSteps: 9, Seed: 3, Size: 128x128")
    assert scene.viewport_diffusion.capture.size == "SCENE"
    taken(scene, "a\nSteps: 9, Seed: 3, Size: 128x256")
    assert scene.viewport_diffusion.capture.size == "OWN"


def test_with_an_empty_clipboard_the_last_result_is_taken(picture: bpy.types.Image, scene: bpy.types.Scene) -> None:
    assert bpy.context.window_manager.clipboard == ""
    assert bpy.ops.viewport_diffusion.paste_parameters() == {"FINISHED"}
    assert scene.viewport_diffusion.diffusion.steps == 28
    del picture["parameters"]
    with pytest.raises(RuntimeError, match="clipboard is empty"):
        bpy.ops.viewport_diffusion.paste_parameters()


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_parameters_are_read_from_a_file(scene: bpy.types.Scene, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"picture.{ending}"
    files.save(np.zeros((16, 16, 3), np.uint8), path, WEB_UI)
    assert bpy.ops.viewport_diffusion.read_parameters(filepath=str(path)) == {"FINISHED"}
    assert scene.viewport_diffusion.diffusion.steps == 28
    files.save(np.zeros((16, 16, 3), np.uint8), path)
    with pytest.raises(RuntimeError, match=f"picture.{ending} holds no parameters"):
        bpy.ops.viewport_diffusion.read_parameters(filepath=str(path))
    path.write_text("no picture")
    with pytest.raises(RuntimeError, match="can't be read as an image"):
        bpy.ops.viewport_diffusion.read_parameters(filepath=str(path))


def packed(image: bpy.types.Image) -> None:
    image.pack()


def unpacked(image: bpy.types.Image) -> None:
    assert image.packed_file is None


@pytest.mark.parametrize("keep", [packed, unpacked])
def test_an_image_opened_from_a_file_keeps_its_parameters(
    scene: bpy.types.Scene, tmp_path: Path, keep: Callable[[bpy.types.Image], None]
) -> None:
    path = tmp_path / "picture.png"
    files.save(np.zeros((16, 16, 3), np.uint8), path, WEB_UI)
    image = bpy.data.images.load(str(path))
    keep(image)
    assert part("addon.operators.parameters").infotext_of(image) == WEB_UI
    scene.viewport_diffusion.result = image
    assert bpy.ops.viewport_diffusion.copy_parameters() == {"FINISHED"}
    scene.viewport_diffusion.result = bpy.data.images.new("Bare", 8, 8)
    with pytest.raises(RuntimeError, match="Bare keeps no parameters"):
        bpy.ops.viewport_diffusion.copy_parameters()


def test_a_result_is_sent_to_img2img_with_its_size(picture: bpy.types.Image, scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    assert bpy.ops.viewport_diffusion.send_result(target="IMG2IMG") == {"FINISHED"}
    assert (settings.capture.source, settings.capture.image) == ("IMAGE", picture)
    assert part("addon.scene.capture").picture_size(scene) == (96, 64)
    diffusion = settings.diffusion
    assert (diffusion.prompt, diffusion.steps, diffusion.seed) == ("masterpiece, 1girl, (solo:1.2)", 28, 1234567890)
    # The web UI sends no more than these along.
    assert (diffusion.sampler, diffusion.cfg_scale) == ("Automatic", 7.0)
    settings.img2img.denoising_strength = 0
    assert bpy.ops.viewport_diffusion.generate() == {"FINISHED"}
    assert tuple(settings.result.size) == (96, 64) and settings.result != picture


def test_a_result_is_sent_to_inpaint_without_its_size(picture: bpy.types.Image, scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    assert bpy.ops.viewport_diffusion.send_result(target="INPAINT") == {"FINISHED"}
    assert (settings.capture.source, settings.capture.image) == ("IMAGE", picture)
    assert part("addon.scene.capture").picture_size(scene) == (128, 128) and settings.diffusion.steps == 28


def test_an_image_of_an_editor_is_sent_to_upscale(picture: bpy.types.Image, scene: bpy.types.Scene) -> None:
    other = bpy.data.images.new("Other", 16, 16)
    area = bpy.context.screen.areas[0]
    kind = area.type
    area.type = "IMAGE_EDITOR"
    area.spaces.active.image = other
    with bpy.context.temp_override(area=area):
        assert bpy.ops.viewport_diffusion.send_result(target="UPSCALE") == {"FINISHED"}
    area.type = kind
    settings = scene.viewport_diffusion
    assert settings.result == other and settings.capture.source == "CAMERA" and settings.diffusion.steps == 4


def test_without_a_picture_the_sentence_says_what_to_do(scene: bpy.types.Scene) -> None:
    for operator in (bpy.ops.viewport_diffusion.send_result, bpy.ops.viewport_diffusion.copy_parameters):
        with pytest.raises(RuntimeError, match="no result yet"):
            operator()
    scene.viewport_diffusion.result = bpy.data.images.new("Lost", 8, 8)
    scene.viewport_diffusion.result.source = "FILE"
    with pytest.raises(RuntimeError, match="has no pixels"):
        bpy.ops.viewport_diffusion.send_result()


def test_pasting_can_be_undone(scene: bpy.types.Scene) -> None:
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.viewport_diffusion.paste_parameters("EXEC_DEFAULT", True, text=WEB_UI)
    assert bpy.context.scene.viewport_diffusion.diffusion.steps == 28
    bpy.ops.ed.undo()
    assert bpy.context.scene.viewport_diffusion.diffusion.steps == 4


def test_a_pictures_own_parameters_bring_its_settings_back(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    settings.img2img.denoising_strength = 0.4
    settings.diffusion.cfg_scale = 5.5
    settings.diffusion.style = "ink of {prompt}"
    assert bpy.ops.viewport_diffusion.generate() == {"FINISHED"}
    pixels = part("addon.scene.images").read_image(settings.result)
    settings.img2img.denoising_strength = 0.9
    settings.diffusion.cfg_scale = 3.0
    settings.diffusion.prompt = settings.diffusion.style = "something else"
    settings.diffusion.seed = -1
    settings.diffusion.steps = 7
    assert bpy.ops.viewport_diffusion.paste_parameters() == {"FINISHED"}
    assert bpy.ops.viewport_diffusion.generate() == {"FINISHED"}
    assert np.array_equal(part("addon.scene.images").read_image(settings.result), pixels)
