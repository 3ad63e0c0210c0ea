"""Outpaint: the last result continued beyond its borders, over the scene that lies there, the camera going along."""

from __future__ import annotations

from typing import NamedTuple

import bpy

from ...backend.errors import DiffusionError, InvalidRequest
from ...backend.request import Request
from ...backend.settings import Outpaint
from ..properties import read_settings
from ..scene.border import Border, border_of, capture_around, follow, grown_camera, require_picture_size, widened
from ..scene.capture import View, camera_view, current_view, picture_size, view_source
from ..scene.images import read_image
from ..scene.results import VIEW_MARK, mark_of
from .picture import NeedsResult, PictureOperator


class Growth(NamedTuple):
    """A camera's picture that is being grown, for the camera to follow once it has arrived."""

    scene: int  # its session_uid: the artist may be in another one by then
    view: View
    border: Border


class VIEWPORT_DIFFUSION_OT_outpaint(NeedsResult, PictureOperator, bpy.types.Operator):
    """Continue the result beyond its borders"""

    bl_idname = "viewport_diffusion.outpaint"
    bl_label = "Outpaint"
    _growth: Growth | None = None

    def request(self, context: bpy.types.Context) -> tuple[Request, str]:
        """Return the outpaint request of the scene's settings over its result, and the mark of the wider view."""
        scene = context.scene
        width, height = picture_size(scene)
        settings = read_settings(scene, Outpaint, width=width, height=height)
        result = scene.viewport_diffusion.result
        images = {"init": read_image(result)}
        border = border_of(settings, *result.size)
        view = shown_view(context, result)
        if settings.method == "scene":
            if view is None:
                raise no_surroundings(context, result)
            images["surroundings"] = capture_around(context, view, border)
        if view is None:
            return Request(settings, images), ""
        if not scene.viewport_diffusion.capture.adjust_camera or not is_cameras(context, view):
            return Request(settings, images), mark_of(widened(view, border))
        require_picture_size(*border.around(view.width, view.height))
        self._growth = Growth(scene.session_uid, view, border)
        with grown_camera(context, view, border) as grown:
            return Request(settings, images), mark_of(grown)

    def _conclude(self) -> set[str]:
        """Report as every picture does, and have the camera follow in the same undo step."""
        outcome = super()._conclude()
        if outcome == {"FINISHED"} and self._growth is not None:
            try:
                let_camera_follow(bpy.context, self._growth)
            except DiffusionError as error:
                self.report({"WARNING"}, str(error))
        return outcome


def shown_view(context: bpy.types.Context, image: bpy.types.Image) -> View | None:
    """Return the source's view if that is what an image shows, else None."""
    mark = image.get(VIEW_MARK, "")
    if not mark or view_source(context.scene) == "IMAGE":
        return None
    try:
        view = current_view(context, *image.size)
    except InvalidRequest:  # no camera, or no viewport
        return None
    return view if mark_of(view) == mark else None


def is_cameras(context: bpy.types.Context, view: View) -> bool:
    """Whether a view is what the scene's camera sees."""
    return context.scene.camera is not None and mark_of(camera_view(context, view.width, view.height)) == mark_of(view)


def no_surroundings(context: bpy.types.Context, image: bpy.types.Image) -> InvalidRequest:
    """Return why the scene beyond an image's borders can't be shown, and what to do about it."""
    if view_source(context.scene) == "IMAGE":
        return InvalidRequest(
            "The source is an image, and there is no scene beyond its borders.",
            "Choose Viewport or Camera as the source, or another outpaint method.",
        )
    if not image.get(VIEW_MARK):
        return InvalidRequest(
            "The result does not come from a view of this scene.",
            "Generate from the viewport or the camera first, or choose another outpaint method.",
        )
    return InvalidRequest(
        "The source no longer shows what the result shows: the view was moved, or its lens or size has changed.",
        "Put it back, generate again, or choose another outpaint method.",
    )


def let_camera_follow(context: bpy.types.Context, growth: Growth) -> None:
    """Have the scene's camera follow a picture that has arrived; raises InvalidRequest where it can't any more."""
    scene = context.scene
    result = scene.viewport_diffusion.result
    expected = growth.border.around(growth.view.width, growth.view.height)
    if scene.session_uid != growth.scene or result is None or tuple(result.size) != expected:
        raise InvalidRequest(
            "The scene has changed meanwhile, so the camera was not adjusted to the wider picture.",
            "Undo, and try again.",
        )
    follow(context, growth.view, growth.border)


register, unregister = bpy.utils.register_classes_factory((VIEWPORT_DIFFUSION_OT_outpaint,))
