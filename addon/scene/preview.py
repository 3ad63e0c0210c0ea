"""The picture so far, in panels and over Image Editors; no image of the file, so that nothing of it is ever saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import bpy
import bpy.utils.previews
import numpy as np

from ...backend.previews import read_preview
from ...backend.request import Array
from .images import PREVIEW_SIDE
from .results import result_spaces, shows_results

if TYPE_CHECKING:
    import gpu

ICON = "preview"


class _State:
    """What is on show: the newest preview of one job, as an icon for panels and as a texture for Image Editors."""

    job = ""
    count = 0  # of the job's previews, when it was read
    scene = 0  # session_uid of the scene whose picture it will be
    levels: Array | None = None  # uint8 h×w×4, bottom row first
    icons: bpy.utils.previews.ImagePreviewCollection | None = None
    texture: gpu.types.GPUTexture | None = None  # made by the first Image Editor that is drawn
    handler: object | None = None


_state = _State()


def follow(job: str, count: int, folder: Path, scene: int) -> bool:
    """Show the newest preview of a job's folder, the last of `count`; return whether what is on show has changed.

    scene: the session_uid of the one that asked for the picture: it is seen beside no other.
    """
    changed = job != _state.job and clear()
    if count == 0 or (job, count) == (_state.job, _state.count):
        return changed
    picture = read_preview(folder)
    if picture is None:
        return changed
    _state.job, _state.count, _state.scene = job, count, scene
    _show(picture)
    redraw_editors()
    return True


def clear() -> bool:
    """Show nothing any more; return whether there was something."""
    if _state.levels is None:
        return False
    if _state.icons is not None:
        bpy.utils.previews.remove(_state.icons)
    if _state.handler is not None:
        bpy.types.SpaceImageEditor.draw_handler_remove(_state.handler, "WINDOW")
    _state.job, _state.count, _state.scene = "", 0, 0
    _state.levels = _state.icons = _state.texture = _state.handler = None
    redraw_editors()
    return True


def icon(scene: bpy.types.Scene) -> int:
    """Return the icon that shows a scene's picture so far in a panel, 0 where none of it is being made."""
    return _state.icons[ICON].icon_id if _state.icons is not None and is_of(scene) else 0


def is_of(scene: bpy.types.Scene) -> bool:
    """Whether what is on show, if anything, will be that scene's picture."""
    return scene.session_uid == _state.scene


def redraw_editors() -> None:
    """Have the Image Editors drawn again that results are shown in."""
    for area, space in result_spaces():
        if space.mode == "VIEW":
            area.tag_redraw()


def _show(picture: Array) -> None:
    """Take a picture (uint8 h×w×3, top row first) in the place of the last."""
    height, width = picture.shape[:2]
    _state.levels = np.full((height, width, 4), 255, np.uint8)
    _state.levels[..., :3] = picture[::-1]
    _state.texture = None
    if _state.icons is None:
        _state.icons = bpy.utils.previews.new()
        _state.icons.new(ICON)
        _state.handler = bpy.types.SpaceImageEditor.draw_handler_add(_draw, (), "WINDOW", "POST_PIXEL")
    every = -(-max(width, height) // PREVIEW_SIDE)
    small = np.ascontiguousarray(_state.levels[::every, ::every])
    shown = _state.icons[ICON]
    shown.image_size = (small.shape[1], small.shape[0])
    shown.image_pixels.foreach_set(small.view(np.int32).ravel())


def _draw() -> None:
    """Lay the picture so far over the one that an Image Editor shows, where the result will be."""
    context = bpy.context
    space = context.space_data
    if _state.levels is None or not is_of(context.scene):
        return
    if space.mode != "VIEW" or not shows_results(space):  # a sketch that is painted on is left in peace
        return
    from gpu_extras.presets import draw_texture_2d

    height, width = _state.levels.shape[:2]
    view = context.region.view2d
    left, bottom = view.view_to_region(0, 0, clip=False)
    right, top = view.view_to_region(1, 1, clip=False)
    scale = min((right - left) / width, (top - bottom) / height)
    corner = ((left + right - width * scale) / 2, (bottom + top - height * scale) / 2)
    draw_texture_2d(_texture(_state.levels), corner, width * scale, height * scale)


def _texture(levels: Array) -> gpu.types.GPUTexture:
    """Return the picture so far as a texture, made anew only for a new one; regions are drawn in linear colours."""
    import gpu

    if _state.texture is None:
        height, width = levels.shape[:2]
        values = np.ascontiguousarray(levels, np.float32).ravel() / np.float32(255)
        buffer = gpu.types.Buffer("FLOAT", values.size, values)
        _state.texture = gpu.types.GPUTexture((width, height), format="SRGB8_A8", data=buffer)
    return _state.texture
