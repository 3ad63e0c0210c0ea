"""Rectangles of a picture: the box around a mask, its padding, and its growth to the shape that is generated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest
from .pictures import Mask, mask_to_bytes, require_mask, require_size

Array = TypeVar("Array", bound="NDArray[np.uint8] | NDArray[np.float32]")


@dataclass(frozen=True)
class Region:
    """A rectangle in pixels from the top left corner; the far edges x2 and y2 are not part of it."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def width(self) -> int:
        return self.x2 - self.x1

    @property
    def height(self) -> int:
        return self.y2 - self.y1

    @property
    def slices(self) -> tuple[slice, slice]:
        """The index that cuts this region out of an HxW or HxWxC array."""
        return slice(self.y1, self.y2), slice(self.x1, self.x2)

    def as_tuple(self) -> tuple[int, int, int, int]:
        return self.x1, self.y1, self.x2, self.y2

    def contains(self, other: Region) -> bool:
        """Whether the other region lies wholly inside this one."""
        return self.x1 <= other.x1 and self.y1 <= other.y1 and other.x2 <= self.x2 and other.y2 <= self.y2


def require_region(region: Region, width: int, height: int) -> None:
    """Raise InvalidRequest unless the region has an area and lies inside a picture of this size."""
    if not (0 <= region.x1 < region.x2 <= width and 0 <= region.y1 < region.y2 <= height):
        raise InvalidRequest(
            f"The region {region.as_tuple()} does not lie in a picture of {width}x{height} pixels.",
            "Give its left, top, right and bottom edge in pixels.",
        )


def crop(array: Array, region: Region) -> Array:
    """A copy of the part of a picture or mask that lies in the region."""
    require_region(region, int(array.shape[1]), int(array.shape[0]))
    cut = array[region.slices].copy()
    return cut  # type: ignore[return-value]


def bounding_box(mask: Mask) -> Region | None:
    """The smallest region with every pixel of the mask that is above zero in 8 bits; None where the mask is blank."""
    require_mask(mask)
    painted = mask_to_bytes(mask) > 0
    columns = np.flatnonzero(painted.any(axis=0))
    rows = np.flatnonzero(painted.any(axis=1))
    if columns.size == 0:
        return None
    return Region(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def pad(region: Region, padding: int, width: int, height: int) -> Region:
    """The region grown by `padding` pixels on every side and clamped to a picture of this size."""
    require_size(width, height)
    require_region(region, width, height)
    if padding < 0:
        raise InvalidRequest(f"A padding of {padding} pixels is below zero.", "Choose a padding from 0 to 256.")
    return Region(
        max(region.x1 - padding, 0),
        max(region.y1 - padding, 0),
        min(region.x2 + padding, width),
        min(region.y2 + padding, height),
    )


def _grow(near: int, far: int, extra: int, limit: int) -> tuple[int, int]:
    """Grow an interval by `extra`, half before it, then slide it back into 0-limit and cut what still sticks out."""
    near -= extra // 2
    far += extra - extra // 2
    if far > limit:
        near, far = near - (far - limit), limit
    if near < 0:
        near, far = 0, far - near
    return near, min(far, limit)


def expand_to_aspect(region: Region, target_width: int, target_height: int, width: int, height: int) -> Region:
    """The region grown in one direction towards the aspect ratio of the target, inside a picture of widthxheight.

    The web UI's rule, measured: the growth is cut to whole pixels, half goes before, the region slides where it would
    leave the picture, and where the picture is too small the ratio is not met.
    """
    require_size(target_width, target_height, "target")
    require_size(width, height)
    require_region(region, width, height)
    # Whole-number forms of int(region width / ratio - region height) and its mirror, free of float error.
    wide = region.width * target_height
    tall = region.height * target_width
    x1, y1, x2, y2 = region.as_tuple()
    if wide > tall:
        y1, y2 = _grow(y1, y2, (wide - tall) // target_width, height)
    else:
        x1, x2 = _grow(x1, x2, (tall - wide) // target_height, width)
    return Region(x1, y1, x2, y2)


def masked_region(
    mask: Mask, padding: int, target_width: int, target_height: int, *, expand: bool = True
) -> Region | None:
    """The region that "Only masked" generates: box of the (blurred) mask, padded, grown to the target's aspect.

    None for a blank mask, where the web UI goes on as plain img2img.
    """
    box = bounding_box(mask)
    if box is None:
        return None
    height, width = mask.shape
    padded = pad(box, padding, width, height)
    return expand_to_aspect(padded, target_width, target_height, width, height) if expand else padded
