"""A picture made from a picture and a prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from ..imaging.pictures import flatten, size_of
from ..imaging.resize import Enlarge, resize, scale_size
from ..models.load import choose_device
from ..models.upscalers import upscale
from ..request import Array, Request
from ..settings import Img2Img
from ..settings.upscale import NO_UPSCALER
from .noise import single
from .painting import Canvas, paint
from .run import Output, Picture, Run

Keep = Callable[[Picture], Picture]  # is handed each picture as soon as it is finished, and returns it


def img2img(request: Request, run: Run) -> Output:
    """Return the captured picture repainted."""
    settings = request.settings
    assert isinstance(settings, Img2Img)
    return Output(repaint(settings, request.images, run, run.keep))


def repaint(settings: Img2Img, images: Mapping[str, Array], run: Run, keep: Keep) -> list[Picture]:
    """Return the picture repainted, all of its batches; a denoising strength of 0 gives its pixels back, resized."""
    source = images["init"]
    settings = sized(settings, source)
    canvas = lay_out(source, settings, enlarger(settings, run))
    picture = flatten(canvas, settings.background_colour)
    if settings.denoising_strength == 0:
        return [keep(unpainted(picture, canvas, settings))]
    unscaled = flatten(source, settings.background_colour) if settings.resize_mode == "latent" else None
    return paint(
        Canvas(picture, unscaled=unscaled), settings, run, lambda one: keep(finish(one.pixels, canvas, one.settings))
    )


def sized(settings: Img2Img, source: Array) -> Img2Img:
    """Return the settings with the width and height that Resize By asks for, where it does."""
    if settings.resize_by == 0:
        return settings
    width, height = scale_size(*size_of(source), settings.resize_by)
    return dataclasses.replace(settings, width=width, height=height, resize_by=0.0)


def lay_out(image_or_mask: Array, settings: Img2Img, enlarge: Enlarge | None = None) -> Array:
    """Return a picture or mask at the size set, in the resize mode set; enlarge: what makes a picture larger first."""
    mode = "just_resize" if settings.resize_mode == "latent" else settings.resize_mode
    return resize(image_or_mask, settings.width, settings.height, mode, enlarge=enlarge)


def enlarger(settings: Img2Img, run: Run) -> Enlarge | None:
    """Return the upscaler for img2img that is set, None for Lanczos; latents are stretched in their own way."""
    name = settings.upscaler_for_img2img
    if name == NO_UPSCALER or settings.resize_mode == "latent":
        return None

    def enlarge(picture: Array, factor: float) -> Array:
        run.say("Enlarging the input")
        device = choose_device(run.models.options.device)
        file = settings.upscaler_for_img2img_file
        return upscale(picture, factor, name, file=file, should_stop=run.is_cancelled, device=device)

    return enlarge


def unpainted(pixels: Array, canvas: Array, settings: Img2Img) -> Picture:
    """Return a picture that no model has touched: a whole batch of them would be the same."""
    return finish(pixels, canvas, dataclasses.replace(settings, **single(settings, 0)))


def finish(pixels: Array, canvas: Array, settings: Img2Img) -> Picture:
    """Return a finished picture, with the canvas's transparency where that is kept."""
    if settings.keep_alpha and canvas.shape[2] == 4:
        pixels = np.dstack([pixels, canvas[..., 3]])
    return Picture(pixels, settings)
