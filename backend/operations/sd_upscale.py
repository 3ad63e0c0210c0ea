"""A picture enlarged by an upscaler, and its details drawn anew by the model, as much as fits it at a time."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..errors import InvalidRequest
from ..imaging.colour import correct_colours
from ..imaging.pictures import MAX_SIDE, flatten, size_of
from ..imaging.tiles import plan_tiles
from ..models.load import choose_device
from ..models.model import Model
from ..models.upscalers import require_possible, upscale_to
from ..request import Array, Request
from ..settings import SDUpscale
from ..settings.upscale import NO_UPSCALER
from .noise import single
from .plan import Size, plan_size
from .redrawing import Tiling, redraw
from .run import Output, Picture, Run

STOPPED = "The picture so far is kept; where no tile was drawn yet, it is enlarged alone."
MOST_PIXELS = 64_000_000  # more takes gigabytes of memory, and hours


def sd_upscale(request: Request, run: Run) -> Output:
    """Return the picture enlarged, its details drawn anew; what can't be made is said before anything is computed.

    The result has int(side·scale) pixels a side. A denoising strength of 0 gives what the upscaler makes.
    """
    settings = request.settings
    assert isinstance(settings, SDUpscale)
    source = request.images["init"]
    size = enlarged_size(settings, *size_of(source))
    plan_tiles(*size, settings.width, settings.height, settings.overlap)  # raises what is wrong with them
    device = choose_device(run.models.options.device)
    require_possible(size_of(source), size, settings.upscaler, settings.upscaler_file, device)
    repainted = settings.denoising_strength > 0
    model = run.model(settings) if repainted else None
    with run.part(0, 1 + repainted * settings.batch_count):
        run.say("Enlarging")
        enlarged = upscale_to(
            source,
            size,
            settings.upscaler,
            file=settings.upscaler_file,
            should_stop=run.is_cancelled,
            progress=run.share,
            device=device,
        )
    flat = flatten(enlarged, settings.background_colour)
    if model is None:
        return Output([_finish(flat, enlarged, settings)])
    tiling = plan_tiling(settings, model)
    at_once = settings.batch_size if settings.method == "tiles" else 1
    model.prepare(*size_of(flat), at_once, window=tiling.tile.width * tiling.tile.height)
    pictures: list[Picture] = []
    for index in range(settings.batch_count):
        # The batch size stays: the tiles' seeds hang on it.
        alone = dataclasses.replace(settings, **{**single(settings, index), "batch_size": settings.batch_size})
        with run.part(index + 1, settings.batch_count + 1, f"Picture {index + 1} of {settings.batch_count}"):

            def keep(pixels: Array, alone: SDUpscale = alone) -> None:
                run.keeper.keep_instead([*pictures, _finish(pixels, enlarged, alone)], STOPPED)

            pixels = redraw(flat, alone, tiling, alone.method, model, run, keep=keep)
        if settings.colour_correction:
            pixels = correct_colours(pixels, flat)
        pictures.append(run.keep(_finish(pixels, enlarged, alone)))
    return Output(pictures, notice=_notice(settings, tiling))


def enlarged_size(settings: SDUpscale, width: int, height: int) -> tuple[int, int]:
    """Return the size that a picture of width×height becomes; raises InvalidRequest for one that is too large."""
    if settings.upscaler != NO_UPSCALER:
        width, height = (max(1, int(side * settings.scale)) for side in (width, height))
    if max(width, height) > MAX_SIDE or width * height > MOST_PIXELS:
        raise InvalidRequest(
            f"SD Upscale would make {width}×{height} pixels; it makes at most {MAX_SIDE} a side and "
            f"{MOST_PIXELS // 1_000_000} million in all.",
            "Choose a smaller scale factor, or a smaller picture.",
        )
    return width, height


def plan_tiling(settings: SDUpscale, model: Model) -> Tiling:
    """Return the tiles set, or smaller ones where those are too large for the model to be at its best."""
    best = plan_size(settings.width, settings.height, model.native, model.family.side_step)
    if best.width * best.height < settings.width * settings.height:
        tile = best
    else:
        step = model.scale_factor
        tile = Size(settings.width // step * step, settings.height // step * step)
    return Tiling(tile, min(settings.overlap, tile.width // 2, tile.height // 2))


def _notice(settings: SDUpscale, tiling: Tiling) -> str:
    """Return the sentence that says that other tiles were used than those set, "" where they weren't."""
    width, height = tiling.tile
    if (width, height) == (settings.width, settings.height):
        return ""
    return f"Tiles of {width}×{height} pixels were used: the model is at its best there."


def _finish(pixels: Array, enlarged: Array, settings: SDUpscale) -> Picture:
    """Return a finished picture, with the transparency of the enlarged one where that is kept."""
    if settings.keep_alpha and enlarged.shape[2] == 4:
        pixels = np.dstack([pixels, enlarged[..., 3]])
    return Picture(pixels, settings)
