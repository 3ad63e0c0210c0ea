"""Parameters from texts and pictures into the settings, out to the clipboard, and results sent on to be worked at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bpy
from bpy_extras.io_utils import ImportHelper

from ...backend.errors import DiffusionError, InvalidRequest
from ...backend.imaging.metadata import infotext_if_any, read_infotext
from ...backend.operations.parameters import ParsedParameters, settings_from_text
from ...backend.request import whole_size
from ...backend.settings import MAXIMUM_SIDE, OPERATIONS, Img2Img, Outpaint, Script, Upscale
from ..properties import LARGEST_INTEGER
from ..scene.capture import picture_size
from ..scene.images import INFOTEXT
from .picture import NeedsResult

BETWEEN_TABS = ("prompt", "style", "negative_prompt", "steps", "seed")  # what the web UI sends on beside a picture
TARGETS = (
    ("IMG2IMG", "img2img", "Generate from it: source, size, prompts, steps and seed are taken from it"),
    ("INPAINT", "Inpaint", "Repaint parts of it: source, prompts, steps and seed are taken from it"),
    ("UPSCALE", "Upscale", "Enlarge it"),
)


def infotext_of(image: bpy.types.Image) -> str:
    """Return the infotext that an image keeps, or that its file holds; "" where neither does.

    Raises InvalidRequest for a file that is no PNG, JPEG or WebP.
    """
    if INFOTEXT in image:
        return str(image[INFOTEXT])
    if image.packed_file is not None:
        return infotext_if_any(bytes(image.packed_file.data))
    return infotext_if_any(Path(bpy.path.abspath(image.filepath))) if image.filepath else ""


def apply_parameters(scene: bpy.types.Scene, parsed: ParsedParameters) -> list[str]:
    """Give a scene's properties what a text says; returns sentences on what was not taken as it stands."""
    properties = scene.viewport_diffusion
    size = picture_size(scene)
    notices = [*parsed.notices, *apply_settings(scene, parsed.operation, parsed.settings)]
    notices += apply_settings(scene, Upscale.operation, parsed.upscale)
    operation = OPERATIONS[parsed.operation]
    if "steps" in parsed.settings and issubclass(operation, Img2Img):
        scripts = properties.bl_rna.properties["script"].enum_items.keys()
        properties.script = parsed.operation if parsed.operation in scripts else "NONE"
    # The size of SD upscale is that of its tiles, not of the picture.
    if {"width", "height"} <= parsed.settings.keys() and issubclass(operation, (Img2Img, Outpaint)):
        own = properties.diffusion.width, properties.diffusion.height
        if own != size or properties.capture.size == "SCALE":
            properties.capture.size = "OWN"
    return notices


def apply_settings(scene: bpy.types.Scene, operation: str, settings: Mapping[str, Any]) -> list[str]:
    """Set an operation's settings in a scene; returns sentences on those that Blender can't hold.

    A script reads what it shares with img2img and inpaint from either, so that it is set in both.
    """
    properties = scene.viewport_diffusion
    cls = OPERATIONS[operation]
    names = [base.__dict__.get("operation", "diffusion") for base in cls.__mro__]
    groups = [getattr(properties, name) for name in dict.fromkeys(names) if name and hasattr(properties, name)]
    notices = []
    for name, value in settings.items():
        places = [group for group in groups if name in group.bl_rna.properties]
        if type(value) is int and value > LARGEST_INTEGER:
            label, kept = places[0].bl_rna.properties[name].name, getattr(places[0], name)
            notices.append(f"{label} {value} is more than the {LARGEST_INTEGER} that Blender can hold; {kept} is kept.")
            continue
        for place in places if issubclass(cls, Script) else places[:1]:
            # A text field shows one line; a model reads a line break as it reads a space.
            setattr(place, name, " ".join(value.split("\n")) if isinstance(value, str) else value)
    return notices


class TakesParameters:
    """Mix-in of the operators that take the settings over from a text."""

    def take(self, context: bpy.types.Context, text: str) -> set[str]:
        """Set what the text says, and report what could not be taken."""
        parsed = settings_from_text(text)
        notices = apply_parameters(context.scene, parsed)
        taken = len(parsed.settings) + len(parsed.upscale)
        told = f"Parameters for {OPERATIONS[parsed.operation].label} taken: {taken} settings"
        if "steps" not in parsed.settings and "upscaler" not in parsed.settings:
            told = "The text holds no parameters, and was taken as the prompt"
        if parsed.model:
            told = f"{told}; made by the model {parsed.model}"
        if parsed.vae:
            told = f"{told}, with the VAE {parsed.vae}"
        if parsed.refiner:
            told = f"{told}, refined by {parsed.refiner}"
        if parsed.ip_adapter:
            told = f"{told}, prompted through the IP-Adapter {parsed.ip_adapter}"
        self.report({"WARNING" if notices else "INFO"}, " ".join([f"{told}.", *notices]))
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_paste_parameters(TakesParameters, bpy.types.Operator):
    """Take prompt and settings from the text in the clipboard, or from the last result where the clipboard is empty"""

    bl_idname = "viewport_diffusion.paste_parameters"
    bl_label = "Paste Parameters"
    bl_options = {"REGISTER", "UNDO"}
    text: bpy.props.StringProperty(
        name="Text", description="The text to take instead of the clipboard's", options={"HIDDEN", "SKIP_SAVE"}
    )

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Take the first text that there is."""
        result = context.scene.viewport_diffusion.result
        try:
            text = self.text.strip() or context.window_manager.clipboard.strip()
            text = text or (infotext_of(result) if result is not None else "")
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if not text:
            self.report({"ERROR"}, "The clipboard is empty, and no result keeps parameters")
            return {"CANCELLED"}
        return self.take(context, text)


class VIEWPORT_DIFFUSION_OT_read_parameters(TakesParameters, ImportHelper, bpy.types.Operator):
    """Take prompt and settings from a picture's file, be it made here, by the web UI or by NovelAI"""

    bl_idname = "viewport_diffusion.read_parameters"
    bl_label = "Read Parameters from Picture"
    bl_options = {"UNDO"}
    filename_ext = ".png"
    filter_glob: bpy.props.StringProperty(default="*.png;*.jpg;*.jpeg;*.webp;*.avif;*.gif", options={"HIDDEN"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Read the file and take what it says."""
        try:
            text = read_infotext(Path(bpy.path.abspath(self.filepath)))
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if not text.strip():
            self.report({"ERROR"}, f"{Path(self.filepath).name} holds no parameters")
            return {"CANCELLED"}
        return self.take(context, text)


class VIEWPORT_DIFFUSION_OT_copy_parameters(NeedsResult, bpy.types.Operator):
    """Copy the text of the result's prompt and settings to the clipboard"""

    bl_idname = "viewport_diffusion.copy_parameters"
    bl_label = "Copy Parameters"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Copy the text."""
        result = context.scene.viewport_diffusion.result
        try:
            text = infotext_of(result)
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if not text:
            self.report({"ERROR"}, f"{result.name} keeps no parameters")
            return {"CANCELLED"}
        context.window_manager.clipboard = text
        self.report({"INFO"}, f"The parameters of {result.name} were copied")
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_send_result(NeedsResult, bpy.types.Operator):
    """Go on from the result, or in an image editor from the image it shows"""

    bl_idname = "viewport_diffusion.send_result"
    bl_label = "Send To"
    bl_options = {"REGISTER", "UNDO"}
    target: bpy.props.EnumProperty(name="Target", description="What to do with it", items=TARGETS)

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only where there is a picture."""
        return shown_image(context) is not None or super().poll(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Make the picture the source, with the settings that the web UI sends along."""
        image = shown_image(context) or context.scene.viewport_diffusion.result
        try:
            notices = send_image(context.scene, image, self.target)
        except DiffusionError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"WARNING" if notices else "INFO"}, " ".join([f"Sent {image.name}.", *notices]))
        return {"FINISHED"}


def shown_image(context: bpy.types.Context) -> bpy.types.Image | None:
    """Return the image that the image editor at hand shows, None elsewhere."""
    space = context.space_data
    return space.image if space is not None and space.type == "IMAGE_EDITOR" else None


def send_image(scene: bpy.types.Scene, image: bpy.types.Image, target: str) -> list[str]:
    """Make an image what a target starts from; returns sentences on what was not taken of its parameters.

    Upscale goes on from the scene's result. For the others the image becomes the source, and its prompts, steps and
    seed come along; its size only to img2img, as in the web UI. Raises InvalidRequest for an image without pixels.
    """
    properties = scene.viewport_diffusion
    width, height = image.size
    if width * height == 0:
        raise InvalidRequest(f"The image {image.name} has no pixels.", "Load or render it first, or choose another.")
    if target == "UPSCALE":
        properties.result = image
        return []
    text, notes = infotext_of(image), []
    properties.capture.source, properties.capture.image = "IMAGE", image
    if target == "IMG2IMG":
        properties.capture.size = "OWN"
        properties.diffusion.width, properties.diffusion.height = whole_size(width, height)
        if max(width, height) > MAXIMUM_SIDE:
            made = f"{properties.diffusion.width}×{properties.diffusion.height}"
            notes.append(f"The size is {made}: pictures have at most {MAXIMUM_SIDE} pixels a side.")
    if not text:
        return notes
    parsed = settings_from_text(text)
    kept = {name: value for name, value in parsed.settings.items() if name in BETWEEN_TABS}
    return notes + apply_settings(scene, "img2img", kept)


CLASSES = (
    VIEWPORT_DIFFUSION_OT_paste_parameters,
    VIEWPORT_DIFFUSION_OT_read_parameters,
    VIEWPORT_DIFFUSION_OT_copy_parameters,
    VIEWPORT_DIFFUSION_OT_send_result,
)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
