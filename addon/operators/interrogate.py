"""Interrogate: a picture read back into the prompt, and the question before its models are fetched."""

from __future__ import annotations

import bpy

from ...backend.errors import DiffusionError
from ...backend.models.interrogators import download_needed
from ...backend.request import Request
from ...backend.settings.interrogate import Interrogate
from .. import jobs
from ..properties import read_settings
from ..scene.capture import capture, picture_size
from ..scene.images import read_image
from ..scene.results import VIEW_MARK, source_mark
from .picture import PictureOperator

DIALOG_WIDTH = 420  # pixels, enough for the longest of the known hub names with its size


class VIEWPORT_DIFFUSION_OT_interrogate(PictureOperator, bpy.types.Operator):
    """Read the source, or the result where it shows the same view, and write what is there into the prompt"""

    bl_idname = "viewport_diffusion.interrogate"
    bl_label = "Interrogate"

    fetch: bpy.props.BoolProperty(
        name="Fetch Models",
        description="Fetch models that are missing without asking first",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Ask first where models would be fetched, else start at once."""
        in_window = not bpy.app.background and context.window is not None
        try:
            ask = in_window and bpy.app.online_access and not self.fetch and missing_models(context.scene)
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if not ask:
            return super().invoke(context, event)
        bpy.ops.viewport_diffusion.fetch_interrogators("INVOKE_DEFAULT")
        return {"CANCELLED"}  # nothing has changed yet: no step to undo

    def request(self, context: bpy.types.Context) -> tuple[Request, str]:
        """Return the interrogate request over the source, or over the result where that shows the source's view."""
        scene = context.scene
        size = picture_size(scene)
        result, mark = scene.viewport_diffusion.result, source_mark(context, *size)
        shown = result is not None and mark and result.get(VIEW_MARK) == mark
        init = read_image(result) if shown else capture(context, *size)
        return Request(read_settings(context.scene, Interrogate), {"init": init}), ""

    @staticmethod
    def apply(job: jobs.Job, scene: int, view: str) -> None:
        """Write the text into the prompt of the scene that asked for it (its session_uid), if it is still open."""
        for each in bpy.data.scenes:
            if each.session_uid == scene and job.text:
                each.viewport_diffusion.diffusion.prompt = job.text


class VIEWPORT_DIFFUSION_OT_fetch_interrogators(bpy.types.Operator):
    """Fetch the models that read pictures, and read the picture"""

    bl_idname = "viewport_diffusion.fetch_interrogators"
    bl_label = "Fetch Models and Interrogate"
    bl_options = {"INTERNAL"}

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Show which models, and how large they are."""
        return context.window_manager.invoke_props_dialog(self, width=DIALOG_WIDTH, confirm_text="Fetch")

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out a line a model."""
        column = self.layout.column(align=True)
        column.label(text="These models are not on this machine yet:", icon="IMPORT")
        for name, size in missing_models(context.scene):
            column.label(text=f"{name}: {f'{size:.1f} GB' if size else 'size unknown'}", icon="BLANK1")
        column.label(text="They are fetched once, and kept in the hub's own folder.", icon="BLANK1")

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start reading, fetching what is missing."""
        bpy.ops.viewport_diffusion.interrogate("INVOKE_DEFAULT", fetch=True)
        return {"FINISHED"}


def missing_models(scene: bpy.types.Scene) -> list[tuple[str, float | None]]:
    """Return hub name and size in GB of each model that reading a picture would fetch."""
    return download_needed(read_settings(scene, Interrogate))


CLASSES = (VIEWPORT_DIFFUSION_OT_interrogate, VIEWPORT_DIFFUSION_OT_fetch_interrogators)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
