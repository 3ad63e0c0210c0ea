"""Schedules by the web UI's names: the noise levels of the steps, as pure functions of the model's own levels.

A noise level σ is the size of the noise in x = x0 + σ·noise. A model's table holds the level of each of its training
timesteps, growing; between two of them log σ is interpolated linearly over the timestep, as k-diffusion does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Levels = NDArray[np.float64]

AUTOMATIC = "Automatic"
LEAST_ALPHA = 2.0**-24  # of the last timestep of a model trained to zero signal, as diffusers has it
KARRAS_RHO = 7.0  # Karras et al. 2022, arXiv:2206.00364, section 5
POLYEXPONENTIAL_RHO = 1.0  # k-diffusion's default
BETA_SHAPE = 0.6  # both α and β; Lee et al. 2024, arXiv:2407.12173
SDXL_NATIVE = 1024  # pixels; a model that draws at this side is of SDXL's kind

# Levels of ten steps as published for arXiv:2404.14507, research.nvidia.com/labs/toronto-ai/AlignYourSteps
ALIGN_YOUR_STEPS_SD1 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGN_YOUR_STEPS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


def sigma_table(alphas_cumprod: ArrayLike) -> Levels:
    """Return the growing noise levels √((1 − ᾱ)/ᾱ) of a model's training timesteps, float64, one a timestep."""
    alphas = np.maximum(np.asarray(alphas_cumprod, dtype=np.float64), LEAST_ALPHA)
    return np.asarray(np.sqrt((1 - alphas) / alphas))


def levels_at(timesteps: ArrayLike, table: Levels) -> Levels:
    """Return the noise levels at timesteps, which may lie between two of the table's."""
    return np.asarray(np.exp(np.interp(np.asarray(timesteps, dtype=np.float64), np.arange(len(table)), np.log(table))))


def timesteps_at(sigmas: ArrayLike, table: Levels) -> Levels:
    """Return the timesteps (0 to the table's last, with fractions) that the model knows noise levels above 0 by."""
    return np.interp(np.log(np.asarray(sigmas, dtype=np.float64)), np.log(table), np.arange(len(table)))


def whole_timesteps(sigmas: ArrayLike, table: Levels, least: int = 0) -> NDArray[np.int64]:
    """Return the nearest whole timesteps of falling noise levels above 0, no two of them the same, none below least."""
    nearest = np.rint(timesteps_at(sigmas, table)).astype(np.int64)
    count = np.arange(len(nearest))
    falling = np.minimum.accumulate(nearest + count) - count
    return np.asarray(np.maximum(falling, least + count[::-1]), dtype=np.int64)


def sigmas_of(schedule: str, table: Levels, steps: int, native: int = 0, drop_penultimate: bool = False) -> Levels:
    """Return the noise levels of a schedule, float64: steps + 1 of them, falling strictly, the last one 0.

    table: the model's own, see sigma_table. native: side in pixels of the model's pictures, which tells SDXL's kind.
    drop_penultimate: make a schedule one step longer and leave its last level above 0 out, as the web UI does for some
    samplers. Raises KeyError for a schedule that is not in SCHEDULES, or is "Automatic".
    """
    if drop_penultimate:
        longer = sigmas_of(schedule, table, steps + 1, native)
        return np.delete(longer, -2)
    if schedule == ALIGN_YOUR_STEPS:
        levels = align_your_steps(table, steps, ALIGN_YOUR_STEPS_SDXL if native >= SDXL_NATIVE else None)
    else:
        levels = FORMULAS[schedule](table, steps)
    return np.append(levels, 0.0)


def normal(table: Levels, steps: int) -> Levels:
    """Return the levels of timesteps spaced evenly from the model's last to its first (k-diffusion's own)."""
    return levels_at(np.linspace(len(table) - 1, 0, steps), table)


def sgm_uniform(table: Levels, steps: int) -> Levels:
    """Return the levels of evenly spaced timesteps from the last towards the first, which is left to the end at 0."""
    return levels_at(np.linspace(len(table) - 1, 0, steps + 1)[:-1], table)


def simple(table: Levels, steps: int) -> Levels:
    """Return every (N/steps)th of the model's own N levels, rounded down, counted from the greatest."""
    return np.asarray(table[len(table) - 1 - np.arange(steps) * len(table) // steps])


def ddim(table: Levels, steps: int) -> Levels:
    """Return the levels of timesteps 1, 1 + N//steps, 1 + 2·(N//steps), … as in DDIM's paper, arXiv:2010.02502."""
    last = (steps - 1) * (len(table) // steps)
    timesteps = np.linspace(0, last, steps) + min(1, len(table) - 1 - last)
    return np.asarray(table[np.rint(timesteps).astype(int)][::-1])


def karras(table: Levels, steps: int) -> Levels:
    """Return levels spaced evenly in σ^(1/ρ), ρ = 7: equation 5 of Karras et al. 2022, arXiv:2206.00364."""
    greatest, least = table[-1] ** (1 / KARRAS_RHO), table[0] ** (1 / KARRAS_RHO)
    return np.asarray(np.linspace(greatest, least, steps) ** KARRAS_RHO)


def exponential(table: Levels, steps: int) -> Levels:
    """Return levels spaced evenly in log σ."""
    return np.asarray(np.exp(np.linspace(np.log(table[-1]), np.log(table[0]), steps)))


def polyexponential(table: Levels, steps: int, rho: float = POLYEXPONENTIAL_RHO) -> Levels:
    """Return levels that are polynomial of degree ρ in log σ; with k-diffusion's ρ = 1 the exponential ones."""
    least, greatest = np.log(table[0]), np.log(table[-1])
    return np.asarray(np.exp(least + (greatest - least) * np.linspace(1, 0, steps) ** rho))


def kl_optimal(table: Levels, steps: int) -> Levels:
    """Return levels spaced evenly in arctan σ: theorem 3.1 of Sabour et al. 2024, arXiv:2404.14507."""
    return np.asarray(np.tan(np.linspace(np.arctan(table[-1]), np.arctan(table[0]), steps)))


def beta(table: Levels, steps: int) -> Levels:
    """Return levels from least to greatest σ at evenly spaced quantiles of the Beta(0.6, 0.6) distribution.

    Many steps at both ends and few between; quantiles after arXiv:2407.12173, laid over σ as the web UI and diffusers.
    """
    from scipy.special import betaincinv

    quantiles = betaincinv(BETA_SHAPE, BETA_SHAPE, np.linspace(1, 0, steps))
    return np.asarray(table[0] + (table[-1] - table[0]) * quantiles)


def align_your_steps(table: Levels, steps: int, published: tuple[float, ...] | None = None) -> Levels:
    """Return the published levels of ten steps, brought to another number by interpolating log σ linearly.

    published: eleven levels, those of SD 1.5 unless given; the last one, next to 0, is left to the end at 0.
    """
    known = np.log(ALIGN_YOUR_STEPS_SD1 if published is None else published)
    wanted = np.linspace(0, len(known) - 1, steps + 1)[:-1]
    return np.asarray(np.minimum(np.exp(np.interp(wanted, np.arange(len(known)), known)), table[-1]))


ALIGN_YOUR_STEPS = "Align Your Steps"

# Normal and Uniform are the web UI's two names for one spacing over the whole of a model's timesteps.
FORMULAS: dict[str, Callable[[Levels, int], Levels]] = {
    "Normal": normal,
    "Uniform": normal,
    "Karras": karras,
    "Exponential": exponential,
    "Polyexponential": polyexponential,
    "SGM Uniform": sgm_uniform,
    "KL Optimal": kl_optimal,
    ALIGN_YOUR_STEPS: align_your_steps,
    "Simple": simple,
    "DDIM": ddim,
    "Beta": beta,
}
SCHEDULES = (AUTOMATIC, *FORMULAS)
EVENLY_SPACED = ("Normal", "Uniform", "SGM Uniform", "Simple", "DDIM")  # over the timesteps
