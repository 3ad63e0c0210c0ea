"""The panel's properties, made from the declarations of the settings, and what only Blender needs beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import bpy

from ..backend.settings import OPERATIONS, SCRIPTS, AnySettings, Diffusion, Settings, make_settings
from . import compat

LARGEST_INTEGER = 2**31 - 1  # Blender's integers are 32 bits wide

SOURCES = (
    ("VIEWPORT", "Viewport", "What this viewport shows"),
    ("CAMERA", "Camera", "What the scene's camera sees"),
    ("IMAGE", "Image", "An image that is already in the file"),
    ("SKETCH", "Sketch", "A capture or result that was painted over"),
)
SHADINGS = (
    ("VIEWPORT", "As in Viewport", "The shading that the viewport has now"),
    ("TEXTURE", "Textured", "Solid shading with textures: quick, and colour drives the result"),
    ("MATERIAL", "Material Preview", "The materials under the studio light"),
    ("RENDER", "Render", "A full render of the camera by the scene's render engine"),
)
SIZES = (
    ("SCENE", "From Scene", "The size of the render output, rounded to multiples of 8"),
    ("OWN", "Own", "A size of its own"),
    ("SCALE", "Scale", "The size of the image that is the source, times a factor"),
)
MASK_SOURCES = (
    ("SELECTION", "Selected Objects", "Where the selected objects can be seen"),
    ("OBJECT", "Object", "Where one object can be seen"),
    ("MATERIAL", "Material", "Where one material can be seen"),
    ("IMAGE", "Image", "The white parts of a black-and-white image, or the opaque ones of one with transparency"),
    ("ALPHA", "Transparency", "The transparent parts of the source image"),
    ("SKETCH", "Sketch", "What was painted over"),
)
SCRIPT_ITEMS = (
    ("NONE", "No Script", "One picture, or the batch that is set"),
    *((name, cls.label, (cls.__doc__ or "").splitlines()[0].rstrip(".")) for name, cls in SCRIPTS.items()),
)


def blender_property(item: dataclasses.Field[Any]) -> Any:
    """Return the bpy property of one declared setting."""
    data = item.metadata
    common: dict[str, Any] = {"name": data["label"], "description": data["description"], "default": item.default}
    if isinstance(item.default, bool):
        return bpy.props.BoolProperty(**common)
    if isinstance(item.default, int):
        extent = {"min": int(data["minimum"]), "max": min(int(data["maximum"]), LARGEST_INTEGER)}
        return bpy.props.IntProperty(**common, **extent, step=int(data["step"] or 1))
    if isinstance(item.default, float):
        factor = (data["minimum"], data["maximum"]) == (0.0, 1.0)
        return bpy.props.FloatProperty(
            **common,
            min=data["minimum"],
            max=data["maximum"],
            step=int(100 * (data["step"] or 0.1)),
            precision=2,
            subtype="FACTOR" if factor else "NONE",
        )
    if data["choices"]:
        items = [(name, label, description) for name, (label, description) in data["choices"].items()]
        return bpy.props.EnumProperty(**common, items=items)
    if data["suggestions"]:  # a field with a folder button can't offer any
        return bpy.props.StringProperty(**common, search=lambda group, context, text: data["suggestions"])
    if data["is_path"]:
        subtype = "DIR_PATH" if item.name.endswith("_folder") else "FILE_PATH"
        return bpy.props.StringProperty(**common, subtype=subtype, **compat.RELATIVE_PATHS)
    return bpy.props.StringProperty(**common)


def own_fields(cls: type[Settings]) -> list[dataclasses.Field[Any]]:
    """Return the settings that an operation has to itself; those that it takes over as they are stay where they are."""
    above = [base for base in cls.__mro__[1:] if base in (Diffusion, *OPERATIONS.values())]
    borrowed = {id(item) for base in above for item in dataclasses.fields(base)}
    return [item for item in dataclasses.fields(cls) if id(item) not in borrowed]


def settings_group(name: str, fields: Iterable[dataclasses.Field[Any]]) -> type[bpy.types.PropertyGroup]:
    """Return a property group with those settings."""
    annotations = {item.name: blender_property(item) for item in fields}
    return type(f"VIEWPORT_DIFFUSION_PG_{name}", (bpy.types.PropertyGroup,), {"__annotations__": annotations})


DIFFUSION = settings_group("diffusion", dataclasses.fields(Diffusion))
GROUPS = {name: settings_group(name, own_fields(cls)) for name, cls in OPERATIONS.items()}


class VIEWPORT_DIFFUSION_PG_capture(bpy.types.PropertyGroup):
    """Where the input comes from, and where results go."""

    source: bpy.props.EnumProperty(name="Source", description="What the picture is made from", items=SOURCES)
    shading: bpy.props.EnumProperty(
        name="Shading", description="How the source is drawn", items=SHADINGS, default="TEXTURE"
    )
    image: bpy.props.PointerProperty(name="Image", description="The image to start from", type=bpy.types.Image)
    prompt_text: bpy.props.PointerProperty(
        name="Text", description="The text whose lines are the prompts", type=bpy.types.Text
    )
    transparent: bpy.props.BoolProperty(
        name="Transparent Background", description="Leave the world out of the capture and keep its place transparent"
    )
    size: bpy.props.EnumProperty(name="Size", description="Where the picture's size comes from", items=SIZES)
    scale: bpy.props.FloatProperty(
        name="Resize By",
        description="How many times larger than its source the picture becomes",
        default=1.0,
        min=0.05,
        max=4.0,
        step=5,
    )
    mask_source: bpy.props.EnumProperty(name="Mask", description="What is repainted", items=MASK_SOURCES)
    mask_object: bpy.props.PointerProperty(
        name="Object", description="The object whose place is repainted", type=bpy.types.Object
    )
    mask_material: bpy.props.PointerProperty(
        name="Material", description="The material whose place is repainted", type=bpy.types.Material
    )
    mask_image: bpy.props.PointerProperty(
        name="Mask Image",
        description="White is repainted; of an image with transparency, what is opaque",
        type=bpy.types.Image,
    )
    mask_transparency: bpy.props.FloatProperty(
        name="Mask Transparency",
        description="How much of what was under the sketch shines through; above 50 the model repaints nothing",
        min=0.0,
        max=100.0,
        subtype="PERCENTAGE",
    )
    sketch: bpy.props.PointerProperty(
        name="Sketch", description="The picture that is painted over", type=bpy.types.Image
    )
    sketch_original: bpy.props.PointerProperty(
        name="Before the Sketch", description="The same picture before it was painted over", type=bpy.types.Image
    )
    reference: bpy.props.PointerProperty(
        name="Reference", description="The image that the IP-Adapter goes by", type=bpy.types.Image
    )
    adjust_camera: bpy.props.BoolProperty(
        name="Adjust Camera",
        description="Widen the camera and the render size so that the scene still lies under the outpainted picture",
        default=True,
    )
    inpaint_result: bpy.props.BoolProperty(
        name="Repaint Last Result",
        description="Repaint the last result of the same view instead of a fresh capture",
        default=True,
    )


OperationGroups = type(
    "OperationGroups",
    (),
    {"__annotations__": {name: bpy.props.PointerProperty(type=group) for name, group in GROUPS.items()}},
)


class VIEWPORT_DIFFUSION_PG_settings(OperationGroups, bpy.types.PropertyGroup):
    """Everything that Viewport Diffusion keeps in a scene."""

    diffusion: bpy.props.PointerProperty(type=DIFFUSION)
    capture: bpy.props.PointerProperty(type=VIEWPORT_DIFFUSION_PG_capture)
    script: bpy.props.EnumProperty(name="Script", description="What Generate makes of the settings", items=SCRIPT_ITEMS)
    result: bpy.props.PointerProperty(
        name="Result", description="The last result, and the input of Outpaint and Upscale", type=bpy.types.Image
    )


def read_settings(
    scene: bpy.types.Scene, cls: type[AnySettings], *, masked: bool = False, **changes: Any
) -> AnySettings:
    """Return the checked settings of one operation from the scene's properties, with some of them changed.

    masked: whether what a script shares with img2img and inpaint is set in Inpaint's part of the panel.
    """
    groups = scene.viewport_diffusion
    shared = (groups.inpaint, groups.img2img) if masked else (groups.img2img, groups.inpaint)
    places = [getattr(groups, cls.operation), *shared]
    values = {}
    for item in dataclasses.fields(cls):
        group = next((place for place in places if item.name in place.bl_rna.properties), groups.diffusion)
        value = getattr(group, item.name)
        if isinstance(item.default, str) and item.metadata["is_path"]:
            value = bpy.path.abspath(value) if value.startswith("//") else value
        # Blender keeps 32-bit floats: 0.6 comes back as 0.6000000238
        values[item.name] = round(value, 6) if isinstance(value, float) else value
    return make_settings(cls, {**values, **changes})


CLASSES = (DIFFUSION, *GROUPS.values(), VIEWPORT_DIFFUSION_PG_capture, VIEWPORT_DIFFUSION_PG_settings)


def register() -> None:
    """Register the groups and hang them on the scene."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.viewport_diffusion = bpy.props.PointerProperty(type=VIEWPORT_DIFFUSION_PG_settings)


def unregister() -> None:
    """Take the groups off again."""
    del bpy.types.Scene.viewport_diffusion
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
