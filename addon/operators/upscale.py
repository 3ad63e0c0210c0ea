"""Upscale: the last result enlarged."""

from __future__ import annotations

import bpy

from ...backend.request import Request, Upscale
from ..properties import read_settings
from ..scene.images import read_image
from .picture import NeedsResult, PictureOperator


class VIEWPORT_DIFFUSION_OT_upscale(NeedsResult, PictureOperator, bpy.types.Operator):
    """Enlarge the result by a model that knows what drawings look like"""

    bl_idname = "viewport_diffusion.upscale"
    bl_label = "Upscale"

    def request(self, context: bpy.types.Context) -> tuple[Request, str]:
        """Return the upscale request of the scene's settings over its result."""
        return Request(
            read_settings(context.scene, Upscale), {"init": read_image(context.scene.viewport_diffusion.result)}
        ), ""


register, unregister = bpy.utils.register_classes_factory((VIEWPORT_DIFFUSION_OT_upscale,))
