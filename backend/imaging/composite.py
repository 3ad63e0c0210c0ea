"""Laying what was generated over the source, so that not one byte changes where nothing was to be repainted."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidRequest
from .masks import mix
from .pictures import Mask, Picture, mask_to_bytes, require_mask, require_picture, size_of
from .regions import Region, crop, require_region
from .resize import resize


def composite_whole_picture(result: Picture, source: Picture, overlay: Mask) -> Picture:
    """The generated picture with the source over it by 1 - overlay; uint8 HxWx3, all of one size.

    `source` is the prepared picture (after the resize mode) and `overlay` the overlay mask. Where the overlay is 0 the
    result equals the source byte for byte, where it is 1 the generated picture.
    """
    require_picture(result, "generated picture", (3,))
    require_picture(source, "source", (3,))
    require_mask(overlay, "overlay mask", size_of(source))
    if size_of(result) != size_of(source):
        raise InvalidRequest("The generated picture is not the size of the source.", "Resize one to the other.")
    return mix(result, source, mask_to_bytes(overlay))


def composite_only_masked(result: Picture, source: Picture, overlay: Mask, region: Region) -> Picture:
    """The generated region, cropped and resized into its place in the source, by the overlay mask of the source's size.

    Returns uint8 HxWx3 of the source's size, whatever size was generated, byte-equal where the overlay is 0 and
    outside the region.
    """
    require_picture(result, "generated picture", (3,))
    require_picture(source, "source", (3,))
    require_mask(overlay, "overlay mask", size_of(source))
    require_region(region, *size_of(source))
    placed = resize(result, region.width, region.height, "crop_and_resize")
    finished = source.copy()
    finished[region.slices] = mix(placed, crop(source, region), mask_to_bytes(crop(overlay, region)))
    return finished


def masked_composite(result: Picture, overlay: Mask) -> Picture:
    """The generated picture as uint8 HxWx4 with the overlay mask as its straight alpha (the extra output)."""
    require_picture(result, "generated picture", (3,))
    require_mask(overlay, "overlay mask", size_of(result))
    return np.dstack([result, mask_to_bytes(overlay)])
