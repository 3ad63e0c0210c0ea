"""The models to choose from: this machine's in a list, and the hub's by name."""

from __future__ import annotations

import bpy

from ...backend.models.memory import in_words
from .. import catalogue
from ..preferences import preferences
from .base import FAILED_ICON, ClosedPanel, draw_message

FAMILY_SHARE = 0.6  # of a line's width that title and family have, the rest is the size
SHORT = {"Stable Diffusion": "SD"}  # what a family is called where there is little room
KIND_ICONS = {
    "embedded": "PACKAGE",
    "diffusers folder": "FILE_FOLDER",
    "single file": "FILE",
    "hub cache": "URL",
    "no folder": "ERROR",
}


class VIEWPORT_DIFFUSION_UL_models(bpy.types.UIList):
    """A line a model: its title, its family, its size."""

    def draw_item(
        self,
        context: bpy.types.Context,
        layout: bpy.types.UILayout,
        data: bpy.types.AnyType,
        item: bpy.types.PropertyGroup,
        icon: int,
        active_data: bpy.types.AnyType,
        active_property: str,
        index: int,
        flt_flag: int,
    ) -> None:
        """Lay out a line, from the catalogue alone."""
        entries = catalogue.entries()
        if index >= len(entries):
            return
        entry = entries[index]
        line = layout.split(factor=FAMILY_SHARE)
        line.active = not entry.problem
        line.label(text=entry.title, icon="ERROR" if entry.problem else KIND_ICONS[entry.kind], translate=False)
        about = line.row()
        about.alignment = "RIGHT"
        about.label(text=f"{short(entry.family)} {in_words(entry.bytes)}", translate=False)


class VIEWPORT_DIFFUSION_PT_models(ClosedPanel, bpy.types.Panel):
    """The models that were found, and the hub's."""

    bl_label = "Models"
    bl_parent_id = "VIEWPORT_DIFFUSION_PT_sampling"

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the list, what is wrong with its chosen line, the folders and the hub."""
        layout = self.layout
        manager = context.window_manager
        row = layout.row()
        row.template_list(
            "VIEWPORT_DIFFUSION_UL_models",
            "",
            manager,
            "viewport_diffusion_models",
            manager,
            "viewport_diffusion_model",
            rows=4,
        )
        row.operator("viewport_diffusion.refresh_models", text="", icon="FILE_REFRESH")
        if catalogue.is_looking():
            layout.label(text="Looking for models …", icon="VIEWZOOM")
        place = manager.viewport_diffusion_model
        if 0 <= place < len(catalogue.entries()):
            entry = catalogue.entries()[place]
            draw_message(layout, entry.problem or f"{entry.family}, {entry.kind}", "ERROR" if entry.problem else "INFO")
        if catalogue.notice():
            draw_message(layout, catalogue.notice(), "INFO")
        layout.prop(preferences(), "model_folders", text="", icon="FILE_FOLDER", placeholder="Folders of models")
        draw_hub(layout, manager)


def draw_hub(layout: bpy.types.UILayout, manager: bpy.types.WindowManager) -> None:
    """Lay out the hub: a name to fetch, or the progress of what is fetched."""
    fetching, asking = catalogue.fetching(), catalogue.asking()
    running = fetching if fetching is not None else asking if asking is not None and not asking.is_over else None
    if running is not None:
        row = layout.row(align=True)
        row.progress(factor=running.share, text=running.message)
        row.operator("viewport_diffusion.cancel_fetch", text="", icon="CANCEL")
        return
    row = layout.row(align=True)
    row.prop(manager, "viewport_diffusion_repo", text="", icon="URL", placeholder="owner/model")
    row.operator("viewport_diffusion.fetch_model", text="Fetch", icon="IMPORT").repo = manager.viewport_diffusion_repo
    if not bpy.app.online_access:
        draw_message(layout, "Fetching needs Online Access: Preferences, System.", "INTERNET_OFFLINE")
    if catalogue.failure():
        draw_message(layout, catalogue.failure(), FAILED_ICON)


def short(family: str) -> str:
    """Return a family's name for a line: "SD XL", empty where it isn't known."""
    if family.startswith("unknown"):
        return ""
    for long, brief in SHORT.items():
        family = family.replace(long, brief)
    return family


CLASSES = (VIEWPORT_DIFFUSION_UL_models, VIEWPORT_DIFFUSION_PT_models)
