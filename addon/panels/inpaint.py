"""Inpaint and Outpaint: a part of a picture repainted, or the picture continued."""

from __future__ import annotations

import bpy

from ..catalogue import model_traits
from .base import ClosedPanel, draw_job, draw_limited, in_columns

SOFTNESS = (
    "schedule_bias",
    "preservation_strength",
    "transition_contrast_boost",
    "mask_influence",
    "difference_threshold",
    "difference_contrast",
)


class VIEWPORT_DIFFUSION_PT_inpaint(ClosedPanel, bpy.types.Panel):
    """Repaint a part."""

    bl_label = "Inpaint"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the mask and the settings of inpainting."""
        settings = context.scene.viewport_diffusion
        draw_job(self.layout, "viewport_diffusion.inpaint", "BRUSH_DATA")
        layout = in_columns(self.layout)
        capture, inpaint = settings.capture, settings.inpaint
        layout.prop(capture, "mask_source")
        if capture.mask_source == "IMAGE":
            layout.template_ID(capture, "mask_image", open="image.open")
        elif capture.mask_source == "SKETCH":
            layout.template_ID(capture, "sketch")
            layout.prop(capture, "mask_transparency")
        elif capture.mask_source in ("OBJECT", "MATERIAL"):
            layout.prop(capture, f"mask_{capture.mask_source.lower()}")
        layout.prop(capture, "inpaint_result")
        layout.prop(inpaint, "denoising_strength", slider=True)
        layout.prop(inpaint, "mask_mode")
        column = layout.column(align=True)
        column.prop(inpaint, "mask_blur")
        column.prop(inpaint, "mask_blur_y", text="Y")
        layout.prop(inpaint, "masked_content")
        layout.prop(inpaint, "inpaint_area")
        if inpaint.inpaint_area == "only_masked":
            layout.prop(inpaint, "only_masked_padding")
        limits = model_traits(settings.diffusion).limits
        draw_limited(layout, inpaint, ("conditioning_mask_strength",), limits, text="Mask Seen by Model")
        column = layout.column(heading="Also", align=True)
        column.prop(inpaint, "return_mask")
        column.prop(inpaint, "return_mask_composite")


class VIEWPORT_DIFFUSION_PT_soft_inpainting(ClosedPanel, bpy.types.Panel):
    """How a soft mask mixes old and new."""

    bl_label = "Soft Inpainting"
    bl_parent_id = "VIEWPORT_DIFFUSION_PT_inpaint"

    def draw_header(self, context: bpy.types.Context) -> None:
        """Switch it on and off in the header."""
        self.layout.prop(context.scene.viewport_diffusion.inpaint, "soft_inpainting", text="")

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out what it is made of."""
        layout = in_columns(self.layout)
        inpaint = context.scene.viewport_diffusion.inpaint
        column = layout.column()
        column.active = inpaint.soft_inpainting
        for name in SOFTNESS:
            column.prop(inpaint, name)


class VIEWPORT_DIFFUSION_PT_outpaint(ClosedPanel, bpy.types.Panel):
    """Continue the picture."""

    bl_label = "Outpaint"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the directions and the settings of outpainting."""
        settings = context.scene.viewport_diffusion
        draw_job(self.layout, "viewport_diffusion.outpaint", "ARROW_LEFTRIGHT")
        layout = in_columns(self.layout)
        outpaint = settings.outpaint
        column = layout.column(align=True)
        for direction in ("left", "right", "up", "down"):
            column.prop(outpaint, f"pixels_{direction}")
        layout.prop(outpaint, "denoising_strength", slider=True)
        layout.prop(outpaint, "method")
        layout.prop(outpaint, "mask_blur")
        if outpaint.method == "mk2":
            layout.prop(outpaint, "fall_off")
            layout.prop(outpaint, "colour_variation")
        elif outpaint.method == "poor_mans":
            layout.prop(outpaint, "masked_content")
        layout.prop(settings.capture, "adjust_camera")


CLASSES = (
    VIEWPORT_DIFFUSION_PT_inpaint,
    VIEWPORT_DIFFUSION_PT_soft_inpainting,
    VIEWPORT_DIFFUSION_PT_outpaint,
)
