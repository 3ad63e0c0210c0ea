"""The resize modes of img2img: just resize, crop and resize, resize and fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InvalidRequest
from .pictures import (
    Mask,
    Picture,
    mask_from_bytes,
    mask_to_bytes,
    require_mask,
    require_picture,
    require_size,
    size_of,
)

ResizeMode: TypeAlias = Literal["just_resize", "crop_and_resize", "resize_and_fill", "latent"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("just_resize", "crop_and_resize", "resize_and_fill", "latent")

Enlarge: TypeAlias = Callable[[Picture, float], Picture]
"""An upscaler: (uint8 picture, factor) → uint8 picture of about that factor; LANCZOS takes it to the exact size."""

Array = TypeVar("Array", NDArray[np.uint8], NDArray[np.float32])


@dataclass(frozen=True)
class Fit:
    """Where a scaled picture lies on its target: its size, and its top left corner (negative where it is cropped)."""

    width: int
    height: int
    x: int
    y: int


def _require_mode(mode: str) -> None:
    if mode not in RESIZE_MODES:
        raise InvalidRequest(f"“{mode}” is not a resize mode.", f"Choose one of {', '.join(RESIZE_MODES)}.")


def fit(source_width: int, source_height: int, width: int, height: int, mode: str) -> Fit:
    """The scaled size and place of a source on a target of widthxheight pixels, by the web UI's whole-number rule.

    "crop_and_resize" covers the target, "resize_and_fill" lies within it, the others are stretched to it.
    Raises InvalidRequest for an unknown mode or an impossible size.
    """
    _require_mode(mode)
    require_size(source_width, source_height, "source")
    require_size(width, height, "target")
    if mode in ("just_resize", "latent"):
        return Fit(width, height, 0, 0)
    target_is_wider = width * source_height > source_width * height
    target_is_narrower = width * source_height < source_width * height
    keeps_width = target_is_wider if mode == "crop_and_resize" else target_is_narrower
    if keeps_width:
        scaled_width, scaled_height = width, source_height * width // source_width
    else:
        scaled_width, scaled_height = source_width * height // source_height, height
    # A hair-thin source would vanish; one pixel of it stays.
    scaled_width, scaled_height = max(scaled_width, 1), max(scaled_height, 1)
    return Fit(scaled_width, scaled_height, width // 2 - scaled_width // 2, height // 2 - scaled_height // 2)


def scale_size(width: int, height: int, factor: float) -> tuple[int, int]:
    """The size that "Resize by" asks for: int(width·factor), int(height·factor); factor 0.05-4 in the web UI."""
    require_size(width, height)
    if not (np.isfinite(factor) and factor > 0):
        raise InvalidRequest(f"A picture can't be resized by {factor}.", "Choose a factor from 0.05 to 4.")
    scaled = int(width * factor), int(height * factor)
    require_size(*scaled)
    return scaled


def stretch(picture: Picture, width: int, height: int, enlarge: Enlarge | None = None) -> Picture:
    """A uint8 picture (3 or 4 channels) stretched to exactly widthxheight with LANCZOS.

    Colours are weighted by their alpha, so that what lies under transparent pixels never bleeds.
    An upscaler given as `enlarge` goes first, only where the picture grows.
    """
    require_picture(picture)
    require_size(width, height, "target")
    if size_of(picture) == (width, height):
        return picture.copy()
    factor = max(width / picture.shape[1], height / picture.shape[0])
    if enlarge is not None and factor > 1:
        picture = enlarge(picture, factor)
    if size_of(picture) == (width, height):
        return picture
    if picture.shape[2] == 4:
        return _stretch_with_alpha(picture, width, height)
    return _stretch_bytes(picture, width, height)


def _stretch_with_alpha(picture: Picture, width: int, height: int) -> Picture:
    """Resize premultiplied in floating point: in 8 bits LANCZOS would overshoot in colour but not in alpha."""
    if bool((picture[:, :, 3] == 255).all()):
        return np.dstack([_stretch_bytes(picture[:, :, :3], width, height), np.full((height, width), 255, np.uint8)])

    def lanczos(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
        return np.array(image.resize((width, height), Image.Resampling.LANCZOS), dtype=np.float32)

    opacity = picture[:, :, 3].astype(np.float32) / np.float32(255)
    alpha = lanczos(opacity)
    # Below a thousandth a pixel rounds to transparent, and dividing by it would only raise noise.
    visible = alpha > 1e-3
    scaled = np.zeros((height, width, 4), dtype=np.float32)
    for channel in range(3):
        colour = lanczos(picture[:, :, channel] * opacity)
        scaled[:, :, channel] = np.divide(colour, alpha, out=np.zeros_like(colour), where=visible)
    scaled[:, :, 3] = alpha * 255
    result: Picture = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return result


def _stretch_bytes(values: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    image = Image.fromarray(np.ascontiguousarray(values))
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS), dtype=np.uint8)


def _place(scaled: NDArray[np.uint8], placed: Fit, width: int, height: int) -> NDArray[np.uint8]:
    """Cut a scaled picture that covers the target, or draw its outermost rows and columns out over the bars."""
    columns = np.clip(np.arange(width) - placed.x, 0, placed.width - 1)
    rows = np.clip(np.arange(height) - placed.y, 0, placed.height - 1)
    placed_on_target: NDArray[np.uint8] = scaled[rows[:, None], columns[None, :]]
    return placed_on_target


def resize(
    image_or_mask: Array, width: int, height: int, mode: str = "just_resize", *, enlarge: Enlarge | None = None
) -> Array:
    """A picture (uint8 HxWx3 or 4) or mask (float32 HxW) at widthxheight by one of the web UI's resize modes.

    "resize_and_fill" stretches the outermost row or column over the bars, and ours also over the last row or column of
    an odd target, which the web UI leaves black. A mask is resized in 8 bits, as there. "latent" is the latent's own
    resize: a mask is just resized for it, a picture raises InvalidRequest, as do unknown modes and impossible sizes.
    `enlarge` is the configured upscaler; it serves pictures only.
    """
    _require_mode(mode)
    require_size(width, height, "target")
    if image_or_mask.ndim == 2:
        require_mask(image_or_mask)
        mask: Mask = image_or_mask.astype(np.float32, copy=False)
        placed = fit(*size_of(mask), width, height, mode)
        scaled = _stretch_bytes(mask_to_bytes(mask), placed.width, placed.height)
        return mask_from_bytes(_place(scaled, placed, width, height))  # type: ignore[return-value]
    require_picture(image_or_mask)
    if mode == "latent":
        raise InvalidRequest(
            "The resize mode “latent” has no picture to show: it resizes what the model sees.",
            "Encode the picture at its own size, then resize the latent.",
        )
    picture: Picture = image_or_mask.astype(np.uint8, copy=False)
    placed = fit(*size_of(picture), width, height, mode)
    scaled = stretch(picture, placed.width, placed.height, enlarge)
    return _place(scaled, placed, width, height)  # type: ignore[return-value]
