"""Sketch: a capture to paint over in Blender's own Image Editor, for Generate or for Inpaint to start from."""

from __future__ import annotations

import bpy
import numpy as np

from ...backend.errors import DiffusionError, InvalidRequest
from ...backend.request import Array
from ..scene.border import on_white
from ..scene.capture import SKETCH_SOURCE, capture, picture_size, view_source
from ..scene.images import INFOTEXT
from ..scene.masks import sketch_pair
from ..scene.results import new_image, source_mark
from .generate import last_result


class VIEWPORT_DIFFUSION_OT_start_sketch(bpy.types.Operator):
    """Make an image of the last result of this view, or of a fresh capture, to paint over in an Image Editor"""

    bl_idname = "viewport_diffusion.start_sketch"
    bl_label = "Paint over Capture"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Make the sketch and the untouched copy of it, and show it ready to be painted on."""
        try:
            pixels, mark = ground(context)
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        settings = context.scene.viewport_diffusion.capture
        source = view_source(context.scene)
        remove_unpainted(context.scene)
        sketch = new_image(pixels, "Sketch", mark)
        sketch[SKETCH_SOURCE] = source
        settings.sketch, settings.sketch_original = sketch, new_image(pixels, f"{sketch.name} Original", mark)
        if show_for_painting(context, sketch):
            self.report({"INFO"}, f"Paint on “{sketch.name}” in the Image Editor")
        else:
            self.report({"WARNING"}, f"Open an Image Editor, choose the image “{sketch.name}” and Paint mode in it")
        return {"FINISHED"}


def ground(context: bpy.types.Context) -> tuple[Array, str]:
    """Return what is to be painted over (uint8 H×W×3), and the mark of the view that it shows.

    That is the last result if it shows the source's view and is to be repainted, else the source itself; of a sketch
    what it was painted over.
    """
    properties = context.scene.viewport_diffusion
    width, height = picture_size(context.scene)
    mark = source_mark(context, width, height)
    pixels = last_result(properties, mark) if mark else None
    if pixels is None and properties.capture.source == "SKETCH" and properties.capture.sketch is not None:
        pixels = sketch_pair(context.scene)[1]
    if pixels is None:
        pixels = capture(context, width, height)
    return on_white(pixels), mark


def remove_unpainted(scene: bpy.types.Scene) -> None:
    """Remove the last sketch if nothing was painted on it; one with paint stays in the file."""
    settings = scene.viewport_diffusion.capture
    try:
        painted, original = sketch_pair(scene)
    except InvalidRequest:
        return
    if np.array_equal(painted, original):
        for image in (settings.sketch, settings.sketch_original):
            bpy.data.images.remove(image)


def show_for_painting(context: bpy.types.Context, image: bpy.types.Image) -> bool:
    """Show an image in Paint mode in the first Image Editor that isn't pinned; return whether there is one."""
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            space = area.spaces.active
            if area.type == "IMAGE_EDITOR" and not space.use_image_pin and space.mode != "UV":
                space.image = image
                space.mode = "PAINT"
                return True
    return False


def keep_paint(*_: object) -> None:
    """Pack sketches and results that were painted on since, before a file is saved: Blender would save them unpainted.

    All of them: a sketch with paint stays in the file after the next was begun.
    """
    for image in bpy.data.images:
        if image.is_dirty and not {SKETCH_SOURCE, INFOTEXT}.isdisjoint(image.keys()):
            image.pack()


def register() -> None:
    """Register the operator, and look after paint whenever a file is saved."""
    bpy.utils.register_class(VIEWPORT_DIFFUSION_OT_start_sketch)
    bpy.app.handlers.save_pre.append(bpy.app.handlers.persistent(keep_paint))


def unregister() -> None:
    """Take both off again."""
    bpy.app.handlers.save_pre.remove(keep_paint)
    bpy.utils.unregister_class(VIEWPORT_DIFFUSION_OT_start_sketch)
