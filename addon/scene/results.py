"""What becomes of finished pictures: images of the file, a plane in the scene, the camera's background."""

from __future__ import annotations

from collections.abc import Iterator

import bpy

from ...backend.events import Result
from ...backend.imaging.infotext import parse
from ...backend.operations.parameters import SCRIPT
from ...backend.request import Array
from .. import compat
from .capture import View, current_view, view_source
from .images import INFOTEXT, load_result, make_preview, write_pixels

VIEW_MARK = "viewport_diffusion_view"  # custom property of a result: which view it shows
PLANE_HEIGHT = 2.0  # metres


def apply_results(results: tuple[Result, ...], scene_id: int, view: str) -> list[bpy.types.Image]:
    """Bring finished pictures into the file as packed images; the last becomes the scene's result, shown in editors.

    scene_id: the session_uid of the scene that asked for them; where another file is open by now, they are only loaded.
    view: the mark of the view that they show, "" for none.
    """
    images = []
    for result in results:
        words = ["Diffusion", str(result.seed) if result.seed >= 0 else "", result.name]
        image = load_result(result, " ".join(word for word in words if word))
        image[VIEW_MARK] = view if shows_view(image, result, view) and not result.name else ""
        images.append(image)
    scene = next((scene for scene in bpy.data.scenes if scene.session_uid == scene_id), None)
    if scene is not None and images:
        scene.viewport_diffusion.result = images[-1]
        show_image(images[-1])
    return images


def shows_view(image: bpy.types.Image, result: Result, view: str) -> bool:
    """Whether a result is the view's picture, at any size, rather than a grid of several that a script made of it."""
    return f"{SCRIPT}:" not in result.infotext or view.startswith(f"{image.size[0]}×{image.size[1]} ")


def seed_of(image: bpy.types.Image) -> int | None:
    """Return the seed that made an image, None where its parameters tell none."""
    seed = parse(str(image.get(INFOTEXT, ""))).get("Seed", "")
    return int(seed) if seed.isdecimal() else None


def show_image(image: bpy.types.Image) -> None:
    """Show an image in every Image Editor that is free for results."""
    for _, space in result_spaces():
        space.image = image


def result_spaces() -> Iterator[tuple[bpy.types.Area, bpy.types.SpaceImageEditor]]:
    """Return the Image Editors that are free for results."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "IMAGE_EDITOR" and shows_results(area.spaces.active):
                yield area, area.spaces.active


def shows_results(space: bpy.types.SpaceImageEditor) -> bool:
    """Whether an Image Editor is free for results: not pinned to an image, and not one for UVs."""
    return not space.use_image_pin and space.mode != "UV"


def mark_of(view: View) -> str:
    """Return a mark that two looks share only if they show the same from the same place at the same size."""
    values = [value for matrix in (view.view_matrix, view.projection) for row in matrix for value in row]
    numbers = [f"{round(value, 4) + 0.0:.4f}" for value in values]  # the sum makes -0.0 what it equals
    return f"{view.width}×{view.height} {' '.join(numbers)}"


def source_mark(context: bpy.types.Context, width: int, height: int) -> str:
    """Return the mark of the view that a picture of that size from the scene's source shows, "" for none.

    A sketch shows the view that it was painted over, wherever the camera is by now.
    """
    settings = context.scene.viewport_diffusion.capture
    if settings.source == "SKETCH":
        return settings.sketch.get(VIEW_MARK, "") if settings.sketch is not None else ""
    return "" if view_source(context.scene) == "IMAGE" else mark_of(current_view(context, width, height))


def new_image(pixels: Array, name: str, view: str) -> bpy.types.Image:
    """Return a new packed image of the file from pixels (uint8 H×W×3 sRGB), with the mark of the view that it shows."""
    height, width = pixels.shape[:2]
    image = bpy.data.images.new(name, width, height, alpha=False)
    write_pixels(image, pixels)
    image.update()
    image.pack()
    make_preview(image)
    image.use_fake_user = True  # saved even while nothing shows it
    image[VIEW_MARK] = view
    return image


def add_plane(context: bpy.types.Context, image: bpy.types.Image) -> bpy.types.Object:
    """Return a new upright plane at the 3D cursor that shows an image in its own colours, whatever the light."""
    width, height = image.size
    half, top = PLANE_HEIGHT * width / height / 2, PLANE_HEIGHT
    mesh = bpy.data.meshes.new(image.name)
    mesh.from_pydata([(-half, 0, 0), (half, 0, 0), (half, 0, top), (-half, 0, top)], [], [(0, 1, 2, 3)])
    layer = mesh.uv_layers.new(name="UVMap")
    layer.data.foreach_set("uv", (0, 0, 1, 0, 1, 1, 0, 1))
    mesh.materials.append(image_material(image))
    plane = bpy.data.objects.new(image.name, mesh)
    plane.location = context.scene.cursor.location
    context.collection.objects.link(plane)
    return plane


def image_material(image: bpy.types.Image) -> bpy.types.Material:
    """Return a new material that shines with an image's colours, and is transparent where the image is."""
    material = bpy.data.materials.new(image.name)
    compat.use_nodes(material)
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    texture, emission = nodes.new("ShaderNodeTexImage"), nodes.new("ShaderNodeEmission")
    clear, mix = nodes.new("ShaderNodeBsdfTransparent"), nodes.new("ShaderNodeMixShader")
    output = nodes.new("ShaderNodeOutputMaterial")
    texture.image = image
    links.new(texture.outputs["Color"], emission.inputs["Color"])
    links.new(texture.outputs["Alpha"], mix.inputs[0])
    links.new(clear.outputs[0], mix.inputs[1])
    links.new(emission.outputs[0], mix.inputs[2])
    links.new(mix.outputs[0], output.inputs["Surface"])
    for place, node in enumerate((texture, emission, clear, mix, output)):
        node.location = (220 * place - 440, -160 * (node is clear))
    nodes.active = texture
    return material


def set_camera_background(camera: bpy.types.Object, image: bpy.types.Image) -> None:
    """Show an image behind the scene in a camera's view, in place of an earlier result if there is one."""
    data = camera.data
    data.show_background_images = True
    for background in data.background_images:
        if background.image is not None and VIEW_MARK in background.image:
            break
    else:
        background = data.background_images.new()
    background.image = image
    background.alpha = 1.0
    background.display_depth = "FRONT"
    background.frame_method = "FIT"
