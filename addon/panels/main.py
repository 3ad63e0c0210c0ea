"""The main panel: the button, the prompt, what is captured, how it is sampled, and which script runs over it."""

from __future__ import annotations

from collections.abc import Callable

import bpy

from ...backend.models.load import EMBEDDED_FOLDER
from ...backend.models.samplers import SAMPLERS, settled_sampler
from ...backend.models.traits import Traits
from ...backend.settings import EMBEDDED, FAST_MODES, OPERATIONS
from .. import jobs
from ..catalogue import model_traits
from ..preferences import preferences
from ..presets import VIEWPORT_DIFFUSION_PT_presets
from ..properties import own_fields
from ..scene.advice import advice, memory_line, size_line
from .base import (
    FAILED_ICON,
    ClosedPanel,
    DiffusionPanel,
    draw_job,
    draw_limited,
    draw_message,
    draw_upscaler,
    in_columns,
)

PARENT = "VIEWPORT_DIFFUSION_PT_main"


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
        row = column.row(align=True)
        row.prop(settings.diffusion, "prompt", text="", icon="TEXT", placeholder="Prompt")
        row.operator("viewport_diffusion.add_to_prompt", text="", icon="ADD")
        row.operator("viewport_diffusion.interrogate", text="", icon="VIEWZOOM")
        row.operator("viewport_diffusion.paste_parameters", text="", icon="PASTEDOWN")
        column.prop(settings.diffusion, "style", text="", icon="BRUSH_DATA", placeholder="Style")
        limits = model_traits(settings.diffusion).limits
        look = {"text": "", "icon": "REMOVE", "placeholder": "Negative prompt"}
        draw_limited(column, settings.diffusion, ("negative_prompt",), limits, **look)
        column = layout.column(align=True)  # labels inside the fields: beside them the narrow sidebar cuts them off
        column.prop(settings.img2img, "denoising_strength", slider=True)
        draw_limited(column, settings.diffusion, ("cfg_scale",), limits, slider=True)
        column.prop(settings.diffusion, "steps")
        row = column.row(align=True)
        row.prop(settings.diffusion, "batch_count")
        row.prop(settings.diffusion, "batch_size")
        row = layout.row(align=True)
        row.prop(settings.diffusion, "seed")
        row.operator("viewport_diffusion.random_seed", text="", icon="FILE_REFRESH")
        row.operator("viewport_diffusion.reuse_seed", text="", icon="RECOVER_LAST")
        for sentence in advice(settings):
            draw_message(layout, sentence, "INFO")


class VIEWPORT_DIFFUSION_PT_source(DiffusionPanel, bpy.types.Panel):
    """What the picture is made from, and how large."""

    bl_label = "Source"
    bl_parent_id = PARENT

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the source."""
        layout = self.layout
        settings = context.scene.viewport_diffusion
        capture = settings.capture
        layout.row(align=True).prop(capture, "source", expand=True)
        if capture.source == "IMAGE":
            layout.template_ID(capture, "image", open="image.open")
        elif capture.source == "SKETCH":
            layout.template_ID(capture, "sketch")
        else:
            layout.prop(capture, "shading")
            layout.prop(capture, "transparent")
        layout.operator("viewport_diffusion.start_sketch", icon="GREASEPENCIL")
        if capture.source in ("IMAGE", "SKETCH"):
            layout.prop(settings.img2img, "resize_mode", text="")  # a capture has the size already
            draw_upscaler(layout, settings.img2img, "upscaler_for_img2img")
        if capture.source == "IMAGE" or capture.transparent:
            layout.prop(settings.img2img, "keep_alpha")
            layout.prop(settings.img2img, "background_colour")
        layout.row(align=True).prop(capture, "size", expand=True)
        if capture.size == "OWN":
            row = layout.row(align=True)
            row.prop(settings.diffusion, "width")
            row.prop(settings.diffusion, "height")
        elif capture.size == "SCALE":
            layout.prop(capture, "scale")
        layout.prop(settings.img2img, "large_canvas")
        layout.label(text=size_line(context), icon="FULLSCREEN_ENTER")
        cost, suffices = memory_line(context)
        if not suffices:
            draw_message(layout, cost, FAILED_ICON)
        elif cost:
            layout.label(text=cost, icon="MEMORY")


class VIEWPORT_DIFFUSION_PT_sampling(ClosedPanel, bpy.types.Panel):
    """The model and how it samples."""

    bl_label = "Model and Sampling"
    bl_parent_id = PARENT

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out model and sampler."""
        layout = in_columns(self.layout)
        diffusion = context.scene.viewport_diffusion.diffusion
        layout.prop(diffusion, "model")
        layout.prop(diffusion, "vae")
        draw_limited(layout, diffusion, ("refiner",), model_traits(diffusion).limits)
        if diffusion.refiner:
            layout.prop(diffusion, "refiner_switch_at", slider=True)
        draw_limited(layout, diffusion, ("ip_adapter",), model_traits(diffusion).limits)
        if diffusion.ip_adapter:
            layout.prop(diffusion, "ip_adapter_scale", slider=True)
            layout.template_ID(context.scene.viewport_diffusion.capture, "reference", open="image.open")
        if diffusion.model == EMBEDDED and not EMBEDDED_FOLDER.is_dir():
            draw_message(layout, "The embedded model is missing from this installation.", FAILED_ICON)
        traits = model_traits(diffusion)
        for name, can in (("sampler", traits.can_sample), ("schedule", traits.can_follow)):
            draw_choice(layout, diffusion, name, traits)
            if not can(getattr(diffusion, name)):
                sentence = f"{getattr(diffusion, name)} can't be had with {traits.family}: choose Automatic."
                draw_message(layout, sentence, FAILED_ICON)
        layout.prop(diffusion, "exact_steps")
        draw_limited(layout, diffusion, ("clip_skip",), traits.limits)
        draw_limited(layout, diffusion, ("fast_mode",), traits.limits)
        row = layout.row()
        row.active = "token_merging_ratio" not in traits.limits
        row.prop(diffusion, "token_merging_ratio", slider=True)
        if diffusion.fast_mode != "off":
            draw_message(layout, f"{FAST_MODES[diffusion.fast_mode][1]}.", "INFO")
        layout.prop(preferences(), "previews")
        kind = "own process" if preferences().backend == "subprocess" else "inside Blender"
        layout.label(text=f"Backend, {kind}: {jobs.backend_state()}", icon="SYSTEM")


def draw_choice(layout: bpy.types.UILayout, diffusion: bpy.types.PropertyGroup, name: str, traits: Traits) -> None:
    """Show the choice of a sampler or a schedule; for a model that has not all of them, those that it has."""
    if not traits.flow:
        layout.prop(diffusion, name)
        return
    row = layout.split(factor=0.4)
    row.alignment = "RIGHT"
    row.label(text=diffusion.bl_rna.properties[name].name)
    row.menu(f"VIEWPORT_DIFFUSION_MT_{name}s", text=getattr(diffusion, name))


class VIEWPORT_DIFFUSION_MT_samplers(bpy.types.Menu):
    """The samplers, those greyed out that can't solve the chosen model"""

    bl_label = "Sampling Method"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the samplers."""
        diffusion = context.scene.viewport_diffusion.diffusion
        draw_possible(self.layout, diffusion, "sampler", model_traits(diffusion).can_sample)


class VIEWPORT_DIFFUSION_MT_schedules(bpy.types.Menu):
    """The schedules, those greyed out that can't be followed with the chosen model"""

    bl_label = "Schedule Type"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the schedules."""
        diffusion = context.scene.viewport_diffusion.diffusion
        draw_possible(self.layout, diffusion, "schedule", model_traits(diffusion).can_follow)


def draw_possible(
    layout: bpy.types.UILayout, diffusion: bpy.types.PropertyGroup, name: str, can: Callable[[str], bool]
) -> None:
    """Lay out a setting's choices, what can be had first, the rest greyed out under the reason."""
    choices = [item.identifier for item in diffusion.bl_rna.properties[name].enum_items]
    for choice in filter(can, choices):
        layout.prop_enum(diffusion, name, choice)
    layout.separator()
    layout.label(text="Not for flow-matching models", icon="INFO")
    column = layout.column()
    column.enabled = False
    for choice in choices:
        if not can(choice):
            column.prop_enum(diffusion, name, choice)


class VIEWPORT_DIFFUSION_PT_variation(ClosedPanel, bpy.types.Panel):
    """Noise, variations of a seed, colours, and seamless pictures."""

    bl_label = "Noise and Colour"
    bl_parent_id = PARENT

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out what is done to the noise and the colours."""
        layout = in_columns(self.layout)
        diffusion = context.scene.viewport_diffusion.diffusion
        column = layout.column(align=True)
        column.prop(diffusion, "variation_strength", slider=True)
        column.prop(diffusion, "variation_seed")
        column = layout.column(align=True)
        column.prop(diffusion, "seed_resize_width", text="Resize Seed X")
        column.prop(diffusion, "seed_resize_height", text="Y")
        column = layout.column(align=True)
        column.prop(diffusion, "initial_noise_multiplier", text="Noise Multiplier")
        column.prop(diffusion, "extra_noise")
        column = layout.column(align=True)
        traits = model_traits(diffusion)
        heeded = () if traits.flow else SAMPLERS[settled_sampler(diffusion.sampler, traits.flow)].takes
        for name in ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise"):
            row = column.row()
            row.enabled = name in heeded
            row.prop(diffusion, name)
        layout.prop(diffusion, "rng", text="RNG")
        layout.prop(diffusion, "colour_correction")
        draw_limited(layout, diffusion, ("seamless_x", "seamless_y"), traits.limits, toggle=True)


class VIEWPORT_DIFFUSION_PT_script(ClosedPanel, bpy.types.Panel):
    """What Generate and Inpaint make of the settings: one picture, or many by a script."""

    bl_label = "Script"
    bl_parent_id = PARENT

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the chosen script's own settings."""
        layout = self.layout
        settings = context.scene.viewport_diffusion
        layout.prop(settings, "script", text="")
        if settings.script == "NONE":
            return
        column = in_columns(layout).column()
        group = getattr(settings, settings.script)
        for item in own_fields(OPERATIONS[settings.script]):
            if item.name == "lines":
                column.prop_search(settings.capture, "prompt_text", bpy.data, "texts", text="Text")
            else:
                column.prop(group, item.name)


CLASSES = (
    VIEWPORT_DIFFUSION_MT_samplers,
    VIEWPORT_DIFFUSION_MT_schedules,
    VIEWPORT_DIFFUSION_PT_main,
    VIEWPORT_DIFFUSION_PT_source,
    VIEWPORT_DIFFUSION_PT_sampling,
    VIEWPORT_DIFFUSION_PT_variation,
    VIEWPORT_DIFFUSION_PT_script,
)
