"""The models: found again on the disk, chosen from the list, and fetched from the hub once their size is known."""

from __future__ import annotations

import bpy

from ...backend.errors import DiffusionError
from ...backend.models.hub import Fetching, cache_folder
from .. import catalogue
from ..panels.environment import draw_wide

DIALOG_WIDTH = 460  # pixels


class VIEWPORT_DIFFUSION_OT_refresh_models(bpy.types.Operator):
    """Look again for models in the chosen folders and in the hub's cache"""

    bl_idname = "viewport_diffusion.refresh_models"
    bl_label = "Refresh Models"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only one look at a time."""
        return not catalogue.is_looking()

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start to look; without a window wait for what is found."""
        catalogue.refresh()
        if bpy.app.background:
            catalogue.wait()
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_fetch_model(bpy.types.Operator):
    """Fetch a model from the hub, once its size is known and agreed to"""

    bl_idname = "viewport_diffusion.fetch_model"
    bl_label = "Fetch from Hub"
    bl_options = {"INTERNAL"}

    repo: bpy.props.StringProperty(
        name="Model", description="The model's name on the hub, such as owner/model", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only with online access, and one at a time."""
        if not bpy.app.online_access:
            cls.poll_message_set("Allow Online Access in Preferences, System")
            return False
        if catalogue.fetching() is not None:
            cls.poll_message_set("Something is being fetched already")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Ask the hub for the size first, then the artist."""
        asked = catalogue.asking()
        if asked is not None and asked.name == self.repo.strip() and asked.size is not None:
            return context.window_manager.invoke_props_dialog(self, width=DIALOG_WIDTH, confirm_text="Fetch")
        try:
            catalogue.ask(self.repo.strip(), ask_artist)
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
        return {"CANCELLED"}  # nothing is fetched yet

    def draw(self, context: bpy.types.Context) -> None:
        """Lay out what will be fetched, how large it is, and where it goes."""
        asked = catalogue.asking()
        layout = self.layout
        layout.label(text=self.repo, icon="URL")
        if asked is not None and asked.size is not None:
            draw_wide(layout, str(asked.size), "IMPORT")
        draw_wide(layout, f"It goes into {cache_folder()}", "FILE_FOLDER")
        draw_wide(layout, "Blender can be used meanwhile. It can be cancelled, and goes on from there later.", "TIME")

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start to fetch; without a window wait for the end."""
        try:
            catalogue.fetch(self.repo.strip())
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if not bpy.app.background:
            return {"FINISHED"}
        catalogue.wait()
        if catalogue.failure():
            self.report({"ERROR"}, catalogue.failure())
            return {"CANCELLED"}
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_cancel_fetch(bpy.types.Operator):
    """Stop fetching; what has arrived is kept for the next time"""

    bl_idname = "viewport_diffusion.cancel_fetch"
    bl_label = "Cancel Fetching"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """End it now."""
        catalogue.cancel()
        catalogue.redraw()
        return {"FINISHED"}


def ask_artist(asked: Fetching) -> None:
    """Show the dialog over the window, now that the size is known."""
    windows = bpy.context.window_manager.windows
    if bpy.app.background or not windows:
        return
    with bpy.context.temp_override(window=windows[0]):
        bpy.ops.viewport_diffusion.fetch_model("INVOKE_DEFAULT", repo=asked.name)


class VIEWPORT_DIFFUSION_PG_model(bpy.types.PropertyGroup):
    """A line of the list; the rest of the entry is in the catalogue, at the same place."""


def chosen(manager: bpy.types.WindowManager) -> int:
    """Return the place of the scene's model in the list."""
    return catalogue.position(bpy.context.scene.viewport_diffusion.diffusion.model)


def choose(manager: bpy.types.WindowManager, place: int) -> None:
    """Set the scene's model to that of a place in the list."""
    catalogue.choose(place, bpy.context.scene.viewport_diffusion.diffusion)


CLASSES = (
    VIEWPORT_DIFFUSION_OT_refresh_models,
    VIEWPORT_DIFFUSION_OT_fetch_model,
    VIEWPORT_DIFFUSION_OT_cancel_fetch,
    VIEWPORT_DIFFUSION_PG_model,
)


def register() -> None:
    """Register the operators and the list."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    manager = bpy.types.WindowManager
    manager.viewport_diffusion_models = bpy.props.CollectionProperty(
        type=VIEWPORT_DIFFUSION_PG_model, options={"SKIP_SAVE"}
    )
    manager.viewport_diffusion_model = bpy.props.IntProperty(
        name="Model", description="The model that makes the pictures", get=chosen, set=choose, options={"SKIP_SAVE"}
    )
    manager.viewport_diffusion_repo = bpy.props.StringProperty(
        name="From Hub", description="A model's name on the hub, such as owner/model", options={"SKIP_SAVE"}
    )
    catalogue.register()


def unregister() -> None:
    """Unregister them, and end what they started."""
    catalogue.unregister()
    manager = bpy.types.WindowManager
    del manager.viewport_diffusion_repo, manager.viewport_diffusion_model, manager.viewport_diffusion_models
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
