"""A masked part of a picture painted anew; the pixels outside the mask stay what they were, byte for byte."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from ..errors import InvalidRequest
from ..imaging import masks
from ..imaging.composite import composite_only_masked, composite_whole_picture, masked_composite
from ..imaging.framing import Surroundings, side_by_side
from ..imaging.pictures import Mask, flatten, mask_to_bytes
from ..imaging.regions import crop, masked_region
from ..imaging.resize import resize
from ..request import Array, Request
from ..settings import Img2Img, Inpaint
from . import img2img
from .img2img import Keep
from .painting import Canvas, Painted, paint
from .run import Output, Picture, Run
from .soft import laid_back

BLANK_MASK = ("The mask is blank: nothing would be repainted.", "Select an object or paint a mask.")


def inpaint(request: Request, run: Run) -> Output:
    """Return the picture with its masked part repainted."""
    settings = request.settings
    assert isinstance(settings, Inpaint)
    return Output(repaint_masked(settings, request.images, run, run.keep))


def repaint(settings: Img2Img, images: Mapping[str, Array], run: Run, keep: Keep) -> list[Picture]:
    """Return the picture repainted: its masked part where there is a mask, else all of it."""
    if isinstance(settings, Inpaint) and "mask" in images:
        return repaint_masked(settings, images, run, keep)
    return img2img.repaint(settings, images, run, keep)


def repaint_masked(settings: Inpaint, images: Mapping[str, Array], run: Run, keep: Keep) -> list[Picture]:
    """Return the picture with its masked part repainted, all of its batches.

    Raises InvalidRequest for a blank mask: repainting nothing is a mistake to hear of, not a picture to wait for.
    """
    source, mask = images["init"], images["mask"]
    if settings.mask_mode == "not_masked":
        mask = masks.invert(mask)
    if masks.is_blank(mask):
        raise InvalidRequest(*BLANK_MASK)
    settings = img2img.sized(settings, source)  # type: ignore[assignment] # of the same class
    if settings.inpaint_area == "only_masked":
        return _only_masked(source, mask, settings, run, keep)
    return _whole_picture(source, mask, settings, run, keep)


def _whole_picture(source: Array, mask: Mask, settings: Inpaint, run: Run, keep: Keep) -> list[Picture]:
    """Return repainted pictures at the size set."""
    canvas = img2img.lay_out(source, settings, img2img.enlarger(settings, run))
    blurred = img2img.lay_out(masks.blur(mask, *settings.blurs), settings)
    picture = flatten(canvas, settings.background_colour)
    if settings.denoising_strength == 0:
        return [keep(img2img.unpainted(picture, canvas, settings))]
    unscaled = flatten(source, settings.background_colour) if settings.resize_mode == "latent" else None
    overlay = masks.overlay_mask(blurred)

    def finish(one: Painted[Inpaint]) -> list[Picture]:
        seen = overlay if one.overlay is None else one.overlay
        pixels = composite_whole_picture(one.pixels, picture, seen)
        extras = mask_pictures(pixels, seen, one.settings)
        return [*map(keep, extras), keep(img2img.finish(pixels, canvas, one.settings))]

    painted = paint(Canvas(picture, blurred, settings.masked_content, unscaled=unscaled), settings, run, finish)
    return list(itertools.chain(*painted))


def _only_masked(source: Array, mask: Mask, settings: Inpaint, run: Run, keep: Keep) -> list[Picture]:
    """Return the source with its masked part processed at the size set and pasted back."""
    picture = flatten(source, settings.background_colour)
    if settings.denoising_strength == 0:
        return [keep(img2img.unpainted(picture, source, settings))]
    blurred = masks.blur(mask, *settings.blurs)
    region = masked_region(blurred, settings.only_masked_padding, settings.width, settings.height)
    if region is None:
        raise InvalidRequest(*BLANK_MASK)
    width, height = settings.width, settings.height
    enlarge = img2img.enlarger(settings, run)
    part = resize(crop(picture, region), width, height, "resize_and_fill", enlarge=enlarge)
    part_mask = resize(crop(blurred, region), width, height, "resize_and_fill")

    def finish(one: Painted[Inpaint]) -> list[Picture]:
        overlay = blurred if one.overlay is None else laid_back(one.overlay, blurred, region)
        pixels = composite_only_masked(one.pixels, picture, overlay, region)
        extras = mask_pictures(pixels, overlay, one.settings)
        return [*map(keep, extras), keep(img2img.finish(pixels, source, one.settings))]

    whole = Surroundings(picture)
    with run.framed(lambda parts: side_by_side([whole.with_parts([part], [region]) for part in parts])):
        painted = paint(Canvas(part, part_mask, settings.masked_content), settings, run, finish)
    return list(itertools.chain(*painted))


def mask_pictures(pixels: Array, overlay: Mask, settings: Inpaint) -> list[Picture]:
    """Return the extra pictures that are wanted of a result (uint8 H×W×3): its mask, and what the mask shows of it."""
    pictures = []
    if settings.return_mask:
        pictures.append(Picture(np.repeat(mask_to_bytes(overlay)[..., None], 3, axis=2), settings, name="mask"))
    if settings.return_mask_composite:
        pictures.append(Picture(masked_composite(pixels, overlay), settings, name="masked composite"))
    return pictures
