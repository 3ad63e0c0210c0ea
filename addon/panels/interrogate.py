"""Interrogate: what reads a picture back into the prompt, and which words are tried on it."""

from __future__ import annotations

import bpy

from ...backend.settings.interrogate import CATEGORIES
from .base import ClosedPanel, draw_message, in_columns
from .main import PARENT


class VIEWPORT_DIFFUSION_PT_interrogate(ClosedPanel, bpy.types.Panel):
    """How a picture is read."""

    bl_label = "Interrogate"
    bl_parent_id = PARENT

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out the models, the caption's length, and the lists of words."""
        layout = self.layout
        settings = context.scene.viewport_diffusion.interrogate
        layout.operator("viewport_diffusion.interrogate", icon="VIEWZOOM")
        layout = in_columns(layout)
        layout.prop(settings, "caption_model")
        column = layout.column(align=True)
        column.prop(settings, "minimum_length")
        column.prop(settings, "maximum_length")
        column.prop(settings, "beams")
        layout.prop(settings, "ranking_model", placeholder="None")
        if not settings.ranking_model:
            draw_message(layout, "With a ranking model, words for artist, light, medium and style are added.", "INFO")
        column = layout.column()
        column.active = bool(settings.ranking_model)
        lists = column.column(heading="Words", align=True)
        for name in CATEGORIES:
            lists.prop(settings, name)
        column.prop(settings, "show_ranks")
        column.prop(settings, "words_folder")


CLASSES = (VIEWPORT_DIFFUSION_PT_interrogate,)
