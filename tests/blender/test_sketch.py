"""Sketches in real Blender: a capture painted over, and what Generate and Inpaint make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from backend.settings import Inpaint
from tools.extension import part

PAINT = (0.0, 200 / 255, 40 / 255, 1.0)


def pixels_of(image: bpy.types.Image) -> Any:
    """Return an image's colours, top row first."""
    return part("addon.scene.images").read_image(image)[..., :3]


def paint(image: bpy.types.Image, rows: slice, columns: slice) -> None:
    """Paint a rectangle, counted from the upper left corner, as a brush does: in the image's own buffer."""
    width, height = image.size
    flat = np.empty(width * height * image.channels, np.float32)
    image.pixels.foreach_get(flat)
    values = flat.reshape(height, width, image.channels)[::-1]
    values[rows, columns] = PAINT[: image.channels]
    image.pixels.foreach_set(np.ascontiguousarray(values[::-1]).ravel())
    image.update()


def start(scene: bpy.types.Scene) -> Any:
    """Start a sketch and return its image."""
    assert bpy.ops.viewport_diffusion.start_sketch() == {"FINISHED"}
    return scene.viewport_diffusion.capture.sketch


def test_a_sketch_is_the_capture_itself_with_an_untouched_copy(scene: bpy.types.Scene) -> None:
    captured = part("addon.scene.capture").capture(bpy.context, 128, 128)
    sketch = start(scene)
    original = scene.viewport_diffusion.capture.sketch_original
    assert np.array_equal(pixels_of(sketch), captured) and np.array_equal(pixels_of(original), captured)
    assert captured.std() > 10
    assert original.name == f"{sketch.name} Original" and sketch.packed_file and original.packed_file
    paint(sketch, slice(8, 24), slice(16, 48))
    assert np.array_equal(pixels_of(original), captured)


def test_the_last_result_of_the_view_is_what_is_painted_over(scene: bpy.types.Scene) -> None:
    bpy.ops.viewport_diffusion.generate()
    result = scene.viewport_diffusion.result
    assert np.array_equal(pixels_of(start(scene)), pixels_of(result))
    scene.camera.location.x += 1
    bpy.context.view_layer.update()
    captured = part("addon.scene.capture").capture(bpy.context, 128, 128)
    assert np.array_equal(pixels_of(start(scene)), captured)


def test_paint_and_original_survive_save_and_reopen(scene: bpy.types.Scene, tmp_path: Path) -> None:
    sketch = start(scene)
    original = pixels_of(sketch)
    paint(sketch, slice(8, 24), slice(16, 48))
    painted = pixels_of(sketch)
    path = str(tmp_path / "sketch.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    bpy.ops.wm.open_mainfile(filepath=path)
    settings = bpy.context.scene.viewport_diffusion.capture
    assert np.array_equal(pixels_of(settings.sketch), painted)
    assert np.array_equal(pixels_of(settings.sketch_original), original)
    assert not np.array_equal(painted, original)


def test_an_older_sketch_with_paint_survives_as_well(scene: bpy.types.Scene, tmp_path: Path) -> None:
    sketch = start(scene)
    paint(sketch, slice(8, 24), slice(16, 48))
    name, painted = sketch.name, pixels_of(sketch)
    assert start(scene).name != name
    path = str(tmp_path / "sketches.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    assert np.array_equal(pixels_of(bpy.data.images[name]), painted)


def test_undo_takes_the_sketch_back(scene: bpy.types.Scene) -> None:
    bpy.ops.ed.undo_push(message="Before")
    assert bpy.ops.viewport_diffusion.start_sketch("EXEC_DEFAULT", True) == {"FINISHED"}
    bpy.ops.ed.undo()
    assert bpy.context.scene.viewport_diffusion.capture.sketch is None


def test_a_new_sketch_replaces_one_without_paint_and_spares_one_with(scene: bpy.types.Scene) -> None:
    start(scene)
    count = len(bpy.data.images)
    sketch = start(scene)
    assert len(bpy.data.images) == count
    paint(sketch, slice(8, 24), slice(16, 48))
    painted, name = pixels_of(sketch), sketch.name
    assert start(scene).name != name
    assert np.array_equal(pixels_of(bpy.data.images[name]), painted)


def test_an_open_image_editor_shows_the_sketch_ready_for_paint(scene: bpy.types.Scene) -> None:
    area = max(bpy.context.window_manager.windows[0].screen.areas, key=lambda area: area.width)
    kind = area.type
    area.type = "IMAGE_EDITOR"
    try:
        sketch = start(scene)
        assert area.spaces.active.image == sketch and area.spaces.active.mode == "PAINT"
    finally:
        area.spaces.active.mode = "VIEW"
        area.type = kind


def test_generate_starts_from_the_painted_sketch_and_keeps_its_view(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    sketch = start(scene)
    mark = sketch["viewport_diffusion_view"]
    paint(sketch, slice(40, 90), slice(16, 48))
    settings.capture.source, settings.img2img.denoising_strength = "SKETCH", 0
    assert part("addon.scene.results").source_mark(bpy.context, 128, 128) == mark
    assert bpy.ops.viewport_diffusion.generate() == {"FINISHED"}
    assert np.array_equal(pixels_of(settings.result), pixels_of(sketch))
    assert tuple(pixels_of(settings.result)[50, 20]) == (0, 200, 40)
    assert settings.result["viewport_diffusion_view"] == mark
    # The view that it was painted over is the camera's, so the camera follows as if it were the source.
    settings.outpaint.pixels_right, settings.outpaint.mask_blur = 64, 2
    assert bpy.ops.viewport_diffusion.outpaint() == {"FINISHED"}
    assert scene.render.resolution_x == 192


def test_without_a_sketch_the_sentence_says_what_to_do(scene: bpy.types.Scene) -> None:
    scene.viewport_diffusion.capture.source = "SKETCH"
    for run in (bpy.ops.viewport_diffusion.generate, bpy.ops.viewport_diffusion.start_sketch):
        with pytest.raises(RuntimeError, match="no sketch yet"):
            run()
    with pytest.raises(part("addon.scene.masks").InvalidRequest, match="no sketch yet"):
        part("addon.scene.masks").sketch_inputs(bpy.context, Inpaint())


def test_an_inpaint_sketch_is_the_paint_and_its_mask(scene: bpy.types.Scene) -> None:
    masks, capture = part("addon.scene.masks"), scene.viewport_diffusion.capture
    sketch = start(scene)
    before = pixels_of(sketch)
    with pytest.raises(masks.InvalidRequest, match="Nothing is painted"):
        masks.sketch_inputs(bpy.context, Inpaint())
    paint(sketch, slice(40, 90), slice(16, 48))
    expected = np.zeros((128, 128), np.float32)
    expected[40:90, 16:48] = 1
    init, mask = masks.sketch_inputs(bpy.context, Inpaint(mask_blur=0))
    assert np.array_equal(mask, expected) and mask.dtype == np.float32
    assert np.array_equal(init, pixels_of(sketch))
    init, mask = masks.sketch_inputs(bpy.context, Inpaint(mask_blur=4))
    assert np.array_equal(mask, expected)
    assert np.array_equal(init[:24], before[:24]) and tuple(init[65, 32]) == (0, 200, 40)
    assert not np.array_equal(init[35:40, 16:48], before[35:40, 16:48])
    capture.mask_transparency = 25
    assert np.array_equal(masks.sketch_inputs(bpy.context, Inpaint())[1], expected * np.float32(191 / 255))
    capture.mask_transparency = 100
    with pytest.raises(masks.InvalidRequest, match=r"100 %.*below 50"):
        masks.sketch_inputs(bpy.context, Inpaint())


def test_inpaint_by_sketch_keeps_what_was_not_painted(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    sketch = start(scene)
    before = pixels_of(sketch)
    paint(sketch, slice(40, 90), slice(16, 48))
    settings.capture.mask_source = "SKETCH"
    settings.inpaint.mask_blur, settings.inpaint.denoising_strength = 0, 0
    assert bpy.ops.viewport_diffusion.inpaint() == {"FINISHED"}
    assert np.array_equal(pixels_of(settings.result), pixels_of(sketch))
    settings.inpaint.denoising_strength = 0.5
    assert bpy.ops.viewport_diffusion.inpaint() == {"FINISHED"}
    after = pixels_of(settings.result)
    outside = np.ones((128, 128), bool)
    outside[40:90, 16:48] = False
    assert np.array_equal(after[outside], before[outside])
    assert (after != pixels_of(sketch))[40:90, 16:48].mean() > 0.5
    assert settings.result["viewport_diffusion_view"] == sketch["viewport_diffusion_view"]


def clear_image(colour: tuple[int, int, int]) -> Any:
    """Return an image of the file whose upper left quarter is fully transparent over a colour, and grey elsewhere."""
    levels = np.full((128, 128, 4), 0.5, np.float32)
    levels[..., 3] = 1
    levels[:64, :64] = (*(value / 255 for value in colour), 0)
    levels[64, 64, 3] = 254 / 255
    image = bpy.data.images.new("Erased", 128, 128, alpha=True)
    image.pixels.foreach_set(np.ascontiguousarray(levels[::-1]).ravel())
    image.update()
    return image


def test_what_is_not_opaque_is_the_mask_and_its_colours_are_kept(scene: bpy.types.Scene) -> None:
    masks, capture = part("addon.scene.masks"), scene.viewport_diffusion.capture
    capture.source, capture.mask_source, capture.image = "IMAGE", "ALPHA", clear_image((10, 20, 30))
    picture = part("addon.scene.capture").capture(bpy.context, 128, 128)
    init, mask = masks.transparency_inputs(picture, "original")
    expected = np.zeros((128, 128), np.float32)
    expected[:64, :64] = expected[64, 64] = 1
    assert np.array_equal(mask, expected) and init.shape == (128, 128, 3)
    assert (init[:64, :64] == (10, 20, 30)).all() and (init[64:, 65:] == 128).all()
    view = part("addon.scene.capture").current_view(bpy.context, 128, 128)
    assert np.array_equal(masks.current_mask(bpy.context, view), expected)


def test_black_under_transparency_is_told_where_it_would_show(scene: bpy.types.Scene) -> None:
    masks, images = part("addon.scene.masks"), part("addon.scene.images")
    picture = images.read_image(clear_image((0, 0, 0)))
    with pytest.raises(masks.InvalidRequest, match=r"black underneath.*Fill"):
        masks.transparency_inputs(picture, "original")
    assert masks.transparency_inputs(picture, "fill")[1].sum() == 64 * 64 + 1


def test_an_opaque_source_has_no_transparency_to_repaint(scene: bpy.types.Scene) -> None:
    masks = part("addon.scene.masks")
    with pytest.raises(masks.InvalidRequest, match="Nothing in the source is transparent"):
        masks.transparency_mask(np.zeros((8, 8, 3), np.uint8))
    scene.viewport_diffusion.capture.transparent = True
    captured = part("addon.scene.capture").capture(bpy.context, 128, 128)
    mask = masks.transparency_mask(captured)
    assert mask[0, 0] == 1 and mask[64, 64] == 0
