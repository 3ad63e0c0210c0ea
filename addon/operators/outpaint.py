"""Outpaint: the last result continued beyond its borders."""

from __future__ import annotations

import bpy

from ...backend.errors import InvalidRequest
from ...backend.request import Array, Outpaint, Request
from ..properties import read_settings
from ..scene.images import read_image
from .picture import PictureOperator


def result_pixels(context: bpy.types.Context) -> Array:
    """Return the pixels of the scene's result; raises InvalidRequest where there is none yet."""
    image = context.scene.viewport_diffusion.result
    if image is None:
        raise InvalidRequest("There is no result yet.", "Generate a picture, or choose an image as the result.")
    return read_image(image)


class VIEWPORT_DIFFUSION_OT_outpaint(PictureOperator, bpy.types.Operator):
    """Continue the result beyond its borders"""

    bl_idname = "viewport_diffusion.outpaint"
    bl_label = "Outpaint"

    def request(self, context: bpy.types.Context) -> tuple[Request, str]:
        """Return the outpaint request of the scene's settings over its result."""
        return Request(read_settings(context.scene, Outpaint), {"init": result_pixels(context)}), ""


register, unregister = bpy.utils.register_classes_factory((VIEWPORT_DIFFUSION_OT_outpaint,))
