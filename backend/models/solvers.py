"""Samplers that diffusers has not, or not for every schedule and start: small changes to its schedulers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
)
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler
from diffusers.utils.torch_utils import randn_tensor

MARGIN = 1e-3  # of a noise level
LEAST_SIGMA = 1e-10  # the logarithm of 0 is not asked for

# Adams–Bashforth's weights of the newest prediction, the one before it, …, for evenly spaced steps.
GREATEST_CHURN = 2**0.5 - 1  # of a level, by which it is raised

ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def predictions(
    kind: str, output: torch.Tensor, sample: torch.Tensor, alpha: float | torch.Tensor, sigma: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x0 and the noise that a model's output of that kind says a sample α·x0 + σ·noise is made of.

    Raises ValueError for a kind that is not "epsilon", "v_prediction" or "sample".
    """
    if kind == "epsilon":
        return (sample - sigma * output) / alpha, output
    if kind == "v_prediction":
        return alpha * sample - sigma * output, alpha * output + sigma * sample
    if kind == "sample":
        return output, (sample - alpha * output) / sigma
    raise ValueError(f"unknown kind of prediction: {kind}")


def following(timesteps: torch.Tensor, timestep: Any) -> int:
    """Return the timestep after that one in falling timesteps, -1 after the last."""
    rest = timesteps[timesteps < timestep]
    return int(rest[0]) if len(rest) else -1


class ScheduledDDIM(DDIMScheduler):  # type: ignore[misc]
    """DDIM from each timestep to the one that follows in the schedule; diffusers' takes strides of one length."""

    eta: float = 0.0  # in place of what a pipeline passes, which is always 0

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Return the sample of the following timestep: equation 12 of arXiv:2010.02502."""
        now, then = int(timestep), following(self.timesteps, timestep)
        alpha_now = self.alphas_cumprod[now]
        alpha_then = self.alphas_cumprod[then] if then >= 0 else self.final_alpha_cumprod
        kind = self.config.prediction_type
        x0, noise = predictions(kind, model_output, sample, float(alpha_now) ** 0.5, float(1 - alpha_now) ** 0.5)
        eta = self.eta
        deviation = eta * float(self._get_variance(now, then)) ** 0.5
        direction = max(0.0, 1 - float(alpha_then) - deviation**2) ** 0.5
        previous = float(alpha_then) ** 0.5 * x0 + direction * noise
        if eta > 0:
            fresh = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
            previous = previous + deviation * fresh
        return (previous, x0) if not return_dict else _output(previous)


class ScheduledPLMS(PNDMScheduler):  # type: ignore[misc]
    """PLMS of one model call a step, from any step on; diffusers' repeats the second of the whole schedule."""

    ets: list[torch.Tensor]

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Set the timesteps of that many steps, each of them once."""
        super().set_timesteps(num_inference_steps, device)
        self.timesteps = torch.from_numpy(np.array(self._timesteps[::-1], dtype=np.int64)).to(device)

    def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, return_dict: bool = True) -> Any:
        """Return the sample of the following timestep: Adams–Bashforth of up to four predictions, arXiv:2202.09778."""
        now, then = int(timestep), following(self.timesteps, timestep)
        alpha_now = float(self.alphas_cumprod[now])
        alpha_then = float(self.alphas_cumprod[then] if then >= 0 else self.final_alpha_cumprod)
        alpha, sigma = alpha_now**0.5, (1 - alpha_now) ** 0.5
        noise = predictions(self.config.prediction_type, model_output, sample, alpha, sigma)[1]
        self.ets = [*self.ets[-3:], noise]
        weights = ADAMS_BASHFORTH[len(self.ets) - 1]
        mixed = sum(weight * noise for weight, noise in zip(weights, reversed(self.ets), strict=True))
        x0 = (sample - sigma * mixed) / alpha
        previous = alpha_then**0.5 * x0 + (1 - alpha_then) ** 0.5 * mixed
        return (previous,) if not return_dict else _output(previous)


class ScheduledLMS(LMSDiscreteScheduler):  # type: ignore[misc]
    """LMS that begins at first order wherever it begins; diffusers' takes the place in the schedule for its history."""

    def step(
        self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, order: int = 4, return_dict: bool = True
    ) -> Any:
        """Return the sample at the next noise level."""
        return super().step(model_output, timestep, sample, min(order, len(self.derivatives) + 1), return_dict)


class ScheduledDEIS(DEISMultistepScheduler):  # type: ignore[misc]
    """DEIS whose last step, which ends next to no noise, is of first order however many steps there are."""

    def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, return_dict: bool = True) -> Any:
        """Return the sample at the next noise level."""
        if self.step_index == len(self.timesteps) - 1:
            self.lower_order_nums = 0
        return super().step(model_output, timestep, sample, return_dict)


class EulerAncestral(EulerAncestralDiscreteScheduler):  # type: ignore[misc]
    """Euler's ancestral sampler with a say in how much of each step is fresh noise; diffusers' has η = 1."""

    eta: float = 1.0
    s_noise: float = 1.0

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Return the sample at the next noise level."""
        if self.step_index is None:
            self._init_step_index(timestep)
        now, then = float(self.sigmas[self.step_index]), float(self.sigmas[self.step_index + 1])
        down, up = ancestral(now, then, self.eta)
        return _down_and_up(self, model_output, sample, down, up * self.s_noise, generator, return_dict)


class ChurnedEuler(EulerDiscreteScheduler):  # type: ignore[misc]
    """Euler from levels that fresh noise has raised: algorithm 2 of arXiv:2206.00364 without its second order.

    diffusers' adds that noise after the model has looked. Here a step ends at the next level and is raised at once, so
    that the model sees what it works on; the first is raised by more of the noise that it starts from.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0  # 0 for no limit
    s_noise: float = 1.0
    executed: int = 0  # steps that run, among which the churn is shared out
    lower: tuple[float, ...] = ()  # where each step goes before it is raised

    def raised(self, sigmas: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the levels that steps begin at for those of a schedule, which they go down to."""
        churn = min(self.s_churn / (self.executed or len(sigmas)), GREATEST_CHURN)
        self.lower = (*(float(sigma) for sigma in sigmas[1:]), 0.0)
        chosen = (sigmas >= self.s_tmin) & (sigmas <= (self.s_tmax or np.inf))
        raised: np.ndarray[Any, Any] = np.where(chosen, sigmas * (1 + churn), sigmas)
        return raised

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Return the sample at the level that the next step begins at."""
        if self.s_churn == 0 or not self.lower:
            return super().step(model_output, timestep, sample, generator=generator, return_dict=return_dict)
        if self.step_index is None:
            self._init_step_index(timestep)
        down, then = self.lower[self.step_index], float(self.sigmas[self.step_index + 1])
        up = max(then**2 - down**2, 0.0) ** 0.5
        return _down_and_up(self, model_output, sample, down, up * self.s_noise, generator, return_dict)


def ancestral(now: float, then: float, eta: float) -> tuple[float, float]:
    """Return the level that an ancestral step goes down to, and the noise added there to come to the level `then`.

    The noise is η·σ_then·√(σ_now² − σ_then²)/σ_now, at most all of σ_then: η = 0 adds none.
    """
    up = min(then, eta * (then**2 * max(now**2 - then**2, 0.0) / now**2) ** 0.5)
    return (then**2 - up**2) ** 0.5, up


def _down_and_up(
    scheduler: Any,
    output: torch.Tensor,
    sample: torch.Tensor,
    down: float,
    up: float,
    generator: torch.Generator | list[torch.Generator] | None,
    return_dict: bool,
) -> Any:
    """Return what Euler's step to the level `down` gives, with `up` of fresh noise, and count the step."""
    sigma = float(scheduler.sigmas[scheduler.step_index])
    alpha = (sigma**2 + 1) ** -0.5
    x0 = predictions(scheduler.config.prediction_type, output, sample * alpha, alpha, sigma * alpha)[0]
    previous = sample + (sample - x0) / sigma * (down - sigma)
    if up > 0:
        previous = previous + up * randn_tensor(
            sample.shape, generator=generator, device=sample.device, dtype=sample.dtype
        )
    scheduler._step_index += 1
    return (previous, x0) if not return_dict else _output(previous)


class SeededSDE(DPMSolverSDEScheduler):  # type: ignore[misc]
    """DPM++ SDE whose Brownian motion reaches a little beyond its noise levels, which rounding leaves otherwise."""

    s_noise: float = 1.0
    noise_sampler: BrownianTreeNoiseSampler | None

    def step(
        self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, return_dict: bool = True, **more: Any
    ) -> Any:
        """Return the sample at the middle or, every second time, at the next noise level."""
        if self.noise_sampler is None:
            least, greatest = float(self.sigmas[self.sigmas > 0].min()), float(self.sigmas.max())
            self.noise_sampler = BrownianTreeNoiseSampler(
                sample, least * (1 - MARGIN), greatest * (1 + MARGIN), self.noise_sampler_seed
            )
        return super().step(model_output, timestep, sample, return_dict, **{"s_noise": self.s_noise, **more})


class QuickTimesteps:
    """The timestep of a noise level by numpy's interpolation: diffusers' own costs a quarter of a second."""

    def _sigma_to_t(self, sigma: Any, log_sigmas: Any) -> Any:
        return np.interp(np.log(max(float(sigma), LEAST_SIGMA)), log_sigmas, np.arange(len(log_sigmas)))


class ScheduledDPM2(QuickTimesteps, KDPM2DiscreteScheduler):  # type: ignore[misc]
    """DPM2, built quickly."""


class DPM2Ancestral(QuickTimesteps, KDPM2AncestralDiscreteScheduler):  # type: ignore[misc]
    """DPM2's ancestral sampler, built quickly, with a say in how much of each step is fresh noise."""

    eta: float = 1.0
    s_noise: float = 1.0

    def set_timesteps(
        self, num_inference_steps: int, device: Any = None, num_train_timesteps: int | None = None
    ) -> None:
        """Lay out the levels of so many steps, and those in the middle, down to the ancestral ones."""
        super().set_timesteps(num_inference_steps, device, num_train_timesteps)
        if self.eta != 1:
            for index in range(0, len(self.timesteps), 2):
                now, then = float(self.sigmas[index]), float(self.sigmas[index + 1])
                down, up = ancestral(now, then, self.eta)
                places = slice(max(index - 1, 0), index + 1)
                self.sigmas_down[places], self.sigmas_up[places] = down, up
                if then > 0:
                    middle = (now * down) ** 0.5
                    self.sigmas_interpol[places] = middle
                    self.timesteps[index + 1] = float(self._sigma_to_t(middle, self.log_sigmas.cpu().numpy()))
        self.sigmas_up *= self.s_noise


class DPM2SAncestral(DPM2Ancestral):
    """DPM-Solver++(2S) to the lower of the ancestral levels, then noise up to the next one.

    The levels, and the first of a step's two model calls, at their geometric middle, are those of DPM2's ancestral one;
    x ← (σ_down/σ)·x + (1 − σ_down/σ)·x0(middle): algorithm 1 of arXiv:2211.01095 with r = 1/2 and noise on top.
    """

    sample: torch.Tensor | None

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Return the sample at the middle or, every second time, at the next noise level."""
        if self.state_in_first_order:
            return super().step(model_output, timestep, sample, generator, return_dict)
        index = self.step_index - 1
        middle, alpha = self.sigmas_interpol[index], (self.sigmas_interpol[index] ** 2 + 1) ** -0.5
        kind = self.config.prediction_type
        x0 = predictions(kind, model_output, sample * alpha, alpha, middle * alpha)[0]
        share = self.sigmas_down[index] / self.sigmas[index]
        noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        previous = share * self.sample + (1 - share) * x0 + self.sigmas_up[index] * noise
        self.sample = None
        self._step_index += 1
        return (previous, x0) if not return_dict else _output(previous)


class DPM3MSDE(DPMSolverMultistepScheduler):  # type: ignore[misc]
    """DPM++ 3M SDE with the weight of the second difference as k-diffusion has it.

    diffusers 0.42's subtracts α/2 of that difference where it has to be added, which leaves −α of it for small steps.
    """

    def multistep_dpm_solver_third_order_update(
        self, model_output_list: list[torch.Tensor], *args: Any, sample: Any = None, noise: Any = None, **kwargs: Any
    ) -> torch.Tensor:
        """Return the sample at the next noise level from the last three predictions."""
        updated: torch.Tensor = super().multistep_dpm_solver_third_order_update(
            model_output_list, *args, sample=sample, noise=noise, **kwargs
        )
        alphas, sigmas = self._sigma_to_alpha_sigma_t(self.sigmas[self.step_index - 2 : self.step_index + 2])
        h_1, h_0, h = (alphas / sigmas).log().diff().unbind()
        m2, m1, m0 = model_output_list[-3:]
        second_difference = h / (h_0 + h_1) * (h / h_0 * (m0 - m1) - h / h_1 * (m1 - m2))
        updated += alphas[-1] * second_difference
        return updated


def _output(previous: torch.Tensor) -> Any:
    from diffusers.schedulers.scheduling_utils import SchedulerOutput

    return SchedulerOutput(prev_sample=previous)
