"""What the artist sees, as pixels: viewport or camera drawn off screen in display colours, or fully rendered."""

from __future__ import annotations

import ctypes
import functools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.errors import InvalidRequest
from ...backend.request import Array, whole_side, whole_size
from .. import compat
from .images import read_image
from .state import changed

SUPERSAMPLING = 2  # draws are made this many times larger and averaged down: smooth edges whatever the preferences say
BRIGHT_LIGHT = "paint.sl"  # a studio light that comes with Blender
EGL_PLATFORM_SURFACELESS = 0x31DD  # from the EGL registry, EGL_MESA_platform_surfaceless
SKETCH_SOURCE = "viewport_diffusion_source"  # custom property of a sketch: the source that it was painted over
OWN_SLOT = "Viewport Diffusion"  # of the render result
# View transforms whose colours a display shows as they are, of Blender's own colour configuration and of others.
PLAIN_TRANSFORMS = ("Standard", "Un-tone-mapped", "Raw")
HALF_SENSOR = 36.0  # mm; half the width of the viewport's own sensor, twice as wide as a camera's


class View(NamedTuple):
    """A look at the scene: world to view, view to clip, and the size in pixels."""

    view_matrix: Matrix
    projection: Matrix
    width: int
    height: int


def picture_size(scene: bpy.types.Scene) -> tuple[int, int]:
    """Return width and height for a picture of the scene, in pixels, each a multiple of 8."""
    settings = scene.viewport_diffusion
    if settings.capture.size == "OWN":
        return whole_side(settings.diffusion.width), whole_side(settings.diffusion.height)
    share = scene.render.resolution_percentage / 100
    return whole_size(scene.render.resolution_x * share, scene.render.resolution_y * share)


def current_view(context: bpy.types.Context, width: int, height: int) -> View:
    """Return the view that the scene's settings name as the source, for a picture of that size."""
    settings = context.scene.viewport_diffusion.capture
    source = view_source(context.scene)
    rendered = source != "IMAGE" and (settings.shading == "RENDER" or not can_draw())
    if source == "CAMERA" or rendered:
        return camera_view(context, width, height)
    space = find_viewport(context)[0]
    if space.region_3d.view_perspective == "CAMERA":
        return camera_view(context, width, height, space.camera if space.use_local_camera else None)
    return viewport_view(space, width, height)


def view_source(scene: bpy.types.Scene) -> str:
    """Return the source whose view counts, VIEWPORT, CAMERA or IMAGE (none): of a sketch what it was painted over."""
    settings = scene.viewport_diffusion.capture
    if settings.source != "SKETCH":
        return settings.source
    return settings.sketch.get(SKETCH_SOURCE, "IMAGE") if settings.sketch is not None else "IMAGE"


def camera_view(context: bpy.types.Context, width: int, height: int, camera: bpy.types.Object | None = None) -> View:
    """Return what a camera sees, or else the scene's; raises InvalidRequest where the scene has none."""
    camera = camera or context.scene.camera
    if camera is None:
        raise InvalidRequest("The scene has no camera.", "Add one, or choose Viewport as the source.")
    depsgraph = context.evaluated_depsgraph_get()
    evaluated = camera.evaluated_get(depsgraph)
    pixel = context.scene.render
    projection = evaluated.calc_matrix_camera(
        depsgraph, x=width, y=height, scale_x=pixel.pixel_aspect_x, scale_y=pixel.pixel_aspect_y
    )
    return View(evaluated.matrix_world.normalized().inverted(), projection, width, height)


def viewport_view(space: bpy.types.SpaceView3D, width: int, height: int) -> View:
    """Return a viewport's own look, its field of view on the picture's longer side as Blender lays it on a region's."""
    region = space.region_3d
    eye = _eye(space)
    zoom = space.lens / HALF_SENSOR
    longer = max(width, height)
    across, up = zoom * longer / width, zoom * longer / height
    near, far = space.clip_start, space.clip_end
    if region.view_perspective == "ORTHO":
        size = region.view_distance
        reach = far  # an orthographic viewport sees behind its own eye as well
        rows = (
            (across / size, 0, 0, 0),
            (0, up / size, 0, 0),
            (0, 0, -1 / reach, 0),
            (0, 0, 0, 1),
        )
    else:
        rows = (
            (across, 0, 0, 0),
            (0, up, 0, 0),
            (0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)),
            (0, 0, -1, 0),
        )
    return View(eye, Matrix(rows), width, height)


def _eye(space: bpy.types.SpaceView3D) -> Matrix:
    """Return the matrix from world to a viewport's eye, that of an orthographic one too behind what it looks at."""
    region = space.region_3d
    if space.lock_object is None and not space.lock_cursor:  # computed, since Blender's own is of the last redraw
        turned = region.view_rotation.to_matrix().to_4x4()
        placed = Matrix.Translation(region.view_location) @ turned @ Matrix.Translation((0, 0, region.view_distance))
        return placed.inverted()
    region.update()  # a lock's place, with the offset that Python can't read, is in Blender's own alone
    back = -region.view_distance if region.view_perspective == "ORTHO" else 0.0
    return Matrix.Translation((0, 0, back)) @ region.view_matrix


def capture(context: bpy.types.Context, width: int, height: int) -> Array:
    """Return the source that the scene's settings name, as uint8 H×W×3 display sRGB, or H×W×4 where it is transparent.

    Raises InvalidRequest where there is nothing to capture. Every setting is as it was afterwards.
    """
    settings = context.scene.viewport_diffusion.capture
    if settings.source == "IMAGE":
        if settings.image is None:
            raise InvalidRequest("No image is chosen as the source.", "Choose one, or choose Viewport or Camera.")
        return read_image(settings.image)
    if settings.source == "SKETCH":
        if settings.sketch is None:
            raise InvalidRequest("There is no sketch yet.", "Start one with Paint over Capture.")
        return np.ascontiguousarray(read_image(settings.sketch)[..., :3])
    if settings.shading == "RENDER" or not can_draw():
        camera_view(context, width, height)  # complains where there is no camera
        return render_camera(context, width, height, settings.transparent)
    return draw_view(context, current_view(context, width, height), settings.shading, settings.transparent)


def draw_view(context: bpy.types.Context, view: View, shading: str = "TEXTURE", transparent: bool = False) -> Array:
    """Return a view of the scene drawn off screen (uint8 H×W×3 display sRGB, H×W×4 if transparent)."""
    import gpu

    compat.start_gpu(context.scene)
    context.view_layer.update()  # 5.2 draws the scene as it was last evaluated
    scene = context.scene
    space, region = find_viewport(context)
    width, height = view.width * SUPERSAMPLING, view.height * SUPERSAMPLING
    with ExitStack() as stack:
        stack.enter_context(standard_colours(scene))
        stack.enter_context(changed(space.overlay, show_overlays=False))
        stack.enter_context(_shaded(space, scene, shading))
        if scene.camera is not None:  # an earlier result behind the camera is no part of the scene
            stack.enter_context(changed(scene.camera.data, show_background_images=False))
        offscreen = gpu.types.GPUOffScreen(width, height)
        stack.callback(offscreen.free)
        offscreen.draw_view3d(
            scene,
            context.view_layer,
            space,
            region,
            view.view_matrix,
            view.projection,
            do_color_management=True,
            draw_background=not transparent,
        )
        with offscreen.bind():
            buffer = gpu.state.active_framebuffer_get().read_color(0, 0, width, height, 4, 0, "UBYTE")
    buffer.dimensions = width * height * 4
    pixels = np.array(buffer, dtype=np.uint8).reshape(height, width, 4)[::-1]
    pixels[..., 3][pixels[..., 3] == 254] = 255  # solid shading draws what is opaque as 254
    picture = average_down(pixels, SUPERSAMPLING)
    return picture if transparent else np.ascontiguousarray(picture[..., :3])


def average_down(pixels: Array, factor: int) -> Array:
    """Return pixels (uint8 H×W×4, straight alpha) averaged over squares of factor×factor, colours weighed by alpha."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    squares = pixels.reshape(height, factor, width, factor, 4).astype(np.uint32)
    alpha = squares[..., 3].sum((1, 3))
    weighed = (squares[..., :3] * squares[..., 3:]).sum((1, 3))
    colour = (weighed + alpha[..., None] // 2) // np.maximum(alpha, 1)[..., None]
    count = factor * factor
    return np.dstack([colour, (alpha + count // 2) // count]).astype(np.uint8)


def render_camera(context: bpy.types.Context, width: int, height: int, transparent: bool) -> Array:
    """Return a full render of the scene's camera by the scene's own engine (uint8 H×W×3, H×W×4 if transparent)."""
    scene = context.scene
    render = scene.render
    engine = render.engine if can_draw() else "CYCLES"  # the only engine that needs no graphics driver
    with tempfile.TemporaryDirectory(prefix="viewport-diffusion-") as folder, ExitStack() as stack:
        path = Path(folder) / "render.png"
        stack.enter_context(standard_colours(scene))
        stack.enter_context(
            changed(
                render,
                engine=engine,
                resolution_x=width,
                resolution_y=height,
                resolution_percentage=100,
                filepath=str(path),
                film_transparent=transparent,
                use_file_extension=True,
                use_border=False,
                use_sequencer=False,
                use_multiview=False,
                use_stamp=False,
            )
        )
        media = {"media_type": "IMAGE"} if hasattr(render.image_settings, "media_type") else {}
        png = {**media, "file_format": "PNG", "color_mode": "RGBA", "color_depth": "8"}
        stack.enter_context(changed(render.image_settings, **png))
        stack.enter_context(_nothing_else_written(scene))
        stack.enter_context(_own_slot())
        try:
            bpy.ops.render.render(write_still=True, scene=scene.name)
            image = bpy.data.images.load(str(path))
        except RuntimeError as error:
            raise InvalidRequest(f"The camera could not be rendered: {error}", "Try F12, which says more.") from error
        try:
            picture = read_image(image)
        finally:
            bpy.data.images.remove(image)
    return picture if transparent else np.ascontiguousarray(picture[..., :3])


@contextmanager
def _nothing_else_written(scene: bpy.types.Scene) -> Iterator[None]:
    """Keep the compositor's File Output nodes from writing the artist's files anew, at the size of a capture."""
    with ExitStack() as stack:
        for tree in compat.compositor_trees(scene):
            for node in tree.nodes:
                if node.bl_idname == "CompositorNodeOutputFile":
                    stack.enter_context(changed(node, mute=True))
        yield


@contextmanager
def _own_slot() -> Iterator[None]:
    """Render into a slot of our own: an F12 render that the artist hasn't saved stays in its."""
    shown = next((image for image in bpy.data.images if image.type == "RENDER_RESULT"), None)
    if shown is None:  # nothing was rendered in this session
        yield
        return
    slots = shown.render_slots
    names = [slot.name for slot in slots]
    if OWN_SLOT not in names:
        names.append(slots.new(name=OWN_SLOT).name)
    with changed(slots, active_index=names.index(OWN_SLOT)):
        yield


@contextmanager
def standard_colours(scene: bpy.types.Scene) -> Iterator[None]:
    """Show the scene under the view transform Standard, whose colours a display shows as they are.

    Raises InvalidRequest where the colour configuration has none like it.
    """
    view = scene.view_settings
    with ExitStack() as stack:
        for name in PLAIN_TRANSFORMS:
            with suppress(TypeError):  # which Blender raises for one that the configuration hasn't
                # A look belongs to its view transform, and comes behind it.
                plain = changed(
                    view, view_transform=name, look="None", exposure=0.0, gamma=1.0, use_curve_mapping=False
                )
                stack.enter_context(plain)
                break
        else:
            *others, last = PLAIN_TRANSFORMS
            raise InvalidRequest(
                f"The colour configuration has no view transform {', '.join(others)} or {last}.",
                "Start Blender without the environment variable OCIO, or add one of them to its configuration.",
            )
        yield


@contextmanager
def _shaded(space: bpy.types.SpaceView3D, scene: bpy.types.Scene, shading: str) -> Iterator[None]:
    target = space.shading
    with ExitStack() as stack:
        if shading == "TEXTURE":
            stack.enter_context(changed(target, type="SOLID"))
            stack.enter_context(changed(target, light="STUDIO", color_type="TEXTURE", show_xray=False))
            # Blender's default studio light darkens textures, and colour is what drives the result.
            stack.enter_context(changed(target, studio_light=BRIGHT_LIGHT, show_specular_highlight=False))
            stack.enter_context(changed(target, show_cavity=False, show_shadows=False, show_object_outline=False))
        elif shading == "MATERIAL":
            if scene.render.engine == "BLENDER_WORKBENCH":  # which would draw its own solid shading instead
                stack.enter_context(changed(scene.render, engine=compat.eevee()))
            stack.enter_context(changed(target, type="MATERIAL"))
        yield


def find_viewport(context: bpy.types.Context) -> tuple[bpy.types.SpaceView3D, bpy.types.Region]:
    """Return the 3D viewport in the context, or the first one of any screen; those of the file serve as well."""
    area = context.area
    screens = [context.screen] if context.screen else []
    areas = [area] if area is not None and area.type == "VIEW_3D" else []
    areas += [area for screen in (*screens, *bpy.data.screens) for area in screen.areas if area.type == "VIEW_3D"]
    for area in areas:
        for region in area.regions:
            if region.type == "WINDOW":
                return area.spaces.active, region
    raise InvalidRequest("There is no 3D viewport in this file.", "Open one, and try again.")


@functools.cache
def can_draw() -> bool:
    """Whether this process can draw at all: without a window, a machine with no EGL would end it at the first try."""
    if not bpy.app.background or not sys.platform.startswith("linux"):
        return True
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return False
    handle = ctypes.c_void_p
    egl.eglGetDisplay.restype = egl.eglGetPlatformDisplay.restype = handle
    egl.eglGetDisplay.argtypes = (handle,)
    egl.eglGetPlatformDisplay.argtypes = (ctypes.c_uint, handle, handle)
    egl.eglInitialize.argtypes = (handle, handle, handle)
    displays = (egl.eglGetPlatformDisplay(EGL_PLATFORM_SURFACELESS, None, None), egl.eglGetDisplay(None))
    return any(display and egl.eglInitialize(display, None, None) for display in displays)
