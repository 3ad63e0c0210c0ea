"""What the panels share: where they are, an operation's button with its progress, and messages in whole sentences."""

from __future__ import annotations

from collections.abc import Mapping

import bpy

from ...backend.settings.upscale import OWN_UPSCALER
from .. import jobs

FAILED_ICON = "ERROR"
TALL = 1.6  # rows that a button is high; the progress that takes its place is as high, so that nothing below it moves
CHARACTER = 6.2  # pixels that one takes on average in Blender's own font, at a resolution scale of 1
MARGINS = 90  # pixels of a sidebar's width that a message can't have: tabs, borders and its icon
LEAST_LINE = 16  # characters; a narrower sidebar cuts them off
USUAL_LINE = 34  # characters, where nothing is known about the region


class DiffusionPanel:
    """Base of the panels: where they are."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Diffusion"


class ClosedPanel(DiffusionPanel):
    """Base of the panels that are closed until they are wanted, with labels beside their fields."""

    bl_options = {"DEFAULT_CLOSED"}


def in_columns(layout: bpy.types.UILayout) -> bpy.types.UILayout:
    """Return the layout with labels beside the fields, as in Blender's own properties."""
    layout.use_property_split = True
    layout.use_property_decorate = False
    return layout


def draw_limited(
    layout: bpy.types.UILayout,
    group: bpy.types.PropertyGroup,
    names: tuple[str, ...],
    limits: Mapping[str, str],
    **look: object,
) -> None:
    """Show settings in a row, greyed out with the reason below where the chosen model has no use for them.

    They can still be set: what another model has left there may be what this one refuses.
    """
    row = layout.row(align=True)
    reason = next((limits[name] for name in names if name in limits), "")
    row.active = not reason
    for name in names:
        row.prop(group, name, **look)
    if reason:
        draw_message(layout, reason, "INFO")


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


def draw_upscaler(layout: bpy.types.UILayout, group: bpy.types.PropertyGroup, name: str) -> None:
    """Lay out the choice of an upscaler, and of its file where it is one of the artist's own."""
    layout.prop(group, name)
    if getattr(group, name) == OWN_UPSCALER:
        layout.prop(group, f"{name}_file")


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
