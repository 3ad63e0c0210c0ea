"""The denoising itself: one diffusers pipeline call, with the mask blended into every prediction."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from ..errors import InvalidRequest
from ..models.model import Model, memory_errors
from ..models.samplers import build_scheduler
from ..request import Diffusion
from .plan import StepPlan

LEAST_SIGMA = 1e-6  # a last step can be free of noise; nothing may be divided by it


def sample(
    model: Model,
    settings: Diffusion,
    plan: StepPlan,
    init: torch.Tensor,
    seed: int,
    report: Callable[[int, int], None],
    *,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return denoised latents (1×4×h×w float32).

    init: latents of the source. mask: 1×1×h×w of 0 and 1, where 0 keeps the source's latents.
    report(done, total) counts model calls.
    """
    pipe = model.pipe
    pipe.scheduler = build_scheduler(settings.sampler, settings.schedule, model.noise_schedule)
    if mask is not None:
        blend_predictions(pipe.scheduler, init, mask)
    guided = settings.cfg_scale > 1
    prompts = model.encode_prompts(settings.full_prompt, settings.negative_prompt, guided)

    def after_step(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        report(step + 1, pipe.num_timesteps)
        return tensors

    with memory_errors(f"make a picture of {init.shape[3] * model.scale_factor} pixels' width"):
        latents: torch.Tensor = pipe(
            **prompts,
            image=init,
            strength=plan.strength,
            num_inference_steps=plan.schedule,
            guidance_scale=settings.cfg_scale,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="latent",
            callback_on_step_end=after_step,
            return_dict=False,
        )[0].float()
    return latents if mask is None else latents * mask + init * (1 - mask)


def blend_predictions(scheduler: Any, init: torch.Tensor, mask: torch.Tensor) -> None:
    """Make a scheduler blend its predicted x0 with the source's latents outside the mask, at every model call.

    x0 ← x0·mask + init·(1 − mask), as the web UI does for its k-diffusion samplers. Works on any scheduler over a
    variance-preserving model: the model's output is turned into x0, blended, and turned back.
    """
    original = scheduler.step

    @functools.wraps(original)
    def step(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        alpha, sigma, normalised = _noise_level(scheduler, timestep, sample)
        kind = scheduler.config.prediction_type
        if kind == "epsilon":
            x0 = (normalised - sigma * model_output) / alpha
        elif kind == "v_prediction":
            x0 = alpha * normalised - sigma * model_output
        elif kind == "sample":
            x0 = model_output
        else:
            raise InvalidRequest(f"Inpainting can't work with a model that predicts “{kind}”.")
        x0 = x0 * mask + init * (1 - mask)
        if kind == "epsilon":
            model_output = (normalised - alpha * x0) / sigma
        elif kind == "v_prediction":
            model_output = (alpha * normalised - x0) / sigma
        else:
            model_output = x0
        return original(model_output, timestep, sample, *args, **kwargs)

    scheduler.step = step


def _noise_level(scheduler: Any, timestep: Any, sample: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """Return α and σ with α² + σ² = 1 for the sample, and the sample scaled so that it is α·x0 + σ·noise."""
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
