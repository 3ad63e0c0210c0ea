"""Captures and masks in real Blender show what is seen there, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from tools.extension import part


def test_the_mask_lies_where_the_object_is_drawn_and_not_behind_another(scene: bpy.types.Scene) -> None:
    capture, masks = part("addon.scene.capture"), part("addon.scene.masks")
    view = capture.camera_view(bpy.context, 128, 128)
    with_cube = capture.draw_view(bpy.context, view).astype(int)
    mask = masks.object_mask(bpy.context, view, [bpy.data.objects["Cube"]])
    bpy.data.objects["Cube"].hide_viewport = True
    without = capture.draw_view(bpy.context, view).astype(int)
    bpy.data.objects["Cube"].hide_viewport = False
    drawn = np.abs(with_cube - without).max(2) > 8
    assert mask.sum() > 1000 and drawn[mask == 1].mean() > 0.99
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    beyond = np.max([np.roll(mask, shift, (0, 1)) for shift in shifts], axis=0) == 0
    assert not drawn[beyond].any()
    bpy.ops.mesh.primitive_plane_add(size=2, location=(3.7, -3.5, 2.5), rotation=scene.camera.rotation_euler)
    with pytest.raises(masks.InvalidRequest, match="can't be seen"):
        masks.object_mask(bpy.context, view, [bpy.data.objects["Cube"]])


def test_the_mask_of_a_collections_instance_is_what_it_shows(scene: bpy.types.Scene) -> None:
    masks = part("addon.scene.masks")
    view = part("addon.scene.capture").camera_view(bpy.context, 128, 128)
    cube = bpy.data.objects["Cube"]
    expected = masks.object_mask(bpy.context, view, [cube])
    asset = bpy.data.collections.new("Asset")
    asset.objects.link(cube)
    scene.collection.children[0].objects.unlink(cube)
    empty = bpy.data.objects.new("Instance", None)
    empty.instance_type, empty.instance_collection = "COLLECTION", asset
    scene.collection.objects.link(empty)
    bpy.context.view_layer.update()
    assert np.array_equal(masks.object_mask(bpy.context, view, [empty]), expected)
    assert np.array_equal(masks.object_mask(bpy.context, view, [cube]), expected)
    empty.hide_set(True)
    with pytest.raises(masks.InvalidRequest, match="can't be seen"):
        masks.object_mask(bpy.context, view, [empty])


def test_a_viewport_with_a_camera_or_a_lock_of_its_own_is_seen_as_it_shows(scene: bpy.types.Scene) -> None:
    module = part("addon.scene.capture")
    scene.viewport_diffusion.capture.source = "VIEWPORT"
    space = module.find_viewport(bpy.context)[0]
    region = space.region_3d
    own = bpy.data.objects.new("Own", bpy.data.cameras.new("Own"))
    scene.collection.objects.link(own)
    own.location = (0, 0, 9)
    bpy.context.view_layer.update()
    before = region.view_perspective
    try:
        region.view_perspective = "CAMERA"
        space.use_local_camera, space.camera = True, own
        assert module.current_view(bpy.context, 64, 64).view_matrix.inverted().translation.z == pytest.approx(9)
        space.use_local_camera = False
        assert module.current_view(bpy.context, 64, 64) == module.camera_view(bpy.context, 64, 64)
        for perspective in ("PERSP", "ORTHO"):
            region.view_perspective = perspective
            region.view_location = (0, 0, 0)
            free = module.current_view(bpy.context, 64, 64)
            scene.cursor.location = (3, 0, 0)
            space.lock_cursor = True
            locked = module.current_view(bpy.context, 64, 64)
            moved = locked.view_matrix.inverted().translation - free.view_matrix.inverted().translation
            assert tuple(moved) == pytest.approx((3, 0, 0), abs=1e-4)
            assert locked.projection == free.projection
            space.lock_cursor = False
    finally:
        space.use_local_camera, space.lock_cursor = False, False
        region.view_perspective = before


def test_a_float_image_with_transparency_keeps_its_colours(scene: bpy.types.Scene, tmp_path: Path) -> None:
    image = bpy.data.images.new("Linear", 2, 1, alpha=True, float_buffer=True)
    image.pixels.foreach_set(np.array([0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0], np.float32))  # white, half transparent
    read = part("addon.scene.images").read_image
    assert read(image).tolist() == [[[255, 255, 255, 128], [0, 0, 0, 0]]]
    image.file_format, image.filepath_raw = "OPEN_EXR", str(tmp_path / "half.exr")
    image.save()
    loaded = bpy.data.images.load(str(tmp_path / "half.exr"))
    for mode in ("PREMUL", "CHANNEL_PACKED"):
        loaded.alpha_mode = mode
        loaded.reload()
        value = loaded.pixels[0] / (loaded.pixels[3] if mode == "PREMUL" else 1)
        assert read(loaded)[0, 0, 0] == round(255 * min(1, 1.055 * value ** (1 / 2.4) - 0.055))


def test_the_mask_of_a_material_covers_its_faces_alone(scene: bpy.types.Scene) -> None:
    masks = part("addon.scene.masks")
    cube = bpy.data.objects["Cube"]
    red = bpy.data.materials.new("Red")
    cube.data.materials.append(red)
    cube.data.polygons[0].material_index = 1
    view = part("addon.scene.capture").camera_view(bpy.context, 128, 128)
    whole = masks.object_mask(bpy.context, view, [cube])
    seen = [i for i in range(6) if _face_mask(masks, view, cube, red, i) is not None]
    parts = [_face_mask(masks, view, cube, red, i) for i in seen]
    assert len(seen) == 3
    assert np.allclose(sum(parts), whole, atol=0.5) and abs(sum(parts).sum() - whole.sum()) < 1


def _face_mask(masks: Any, view: Any, cube: bpy.types.Object, material: bpy.types.Material, face: int) -> Any:
    for polygon in cube.data.polygons:
        polygon.material_index = int(polygon.index == face)
    bpy.context.view_layer.update()
    try:
        return masks.material_mask(bpy.context, view, material)
    except masks.InvalidRequest:
        return None
