"""A masked part of a picture painted anew; the pixels outside the mask stay what they were, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InvalidRequest
from ..imaging import masks
from ..imaging.composite import composite_only_masked, composite_whole_picture
from ..imaging.framing import Surroundings, side_by_side
from ..imaging.pictures import Mask, flatten
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
    canvas = img2img.lay_out(source, settings)
    blurred = img2img.lay_out(masks.blur(mask, *settings.blurs), settings)
    picture = flatten(canvas, settings.background_colour)
    if settings.denoising_strength == 0:
        return [keep(img2img.unpainted(picture, canvas, settings))]
    unscaled = flatten(source, settings.background_colour) if settings.resize_mode == "latent" else None
    overlay = masks.overlay_mask(blurred)

    def finish(one: Painted[Inpaint]) -> Picture:
        pixels = composite_whole_picture(one.pixels, picture, overlay if one.overlay is None else one.overlay)
        return keep(img2img.finish(pixels, canvas, one.settings))

    return paint(Canvas(picture, blurred, settings.masked_content, unscaled=unscaled), settings, run, finish)


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
    part = resize(crop(picture, region), width, height, "resize_and_fill")
    part_mask = resize(crop(blurred, region), width, height, "resize_and_fill")

    def finish(one: Painted[Inpaint]) -> Picture:
        overlay = blurred if one.overlay is None else laid_back(one.overlay, blurred, region)
        pixels = composite_only_masked(one.pixels, picture, overlay, region)
        return keep(img2img.finish(pixels, source, one.settings))

    whole = Surroundings(picture)
    with run.framed(lambda parts: side_by_side([whole.with_parts([part], [region]) for part in parts])):
        return paint(Canvas(part, part_mask, settings.masked_content), settings, run, finish)
