"""A picture made from a picture and a prompt."""

from __future__ import annotations

import numpy as np
import torch

from ..imaging.pictures import flatten
from ..imaging.resize import resize
from ..request import Array, Img2Img, Request
from .fit import fit_result
from .plan import plan_of, plan_size
from .run import Picture, Run
from .sampling import sample


def img2img(request: Request, run: Run) -> list[Picture]:
    """Return the captured picture repainted; a denoising strength of 0 gives its pixels back, resized alone."""
    settings = request.settings
    assert isinstance(settings, Img2Img)
    init = resize(request.images["init"], settings.width, settings.height, settings.resize_mode)
    picture = flatten(init)
    if settings.denoising_strength > 0:
        picture = repaint(picture, settings, run)
    return [Picture(with_alpha_of(init, picture) if settings.keep_alpha else picture, run.seed)]


def repaint(picture: Array, settings: Img2Img, run: Run) -> Array:
    """Return the picture (uint8 H×W×3) noised and denoised, at the size that the model is best at, then at its own."""
    model = run.model(settings.model)
    height, width = picture.shape[:2]
    size = plan_size(width, height, model.native, model.scale_factor)
    run.say("Reading the picture")
    small = resize(picture, size.width, size.height, "just_resize")
    latents = model.encode(small)
    plan = plan_of(settings)
    everything = np.ones(small.shape[:2], np.float32)
    with model.seeing(small, everything, torch.ones_like(latents[:, :1])):
        latents = sample(model, settings, plan, latents, run.seed, run.count)
    run.say("Painting the picture")
    return fit_result(model.decode(latents)[0], width, height, run)


def with_alpha_of(source: Array, picture: Array) -> Array:
    """Return the picture with the transparency of a source of the same size, if it has any."""
    return np.dstack([picture, source[..., 3]]) if source.shape[2] == 4 else picture
