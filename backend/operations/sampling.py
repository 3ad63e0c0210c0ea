"""The denoising itself: one diffusers pipeline call, with our own noise, guidance, and blend of every prediction."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InvalidRequest
from ..imaging.regions import Region
from ..models.fast import shortcut_of
from ..models.model import Model, Predict, memory_errors
from ..models.previews import Previewer
from ..models.samplers import Stochastic, build_scheduler
from ..settings import Diffusion
from .guidance import guided, in_tiles
from .noise import Seed, as_set, draw_noise
from .plan import StepPlan
from .refining import Refining

FLOW = "flow_prediction"
PREDICTIONS = ("epsilon", "v_prediction", "sample", FLOW)  # what models say of a sample that x0 follows from
LEAST_SIGMA = 1e-6  # a last step can be free of noise; nothing may be divided by it

# From x0 as predicted and the level of noise (σ/α) to x0 as it shall be.
Blend = Callable[[torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Start:
    """What a denoising starts from.

    latents: 1×C×h×w float32, or one a picture. seeds: one a picture. noise: B×C×h×w in place of the seeds' own. blend:
    what every prediction of x0 goes through. windows: latents that are predicted at a time, None for all.
    """

    latents: torch.Tensor
    seeds: Sequence[Seed]
    noise: torch.Tensor | None = None
    blend: Blend | None = None
    windows: Sequence[Region] | None = None


def sample(
    model: Model,
    settings: Diffusion,
    plan: StepPlan,
    start: Start,
    report: Callable[[int, int], None],
    previewer: Previewer | None = None,
) -> torch.Tensor:
    """Return denoised latents (B×C×h×w float32), one a seed; report(done, total) counts model calls.

    previewer: is shown the predictions of x0, which it doesn't change.
    """
    pipe = model.pipe
    count = len(start.seeds)
    latents = start.latents.expand(count, -1, -1, -1)
    noise = draw_noise(start.seeds, *latents.shape[1:]) if start.noise is None else start.noise
    scheduler = build_scheduler(
        settings.sampler,
        settings.schedule,
        model.noise_schedule,
        [seed.seed for seed in start.seeds],
        model.native,
        Stochastic(settings.eta, settings.s_churn, settings.s_tmin, settings.s_tmax, settings.s_noise, plan.executed),
    )
    use_noise(scheduler, noise.to(latents) * settings.initial_noise_multiplier, settings.extra_noise)
    watch_predictions(scheduler, start.blend, previewer)
    generators = [seed.generator() for seed in start.seeds]
    if _is_flow(scheduler) and "generator" in inspect.signature(scheduler.step).parameters:
        scheduler.step = functools.partial(scheduler.step, generator=generators)  # which their pipelines don't pass on
    pipe.scheduler = scheduler
    negative = settings.negative_prompt if model.takes_negative else ""
    cfg_scale = settings.cfg_scale if model.takes_negative else 1.0  # else the model is told of it
    prompts = model.encode_prompts(settings.full_prompt, negative, settings.steps, settings.clip_skip)
    refining = Refining(model, settings, plan, start.windows) if model.refiner is not None else None
    calls = 0

    def after_step(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        report(step + 1, pipe.num_timesteps)
        return tensors

    def guide(predict: Predict, sample: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        step = calls * plan.executed // pipe.num_timesteps  # samplers of second order call twice a step
        calls += 1
        if refining is not None and refining.has_begun(step):
            return refining.predict(sample, scheduler.timesteps[-pipe.num_timesteps :][calls - 1], step)
        predict = in_tiles(predict, start.windows) if start.windows else predict
        return guided(predict, sample, prompts, step, cfg_scale)

    doing = f"make a picture of {latents.shape[3] * model.scale_factor} pixels' width"
    shortcut = shortcut_of(settings.fast_mode, settings.token_merging_ratio)
    with memory_errors(doing), model.guided_by(guide), model.hurried(shortcut), as_set(start.seeds):
        result: torch.Tensor = pipe(
            **prompts.arguments(count),
            **model.family.arguments(latents, plan.strength, settings.cfg_scale),
            image=latents,
            num_inference_steps=plan.schedule,
            generator=generators,
            output_type="latent",
            callback_on_step_end=after_step,
            return_dict=False,
        )[0].float()
    return result if start.blend is None else start.blend(result, 0.0)


def use_noise(scheduler: Any, noise: torch.Tensor, extra: float = 0.0) -> None:
    """Make a scheduler add this noise (B×C×h×w) to what it starts from, whatever a pipeline draws, and `extra` of it.

    The extra noise comes on top of the mix: in the size of the sample where that is x0 + σ·noise, and times √ᾱ where
    it is √ᾱ·x0 + √(1 − ᾱ)·noise, as in the web UI; times 1 − σ for flow models, whose mix is (1 − σ)·x0 + σ·noise.
    """
    is_flow = hasattr(scheduler, "scale_noise")  # what such a pipeline calls, its arguments in another order
    original = scheduler.scale_noise if is_flow else scheduler.add_noise

    def mix(samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = original(samples, *((timesteps, noise) if is_flow else (noise, timesteps)))
        return mixed

    @functools.wraps(original)
    def add_noise(samples: torch.Tensor, *drawn_and_timesteps: torch.Tensor) -> torch.Tensor:
        timesteps = drawn_and_timesteps[0 if is_flow else 1]
        mixed = mix(samples, noise, timesteps)
        if extra == 0:
            return mixed
        ones = torch.ones((1,) * samples.ndim, dtype=torch.float32, device=samples.device)
        return mixed + noise * extra * mix(ones, torch.zeros_like(ones), timesteps[:1])

    setattr(scheduler, "scale_noise" if is_flow else "add_noise", add_noise)


def watch_predictions(scheduler: Any, blend: Blend | None, previewer: Previewer | None) -> None:
    """Make a scheduler put its predicted x0 through a blend at every model call, and show it when that is due.

    The blend is that of the web UI's k-diffusion samplers, and works on any scheduler: the model's output is turned
    into x0, blended, and turned back. Raises InvalidRequest for a blend where no x0 follows from that output.
    """
    original = scheduler.step
    kind = scheduler.config.get("prediction_type", FLOW)
    if kind not in PREDICTIONS:
        if blend is not None:
            raise InvalidRequest(f"Inpainting can't work with a model that predicts “{kind}”.")
        return

    @functools.wraps(original)
    def step(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        shown = previewer is not None and previewer.is_due()
        if blend is not None or shown:
            alpha, sigma, normalised = _noise_level(scheduler, timestep, sample)
            x0 = _prediction(kind, model_output, alpha, sigma, normalised)
            if blend is not None:
                x0 = blend(x0, sigma / alpha)
                model_output = _output(kind, x0, alpha, sigma, normalised)
            if shown and previewer is not None:
                previewer.show(x0)
        return original(model_output, timestep, sample, *args, **kwargs)

    if blend is not None or previewer is not None:
        scheduler.step = step


def _prediction(kind: str, output: torch.Tensor, alpha: float, sigma: float, sample: torch.Tensor) -> torch.Tensor:
    """Return x0 of a sample α·x0 + σ·noise by what the model says of it, which is of one of PREDICTIONS."""
    if kind == "epsilon":
        return (sample - sigma * output) / alpha
    if kind == "v_prediction":
        return alpha * sample - sigma * output
    return output if kind == "sample" else sample - sigma * output


def _output(kind: str, x0: torch.Tensor, alpha: float, sigma: float, sample: torch.Tensor) -> torch.Tensor:
    """Return what a model would have to say of a sample for that x0: the inverse of _prediction()."""
    if kind == "epsilon":
        return (sample - alpha * x0) / sigma
    if kind == "v_prediction":
        return (alpha * sample - x0) / sigma
    return x0 if kind == "sample" else (sample - x0) / sigma


def _noise_level(scheduler: Any, timestep: Any, sample: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """Return α and σ of the sample, and the sample scaled so that it is α·x0 + σ·noise.

    α² + σ² = 1 for diffusion models, α + σ = 1 for flow models.
    """
    if _is_flow(scheduler):
        if scheduler.step_index is None:
            scheduler._init_step_index(timestep)
        noise = max(LEAST_SIGMA, float(scheduler.sigmas[scheduler.step_index]))
        return max(LEAST_SIGMA, 1 - noise), noise, sample
    if hasattr(scheduler, "is_scale_input_called"):
        # The k-diffusion family keeps x0 + s·noise, and scales it by α = 1/√(1 + s²) for the model.
        alpha = float(scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), timestep))
        return alpha, max(LEAST_SIGMA, 1 - alpha**2) ** 0.5, sample * alpha
    if hasattr(scheduler, "sigmas") and hasattr(scheduler, "step_index"):
        if scheduler.step_index is None:
            scheduler._init_step_index(timestep)
        noise = float(scheduler.sigmas[scheduler.step_index])
        alpha = (1 + noise**2) ** -0.5
        return alpha, max(LEAST_SIGMA, noise * alpha), sample
    product = float(scheduler.alphas_cumprod[int(timestep)])
    return product**0.5, (1 - product) ** 0.5, sample


def _is_flow(scheduler: Any) -> bool:
    config = scheduler.config
    return bool(config.get("use_flow_sigmas")) or "prediction_type" not in config
