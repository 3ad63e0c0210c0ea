"""Outpaint: the last result continued beyond its borders."""

from __future__ import annotations

import bpy

from ...backend.request import Outpaint, Request
from ..properties import read_settings
from ..scene.capture import picture_size
from ..scene.images import read_image
from .picture import NeedsResult, PictureOperator


class VIEWPORT_DIFFUSION_OT_outpaint(NeedsResult, PictureOperator, bpy.types.Operator):
    """Continue the result beyond its borders"""

    bl_idname = "viewport_diffusion.outpaint"
    bl_label = "Outpaint"

    def request(self, context: bpy.types.Context) -> tuple[Request, str]:
        """Return the outpaint request of the scene's settings over its result."""
        width, height = picture_size(context.scene)
        init = read_image(context.scene.viewport_diffusion.result)
        return Request(read_settings(context.scene, Outpaint, width=width, height=height), {"init": init}), ""


register, unregister = bpy.utils.register_classes_factory((VIEWPORT_DIFFUSION_OT_outpaint,))
