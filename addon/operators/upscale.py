"""Upscale and SD Upscale: the last result enlarged, and where it is wanted drawn anew."""

from __future__ import annotations

import bpy

from ...backend.request import Request
from ...backend.settings import SDUpscale, Settings, Upscale
from ..properties import read_settings
from ..scene.images import read_image
from .parameters import infotext_of
from .picture import NeedsResult, PictureOperator


class EnlargesResult(NeedsResult, PictureOperator):
    """Base of what makes the scene's result larger."""

    enlarges: type[Settings]

    def request(self, context: bpy.types.Context) -> tuple[Request, str]:
        """Return the request of the scene's settings over its result."""
        result = context.scene.viewport_diffusion.result
        settings = read_settings(context.scene, self.enlarges)
        return Request(settings, {"init": read_image(result)}, infotext_of(result)), ""


class VIEWPORT_DIFFUSION_OT_upscale(EnlargesResult, bpy.types.Operator):
    """Enlarge the result by a model that knows what drawings look like"""

    bl_idname = "viewport_diffusion.upscale"
    bl_label = "Upscale"
    enlarges = Upscale


class VIEWPORT_DIFFUSION_OT_sd_upscale(EnlargesResult, bpy.types.Operator):
    """Enlarge the result and draw its details anew by the prompt"""

    bl_idname = "viewport_diffusion.sd_upscale"
    bl_label = "SD Upscale"
    enlarges = SDUpscale


CLASSES = (VIEWPORT_DIFFUSION_OT_upscale, VIEWPORT_DIFFUSION_OT_sd_upscale)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
