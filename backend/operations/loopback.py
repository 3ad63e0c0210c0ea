"""Loopback: each result is the next loop's input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ..errors import InvalidRequest
from ..imaging import masks
from ..imaging.colour import correct_colours
from ..imaging.composite import composite_only_masked, composite_whole_picture
from ..imaging.curves import loopback_strengths
from ..imaging.grid import image_grid
from ..imaging.pictures import flatten
from ..imaging.regions import crop, masked_region
from ..imaging.resize import Enlarge
from ..request import Array, Request
from ..settings import Img2Img, Inpaint, Loopback
from .cells import plain_settings
from .img2img import enlarger, lay_out, sized
from .inpaint import repaint
from .noise import SEEDS
from .run import Output, Picture, Run


def loopback(request: Request, run: Run) -> Output:
    """Return every loop's picture after a grid of them all in one row; of several batches, the last of each.

    Each batch starts from the input again and takes the seeds on from the one before.
    """
    settings = request.settings
    assert isinstance(settings, Loopback)
    base = sized(plain_settings(settings, request.images), request.images["init"])
    base = dataclasses.replace(base, batch_count=1, batch_size=1)
    last = []
    for batch in range(settings.batch_count):
        with run.part(batch, settings.batch_count, f"Batch {batch + 1} of {settings.batch_count}"):
            seed = (base.seed + batch * settings.loops) % SEEDS
            pictures = _batch(settings, dataclasses.replace(base, seed=seed), request.images, run)
            alone = dataclasses.replace(settings, seed=seed, batch_count=1, batch_size=1)
            last.append(dataclasses.replace(pictures[-1], settings=alone))
        if settings.batch_count > 1:
            run.keeper.keep_instead(last, "")
    if len(last) > 1:
        return Output(last)
    if len(pictures) == 1:
        return Output(pictures)
    try:
        grid = Picture(image_grid([picture.pixels for picture in pictures], 1), settings)
    except InvalidRequest as error:  # too many pixels in all: no reason to lose the loops themselves
        return Output(pictures, notice=f"The loops are given without a grid of them. {error.sentence}")
    return Output([grid, *pictures])


def _batch(settings: Loopback, base: Img2Img, images: Mapping[str, Array], run: Run) -> list[Picture]:
    """Return the pictures of one batch, a loop each."""
    first = images["init"]
    strengths = loopback_strengths(
        base.denoising_strength,
        settings.final_denoising_strength,
        settings.loops,
        settings.denoising_curve,  # type: ignore[arg-type] # checked to be one
    )
    pictures: list[Picture] = []
    for loop, strength in enumerate(strengths):
        with run.part(loop, settings.loops, f"Loop {loop + 1} of {settings.loops}"):
            chosen = dataclasses.replace(base, seed=(base.seed + loop) % SEEDS, denoising_strength=strength)
            if loop > 0:
                chosen = _from_last(chosen)
            if settings.append_interrogation:
                with run.part(0, 2):
                    chosen = dataclasses.replace(chosen, prompt=_with_reading(base.prompt, images["init"], run))
            with run.part(int(settings.append_interrogation), 1 + settings.append_interrogation):
                # Colours are always those of the first input, not of the loop's own.
                inner = chosen if loop == 0 else dataclasses.replace(chosen, colour_correction=False)
                pixels = repaint(inner, images, run, lambda picture: picture)[-1].pixels
        if chosen.colour_correction and loop > 0 and strength > 0:
            pixels = _recoloured(pixels, first, images, chosen, enlarger(chosen, run))
        if loop == 0 and "mask" in images and pixels.shape[:2] != first.shape[:2]:
            images = {**images, "mask": lay_out(images["mask"], base)}
        # Laid on its background once, or half transparent edges would fade into it loop by loop.
        images = {**images, "init": pixels[..., :3]}
        if loop > 0 and pictures[0].pixels.shape[2] == 4:
            pixels = np.dstack([pixels, pictures[0].pixels[..., 3]])
        pictures.append(run.keep(Picture(pixels, chosen)))
    return pictures


def _from_last(settings: Img2Img) -> Img2Img:
    """Return the settings of a loop whose input is the last one's result: there is nothing to fill any more."""
    if isinstance(settings, Inpaint):
        return dataclasses.replace(settings, masked_content="original")
    return settings


def _with_reading(prompt: str, picture: Array, run: Run) -> str:
    """Return the prompt, and after it what the picture shows."""
    from ..settings.interrogate import Interrogate
    from .interrogate import interrogate

    text = interrogate(Request(Interrogate(), {"init": picture}), run).text
    return ", ".join(part for part in (prompt.strip(), text) if part)


def _recoloured(
    pixels: Array, first: Array, images: Mapping[str, Array], settings: Img2Img, enlarge: Enlarge | None
) -> Array:
    """Return a loop's picture (uint8 H×W×3) in the first input's colours, as far as the mask reaches."""
    if not isinstance(settings, Inpaint) or "mask" not in images:
        return correct_colours(pixels, flatten(lay_out(first, settings, enlarge), settings.background_colour))
    mask = masks.invert(images["mask"]) if settings.mask_mode == "not_masked" else images["mask"]
    blurred = masks.blur(mask, *settings.blurs)
    if settings.inpaint_area == "whole_picture":
        target = flatten(lay_out(first, settings, enlarge), settings.background_colour)
        return composite_whole_picture(correct_colours(pixels, target), pixels, masks.overlay_mask(blurred))
    region = masked_region(blurred, settings.only_masked_padding, settings.width, settings.height)
    assert region is not None  # or there would be no picture
    target = crop(flatten(first, settings.background_colour), region)
    return composite_only_masked(correct_colours(crop(pixels, region), target), pixels, blurred, region)
