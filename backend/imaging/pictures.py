"""The picture and mask arrays of the whole backend: what they are, how they are checked, loaded and flattened."""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest

if TYPE_CHECKING:  # imported where it is used: Blender's Python has no Pillow
    from PIL import Image

Picture: TypeAlias = NDArray[np.uint8]
"""uint8 HxWx3 sRGB, or HxWx4 with straight alpha, top row first."""

Mask: TypeAlias = NDArray[np.float32]
"""float32 HxW in 0-1, where 1 is repainted, top row first."""

Bytes2D: TypeAlias = NDArray[np.uint8]
"""uint8 HxW, the form in which the web UI keeps a mask."""

MAX_SIDE = 16384
"""Longest side of a picture in pixels; a picture of 16384² already takes 0.8 GB."""

DEEP_GREYS = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes of 16-bit grey, which its own conversion would clip at 255."""


def require_size(width: int, height: int, what: str = "picture") -> None:
    """Raise InvalidRequest unless both sides are whole numbers from 1 to MAX_SIDE."""
    for side in (width, height):
        if isinstance(side, bool) or not isinstance(side, int | np.integer):
            raise InvalidRequest(f"The {what}'s size {side!r} is not a whole number of pixels.", "Give whole numbers.")
        if not 1 <= side <= MAX_SIDE:
            raise InvalidRequest(
                f"A {what} of {width}x{height} pixels can't be made.",
                f"Choose a width and height from 1 to {MAX_SIDE}.",
            )


def require_picture(picture: object, what: str = "picture", channels: Collection[int] = (3, 4)) -> None:
    """Raise InvalidRequest unless this is a uint8 HxWxC array of a possible size with one of these channel counts."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3:
        raise InvalidRequest(f"The {what} is not an 8-bit colour picture.", "Give a uint8 array of HxWx3 or HxWx4.")
    if picture.shape[2] not in channels:
        wanted = " or ".join(str(count) for count in sorted(channels))
        raise InvalidRequest(f"The {what} has {picture.shape[2]} channels where {wanted} belong.", "Flatten its alpha.")
    require_size(picture.shape[1], picture.shape[0], what)


def require_mask(mask: object, what: str = "mask", size: tuple[int, int] | None = None) -> None:
    """Raise InvalidRequest unless this is a float32 HxW array in 0-1, of `size` (width, height) if one is given."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.float32 or mask.ndim != 2:
        raise InvalidRequest(f"The {what} is not a mask.", "Give a float32 array of HxW with values from 0 to 1.")
    require_size(mask.shape[1], mask.shape[0], what)
    if not bool(np.isfinite(mask).all()):
        raise InvalidRequest(f"The {what} holds values that are not numbers.", "Draw or render the mask again.")
    if float(mask.min()) < -1e-6 or float(mask.max()) > 1 + 1e-6:
        raise InvalidRequest(f"The {what} holds values outside 0 to 1.", "Divide a mask of bytes by 255.")
    if size is not None and (mask.shape[1], mask.shape[0]) != size:
        raise InvalidRequest(
            f"The {what} is {mask.shape[1]}x{mask.shape[0]} pixels but its picture is {size[0]}x{size[1]}.",
            "Resize the mask to the picture.",
        )


def size_of(array: Picture | Mask) -> tuple[int, int]:
    """Width and height of a picture or mask."""
    return int(array.shape[1]), int(array.shape[0])


def mask_to_bytes(mask: Mask) -> Bytes2D:
    """A 0-1 mask as uint8 HxW in 0-255, rounded."""
    values: Bytes2D = np.rint(np.clip(mask, 0.0, 1.0) * np.float32(255)).astype(np.uint8)
    return values


def mask_from_bytes(values: Bytes2D) -> Mask:
    """uint8 HxW in 0-255 as a 0-1 mask; `mask_to_bytes` gives the same bytes back."""
    return values.astype(np.float32) / np.float32(255)


def to_pillow(array: Picture | Bytes2D) -> Image.Image:
    """A Pillow image of mode L, RGB or RGBA from a uint8 array."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(array))


def from_pillow(image: Image.Image) -> Picture:
    """A uint8 HxWx3 or HxWx4 picture from any Pillow image; transparency of every kind becomes straight alpha."""
    if image.mode in DEEP_GREYS:
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return np.repeat(np.rint(grey / 257).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        levels = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0)
        return np.repeat(mask_to_bytes(levels)[:, :, None], 3, axis=2)
    has_alpha = image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info
    return np.array(image.convert("RGBA" if has_alpha else "RGB"), dtype=np.uint8)


def load(source: Path | str | bytes) -> Picture:
    """Read an image file (path, or the file's bytes) as uint8 sRGB HxWx3, or HxWx4 where it has alpha.

    The EXIF orientation is applied, as the web UI does. Raises InvalidRequest when it can't be read.
    """
    from PIL import Image, ImageOps

    name = "The picture" if isinstance(source, bytes) else f"The picture “{Path(source).name}”"
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            image = ImageOps.exif_transpose(opened)
            picture = from_pillow(image)
    except FileNotFoundError as error:
        raise InvalidRequest(f"{name} does not exist.", "Choose another file.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidRequest(f"{name} can't be read as an image.", "Choose a PNG, JPEG, WebP or TIFF file.") from error
    require_picture(picture)
    return picture


def parse_colour(colour: str | tuple[int, int, int]) -> tuple[int, int, int]:
    """Red, green and blue in 0-255 from "#rrggbb" or from such a triple; anything else raises InvalidRequest."""
    if isinstance(colour, str):
        if re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
            return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
    elif len(colour) == 3 and all(0 <= value <= 255 for value in colour):
        return int(colour[0]), int(colour[1]), int(colour[2])
    raise InvalidRequest(f"{colour!r} is not a colour.", "Write it like #ffffff.")


def flatten(picture: Picture, background: str | tuple[int, int, int] = "#ffffff") -> Picture:
    """A uint8 HxWx3 copy with the straight alpha, if any, laid over a background colour (white, as in the web UI)."""
    require_picture(picture)
    colour = parse_colour(background)
    if picture.shape[2] == 3:
        return picture.copy()
    alpha = picture[:, :, 3:].astype(np.uint32)
    under = np.array(colour, dtype=np.uint32)
    blended = (picture[:, :, :3] * alpha + under * (255 - alpha) + 127) // 255
    return blended.astype(np.uint8)
