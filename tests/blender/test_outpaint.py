"""Outpainting in real Blender: the scene around a picture, and the camera that follows it, to the pixel."""

from __future__ import annotations

import itertools
from typing import Any

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

from tools.extension import part

POINTS = [Vector(point) for point in itertools.product((-1.0, 0.3, 1.0), (-1.0, 0.6, 1.0), (-1.0, 0.1, 1.0))]
CAMERAS = {
    "perspective": {},
    "shifted": {"shift_x": 0.13, "shift_y": -0.21, "lens": 31.0},
    "horizontal": {"sensor_fit": "HORIZONTAL", "sensor_width": 23.0},
    "vertical": {"sensor_fit": "VERTICAL", "sensor_height": 17.0, "shift_y": 0.2},
    "orthographic": {"type": "ORTHO", "ortho_scale": 9.0},
    "orthographic shifted": {"type": "ORTHO", "ortho_scale": 7.0, "shift_x": -0.2, "sensor_fit": "VERTICAL"},
}
SIZES = {"landscape": (192, 128), "portrait": (128, 192), "square": (128, 128)}
BORDERS = ((64, 0, 0, 0), (0, 128, 0, 0), (0, 0, 64, 0), (0, 0, 0, 128), (8, 128, 64, 24))


def result_pixels(scene: bpy.types.Scene) -> Any:
    """Return the pixels of the scene's result."""
    return part("addon.scene.images").read_image(scene.viewport_diffusion.result)[..., :3]


def by_matrices(view: Any) -> Any:
    """Return where a view shows the points, in pixels from its upper left corner."""
    clips = [view.projection @ view.view_matrix @ point.to_4d() for point in POINTS]
    return np.array([((1 + c.x / c.w) / 2 * view.width, (1 - c.y / c.w) / 2 * view.height) for c in clips])


def by_blender(scene: bpy.types.Scene) -> Any:
    """Return where Blender says that a render of the scene shows the points, in pixels from the upper left corner."""
    bpy.context.view_layer.update()
    share = scene.render.resolution_percentage / 100
    width, height = int(scene.render.resolution_x * share + 1e-6), int(scene.render.resolution_y * share + 1e-6)
    seen = [world_to_camera_view(scene, scene.camera, point) for point in POINTS]
    return np.array([(place.x * width, (1 - place.y) * height) for place in seen])


def set_up(scene: bpy.types.Scene, camera: str, size: str) -> Any:
    """Give the scene one of the cameras and sizes and return what the camera sees."""
    for name, value in CAMERAS[camera].items():
        setattr(scene.camera.data, name, value)
    scene.render.resolution_x, scene.render.resolution_y = SIZES[size]
    bpy.context.view_layer.update()
    return part("addon.scene.capture").camera_view(bpy.context, *SIZES[size])


def camera_state(scene: bpy.types.Scene) -> dict[str, Any]:
    """Return everything that outpainting may change of the camera and the sizes."""
    data, render, diffusion = scene.camera.data, scene.render, scene.viewport_diffusion.diffusion
    names = ("sensor_width", "sensor_height", "lens", "ortho_scale", "shift_x", "shift_y")
    state = {name: getattr(data, name) for name in names}
    state |= {name: getattr(render, name) for name in ("resolution_x", "resolution_y", "resolution_percentage")}
    return state | {"width": diffusion.width, "height": diffusion.height}


def generate(scene: bpy.types.Scene) -> Any:
    """Make the capture itself the scene's result and return its pixels."""
    scene.viewport_diffusion.img2img.denoising_strength = 0
    assert bpy.ops.viewport_diffusion.generate() == {"FINISHED"}
    return result_pixels(scene)


def outpaint(scene: bpy.types.Scene, method: str = "mk2", **pixels: int) -> None:
    """Outpaint the result by so many pixels, and by none on the sides that are not named."""
    settings = scene.viewport_diffusion.outpaint
    settings.method, settings.mask_blur = method, 2
    for side in ("left", "right", "up", "down"):
        setattr(settings, f"pixels_{side}", pixels.get(side, 0))
    assert bpy.ops.viewport_diffusion.outpaint() == {"FINISHED"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("camera", CAMERAS)
def test_every_point_stays_at_its_pixel_when_the_camera_follows(scene: bpy.types.Scene, camera: str, size: str) -> None:
    border = part("addon.scene.border")
    for pixels in BORDERS:
        bpy.ops.wm.read_homefile(use_factory_startup=True)
        scene = bpy.context.scene
        view = set_up(scene, camera, size)
        old, shown = by_matrices(view), by_blender(scene)
        added = border.Border(*pixels)
        border.follow(bpy.context, view, added)
        moved = (added.left, added.up)
        assert (scene.render.resolution_x, scene.render.resolution_y) == added.around(*SIZES[size])
        assert np.abs(by_blender(scene) - shown - moved).max() < 0.01
        wider = part("addon.scene.capture").camera_view(bpy.context, *added.around(*SIZES[size]))
        assert np.abs(by_matrices(wider) - old - moved).max() < 0.01


@pytest.mark.parametrize("aspect", [(1.0, 2.0), (1.5, 1.0)])
def test_the_camera_follows_with_pixels_that_are_not_square(
    scene: bpy.types.Scene, aspect: tuple[float, float]
) -> None:
    border = part("addon.scene.border")
    scene.render.pixel_aspect_x, scene.render.pixel_aspect_y = aspect
    view = set_up(scene, "shifted", "landscape")
    old = by_matrices(view)
    border.follow(bpy.context, view, border.Border(8, 24, 256, 16))
    wider = part("addon.scene.capture").camera_view(bpy.context, 224, 400)
    assert np.abs(by_matrices(wider) - old - (8, 256)).max() < 0.01


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("pixels", BORDERS)
def test_the_wider_view_holds_the_old_one_pixel_for_pixel(
    scene: bpy.types.Scene, camera: str, pixels: tuple[int, int, int, int]
) -> None:
    border = part("addon.scene.border")
    view = set_up(scene, camera, "landscape")
    added = border.Border(*pixels)
    wider = border.widened(view, added)
    assert (wider.width, wider.height) == added.around(192, 128)
    assert np.abs(by_matrices(wider) - by_matrices(view) - (added.left, added.up)).max() < 0.01


@pytest.mark.parametrize("perspective", ["PERSP", "ORTHO"])
def test_what_is_drawn_around_a_viewports_picture_fits_it(scene: bpy.types.Scene, perspective: str) -> None:
    capture, border = part("addon.scene.capture"), part("addon.scene.border")
    scene.viewport_diffusion.capture.source = "VIEWPORT"
    capture.find_viewport(bpy.context)[0].region_3d.view_perspective = perspective
    view = capture.current_view(bpy.context, 128, 128)
    inner = capture.capture(bpy.context, 128, 128)
    wider = border.capture_around(bpy.context, view, border.Border(32, 64, 8, 16))
    assert wider.shape == (152, 224, 3)
    difference = np.abs(wider[8:136, 32:160].astype(int) - inner)
    assert (difference.max(2) <= 2).mean() > 0.995  # edges may be rounded to another sample


def test_a_render_of_what_lies_around_fits_and_leaves_the_camera_as_it_was(scene: bpy.types.Scene) -> None:
    border = part("addon.scene.border")
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 1
    scene.cycles.use_denoising = False
    for item in list(bpy.data.objects):
        if item.type == "LIGHT":
            bpy.data.objects.remove(item)
    scene.viewport_diffusion.capture.shading = "RENDER"
    scene.camera.data.shift_x = 0.1
    view = part("addon.scene.capture").current_view(bpy.context, 128, 128)
    inner = part("addon.scene.capture").capture(bpy.context, 128, 128)
    before = camera_state(scene)
    wider = border.capture_around(bpy.context, view, border.Border(0, 64, 24, 0))
    assert camera_state(scene) == before
    assert wider.shape == (152, 192, 3)
    # One sample a pixel, another in each render: the shapes agree but for their outlines.
    difference = np.abs(wider[24:, :128].astype(int) - inner).max(2)
    assert np.median(difference) <= 2 and (difference > 24).mean() < 0.1
    scene.viewport_diffusion.capture.transparent = True
    around = border.capture_around(bpy.context, view, border.Border(0, 64, 24, 0))
    assert around.shape == (152, 192, 3) and (around[0, -1] == 255).all()


def test_an_animated_lens_is_refused_with_everything_as_it_was(scene: bpy.types.Scene) -> None:
    border = part("addon.scene.border")
    driver = scene.camera.data.driver_add("shift_x").driver
    driver.expression = "0.1"
    bpy.context.view_layer.update()
    view = part("addon.scene.capture").camera_view(bpy.context, 128, 128)
    before = camera_state(scene)
    with pytest.raises(border.InvalidRequest, match="animated or driven"):
        border.follow(bpy.context, view, border.Border(0, 64, 0, 0))
    assert camera_state(scene) == before


def test_a_panoramic_camera_is_refused(scene: bpy.types.Scene) -> None:
    border = part("addon.scene.border")
    scene.camera.data.type = "PANO"
    with pytest.raises(border.InvalidRequest, match="panoramic"):
        border.camera_growth(scene, 128, 128, border.Border(0, 64, 0, 0))


@pytest.mark.parametrize("percent", [100, 50, 37, 150])
def test_the_pictures_size_is_exact_at_every_percentage(scene: bpy.types.Scene, percent: int) -> None:
    border, capture = part("addon.scene.border"), part("addon.scene.capture")
    scene.render.resolution_percentage = percent
    for size in ((128, 640), (136, 1016), (4096, 8 * 71)):
        border.set_picture_size(scene, *size)
        assert capture.picture_size(scene) == size
        share = scene.render.resolution_percentage
        assert (scene.render.resolution_x * share // 100, scene.render.resolution_y * share // 100) == size
        assert share in (percent, 100) and (percent > 100 or share == percent)


def test_a_grown_picture_takes_the_camera_along_and_can_grow_again(scene: bpy.types.Scene) -> None:
    capture, images = part("addon.scene.capture"), part("addon.scene.images")
    first = generate(scene)
    old = by_blender(scene)
    outpaint(scene, right=64)
    assert capture.picture_size(scene) == (192, 128)
    assert np.abs(by_blender(scene) - old).max() < 0.01
    assert np.array_equal(result_pixels(scene)[:, :100], first[:, :100])
    outpaint(scene, left=64, up=64)
    assert capture.picture_size(scene) == (256, 192)
    assert np.abs(by_blender(scene) - old - (64, 64)).max() < 0.01
    # The scene still lies under the picture, so an object's place in it can be repainted.
    before = result_pixels(scene)
    settings = scene.viewport_diffusion
    settings.capture.mask_source, settings.capture.mask_object = "OBJECT", bpy.data.objects["Cube"]
    settings.inpaint.mask_blur = 0
    assert bpy.ops.viewport_diffusion.inpaint() == {"FINISHED"}
    mask = part("addon.scene.masks").current_mask(bpy.context, capture.current_view(bpy.context, 256, 192))
    after = images.read_image(settings.result)[..., :3]
    assert np.array_equal(after[mask == 0], before[mask == 0]) and not np.array_equal(after, before)


def test_poor_mans_larger_result_is_what_the_camera_follows(scene: bpy.types.Scene) -> None:
    generate(scene)
    old = by_blender(scene)
    outpaint(scene, "poor_mans", left=40, right=24, up=8)
    size = tuple(scene.viewport_diffusion.result.size)
    assert size == (192, 192)
    assert (scene.render.resolution_x, scene.render.resolution_y) == size
    assert np.abs(by_blender(scene) - old - (40, 64)).max() < 0.01


def test_own_size_and_percentage_follow_too(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    settings.capture.size = "OWN"
    settings.diffusion.width, settings.diffusion.height = 128, 192
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = 256, 384, 50
    generate(scene)
    old = by_blender(scene)
    outpaint(scene, down=64)
    assert (settings.diffusion.width, settings.diffusion.height) == (128, 256)
    assert (scene.render.resolution_x, scene.render.resolution_y) == (256, 512)
    assert scene.render.resolution_percentage == 50
    assert np.abs(by_blender(scene) - old).max() < 0.01


def test_one_undo_brings_camera_and_sizes_back(scene: bpy.types.Scene) -> None:
    settings = scene.viewport_diffusion
    settings.capture.size = "OWN"
    settings.diffusion.width = settings.diffusion.height = 128
    generate(scene)
    name, before = settings.result.name, camera_state(scene)
    settings.outpaint.pixels_right, settings.outpaint.pixels_left, settings.outpaint.mask_blur = 0, 64, 2
    bpy.ops.ed.undo_push(message="Before")
    assert bpy.ops.viewport_diffusion.outpaint("EXEC_DEFAULT", True) == {"FINISHED"}
    scene = bpy.context.scene
    assert camera_state(scene)["shift_x"] < 0 and scene.viewport_diffusion.diffusion.width == 192
    bpy.ops.ed.undo()
    scene = bpy.context.scene
    assert camera_state(scene) == before and scene.viewport_diffusion.result.name == name


def test_the_camera_stays_where_it_is_not_to_follow(scene: bpy.types.Scene) -> None:
    generate(scene)
    scene.viewport_diffusion.capture.adjust_camera = False
    before = camera_state(scene)
    outpaint(scene, right=64)
    assert camera_state(scene) == before and result_pixels(scene).shape == (128, 192, 3)
    # A viewport's picture is none of the camera's.
    scene.viewport_diffusion.capture.source = "VIEWPORT"
    scene.viewport_diffusion.capture.adjust_camera = True
    generate(scene)
    outpaint(scene, right=64)
    assert camera_state(scene) == before


def test_a_viewport_that_looks_through_the_camera_takes_it_along(scene: bpy.types.Scene) -> None:
    space = part("addon.scene.capture").find_viewport(bpy.context)[0]
    space.region_3d.view_perspective = "CAMERA"
    scene.viewport_diffusion.capture.source = "VIEWPORT"
    generate(scene)
    old = by_blender(scene)
    outpaint(scene, up=64)
    assert scene.render.resolution_y == 192 and np.abs(by_blender(scene) - old - (0, 64)).max() < 0.01


def test_sides_that_a_scene_cannot_have_are_refused_before_anything_is_made(scene: bpy.types.Scene) -> None:
    generate(scene)
    settings = scene.viewport_diffusion.outpaint
    settings.pixels_right = 13
    with pytest.raises(RuntimeError, match=r"141×128.*multiples of 8"):
        bpy.ops.viewport_diffusion.outpaint()


def test_outpaint_from_the_scene_sends_what_the_wider_camera_sees(scene: bpy.types.Scene) -> None:
    capture = part("addon.scene.capture")
    scene.camera.data.shift_x = 0.4  # the cube sticks out of the picture on its left
    first = generate(scene)
    view = capture.camera_view(bpy.context, 128, 128)
    settings = scene.viewport_diffusion.outpaint
    settings.method, settings.pixels_left, settings.pixels_right = "scene", 64, 128
    operator = type("Caller", (), {})()
    request, mark = part("addon.operators.outpaint").VIEWPORT_DIFFUSION_OT_outpaint.request(operator, bpy.context)
    request.check()
    around = request.images["surroundings"]
    assert around.shape == (128, 320, 3)
    assert (np.abs(around[:, 64:192].astype(int) - first).max(2) <= 2).mean() > 0.995
    assert around[:, :64].std() > 5 > around[:, 192:].std()  # the rest of the cube, and the empty world
    outpaint(scene, "scene", left=64, right=128)
    assert scene.viewport_diffusion.result["viewport_diffusion_view"] == mark
    assert mark == part("addon.scene.results").mark_of(capture.camera_view(bpy.context, 320, 128))
    assert np.abs(by_matrices(capture.camera_view(bpy.context, 320, 128)) - by_matrices(view) - (64, 0)).max() < 0.01
    outpaint(scene, "scene", down=64)
    assert result_pixels(scene).shape == (192, 320, 3)


def test_outpaint_from_the_scene_says_why_it_cannot(scene: bpy.types.Scene) -> None:
    generate(scene)
    settings = scene.viewport_diffusion
    settings.outpaint.method = "scene"
    scene.camera.location.x += 0.5
    bpy.context.view_layer.update()
    with pytest.raises(RuntimeError, match=r"no longer shows what the result shows.*generate again"):
        bpy.ops.viewport_diffusion.outpaint()
    settings.capture.source = "IMAGE"
    with pytest.raises(RuntimeError, match="source is an image"):
        bpy.ops.viewport_diffusion.outpaint()
    settings.capture.source = "CAMERA"
    settings.result = bpy.data.images.new("Elsewhere", 128, 128)
    with pytest.raises(RuntimeError, match="not come from a view"):
        bpy.ops.viewport_diffusion.outpaint()
