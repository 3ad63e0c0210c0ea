"""The scene beyond a picture's borders: the wider look at it, and the camera that follows a picture which has grown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.errors import InvalidRequest
from ...backend.request import Array, whole_side
from ...backend.settings import Outpaint
from .capture import View, camera_view, can_draw, draw_view, render_camera
from .results import mark_of
from .state import changed

FLAT_CAMERAS = ("PERSP", "ORTHO")  # whose picture is a rectangle of one plane
TOLERANCE = 1e-5  # of half the picture's side; far below a pixel, well above what 32-bit floats lose


class Border(NamedTuple):
    """Pixels that a picture gains on each side."""

    left: int
    right: int
    up: int
    down: int

    def around(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of a picture of that size once it has grown."""
        return width + self.left + self.right, height + self.up + self.down


def border_of(settings: Outpaint, width: int, height: int) -> Border:
    """Return what a picture of that size really gains by those settings; poor man's way rounds up to multiples of 64.

    Raises InvalidRequest where nothing grows.
    """
    asked = Border(settings.pixels_left, settings.pixels_right, settings.pixels_up, settings.pixels_down)
    if not any(asked):
        raise InvalidRequest("There is no direction to outpaint in.", "Give at least one direction some pixels.")
    if settings.method != "poor_mans":
        return asked
    from ...backend.imaging.outpaint import outpaint_geometry

    geometry = outpaint_geometry(width, height, **asked._asdict())
    return Border(geometry.left, geometry.right, geometry.up, geometry.down)


def widened(view: View, border: Border) -> View:
    """Return the view that shows as much more on each side: its inner rectangle is the old view, pixel for pixel."""
    width, height = border.around(view.width, view.height)
    # Acts on clip coordinates, so that it serves every projection: smaller, and moved by the border's imbalance.
    inwards = Matrix.Diagonal((view.width / width, view.height / height, 1, 1))
    inwards[0][3] = (border.left - border.right) / width
    inwards[1][3] = (border.down - border.up) / height
    return View(view.view_matrix.copy(), inwards @ view.projection, width, height)


def capture_around(context: bpy.types.Context, view: View, border: Border) -> Array:
    """Return what the wider view sees, drawn as the scene's settings say (uint8 H×W×3 display sRGB, opaque).

    Every setting is as it was afterwards. Raises InvalidRequest where the camera can't be widened for a render.
    """
    settings = context.scene.viewport_diffusion.capture
    wider = widened(view, border)
    if settings.shading == "RENDER" or not can_draw():
        with grown_camera(context, view, border):
            return on_white(render_camera(context, wider.width, wider.height, settings.transparent))
    return on_white(draw_view(context, wider, settings.shading, settings.transparent))


def on_white(picture: Array) -> Array:
    """Return a picture (uint8 H×W×3 or 4) laid on white, as outpainting does with the picture that grows."""
    if picture.shape[2] == 3:
        return picture
    alpha = picture[..., 3:].astype(np.uint32)
    return ((picture[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def camera_growth(scene: bpy.types.Scene, width: int, height: int, border: Border) -> dict[str, float]:
    """Return the camera's settings that show a picture of that size grown by a border, the scene's scale unchanged.

    The sensor grows and not the lens, which depth of field depends on. Blender measures shift in units of the side that
    the sensor is fitted to, and with sensor fit Auto that side may change with the size. Raises InvalidRequest for a
    camera that isn't flat.
    """
    data, render = scene.camera.data, scene.render
    if data.type not in FLAT_CAMERAS:
        raise InvalidRequest(
            "A panoramic camera has no border that could be widened.", "Use a perspective or orthographic camera."
        )
    tall = render.pixel_aspect_y / render.pixel_aspect_x
    before = _fitted_side(data.sensor_fit, width, height * tall)
    grown_width, grown_height = border.around(width, height)
    after = _fitted_side(data.sensor_fit, grown_width, grown_height * tall)
    growing = "ortho_scale"
    if data.type == "PERSP":
        growing = "sensor_height" if data.sensor_fit == "VERTICAL" else "sensor_width"
    return {
        growing: getattr(data, growing) * after / before,
        "shift_x": (data.shift_x * before + (border.right - border.left) / 2) / after,
        "shift_y": (data.shift_y * before + (border.up - border.down) / 2 * tall) / after,
    }


def _fitted_side(fit: str, width: float, height: float) -> float:
    """Return the side that Blender fits the sensor to, in pixels' widths."""
    if fit == "AUTO":
        fit = "HORIZONTAL" if width >= height else "VERTICAL"
    return width if fit == "HORIZONTAL" else height


@contextmanager
def grown_camera(context: bpy.types.Context, view: View, border: Border) -> Iterator[View]:
    """Let the scene's camera see the wider view for the length of a with block; gives that view.

    view: what the camera sees now. Raises InvalidRequest where the camera doesn't follow.
    """
    scene = context.scene
    with ExitStack() as stack:
        stack.callback(context.view_layer.update)
        stack.enter_context(changed(scene.camera.data, **camera_growth(scene, view.width, view.height, border)))
        yield _require_grown(context, view, border)


def _require_grown(context: bpy.types.Context, view: View, border: Border) -> View:
    """Return the camera's view as it is now, which is to be the wider one."""
    context.view_layer.update()
    wider = widened(view, border)
    seen = camera_view(context, wider.width, wider.height)
    if not np.allclose(np.array(seen.projection)[:2], np.array(wider.projection)[:2], rtol=TOLERANCE, atol=TOLERANCE):
        raise InvalidRequest(
            "The camera can't be widened: its lens, sensor or shift is animated or driven.",
            "Remove that animation, or switch Adjust Camera off and choose another shading than Render.",
        )
    return seen


def require_picture_size(width: int, height: int) -> None:
    """Raise InvalidRequest unless a scene's picture can have exactly that size."""
    if (whole_side(width), whole_side(height)) != (width, height):
        raise InvalidRequest(
            f"The camera can't follow to {width}×{height}: sides are multiples of 8 up to 4096.",
            "Outpaint by multiples of 8, or switch Adjust Camera off.",
        )


def follow(context: bpy.types.Context, view: View, border: Border) -> None:
    """Set the camera and the sizes of the scene so that it lies under its picture, grown by a border, to the pixel.

    view: what the camera saw in the picture. Raises InvalidRequest, and changes nothing, where the camera was moved
    since or doesn't follow.
    """
    scene = context.scene
    if scene.camera is None or mark_of(camera_view(context, view.width, view.height)) != mark_of(view):
        raise InvalidRequest(
            "The camera has changed meanwhile, so it was not adjusted to the wider picture.", "Undo, and try again."
        )
    with grown_camera(context, view, border):
        pass  # complains where the camera doesn't follow, with everything as before
    for name, value in camera_growth(scene, view.width, view.height, border).items():
        setattr(scene.camera.data, name, value)
    set_picture_size(scene, *border.around(view.width, view.height))
    context.view_layer.update()


def set_picture_size(scene: bpy.types.Scene, width: int, height: int) -> None:
    """Make renders of a scene, and its pictures, exactly that large, at the percentage that it has if that can be."""
    render = scene.render
    percent = render.resolution_percentage
    base = [-(-side * 100 // percent) for side in (width, height)]
    if [side * percent // 100 for side in base] != [width, height]:  # as Blender rounds; only above 100 %
        base, render.resolution_percentage = [width, height], 100
    render.resolution_x, render.resolution_y = base
    settings = scene.viewport_diffusion
    if settings.capture.size == "OWN":
        settings.diffusion.width, settings.diffusion.height = width, height
