"""A canvas painted by the model, at the size that the model is best at, and brought back to the artist's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch

from ..imaging import masks
from ..imaging.colour import correct_colours
from ..imaging.composite import composite_whole_picture
from ..imaging.fill import fill
from ..imaging.pictures import Mask, size_of
from ..imaging.resize import resize
from ..models.load import choose_device
from ..models.model import Model
from ..models.upscalers import require_possible, upscale
from ..request import Array
from ..settings import Denoising, Img2Img, Inpaint
from .noise import Seed, draw_noise, seed_of, single
from .plan import REFINED, CanvasPlan, plan_canvas, plan_of
from .redrawing import Tiling, keep_outside, latent_weights, redraw
from .run import Run
from .sampling import Start, sample
from .soft import changed_mask, soft_blend

FAST_UPSCALER = "R-ESRGAN AnimeVideo x2"

Chosen = TypeVar("Chosen", bound=Denoising)
Finished = TypeVar("Finished")

Noise = Callable[[list[Seed]], torch.Tensor]  # from the seeds of a batch to its noise (B×C×h×w)


@dataclass(frozen=True, eq=False)
class Canvas:
    """What is painted over.

    picture: uint8 H×W×3. mask: float32 H×W, softened, 1 repainted; None repaints all. content: the masked content it
    starts from. latent_mask: what is filled and what the latents are masked by, where that is another one. unscaled:
    the picture at its own size, where its latents are to be stretched instead of its pixels.
    """

    picture: Array
    mask: Mask | None = None
    content: str = "original"
    latent_mask: Mask | None = None
    unscaled: Array | None = None

    @property
    def mask_of_latents(self) -> Mask | None:
        """What is filled, and what the latents are masked by."""
        return self.mask if self.latent_mask is None else self.latent_mask


@dataclass(frozen=True, eq=False)
class Painted(Generic[Chosen]):
    """What came of a canvas: uint8 H×W×3, nothing composited yet, and the settings of that picture alone.

    overlay: float32 H×W, where soft inpainting shows it; None where the canvas's mask says so.
    """

    pixels: Array
    settings: Chosen
    overlay: Mask | None = None


def paint(
    canvas: Canvas,
    settings: Chosen,
    run: Run,
    finish: Callable[[Painted[Chosen]], Finished],
    find_noise: Callable[[Model, torch.Tensor], Noise] | None = None,
) -> list[Finished]:
    """Return the canvas repainted, batch count times batch size, each picture finished as soon as it is painted.

    find_noise: what turns model and latents (1×C×h×w) into the noise to start from, in place of the seeds' own; it
    takes half of the progress.
    """
    model = run.model(settings)
    width, height = size_of(canvas.picture)
    sizes = plan_canvas(width, height, model.native, model.family.side_step, _large_canvas(settings))
    size = sizes.made
    if size != (width, height):
        require_possible(size, (width, height), FAST_UPSCALER)  # known before a step is paid for
    model.prepare(*size, settings.batch_size)
    run.say("Reading the picture")
    with _seamless(model, settings):
        begun = _begin(canvas, size, settings, model)
        strength = settings.conditioning_mask_strength if isinstance(settings, Inpaint) else 1.0
        finished: list[Finished] = []
        with model.seeing(begun.picture, begun.mask, begun.weights.round(), strength):
            noise, parts = None, 1
            if find_noise is not None:
                parts = 2
                with run.part(0, parts, "Finding the noise"):
                    noise = find_noise(model, begun.latents)
            for batch in range(settings.batch_count):
                indices = range(batch * settings.batch_size, (batch + 1) * settings.batch_size)
                alone = [dataclasses.replace(settings, **single(settings, index)) for index in indices]
                title = f"Batch {batch + 1} of {settings.batch_count}"
                model.prepare(*size, settings.batch_size)
                with run.part(parts - 1, parts), run.part(batch, settings.batch_count, title):
                    finished += map(finish, _paint_batch(canvas, begun, alone, noise, sizes, model, run))
    return finished


@contextmanager
def _seamless(model: Model, settings: Denoising) -> Iterator[None]:
    """Make seamless pictures where that is set, the prompt's LoRAs and the refiner included."""
    x, y = settings.seamless_x, settings.seamless_y
    if (x or y) and model.family.seamless_by:  # a LoRA's convolutions must be there before they are made seamless
        model.encode_prompts(settings.full_prompt, settings.negative_prompt, settings.steps, settings.clip_skip)
    with ExitStack() as both:
        for one in (model, model.refiner):
            if one is not None:
                both.enter_context(one.seamless(x, y))
        yield


@dataclass(frozen=True, eq=False)
class _Begun:
    """A canvas at the model's size: picture, filled where that is asked for, mask, latents, and which are repainted.

    kept: the latents that soft inpainting mixes with, 1×C×h×w as the latents; weights: 1×1×h×w.
    """

    picture: Array
    mask: Mask
    latents: torch.Tensor
    kept: torch.Tensor
    weights: torch.Tensor
    soft: Inpaint | None


def _begin(canvas: Canvas, size: tuple[int, int], settings: Denoising, model: Model) -> _Begun:
    small, mask, latents = _read(canvas, size, model)
    masked = canvas.mask is not None
    soft = settings if masked and isinstance(settings, Inpaint) and settings.soft_inpainting else None
    weights = latent_weights(canvas.mask_of_latents, latents, rounded=soft is None)
    kept = _unfilled(canvas, size, model) if soft and canvas.content != "original" else latents
    return _Begun(small, mask, latents, kept, weights, soft)


def _paint_batch(
    canvas: Canvas,
    begun: _Begun,
    alone: list[Chosen],
    noise: Noise | None,
    sizes: CanvasPlan,
    model: Model,
    run: Run,
) -> Iterator[Painted[Chosen]]:
    """Return a batch of pictures, one of each of the settings; they differ in their seeds alone."""
    seeds = [seed_of(chosen, model.scale_factor) for chosen in alone]
    latents = start_masked(begun.latents, begun.weights, canvas.content, seeds)
    blend = None if canvas.mask is None else keep_outside(latents, begun.weights)
    if begun.soft:
        blend = soft_blend(begun.kept, begun.weights, begun.soft)
    start = Start(latents, seeds, None if noise is None else noise(seeds), blend)
    parts = 1 + (len(alone) if sizes.tiles else 0)
    with run.part(0, parts):
        found = sample(model, alone[0], plan_of(alone[0]), start, run.count, run.previewer(model))
    run.say("Painting the picture")
    for index, (latent, chosen) in enumerate(zip(found, alone, strict=True)):
        pixels = fit_result(model.decode(latent[None])[0], *size_of(canvas.picture), run)
        if sizes.tiles:
            with run.part(1 + index, parts):
                pixels = _refined(pixels, canvas, chosen, sizes, model, run)
        if chosen.colour_correction:
            pixels = correct_colours(pixels, begun.picture)
        overlay = None
        if begun.soft and canvas.mask is not None:
            overlay = changed_mask(begun.kept, latent[None], canvas.mask, begun.soft)
        yield Painted(pixels, chosen, overlay)


def _refined(pixels: Array, canvas: Canvas, settings: Denoising, sizes: CanvasPlan, model: Model, run: Run) -> Array:
    """Return an enlarged picture with its details drawn anew, in the mask alone where there is one."""
    if canvas.mask is not None:  # what the mask keeps is as sharp as ever, and what is drawn beside it should see that
        pixels = composite_whole_picture(pixels, canvas.picture, masks.overlay_mask(canvas.mask))
    model.prepare(*sizes.canvas, window=sizes.tile.width * sizes.tile.height)
    gentle = dataclasses.replace(settings, denoising_strength=min(REFINED, settings.denoising_strength))
    return redraw(pixels, gentle, Tiling(sizes.tile, sizes.overlap), "seamless", model, run, canvas.mask)


def _large_canvas(settings: Denoising) -> str:
    """Return what becomes of a canvas that is too large for the model."""
    chosen = settings.large_canvas if isinstance(settings, Img2Img) else "enlarge"
    if chosen == "refine" and (settings.seamless_x or settings.seamless_y):
        return "enlarge"  # tiles would be made to fit themselves; SD Upscale makes its own of the result
    return chosen


def _read(canvas: Canvas, size: tuple[int, int], model: Model) -> tuple[Array, Mask, torch.Tensor]:
    """Return picture and mask at the model's size, and the latents to start from."""
    width, height = size
    small = resize(canvas.picture, width, height, "just_resize")
    mask = _resized(canvas.mask, width, height)
    if canvas.content != "original":
        small = fill(small, _resized(canvas.mask_of_latents, width, height))
    if canvas.unscaled is None:
        return small, mask, model.encode(small)
    step = model.scale_factor
    own_width, own_height = (max(step, round(side / step) * step) for side in size_of(canvas.unscaled))
    own = model.encode(resize(canvas.unscaled, own_width, own_height, "just_resize"))
    shape = height // step, width // step
    return small, mask, torch.nn.functional.interpolate(own, size=shape, mode="bilinear", antialias=False)


def _resized(mask: Mask | None, width: int, height: int) -> Mask:
    """Return the mask at another size; no mask repaints all."""
    return np.ones((height, width), np.float32) if mask is None else resize(mask, width, height, "just_resize")


def _unfilled(canvas: Canvas, size: tuple[int, int], model: Model) -> torch.Tensor:
    """Return the latents of what the canvas shows before its masked content is filled."""
    return _read(dataclasses.replace(canvas, content="original"), size, model)[2]


def start_masked(latents: torch.Tensor, mask: torch.Tensor, masked_content: str, seeds: list[Seed]) -> torch.Tensor:
    """Return latents with their masked part replaced by the seeds' noise or by nothing, where that is asked for."""
    if masked_content == "latent_nothing":
        return latents * (1 - mask)
    if masked_content == "latent_noise":
        return latents * (1 - mask) + draw_noise(seeds, *latents.shape[1:]).to(latents) * mask
    return latents


def fit_result(picture: Array, width: int, height: int, run: Run) -> Array:
    """Return a generated picture (uint8 H×W×3) at the canvas's size: enlarged by a model, or reduced by Lanczos."""
    if picture.shape[:2] == (height, width):
        return picture
    factor = max(width / picture.shape[1], height / picture.shape[0])
    if factor > 1:
        run.say("Enlarging")
        device = choose_device(run.models.options.device)
        picture = upscale(picture, factor, FAST_UPSCALER, should_stop=run.is_cancelled, device=device)
    return resize(picture, width, height, "just_resize")
