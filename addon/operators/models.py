"""The models: found again on the disk, chosen from the list, and fetched from the hub once their size is known."""

from __future__ import annotations

import bpy

from ...backend.errors import DiffusionError
from ...backend.models.adapters import TAG
from ...backend.models.folders import EMBEDDINGS, LORAS, VAES
from ...backend.models.hub import Fetching, cache_folder
from .. import catalogue
from ..panels.environment import draw_wide
from ..panels.models import short

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


def _additions(self: bpy.types.Operator, context: bpy.types.Context | None) -> list[tuple[str, str, str]]:
    """Return what can be added as items of a search, those that were made for the chosen model's family first."""
    family = catalogue.model_traits(context.scene.viewport_diffusion.diffusion).family if context is not None else ""
    found = [(kind, addition) for kind in KINDS for addition in catalogue.additions(kind) if not addition.problem]
    found.sort(key=lambda item: bool(family and item[1].family and not family.startswith(item[1].family)))
    items = []
    for kind, addition in found:
        title = f"{KINDS[kind]} {addition.name}{f' ({short(addition.family)})' if addition.family else ''}"
        items.append((f"{kind}/{addition.name}", title, addition.path))
    _items[:] = items  # which Blender would read after they are gone
    return _items


_items: list[tuple[str, str, str]] = []
KINDS = {LORAS: "LoRA", EMBEDDINGS: "Embedding", VAES: "VAE"}


class VIEWPORT_DIFFUSION_OT_add_to_prompt(bpy.types.Operator):
    """Add a LoRA or an embedding to the prompt, or take another VAE, from the folders in the preferences"""

    bl_idname = "viewport_diffusion.add_to_prompt"
    bl_label = "Add LoRA or Embedding"
    bl_options = {"REGISTER", "UNDO"}
    bl_property = "addition"

    addition: bpy.props.EnumProperty(name="Addition", description="What is added", items=_additions)
    weight: bpy.props.FloatProperty(
        name="Weight",
        description="How strongly it acts",
        default=1.0,
        soft_min=0.0,
        soft_max=2.0,
        step=5,
        options={"SKIP_SAVE"},
    )
    negative: bpy.props.BoolProperty(
        name="Negative", description="Add it to the negative prompt, as bad hands are", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only where some were found."""
        if not any(not addition.problem for kind in KINDS for addition in catalogue.additions(kind)):
            cls.poll_message_set("No whole LoRA, embedding or VAE was found: choose folders in the preferences")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Let the artist search."""
        context.window_manager.invoke_search_popup(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Write it into the prompt, in place of the same LoRA with another weight."""
        kind, _, name = self.addition.partition("/")
        diffusion = context.scene.viewport_diffusion.diffusion
        if kind == VAES:
            diffusion.vae = next(found.path for found in catalogue.additions(kind) if found.name == name)
            return {"FINISHED"}
        place = "negative_prompt" if self.negative and kind == EMBEDDINGS else "prompt"
        text, weight = getattr(diffusion, place), f"{self.weight:.3g}"
        if kind == LORAS:
            setattr(diffusion, place, with_lora(text, name, weight))
        else:
            word = name if weight == "1" else f"({name}:{weight})"
            setattr(diffusion, place, ", ".join(part for part in (text.strip(), word) if part))
        return {"FINISHED"}


def with_lora(prompt: str, name: str, weight: str) -> str:
    """Return a prompt that names a LoRA with a weight, once."""
    tag = f"<lora:{name}:{weight}>"
    others = TAG.sub(lambda found: "" if found[1] == name else found[0], prompt).rstrip()
    return f"{others} {tag}".strip()


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
    VIEWPORT_DIFFUSION_OT_add_to_prompt,
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
