"""Results and what is done with them: enlarged, shown in the scene, saved, sent on; and a figure to begin with."""

from __future__ import annotations

import bpy

from ...backend.settings.upscale import NO_UPSCALER
from ..scene import preview
from ..scene.results import seed_of
from .base import ClosedPanel, DiffusionPanel, draw_job, draw_upscaler, in_columns

LIVE_PREVIEW = 8.0  # rows that the picture so far is high
PREVIEW = 4.6  # rows that the small picture of the result is high: as high as what stands beside it


class VIEWPORT_DIFFUSION_PT_result(DiffusionPanel, bpy.types.Panel):
    """The last result and what to do with it."""

    bl_label = "Result"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the result."""
        layout = self.layout
        settings = context.scene.viewport_diffusion
        so_far = preview.icon(context.scene)
        if so_far:
            layout.template_icon(so_far, scale=LIVE_PREVIEW)
        layout.template_ID(settings, "result", open="image.open")
        image = settings.result
        if image is None:
            layout.label(text="Nothing made yet", icon="IMAGE_DATA")
            return
        row = layout.split(factor=0.42)
        row.template_icon(image.preview_ensure().icon_id, scale=PREVIEW)
        column = row.column(align=True)
        seed = seed_of(image)
        column.label(text=f"{image.size[0]}×{image.size[1]}" + (f", seed {seed}" if seed is not None else ""))
        column.operator("viewport_diffusion.result_to_plane", icon="MESH_PLANE")
        column.operator("viewport_diffusion.result_to_background", text="To Camera", icon="CAMERA_DATA")
        column.operator("viewport_diffusion.save_result", text="Save As", icon="FILE_TICK")
        row = layout.row(align=True)
        row.operator_menu_enum("viewport_diffusion.send_result", "target", text="Send To", icon="FORWARD")
        row.operator("viewport_diffusion.copy_parameters", text="", icon="COPYDOWN")
        row.operator("viewport_diffusion.read_parameters", text="", icon="FILE_IMAGE")


class VIEWPORT_DIFFUSION_PT_upscale(ClosedPanel, bpy.types.Panel):
    """Enlarge the picture."""

    bl_label = "Upscale"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the settings of upscaling."""
        draw_job(self.layout, "viewport_diffusion.upscale", "FULLSCREEN_ENTER")
        layout = in_columns(self.layout)
        upscale = context.scene.viewport_diffusion.upscale
        draw_upscaler(layout, upscale, "upscaler")
        layout.prop(upscale, "resize_mode")
        if upscale.resize_mode == "scale_by":
            layout.prop(upscale, "scale")
            layout.prop(upscale, "maximum_side")
        else:
            column = layout.column(align=True)
            column.prop(upscale, "width")
            column.prop(upscale, "height")
            layout.prop(upscale, "crop_to_fit")
        draw_upscaler(layout, upscale, "upscaler_2")
        if upscale.upscaler_2 != NO_UPSCALER:
            layout.prop(upscale, "upscaler_2_visibility", slider=True)


class VIEWPORT_DIFFUSION_PT_sd_upscale(ClosedPanel, bpy.types.Panel):
    """Enlarge the picture and draw its details anew."""

    bl_label = "SD Upscale"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the settings of drawing a larger picture tile by tile."""
        draw_job(self.layout, "viewport_diffusion.sd_upscale", "MESH_GRID")
        layout = in_columns(self.layout)
        settings = context.scene.viewport_diffusion.sd_upscale
        draw_upscaler(layout, settings, "upscaler")
        layout.prop(settings, "scale")
        layout.prop(settings, "denoising_strength", slider=True)
        layout.prop(settings, "method")
        column = layout.column(align=True)
        column.prop(settings, "width")
        column.prop(settings, "height")
        column.prop(settings, "overlap")
        if settings.method == "tiles":
            layout.prop(settings, "batch_size")
        layout.prop(settings, "keep_alpha")
        if not settings.keep_alpha:
            layout.prop(settings, "background_colour")


class VIEWPORT_DIFFUSION_PT_mannequin(ClosedPanel, bpy.types.Panel):
    """A figure to start from."""

    bl_label = "Mannequin"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the figure's buttons."""
        layout = self.layout
        layout.operator("viewport_diffusion.add_mannequin", icon="ARMATURE_DATA")
        layout.operator_menu_enum("viewport_diffusion.apply_pose", "pose", icon="POSE_HLT")
