"""A masked part of a picture painted anew; the pixels outside the mask stay what they were, byte for byte."""

from __future__ import annotations

import torch

from ..errors import InvalidRequest
from ..imaging import masks
from ..imaging.composite import composite_only_masked, composite_whole_picture
from ..imaging.fill import fill
from ..imaging.pictures import Mask, flatten
from ..imaging.regions import crop, masked_region
from ..imaging.resize import resize
from ..request import Array, Inpaint, Outpaint, Request
from .fit import fit_result
from .img2img import with_alpha_of
from .plan import plan_of, plan_size
from .run import Picture, Run
from .sampling import sample

BLANK_MASK = ("The mask is blank: nothing would be repainted.", "Select an object or paint a mask.")


def inpaint(request: Request, run: Run) -> list[Picture]:
    """Return the picture with its masked part repainted.

    Raises InvalidRequest for a blank mask: repainting nothing is a mistake to hear of, not a picture to wait for.
    """
    settings = request.settings
    assert isinstance(settings, Inpaint)
    source, mask = request.images["init"], request.images["mask"]
    if settings.mask_mode == "not_masked":
        mask = 1 - mask
    if masks.is_blank(mask):
        raise InvalidRequest(*BLANK_MASK)
    paint = only_masked if settings.inpaint_area == "only_masked" else whole_picture
    picture, canvas = paint(source, mask, settings, run)
    return [Picture(with_alpha_of(canvas, picture) if settings.keep_alpha else picture, run.seed)]


def whole_picture(source: Array, mask: Mask, settings: Inpaint, run: Run) -> tuple[Array, Array]:
    """Return the repainted picture and the canvas it lies on, both at the size set."""
    canvas = resize(source, settings.width, settings.height, settings.resize_mode)
    mask = resize(mask, settings.width, settings.height, settings.resize_mode)
    blurred = masks.blur(mask, settings.mask_blur)
    picture = flatten(canvas)
    if settings.denoising_strength == 0:
        return picture, canvas
    result = repaint_masked(picture, blurred, settings, run, content=settings.masked_content)
    return composite_whole_picture(result, picture, masks.overlay_mask(blurred)), canvas


def only_masked(source: Array, mask: Mask, settings: Inpaint, run: Run) -> tuple[Array, Array]:
    """Return the source with its masked part processed at the size set and pasted back, and the source."""
    picture = flatten(source)
    if settings.denoising_strength == 0:
        return picture, source
    blurred = masks.blur(mask, settings.mask_blur)
    region = masked_region(blurred, settings.only_masked_padding, settings.width, settings.height)
    if region is None:
        raise InvalidRequest(*BLANK_MASK)
    part, part_mask = crop(picture, region), crop(blurred, region)
    width, height = settings.width, settings.height
    small = resize(part, width, height, "resize_and_fill")
    small_mask = resize(part_mask, width, height, "resize_and_fill")
    result = repaint_masked(small, small_mask, settings, run, content=settings.masked_content)
    return composite_only_masked(result, picture, blurred, region), source


def repaint_masked(
    picture: Array,
    mask: Mask,
    settings: Inpaint | Outpaint,
    run: Run,
    *,
    content: str,
    latent_mask: Array | None = None,
) -> Array:
    """Return the picture (uint8 H×W×3) with its masked part repainted, before anything is composited.

    mask: float32 H×W, softened; content: the masked content it starts from; latent_mask: what the latents are masked
    by, where that is another one.
    """
    model = run.model(settings.model)
    height, width = picture.shape[:2]
    size = plan_size(width, height, model.native, model.scale_factor)
    small = resize(picture, size.width, size.height, "just_resize")
    small_mask = resize(mask, size.width, size.height, "just_resize")
    if content != "original":
        small = fill(small, small_mask)
    run.say("Reading the picture")
    latents = model.encode(small)
    shape = latents.shape[3], latents.shape[2]
    keep_out = masks.latent_mask(mask if latent_mask is None else latent_mask, *shape)
    weights = torch.from_numpy(keep_out)[None, None].to(latents)
    latents = start_masked(latents, weights, content, run.seed)
    plan = plan_of(settings)
    with model.seeing(small, small_mask, weights):
        latents = sample(model, settings, plan, latents, run.seed, run.count, mask=weights)
    run.say("Painting the picture")
    return fit_result(model.decode(latents)[0], width, height, run)


def start_masked(latents: torch.Tensor, mask: torch.Tensor, masked_content: str, seed: int) -> torch.Tensor:
    """Return the latents with their masked part replaced by the seed's noise or by nothing, where that is asked for."""
    if masked_content == "latent_nothing":
        return latents * (1 - mask)
    if masked_content == "latent_noise":
        noise = torch.randn(latents.shape, generator=torch.Generator("cpu").manual_seed(seed))
        return latents * (1 - mask) + noise.to(latents) * mask
    return latents
