"""The contact sheet of the mannequin's poses, drawn as the viewport shows them: solid shading with textures."""

# Blender's stubs say less than Blender:
# mypy: disable-error-code="union-attr,attr-defined,arg-type,call-arg,func-returns-value"

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import bpy
import gpu
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CELL = (210, 290)  # pixels, of which the picture is cut out of a square
COLUMNS = 6
STUDIO_LIGHT = "paint.sl"  # of Blender's own lights the one that leaves colours brightest
CAPTION = (40, 44, 52)


def start_drawing(scene: bpy.types.Scene) -> None:
    """Start the GPU where there is no window: a tiny render does it before Blender 5.2, which has its own call."""
    if hasattr(gpu, "init"):
        gpu.init()
        return
    percentage, path = scene.render.resolution_percentage, scene.render.filepath
    scene.render.resolution_percentage = 2
    with tempfile.TemporaryDirectory() as folder:
        scene.render.filepath = str(Path(folder) / "start.png")
        bpy.ops.render.render()
    scene.render.resolution_percentage, scene.render.filepath = percentage, path


def show_textures(shading: bpy.types.View3DShading) -> None:
    """Set solid shading that shows textures in their own colours: soft light, no highlights."""
    shading.type, shading.color_type, shading.light = "SOLID", "TEXTURE", "STUDIO"
    shading.studio_light = STUDIO_LIGHT
    shading.show_specular_highlight = False
    shading.show_cavity = False


def draw_view(
    scene: bpy.types.Scene, view: Matrix, projection: Matrix, size: int, shading: str = "SOLID"
) -> NDArray[np.uint8]:
    """Return what a 3D viewport shows (size×size×3 sRGB, top row first)."""
    spaces = [
        (area.spaces.active, next(region for region in area.regions if region.type == "WINDOW"))
        for screen in bpy.data.screens
        for area in screen.areas
        if area.type == "VIEW_3D"
    ]
    space, region = spaces[0]
    space.overlay.show_overlays = False
    space.shading.type = shading
    if shading == "SOLID":
        show_textures(space.shading)
    offscreen = gpu.types.GPUOffScreen(size, size)
    offscreen.draw_view3d(
        scene,
        bpy.context.view_layer,
        space,
        region,
        view,
        projection,
        do_color_management=True,
        draw_background=True,
    )
    with offscreen.bind():
        buffer = gpu.state.active_framebuffer_get().read_color(0, 0, size, size, 4, 0, "UBYTE")
    buffer.dimensions = size * size * 4
    pixels = np.array(buffer, np.uint8).reshape(size, size, 4)[::-1, :, :3].copy()
    offscreen.free()
    return pixels


def draw_camera(scene: bpy.types.Scene, size: int) -> NDArray[np.uint8]:
    """Return the scene's camera's view as the viewport shows it (size×size×3 sRGB)."""
    depsgraph = bpy.context.evaluated_depsgraph_get()
    projection = scene.camera.calc_matrix_camera(depsgraph, x=size, y=size)
    return draw_view(scene, scene.camera.matrix_world.inverted(), projection, size)


def draw_sheet(scene: bpy.types.Scene, path: Path, names: list[str], show: Callable[[str], None]) -> None:
    """Write the sheet of every pose through the scene's camera, with captions."""
    start_drawing(scene)
    rows = -(-len(names) // COLUMNS)
    width, height = CELL
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for i, name in enumerate(names):
        show(name)
        square = Image.fromarray(draw_camera(scene, height * 2)).resize((height, height), Image.Resampling.LANCZOS)
        left = (height - width) // 2
        place = (i % COLUMNS * width, i // COLUMNS * height)
        sheet.paste(square.crop((left + 2, 2, left + width - 2, height - 2)), (place[0] + 2, place[1] + 2))
        pen.text((place[0] + 12, place[1] + 10), name, fill=CAPTION, font_size=18)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=2).save(path, optimize=True)
