"""The Diffusion tab of the 3D viewport's sidebar; panels only choose what to show."""

from __future__ import annotations

import bpy

from ..backend.models.load import EMBEDDED_FOLDER
from ..backend.request import EMBEDDED
from . import jobs
from .preferences import preferences
from .presets import VIEWPORT_DIFFUSION_PT_presets
from .scene.advice import advice, size_line

RUNNING_ICON, FAILED_ICON = "RENDER_STILL", "ERROR"
TALL = 1.6  # rows that Generate is high; the progress that takes its place is as high, so that nothing below it moves
PREVIEW = 4.6  # rows that the small picture of the result is high: as high as what stands beside it
CHARACTER = 6.2  # pixels that one takes on average in Blender's own font, at a resolution scale of 1
MARGINS = 90  # pixels of a sidebar's width that a message can't have: tabs, borders and its icon
LEAST_LINE = 16  # characters; a narrower sidebar cuts them off
USUAL_LINE = 34  # characters, where nothing is known about the region


class DiffusionPanel:
    """Base of the panels: where they are."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Diffusion"


class VIEWPORT_DIFFUSION_PT_main(DiffusionPanel, bpy.types.Panel):
    """Source, prompt, settings, and the button."""

    bl_label = "Viewport Diffusion"

    def draw_header_preset(self, context: bpy.types.Context) -> None:
        """Offer the presets in the panel's header."""
        VIEWPORT_DIFFUSION_PT_presets.draw_panel_header(self.layout)

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the main panel, the button first: it stays in place whatever is shown below."""
        layout = self.layout
        settings = context.scene.viewport_diffusion
        draw_job(layout, "viewport_diffusion.generate", "RENDER_STILL")
        column = layout.column()
        column.prop(settings.diffusion, "prompt", text="", icon="TEXT", placeholder="Prompt")
        column.prop(settings.diffusion, "style", text="", icon="BRUSH_DATA", placeholder="Style")
        column.prop(settings.diffusion, "negative_prompt", text="", icon="REMOVE", placeholder="Negative prompt")
        column = layout.column(align=True)  # labels inside the fields: beside them the narrow sidebar cuts them off
        column.prop(settings.img2img, "denoising_strength", slider=True)
        column.prop(settings.diffusion, "cfg_scale", slider=True)
        column.prop(settings.diffusion, "steps")
        row = layout.row(align=True)
        row.prop(settings.diffusion, "seed")
        row.operator("viewport_diffusion.random_seed", text="", icon="FILE_REFRESH")
        row.operator("viewport_diffusion.reuse_seed", text="", icon="RECOVER_LAST")
        for sentence in advice(settings):
            draw_message(layout, sentence, "INFO")


class VIEWPORT_DIFFUSION_PT_source(DiffusionPanel, bpy.types.Panel):
    """What the picture is made from, and how large."""

    bl_label = "Source"
    bl_parent_id = "VIEWPORT_DIFFUSION_PT_main"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the source."""
        layout = self.layout
        settings = context.scene.viewport_diffusion
        capture = settings.capture
        layout.row(align=True).prop(capture, "source", expand=True)
        if capture.source == "IMAGE":
            layout.template_ID(capture, "image", open="image.open")
            layout.prop(settings.img2img, "resize_mode", text="")  # a capture has the size already
        else:
            layout.prop(capture, "shading")
            layout.prop(capture, "transparent")
        if capture.source == "IMAGE" or capture.transparent:
            layout.prop(settings.img2img, "keep_alpha")
        layout.row(align=True).prop(capture, "size", expand=True)
        if capture.size == "OWN":
            row = layout.row(align=True)
            row.prop(settings.diffusion, "width")
            row.prop(settings.diffusion, "height")
        layout.label(text=size_line(context), icon="FULLSCREEN_ENTER")


class VIEWPORT_DIFFUSION_PT_sampling(DiffusionPanel, bpy.types.Panel):
    """The model and how it samples."""

    bl_label = "Model and Sampling"
    bl_parent_id = "VIEWPORT_DIFFUSION_PT_main"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out model and sampler."""
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        settings = context.scene.viewport_diffusion
        layout.prop(settings.diffusion, "model")
        if settings.diffusion.model == EMBEDDED and not EMBEDDED_FOLDER.is_dir():
            draw_message(layout, "The embedded model is missing from this installation.", FAILED_ICON)
        layout.prop(settings.diffusion, "sampler")
        layout.prop(settings.diffusion, "schedule")
        layout.prop(settings.diffusion, "exact_steps")
        kind = "own process" if preferences().backend == "subprocess" else "inside Blender"
        layout.label(text=f"Backend, {kind}: {jobs.backend_state()}", icon="SYSTEM")


class VIEWPORT_DIFFUSION_PT_inpaint(DiffusionPanel, bpy.types.Panel):
    """Repaint a part."""

    bl_label = "Inpaint"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the mask and the settings of inpainting."""
        layout = self.layout
        settings = context.scene.viewport_diffusion
        draw_job(layout, "viewport_diffusion.inpaint", "BRUSH_DATA")
        layout.use_property_split = True
        layout.use_property_decorate = False
        capture, inpaint = settings.capture, settings.inpaint
        layout.prop(capture, "mask_source")
        if capture.mask_source == "IMAGE":
            layout.template_ID(capture, "mask_image", open="image.open")
        elif capture.mask_source != "SELECTION":
            layout.prop(capture, f"mask_{capture.mask_source.lower()}")
        layout.prop(capture, "inpaint_result")
        layout.prop(inpaint, "denoising_strength", slider=True)
        layout.prop(inpaint, "mask_mode")
        layout.prop(inpaint, "mask_blur")
        layout.prop(inpaint, "masked_content")
        layout.prop(inpaint, "inpaint_area")
        if inpaint.inpaint_area == "only_masked":
            layout.prop(inpaint, "only_masked_padding")


class VIEWPORT_DIFFUSION_PT_outpaint(DiffusionPanel, bpy.types.Panel):
    """Continue the picture."""

    bl_label = "Outpaint"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the directions and the settings of outpainting."""
        layout = self.layout
        settings = context.scene.viewport_diffusion
        draw_job(layout, "viewport_diffusion.outpaint", "ARROW_LEFTRIGHT")
        layout.use_property_split = True
        layout.use_property_decorate = False
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
        else:
            layout.prop(outpaint, "masked_content")


class VIEWPORT_DIFFUSION_PT_upscale(DiffusionPanel, bpy.types.Panel):
    """Enlarge the picture."""

    bl_label = "Upscale"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the settings of upscaling."""
        layout = self.layout
        settings = context.scene.viewport_diffusion
        draw_job(layout, "viewport_diffusion.upscale", "FULLSCREEN_ENTER")
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings.upscale, "upscaler")
        layout.prop(settings.upscale, "scale")


class VIEWPORT_DIFFUSION_PT_result(DiffusionPanel, bpy.types.Panel):
    """The last result and what to do with it."""

    bl_label = "Result"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the result."""
        layout = self.layout
        settings = context.scene.viewport_diffusion
        layout.template_ID(settings, "result", open="image.open")
        image = settings.result
        if image is None:
            layout.label(text="Nothing made yet", icon="IMAGE_DATA")
            return
        row = layout.split(factor=0.42)
        row.template_icon(image.preview_ensure().icon_id, scale=PREVIEW)
        column = row.column(align=True)
        column.label(text=f"{image.size[0]}×{image.size[1]}, seed {settings.last_seed}")
        column.operator("viewport_diffusion.result_to_plane", icon="MESH_PLANE")
        column.operator("viewport_diffusion.result_to_background", text="To Camera", icon="CAMERA_DATA")
        column.operator("viewport_diffusion.save_result", text="Save As", icon="FILE_TICK")


class VIEWPORT_DIFFUSION_PT_mannequin(DiffusionPanel, bpy.types.Panel):
    """A figure to start from."""

    bl_label = "Mannequin"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the figure's buttons."""
        layout = self.layout
        layout.operator("viewport_diffusion.add_mannequin", icon="ARMATURE_DATA")
        layout.operator_menu_enum("viewport_diffusion.apply_pose", "pose", icon="POSE_HLT")


def draw_job(layout: bpy.types.UILayout, operator: str, icon: str) -> None:
    """Show an operation's button, or the progress of what is being made with its Cancel, and how the last one ended."""
    active = jobs.running()
    if active:
        job = active[0]
        left = job.time_left()
        waiting = f", {len(active) - 1} waiting" if len(active) > 1 else ""
        text = f"{job.message}{f', {left:.0f} s left' if left is not None else ''}{waiting}"
        row = layout.row(align=True)
        row.scale_y = TALL
        row.progress(factor=job.progress, text=text)
        row.operator("viewport_diffusion.cancel", text="", icon="CANCEL")
        return
    row = layout.row()
    row.scale_y = TALL
    row.operator(operator, icon=icon)
    job = jobs.last()
    if job is not None and job.kind == "failed":
        draw_message(layout, job.sentence, FAILED_ICON)


def draw_message(layout: bpy.types.UILayout, sentence: str, icon: str) -> None:
    """Show a sentence over as many lines as it needs: a label would cut it off."""
    column = layout.column(align=True)
    column.scale_y = 0.8  # lines of one sentence belong together
    room = line_length(bpy.context.region)
    line, first = "", True
    for word in [*sentence.split(), ""]:
        if word and len(line) + len(word) < room:
            line = f"{line} {word}".strip()
            continue
        column.label(text=line, icon=icon if first else "BLANK1")
        line, first = word, False


def line_length(region: bpy.types.Region | None) -> int:
    """Return how many characters of a message fit beside its icon in a line of the sidebar, by its width now."""
    if region is None or region.type != "UI":
        return USUAL_LINE
    scale = bpy.context.preferences.system.ui_scale
    return max(int((region.width / scale - MARGINS) / CHARACTER), LEAST_LINE)


CLASSES = (
    VIEWPORT_DIFFUSION_PT_main,
    VIEWPORT_DIFFUSION_PT_source,
    VIEWPORT_DIFFUSION_PT_sampling,
    VIEWPORT_DIFFUSION_PT_result,
    VIEWPORT_DIFFUSION_PT_inpaint,
    VIEWPORT_DIFFUSION_PT_outpaint,
    VIEWPORT_DIFFUSION_PT_upscale,
    VIEWPORT_DIFFUSION_PT_mannequin,
)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
