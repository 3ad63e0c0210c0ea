"""Poor man's outpainting: the wider canvas, where the old picture lies in it, and the masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InvalidRequest
from .colour import adopt_colours
from .pictures import Mask, Picture, require_picture, require_size, size_of
from .regions import Region

CANVAS_STEP = 64
"""Sides of a canvas are multiples of this, the web UI's value."""


@dataclass(frozen=True)
class OutpaintGeometry:
    """A canvas of width x height pixels around a source; left, right, up, down are what it gains, slack included.

    `result` is the part of the canvas that makes the finished picture.
    """

    width: int
    height: int
    left: int
    right: int
    up: int
    down: int
    source: Region
    result: Region


@dataclass(frozen=True)
class OutpaintCanvas:
    """What poor man's outpainting inpaints: uint8 canvas, masks (1 = repaint), the mask's blur in pixels."""

    geometry: OutpaintGeometry
    picture: Picture
    mask: Mask
    latent_mask: Mask
    mask_blur: int

    def finish(self, painted: Picture) -> Picture:
        """The finished picture out of the painted canvas."""
        if size_of(painted) != size_of(self.picture):
            raise InvalidRequest("The painted canvas is not the size of the canvas.", "Resize it to the canvas.")
        return painted[self.geometry.result.slices].copy()


def padded_side(length: int) -> int:
    """The length rounded up to a multiple of CANVAS_STEP."""
    return -(-length // CANVAS_STEP) * CANVAS_STEP


def _share(length: int, near: int, far: int) -> tuple[int, int, int]:
    """Canvas side, and what is gained before and after: the slack up to the multiple goes to the asked directions."""
    side = padded_side(length + near + far)
    if near + far == 0:
        return side, 0, 0
    gained = side - length
    before = near * gained // (near + far)
    return side, before, gained - before


def outpaint_geometry(
    width: int, height: int, *, left: int = 0, right: int = 0, up: int = 0, down: int = 0
) -> OutpaintGeometry:
    """The canvas for a picture of width x height grown by so many pixels in each direction; the web UI's formula.

    Each side is rounded up to a multiple of 64 and the slack is shared between that axis's directions. On an axis
    without a direction the web UI leaves the slack black at the far edge; ours repeats the outermost pixels there,
    keeps them out of the mask and crops them off the result. Raises InvalidRequest where nothing grows.
    """
    require_size(width, height)
    if min(left, right, up, down) < 0 or max(left, right, up, down) == 0:
        raise InvalidRequest("There is no direction to outpaint in.", "Give at least one direction some pixels.")
    canvas_width, gained_left, gained_right = _share(width, left, right)
    canvas_height, gained_up, gained_down = _share(height, up, down)
    require_size(canvas_width, canvas_height, "canvas")
    source = Region(gained_left, gained_up, gained_left + width, gained_up + height)
    result = Region(
        0,
        0,
        canvas_width if left + right else width,
        canvas_height if up + down else height,
    )
    return OutpaintGeometry(
        canvas_width, canvas_height, gained_left, gained_right, gained_up, gained_down, source, result
    )


def lay_on_canvas(picture: Picture, geometry: OutpaintGeometry) -> Picture:
    """A black canvas (uint8 H x W x 3) with the picture in its place, edges repeated over undirected slack."""
    require_picture(picture, channels=(3,))
    if size_of(picture) != (geometry.source.width, geometry.source.height):
        raise InvalidRequest("The picture is not the size that its canvas was planned for.", "Plan the canvas again.")
    canvas = np.zeros((geometry.height, geometry.width, 3), dtype=np.uint8)
    canvas[geometry.source.slices] = picture
    if geometry.result.height < geometry.height:
        canvas[geometry.result.height :] = canvas[geometry.result.height - 1]
    if geometry.result.width < geometry.width:
        canvas[:, geometry.result.width :] = canvas[:, geometry.result.width - 1 : geometry.result.width]
    return canvas


def keep_rectangle_mask(geometry: OutpaintGeometry, inset: int) -> Mask:
    """1 over the whole canvas but for a rectangle of 0: the source, inset on every side that grows.

    Raises InvalidRequest where the inset leaves nothing of the source.
    """
    source = geometry.source
    x1 = source.x1 + inset if geometry.left else 0
    y1 = source.y1 + inset if geometry.up else 0
    x2 = source.x2 - inset if geometry.right else geometry.width
    y2 = source.y2 - inset if geometry.down else geometry.height
    if x1 >= x2 or y1 >= y2:
        raise InvalidRequest(
            "The mask blur leaves nothing of the picture to go on from.", "Choose a smaller mask blur."
        )
    mask = np.ones((geometry.height, geometry.width), dtype=np.float32)
    mask[y1:y2, x1:x2] = 0
    return mask


def poor_mans_canvas(picture: Picture, geometry: OutpaintGeometry, mask_blur: int = 4) -> OutpaintCanvas:
    """What poor man's outpainting inpaints as "Whole picture": canvas, mask, latent mask and effective blur.

    The web UI's rule: the mask keeps the source inset by twice the mask blur and is blurred by twice the mask blur,
    the latent mask keeps it inset by half of it.
    """
    if not 0 <= mask_blur <= 64:
        raise InvalidRequest(f"A mask blur of {mask_blur} is impossible.", "Choose a mask blur from 0 to 64.")
    return OutpaintCanvas(
        geometry,
        lay_on_canvas(picture, geometry),
        keep_rectangle_mask(geometry, 2 * mask_blur),
        keep_rectangle_mask(geometry, mask_blur // 2),
        2 * mask_blur,
    )


def scene_canvas(
    picture: Picture,
    surroundings: Picture,
    mask_blur: int = 8,
    *,
    left: int = 0,
    right: int = 0,
    up: int = 0,
    down: int = 0,
) -> OutpaintCanvas:
    """The picture within what a wider camera sees of the scene, uint8 H x W x 3, exactly the size that is asked for.

    The surroundings are the size of the result, the picture's own place included; they take on the picture's colours
    first (adopt_colours), since a border in the colours of the render would show. Masks as in poor_mans_canvas.
    Raises InvalidRequest where nothing grows, or the surroundings are of another size.
    """
    require_picture(surroundings, "surroundings", (3,))
    if min(left, right, up, down) < 0 or max(left, right, up, down) == 0:
        raise InvalidRequest("There is no direction to outpaint in.", "Give at least one direction some pixels.")
    width, height = size_of(picture)
    grown = width + left + right, height + up + down
    if size_of(surroundings) != grown:
        raise InvalidRequest(
            f"The surroundings are {surroundings.shape[1]}x{surroundings.shape[0]}, the result {grown[0]}x{grown[1]}.",
            "Capture them at the size of the result.",
        )
    source = Region(left, up, left + width, up + height)
    geometry = OutpaintGeometry(*grown, left, right, up, down, source, Region(0, 0, *grown))
    canvas = adopt_colours(surroundings, surroundings[source.slices], picture)
    canvas[source.slices] = picture
    return OutpaintCanvas(
        geometry,
        canvas,
        keep_rectangle_mask(geometry, 2 * mask_blur),
        keep_rectangle_mask(geometry, mask_blur // 2),
        2 * mask_blur,
    )
