"""Masks: where an object or a material is really seen, occlusion included; what is transparent; what is painted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.errors import InvalidRequest
from ...backend.request import Array
from ...backend.settings import Inpaint
from .. import compat
from .capture import SUPERSAMPLING, View, can_draw, capture, find_viewport
from .images import read_image

SURFACES = {"MESH", "CURVE", "SURFACE", "FONT", "META"}
HALF_OPAQUE = 128  # of 255; alpha above it repaints
UNFILLED = {"WIRE", "BOUNDS"}  # display types that hide nothing behind them
REPAINTED, KEPT = (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0)

# From an evaluated object and its triangles' material slots to whether each triangle is repainted.
Choice = Callable[[bpy.types.DepsgraphObjectInstance, Array], Array]


def current_mask(context: bpy.types.Context, view: View) -> Array:
    """Return the mask that the scene's settings name (float32 H×W, 1 repainted); raises InvalidRequest without one."""
    settings = context.scene.viewport_diffusion.capture
    if settings.mask_source == "IMAGE":
        return image_mask(settings.mask_image)
    if settings.mask_source == "ALPHA":
        return transparency_mask(capture(context, view.width, view.height))
    if settings.mask_source == "SKETCH":
        painted, original = sketch_pair(context.scene)
        return painted_mask(painted, original, settings.mask_transparency)
    if settings.mask_source == "MATERIAL":
        return material_mask(context, view, settings.mask_material)
    if settings.mask_source == "OBJECT":
        chosen = [settings.mask_object] if settings.mask_object else []
    else:
        chosen = list(context.view_layer.objects.selected)
    return object_mask(context, view, chosen)


def object_mask(context: bpy.types.Context, view: View, objects: list[bpy.types.Object]) -> Array:
    """Return where those objects are seen in a view (float32 H×W, 1 seen, soft at edges)."""
    if not objects:
        raise InvalidRequest("No object is chosen for the mask.", "Select what is to be repainted.")
    names = {item.name_full for item in objects}

    def choose(instance: bpy.types.DepsgraphObjectInstance, slots: Array) -> Array:
        shown = {instance.object.name_full, instance.parent.name_full if instance.parent else ""}
        return np.full(len(slots), not names.isdisjoint(shown))

    return _seen(draw_mask(context, view, choose), "The chosen object")


def material_mask(context: bpy.types.Context, view: View, material: bpy.types.Material | None) -> Array:
    """Return where a material is seen in a view (float32 H×W, 1 seen, soft at edges)."""
    if material is None:
        raise InvalidRequest("No material is chosen for the mask.", "Choose the one to be repainted.")

    def choose(instance: bpy.types.DepsgraphObjectInstance, slots: Array) -> Array:
        materials = [slot.material for slot in instance.object.material_slots]
        has = [its is not None and its.name_full == material.name_full for its in materials]
        return np.array([*has, False])[np.minimum(slots, len(has))]

    return _seen(draw_mask(context, view, choose), f"The material {material.name}")


def image_mask(image: bpy.types.Image | None) -> Array:
    """Return an image's mask (float32 H×W), by the web UI's rule: what is opaque if it has transparency, else white."""
    if image is None:
        raise InvalidRequest("No mask image is chosen.", "Choose a black-and-white image.")
    picture = read_image(image)
    if picture.shape[2] == 4 and picture[..., 3].min() < 255:
        return (picture[..., 3] > HALF_OPAQUE).astype(np.float32)
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # luma, ITU-R BT.601
    return np.clip(picture[..., :3].astype(np.float32) @ weights / 255, 0, 1)


def transparency_mask(picture: Array) -> Array:
    """Return where a picture (uint8 H×W×3 or 4) is not opaque, by the web UI's rule of November 2022 (float32 H×W)."""
    from ...backend.imaging.masks import alpha_mask

    mask = alpha_mask(picture)
    if not mask.any():
        raise InvalidRequest(
            "Nothing in the source is transparent.",
            "Erase what is to be repainted, switch Transparent Background on, or choose another mask.",
        )
    return mask


def transparency_inputs(picture: Array, masked_content: str) -> tuple[Array, Array]:
    """Return what to inpaint (uint8 H×W×3, the colours under the transparency kept) and the mask (float32 H×W).

    picture: uint8 H×W×4 with straight alpha. Raises InvalidRequest where the repainted part would start from black only
    because the picture was saved so.
    """
    mask = transparency_mask(picture)
    clear = picture[..., 3] == 0
    if masked_content == "original" and clear.any() and not picture[clear][:, :3].any():
        raise InvalidRequest(
            "What is transparent in the source is black underneath, as many editors save it and renders have it, and "
            "the masked content Original would start from that black.",
            "Choose Fill or Latent Noise as the masked content, or save the picture with its colours kept.",
        )
    return np.ascontiguousarray(picture[..., :3]), mask


def sketch_inputs(context: bpy.types.Context, settings: Inpaint) -> tuple[Array, Array]:
    """Return what an inpaint sketch starts from (uint8 H×W×3) and its mask (float32 H×W in 0–1), by the web UI's rule.

    Raises InvalidRequest where there is no sketch, or no paint on it.
    """
    from ...backend.imaging.masks import sketch_picture

    painted, original = sketch_pair(context.scene)
    mask = painted_mask(painted, original, context.scene.viewport_diffusion.capture.mask_transparency)
    return sketch_picture(painted, original, mask, settings.mask_blur), mask


def sketch_pair(scene: bpy.types.Scene) -> tuple[Array, Array]:
    """Return the sketch as it is painted and what it was painted over (both uint8 H×W×3)."""
    settings = scene.viewport_diffusion.capture
    if settings.sketch is None or settings.sketch_original is None:
        raise InvalidRequest("There is no sketch yet.", "Start one with Paint over Capture.")
    painted, original = (read_image(image)[..., :3] for image in (settings.sketch, settings.sketch_original))
    return np.ascontiguousarray(painted), np.ascontiguousarray(original)


def painted_mask(painted: Array, original: Array, transparency: float) -> Array:
    """Return where a sketch was painted (float32 H×W), as strong as a transparency in 0–100 % leaves it."""
    from ...backend.imaging.masks import sketch_mask

    mask = sketch_mask(painted, original, transparency=transparency)
    if mask.any():
        return mask
    if np.array_equal(painted, original):
        raise InvalidRequest("Nothing is painted on the sketch yet.", "Paint on it in an Image Editor first.")
    raise InvalidRequest(
        f"A mask transparency of {transparency:g} % leaves nothing of the paint.", "Choose one below 50 %."
    )


def _seen(mask: Array, what: str) -> Array:
    if not mask.any():
        raise InvalidRequest(f"{what} can't be seen in this view.", "Turn the view, or choose what can be seen.")
    return mask


def draw_mask(context: bpy.types.Context, view: View, choose: Choice) -> Array:
    """Return where the chosen triangles are in front of all others (float32 H×W in 0–1), without touching the scene."""
    import gpu
    from gpu_extras.batch import batch_for_shader

    if not can_draw():
        raise InvalidRequest(
            "This machine can't draw, so no mask comes from the scene.", "Install libegl1, or use a mask image."
        )
    compat.start_gpu(context.scene)
    width, height = view.width * SUPERSAMPLING, view.height * SUPERSAMPLING
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    offscreen = gpu.types.GPUOffScreen(width, height)
    try:
        with offscreen.bind(), gpu.matrix.push_pop(), gpu.matrix.push_pop_projection():
            frame = gpu.state.active_framebuffer_get()
            frame.clear(color=KEPT, depth=1.0)
            gpu.matrix.load_matrix(view.view_matrix)
            gpu.matrix.load_projection_matrix(view.projection)
            gpu.state.depth_test_set("LESS_EQUAL")
            gpu.state.depth_mask_set(True)
            shader.bind()
            for points, triangles, repainted in _surfaces(context, choose):
                for colour, part in ((KEPT, triangles[~repainted]), (REPAINTED, triangles[repainted])):
                    if len(part):
                        shader.uniform_float("color", colour)
                        batch_for_shader(shader, "TRIS", {"pos": points}, indices=part).draw(shader)
            buffer = frame.read_color(0, 0, width, height, 4, 0, "UBYTE")
    finally:
        gpu.state.depth_mask_set(False)
        gpu.state.depth_test_set("NONE")
        offscreen.free()
    buffer.dimensions = width * height * 4
    red = np.array(buffer, dtype=np.uint8).reshape(height, width, 4)[::-1, :, 0]
    squares = red.reshape(view.height, SUPERSAMPLING, view.width, SUPERSAMPLING).astype(np.float32)
    mask: Array = np.ascontiguousarray(squares.mean((1, 3)) / 255, dtype=np.float32)
    return mask


def _surfaces(context: bpy.types.Context, choose: Choice) -> Iterator[tuple[Array, Array, Array]]:
    """Yield world points (N×3 float32), triangles (M×3 int32) and which are repainted (M), of all that is visible."""
    space = find_viewport(context)[0]
    for instance in context.evaluated_depsgraph_get().object_instances:
        item = instance.object
        if item.type not in SURFACES or not instance.show_self or item.display_type in UNFILLED:
            continue
        shown_by = instance.parent if instance.is_instance else item  # local view shows what an instancer makes with it
        if not shown_by.original.visible_in_viewport_get(space):
            continue
        mesh = item.to_mesh()
        if mesh is None:
            continue
        try:
            points, triangles, slots = _triangles(mesh, instance.matrix_world)
        finally:
            item.to_mesh_clear()
        if len(triangles):
            yield points, triangles, choose(instance, slots)


def _triangles(mesh: bpy.types.Mesh, world: Matrix) -> tuple[Array, Array, Array]:
    mesh.calc_loop_triangles()
    points = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", points)
    triangles = np.empty(len(mesh.loop_triangles) * 3, np.int32)
    mesh.loop_triangles.foreach_get("vertices", triangles)
    slots = np.empty(len(mesh.loop_triangles), np.int32)
    mesh.loop_triangles.foreach_get("material_index", slots)
    matrix = np.array(world, np.float32)
    placed = points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
    return np.ascontiguousarray(placed, np.float32), triangles.reshape(-1, 3), slots
