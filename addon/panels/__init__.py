"""The Diffusion tab of the 3D viewport's sidebar; panels only choose what to show."""

from __future__ import annotations

import bpy

from . import inpaint, interrogate, main, models, queue, result

# In the order in which they stand in the sidebar: the result below the main panel, the rest closed.
CLASSES = (
    *main.CLASSES,
    *interrogate.CLASSES,
    *models.CLASSES,
    result.VIEWPORT_DIFFUSION_PT_result,
    queue.VIEWPORT_DIFFUSION_PT_queue,
    *inpaint.CLASSES,
    result.VIEWPORT_DIFFUSION_PT_upscale,
    result.VIEWPORT_DIFFUSION_PT_sd_upscale,
    result.VIEWPORT_DIFFUSION_PT_mannequin,
)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
