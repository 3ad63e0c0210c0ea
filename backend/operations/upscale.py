"""A picture enlarged by one upscaler, or by two of them blended: the web UI's Extras tab."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidRequest
from ..imaging.pictures import MAX_SIDE, size_of
from ..imaging.resize import fit
from ..models.load import choose_device
from ..models.upscalers import SIDE_STEP, require_possible, target_size, upscale_to
from ..request import Array, Request
from ..settings import Upscale
from ..settings.upscale import NO_UPSCALER
from .parameters import SOURCE
from .run import Output, Picture, Run

BAND = 256
"""Rows that are blended at once, so that a large picture's levels are not all held as floating point numbers."""


def upscale(request: Request, run: Run) -> Output:
    """Return the picture enlarged, transparency included; all that is wrong is said before anything is computed."""
    settings = request.settings
    assert isinstance(settings, Upscale)
    picture = request.images["init"]
    chosen = chosen_upscalers(settings)
    source = {SOURCE: request.infotext} if request.infotext else {}
    if not chosen:
        return Output([Picture(picture.copy(), settings, source)])
    size = enlarged_size(settings, *size_of(picture))
    device = choose_device(run.models.options.device)
    run.say("Loading the upscaler")
    for name, file in chosen:
        require_possible(size_of(picture), size, name, file, device)
    made: list[Array] = []
    for index, (name, file) in enumerate(chosen):
        with run.part(index, len(chosen), f"Upscaler {index + 1} of {len(chosen)}"):
            run.say("Enlarging")
            made.append(
                upscale_to(
                    picture, size, name, file=file, should_stop=run.is_cancelled, progress=run.share, device=device
                )
            )
    run.check()
    pixels = made[0] if len(made) == 1 else blend(made[0], made[1], settings.upscaler_2_visibility)
    if settings.resize_mode == "scale_to" and settings.crop_to_fit:
        pixels = crop_centred(pixels, settings.width, settings.height)
    return Output([Picture(pixels, settings, source)])


def chosen_upscalers(settings: Upscale) -> list[tuple[str, str]]:
    """Return name and file of the upscalers whose pictures are seen in the result: none, one or two."""
    if settings.upscaler == NO_UPSCALER:
        return []
    first, second = (settings.upscaler, settings.upscaler_file), (settings.upscaler_2, settings.upscaler_2_file)
    visibility = settings.upscaler_2_visibility
    if settings.upscaler_2 == NO_UPSCALER or visibility == 0:
        return [first]
    return [second] if visibility == 1 else [first, second]


def enlarged_size(settings: Upscale, width: int, height: int) -> tuple[int, int]:
    """Return the size that a picture of width×height is enlarged to, before what lies beyond is cropped.

    Scale By gives multiples of 8, no side above the limit. Scale To enlarges by the larger of both ratios, so that
    both sides are reached; ours exactly, where the web UI may miss them by up to 7 pixels. Raises InvalidRequest for
    a size that is too large.
    """
    if settings.resize_mode == "scale_by":
        longest, limit = max(width, height), settings.maximum_side
        if limit == 0 or longest * settings.scale <= limit:
            return target_size(width, height, settings.scale)
        limited = (max(side * limit // longest // SIDE_STEP * SIDE_STEP, SIDE_STEP) for side in (width, height))
        return next(limited), next(limited)
    placed = fit(width, height, settings.width, settings.height, "crop_and_resize")
    if max(placed.width, placed.height) > MAX_SIDE:
        raise InvalidRequest(
            f"Reaching {settings.width}×{settings.height} from {width}×{height} pixels would make "
            f"{placed.width}×{placed.height}, more than {MAX_SIDE} a side.",
            "Choose a smaller width and height, or crop the picture first.",
        )
    return placed.width, placed.height


def crop_centred(picture: Array, width: int, height: int) -> Array:
    """Return the middle width×height of a picture that is no smaller."""
    left, top = picture.shape[1] // 2 - width // 2, picture.shape[0] // 2 - height // 2
    return picture[top : top + height, left : left + width].copy()


def blend(first: Array, second: Array, visibility: float) -> Array:
    """Return two uint8 pictures of one shape mixed by the second's visibility (0-1), colours weighted by opacity."""
    result = np.empty_like(first)
    for top in range(0, first.shape[0], BAND):
        rows = slice(top, top + BAND)
        weights = [np.float32(1 - visibility), np.float32(visibility)]
        parts = [first[rows].astype(np.float32), second[rows].astype(np.float32)]
        mixed = parts[0] * weights[0] + parts[1] * weights[1]
        if first.shape[2] == 4:
            opacity = np.maximum(mixed[:, :, 3:], np.float32(1e-3))
            mixed[:, :, :3] = sum(
                part[:, :, :3] * part[:, :, 3:] / opacity * weight for part, weight in zip(parts, weights, strict=True)
            )
        result[rows] = np.clip(np.rint(mixed), 0, 255)
    return result
