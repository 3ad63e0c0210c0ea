"""The masked content "fill": the masked area takes the colours of what lies around it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from .pictures import Mask, Picture, mask_to_bytes, require_mask, require_picture, size_of, to_pillow

FILL_PYRAMID = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""Blur radius in pixels and number of layers, wide first; the web UI's values."""


def fill(picture: Picture, mask: Mask) -> Picture:
    """The uint8 HxWx3 picture with its masked pixels replaced by blurred copies of the unmasked ones.

    Copies blurred ever less (premultiplied, masked pixels transparent) are laid over each other: the web UI's rule,
    measured. Pixels where the mask is 0 return exactly; a picture masked all over turns black.
    """
    require_picture(picture, channels=(3,))
    require_mask(mask, size=size_of(picture))
    opacity = np.uint8(255) - mask_to_bytes(mask)
    known = to_pillow(np.dstack([picture, opacity])).convert("RGBa")
    filled = Image.new("RGBA", known.size)
    for radius, layers in FILL_PYRAMID:
        layer = (known.filter(ImageFilter.GaussianBlur(radius)) if radius else known).convert("RGBA")
        for _ in range(layers):
            filled.alpha_composite(layer)
    result = np.array(filled.convert("RGB"), dtype=np.uint8)
    untouched = opacity == 255
    result[untouched] = picture[untouched]
    return result
