"""The panel's properties, made from the declarations of the settings, and what only Blender needs beside them."""

from __future__ import annotations

import dataclasses
from typing import Any

import bpy

from ..backend.request import AnySettings, Diffusion, Img2Img, Inpaint, Outpaint, Settings, Upscale, make_settings

LARGEST_INTEGER = 2**31 - 1  # Blender's integers are 32 bits wide

SOURCES = (
    ("VIEWPORT", "Viewport", "What this viewport shows"),
    ("CAMERA", "Camera", "What the scene's camera sees"),
    ("IMAGE", "Image", "An image that is already in the file"),
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
)
MASK_SOURCES = (
    ("SELECTION", "Selected Objects", "Where the selected objects can be seen"),
    ("OBJECT", "Object", "Where one object can be seen"),
    ("MATERIAL", "Material", "Where one material can be seen"),
    ("IMAGE", "Image", "The white parts of a black-and-white image, or the opaque ones of one with transparency"),
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
    return bpy.props.StringProperty(**common, subtype="FILE_PATH" if item.name == "model" else "NONE")


def settings_group(name: str, cls: type[Settings], base: type[Settings] | None = None) -> type[bpy.types.PropertyGroup]:
    """Return a property group with the settings of a class, less those that its base class has already."""
    inherited = {item.name for item in dataclasses.fields(base)} if base else set()
    fields = [item for item in dataclasses.fields(cls) if item.name not in inherited]
    annotations = {item.name: blender_property(item) for item in fields}
    return type(name, (bpy.types.PropertyGroup,), {"__annotations__": annotations, "__doc__": cls.__doc__})


VIEWPORT_DIFFUSION_PG_diffusion = settings_group("VIEWPORT_DIFFUSION_PG_diffusion", Diffusion)
VIEWPORT_DIFFUSION_PG_img2img = settings_group("VIEWPORT_DIFFUSION_PG_img2img", Img2Img, Diffusion)
VIEWPORT_DIFFUSION_PG_inpaint = settings_group("VIEWPORT_DIFFUSION_PG_inpaint", Inpaint, Diffusion)
VIEWPORT_DIFFUSION_PG_outpaint = settings_group("VIEWPORT_DIFFUSION_PG_outpaint", Outpaint, Diffusion)
VIEWPORT_DIFFUSION_PG_upscale = settings_group("VIEWPORT_DIFFUSION_PG_upscale", Upscale)


class VIEWPORT_DIFFUSION_PG_capture(bpy.types.PropertyGroup):
    """Where the input comes from, and where results go."""

    source: bpy.props.EnumProperty(name="Source", description="What the picture is made from", items=SOURCES)
    shading: bpy.props.EnumProperty(
        name="Shading", description="How the source is drawn", items=SHADINGS, default="TEXTURE"
    )
    image: bpy.props.PointerProperty(name="Image", description="The image to start from", type=bpy.types.Image)
    transparent: bpy.props.BoolProperty(
        name="Transparent Background", description="Leave the world out of the capture and keep its place transparent"
    )
    size: bpy.props.EnumProperty(name="Size", description="Where the picture's size comes from", items=SIZES)
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
    inpaint_result: bpy.props.BoolProperty(
        name="Repaint Last Result",
        description="Repaint the last result of the same view instead of a fresh capture",
        default=True,
    )


class VIEWPORT_DIFFUSION_PG_settings(bpy.types.PropertyGroup):
    """Everything that Viewport Diffusion keeps in a scene."""

    diffusion: bpy.props.PointerProperty(type=VIEWPORT_DIFFUSION_PG_diffusion)
    img2img: bpy.props.PointerProperty(type=VIEWPORT_DIFFUSION_PG_img2img)
    inpaint: bpy.props.PointerProperty(type=VIEWPORT_DIFFUSION_PG_inpaint)
    outpaint: bpy.props.PointerProperty(type=VIEWPORT_DIFFUSION_PG_outpaint)
    upscale: bpy.props.PointerProperty(type=VIEWPORT_DIFFUSION_PG_upscale)
    capture: bpy.props.PointerProperty(type=VIEWPORT_DIFFUSION_PG_capture)
    result: bpy.props.PointerProperty(
        name="Result", description="The last result, and the input of Outpaint and Upscale", type=bpy.types.Image
    )
    last_seed: bpy.props.IntProperty(name="Last Seed", default=-1, options={"HIDDEN"})


def read_settings(scene: bpy.types.Scene, cls: type[AnySettings], **changes: Any) -> AnySettings:
    """Return the checked settings of one operation from the scene's properties, with some of them changed."""
    groups = scene.viewport_diffusion
    own = getattr(groups, cls.operation)
    values = {}
    for item in dataclasses.fields(cls):
        group = own if item.name in own.bl_rna.properties else groups.diffusion
        value = getattr(group, item.name)
        # Blender keeps 32-bit floats: 0.6 comes back as 0.6000000238
        if item.name == "model":
            value = bpy.path.abspath(value) if value.startswith("//") else value
        values[item.name] = round(value, 6) if isinstance(value, float) else value
    return make_settings(cls, {**values, **changes})


CLASSES = (
    VIEWPORT_DIFFUSION_PG_diffusion,
    VIEWPORT_DIFFUSION_PG_img2img,
    VIEWPORT_DIFFUSION_PG_inpaint,
    VIEWPORT_DIFFUSION_PG_outpaint,
    VIEWPORT_DIFFUSION_PG_upscale,
    VIEWPORT_DIFFUSION_PG_capture,
    VIEWPORT_DIFFUSION_PG_settings,
)


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
