"""img2img alternative: the noise that makes the input is found first, then denoised under another prompt."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from ..errors import ModelError
from ..imaging.pictures import flatten
from ..models.model import Model, Predict, memory_errors
from ..models.samplers import AUTOMATIC, build_scheduler, is_flow
from ..request import Request
from ..settings import Alternative
from .guidance import guided
from .img2img import enlarger, finish, lay_out, sized
from .noise import Seed, draw_noise
from .painting import Canvas, Noise, paint
from .plan import StepPlan, plan_of
from .run import Output, Run

SAMPLER = "Euler"  # whose steps can be taken backwards
SAME_LEVEL = 1e-4  # relative difference below which two noise levels are one

Level = tuple[float, float]  # σ, and the timestep that the model knows it by


def alternative(request: Request, run: Run) -> Output:
    """Return the picture denoised from its own noise; with no randomness, its own prompt gives it back.

    Raises ModelError for a flow-matching model.
    """
    settings, source = request.settings, request.images["init"]
    assert isinstance(settings, Alternative)
    known = sized(settings, source)
    assert isinstance(known, Alternative)
    asked = known.sampler
    notice = "" if asked in (SAMPLER, AUTOMATIC) else f"{settings.label} samples by {SAMPLER}, not {asked}."
    known = dataclasses.replace(known, sampler=SAMPLER)
    canvas = lay_out(source, known, enlarger(known, run))
    picture = flatten(canvas, known.background_colour)
    if known.denoising_strength == 0:
        return Output([finish(picture, canvas, known)], notice=notice)
    if is_flow(run.model(known).noise_schedule):
        raise ModelError(f"{settings.label} can't work with a flow-matching model.", "Choose another model.")

    def noise_of_picture(model: Model, latents: torch.Tensor) -> Noise:
        found = find_noise(model, latents, known, plan_of(known), run)

        def noise(seeds: list[Seed]) -> torch.Tensor:
            return mix_noise(found, draw_noise(seeds, *latents.shape[1:]).to(found), known.randomness)

        return noise

    pictures = paint(
        Canvas(picture), known, run, lambda one: run.keep(finish(one.pixels, canvas, one.settings)), noise_of_picture
    )
    return Output(pictures, notice=notice)


def mix_noise(found: torch.Tensor, drawn: torch.Tensor, randomness: float) -> torch.Tensor:
    """Return ((1 − r)·found + r·drawn)/√(r² + (1 − r)²): unit noise again, r (0–1) of it random; the web UI's rule."""
    return ((1 - randomness) * found + randomness * drawn) / math.hypot(randomness, 1 - randomness)


def find_noise(model: Model, latents: torch.Tensor, settings: Alternative, plan: StepPlan, run: Run) -> torch.Tensor:
    """Return the noise (1×C×h×w, near unit) that leads Euler from `latents` plus σ of it back to `latents`.

    Euler's ordinary differential equation dx/dσ = (x − x0)/σ, x0 as predicted under the original prompt at the decode
    CFG scale, is followed upwards from σ = 0 to the level that the plan's first step starts at. Each step is predicted
    at the level it leads to, and close to where it leads, as the step down from there will be: with the original prompt
    and as many steps the input comes back. What is left over the latents at the end, divided by that level, is the
    noise.
    """
    pipe = model.pipe
    scheduler = build_scheduler(SAMPLER, settings.schedule, model.noise_schedule, (), model.native)
    levels = rising_levels(scheduler, plan, settings.decode_steps)
    climb(scheduler, levels)
    pipe.scheduler = scheduler
    prompts = model.encode_prompts(
        settings.original_prompt, settings.original_negative_prompt, settings.decode_steps, settings.clip_skip
    )
    done = 0

    def guide(predict: Predict, sample: torch.Tensor) -> torch.Tensor:
        nonlocal done
        done += 1
        run.count(done, len(levels))
        return guided(predict, sample, prompts, len(levels) - done, settings.decode_cfg_scale)

    with memory_errors("find the noise of the picture"), model.guided_by(guide):
        climbed: torch.Tensor = pipe(
            **prompts.arguments(1),
            image=latents,
            strength=1.0,
            num_inference_steps=len(levels),
            guidance_scale=1.0,  # the guide sees to it
            generator=torch.Generator("cpu").manual_seed(settings.seed),
            output_type="latent",
            return_dict=False,
        )[0].float()
    return (climbed - latents) / levels[-1][0]


def rising_levels(scheduler: Any, plan: StepPlan, steps: int) -> list[Level]:
    """Return noise levels of a schedule of so many steps, rising from the least above 0 to the plan's first one."""
    scheduler.set_timesteps(plan.schedule)
    pairs = list(zip(scheduler.sigmas.tolist()[: plan.schedule], scheduler.timesteps.tolist(), strict=True))
    first: Level = pairs[plan.schedule - plan.executed]
    scheduler.set_timesteps(steps)
    pairs = list(zip(scheduler.sigmas.tolist()[:steps], scheduler.timesteps.tolist(), strict=True))
    return [*sorted(pair for pair in pairs if pair[0] < first[0] * (1 - SAME_LEVEL)), first]


def climb(scheduler: Any, levels: list[Level]) -> None:
    """Make a scheduler of the Euler kind lead an image-to-image pipeline from its latents up these noise levels.

    A step up undoes one down where both follow the slope at their upper end, which isn't known yet: the slope before
    leads there closely enough.
    """
    kind = scheduler.config.prediction_type
    place = 0
    slope_before: torch.Tensor | float = 0.0
    ahead = torch.empty(0)  # where the model is asked for the slope

    def rise() -> float:
        return levels[place][0] - (levels[place - 1][0] if place else 0.0)

    def set_timesteps(num_inference_steps: int, device: Any = None) -> None:
        scheduler.timesteps = torch.tensor([timestep for _, timestep in levels], device=device)

    def add_noise(samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return samples

    def scale_model_input(sample: torch.Tensor, timestep: Any) -> torch.Tensor:
        nonlocal ahead
        ahead = sample + slope_before * rise()
        return ahead / math.hypot(1, levels[place][0])

    def step(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor]:
        nonlocal place, slope_before
        slope_before = slope(kind, model_output, ahead, levels[place][0])
        risen = sample + slope_before * rise()
        place += 1
        return (risen,)

    scheduler.set_timesteps = set_timesteps
    scheduler.add_noise = add_noise
    scheduler.scale_model_input = scale_model_input
    scheduler.step = step


def slope(kind: str, output: torch.Tensor, sample: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return (x − x0)/σ, the predicted noise, of a sample x = x0 + σ·noise from what a model gives of that kind.

    Raises ModelError for a kind that is neither "epsilon", "v_prediction" nor "sample".
    """
    if kind == "epsilon":
        return output
    if kind == "v_prediction":  # v = α·noise − σ′·x0 with α = 1/√(1 + σ²) and σ′ = σ·α
        scale = 1 / math.hypot(1, sigma)
        return output * scale + sample * (sigma * scale**2)
    if kind == "sample":
        return (sample - output) / sigma
    raise ModelError(f"img2img Alternative can't work with a model that predicts “{kind}”.", "Choose another model.")
