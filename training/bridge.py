"""The noise schedule, and the bridge: noised samples that lie between a source picture's latent and its target's.

Image-to-image starts at a level t0 from a·source + s·noise. Where a model predicts the target at every step, what is
left of the source shrinks in proportion to sigma = s/a, so at a lower level t the sample is
a·(target + lam·(source − target)) + s·noise with lam = sigma(t)/sigma(t0). Training on such samples makes
image-to-image of a render MOVE to the style; training on clean targets alone would only clean the render up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVELS = 1000
# Of a "scaled_linear" schedule: less noise than Stable Diffusion's below two thirds, twice as much at the top.
BETAS = (0.00002, 0.0195)
FULL = 300  # from here up an image-to-image start goes the whole way to the style; below it part of the way
# What latents of deviation 1 are multiplied by (Stable Diffusion's scaling_factor) before noise is added to them. With
# Stable Diffusion's schedule and a factor of 2, noise of 0.95 deviations buried stripes, hands and faces at a strength
# of 0.55, more than a small model can invent again; with these two it is 0.3 there, 1.2 at 0.8 and 5.7 at the top.
SCALE = 5.0
BLIND, BLINDED = 930, 0.5  # from this level up, that share of samples without a source is noise alone, as text-to-image
HIGHEST = 950  # the highest start of a bridge; above it next to nothing of the source is left
USUAL, USUALLY = (400, 720), 0.45  # the starts that artists use most, and their share
FIRST = 0.3  # share of bridges at their start: one call of many, but the one that sees the source as it is
# Of the loss in units of the clean latent's squared error. With 25, the levels below 250, which take the last grain out
# of a picture, got a fiftieth of the gradient, and grain stayed. Bridges to the model's own pictures keep it, as their
# error at low levels can't be mended any more.
WEIGHT_CAP, OWN_WEIGHT_CAP = 400.0, 25.0


def schedule() -> tuple[Tensor, Tensor]:
    """Return the shares of signal and of noise (LEVELS each, a² + s² = 1)."""
    betas = torch.linspace(BETAS[0] ** 0.5, BETAS[1] ** 0.5, LEVELS, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    return kept.sqrt().float(), (1 - kept).sqrt().float()


SIGNAL, NOISE = schedule()
SIGMA = NOISE / SIGNAL


@dataclass
class Levels:
    """For each sample of a batch: the level t, the level t0 where its bridge starts, and lam."""

    level: Tensor  # int64
    start: NDArray[np.int64]
    lam: Tensor  # 0 (no bridge) to 1 (all source)
    blind: Tensor  # bool: nothing of the picture is left


def draw_levels(rng: np.random.Generator, count: int, bridged: float) -> Levels:
    """Draw levels for a batch; the share `bridged` of it comes from a source."""
    bridge = rng.random(count) < bridged
    start = np.where(rng.random(count) < USUALLY, rng.integers(*USUAL, count), rng.integers(FULL, HIGHEST, count))
    along = np.where(rng.random(count) < FIRST, start, rng.integers(5, start))
    level = np.where(bridge, along, rng.integers(0, LEVELS, count))
    start = np.maximum(start, level)
    lam = np.where(bridge, (SIGMA[level] / SIGMA[start]).numpy(), 0.0).astype(np.float32)
    blind = ~bridge & (level >= BLIND) & (rng.random(count) < BLINDED)
    return Levels(torch.from_numpy(level), start, torch.from_numpy(lam), torch.from_numpy(blind))


def recolour_chance(start: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how likely the source wears other colours than the caption says: never at low starts, often at high."""
    chance: NDArray[np.float64] = np.clip((start - 550) / 200, 0, 1) * 0.5
    return chance


def noised(
    target: Tensor, source: Tensor, levels: Levels, noise: Tensor, drawn: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sample, the velocity that leads to the target, and the loss weight of each item (N×1×1×1).

    target, source: latents times SCALE (N×4×H×W). drawn: what the bridge leads to instead of the target, as far as the
    sample has come: the model's own picture, whose faults it so learns to mend. The weight gives
    min(signal/noise + 1, the cap) in units of the squared error of a clean latent of deviation 1 (min-SNR weighting,
    arXiv 2303.09556).
    """
    a, s = (values[levels.level].view(-1, 1, 1, 1) for values in (SIGNAL, NOISE))
    ahead = target if drawn is None else drawn
    between = ahead + levels.lam.view(-1, 1, 1, 1) * (source - ahead)
    sample = torch.where(levels.blind.view(-1, 1, 1, 1), 0.0, a) * between + s * noise
    velocity = (a * sample - target) / s
    cap = WEIGHT_CAP if drawn is None else OWN_WEIGHT_CAP
    weight = (1 + (SCALE * a / s).square()).clamp(max=cap) * (s / SCALE).square()
    return sample, velocity, weight


def at_start(levels: Levels) -> Levels:
    """Return the same bridges where they begin."""
    return Levels(torch.from_numpy(levels.start), levels.start, torch.ones_like(levels.lam), levels.blind)


def clean(sample: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
    """Return the clean latent that a velocity stands for."""
    a, s = (values[level].view(-1, 1, 1, 1) for values in (SIGNAL, NOISE))
    return a * sample - s * velocity
