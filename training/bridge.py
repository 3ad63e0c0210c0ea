"""The noise schedule, and the bridge: noised samples that lie between a source picture's latent and its target's.

Image-to-image starts at a level t0 from a·source + s·noise. Where a model predicts the end at every step, what is left
of the source shrinks in proportion to sigma = s/a, so at a lower level t the sample is
a·(end + lam·(source − end)) + s·noise with lam = sigma(t)/sigma(t0), or its square where a sampler adds noise of its
own at every step (Euler a). Training on such samples makes image-to-image of a render MOVE to the style; training on
clean pictures alone would only clean the render up. The end is the style's picture from a start of FULL on, and the
part `way` of the way to it below, so that the style comes gradually as denoising grows.

Guidance (CFG) overshoots: what it leads to lies beyond the picture, by the scale less one times what tells it from the
picture without a prompt. Some bridges lie there too, with and without a caption, and lead back: so a high scale ends
near the picture all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVELS = 1000
# Of a "scaled_linear" schedule, and what latents of deviation 1 are multiplied by (Stable Diffusion's scaling_factor)
# before noise is added to them. A model so small can't invent again what noise has buried: with Stable Diffusion's
# schedule and a factor of 2 half strength took stripes, hands and faces (noise of 0.95 deviations), with 0.3 it still
# left broad areas mottled. With these 20 steps begin with 0.10 at a strength of 0.55, 0.24 at 0.7, 0.49 at 0.8; the top
# has 7.
BETAS = (0.00002, 0.0274)
SCALE = 16.0
FULL = 450  # from here up an image-to-image start goes the whole way to the style
BLIND, BLINDED = 930, 0.5  # from this level up, that share of samples without a source is noise alone, as text-to-image
LOWEST, HIGHEST = 60, 960  # starts of bridges
USUAL, USUALLY = (430, 680), 0.5  # the starts that artists use most, and their share
FIRST = 0.4  # share of bridges at their start: one call of many, but the one that sees the source as it is
# Of the loss in units of the clean latent's squared error. Bridges to the model's own pictures have a lower one, as the
# error at low levels can't be mended any more; overshot ones and those without a prompt the lowest, or their great
# errors, which nothing mends, would drown all others.
WEIGHT_CAP, OWN_WEIGHT_CAP, VAGUE_WEIGHT_CAP = 60.0, 15.0, 2.0
OVERSHOT, OVERSHOOT = 0.15, 8.0  # share of bridges, of those not at their start, and by how much at most
RECOLOUR, RECOLOURED = (575, 640), 0.6  # the starts where other colours in the source begin, and their greatest share


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
    way: Tensor  # the part of the way from source to style that the bridge leads, 0 to 1
    over: Tensor  # by how much guidance has overshot, 0 to OVERSHOOT
    blind: Tensor  # bool: nothing of the picture is left
    vague: Tensor  # bool: what the picture shall be can't be known for sure


def draw_levels(rng: np.random.Generator, count: int, bridged: float) -> Levels:
    """Draw levels for a batch; the share `bridged` of it comes from a source."""
    bridge = rng.random(count) < bridged
    start = np.where(rng.random(count) < USUALLY, rng.integers(*USUAL, count), rng.integers(LOWEST, HIGHEST, count))
    along = np.where(rng.random(count) < FIRST, start, rng.integers(5, start))
    level = np.where(bridge, along, rng.integers(0, LEVELS, count))
    start = np.maximum(start, level)
    shrinking = rng.uniform(1, 2, count)
    lam = np.where(bridge, (SIGMA[level] / SIGMA[start]).numpy() ** shrinking, 0.0).astype(np.float32)
    way = np.where(bridge, part_of_the_way(start), 1.0).astype(np.float32)
    blind = ~bridge & (level >= BLIND) & (rng.random(count) < BLINDED)
    overshot = bridge & (level < start) & (rng.random(count) < OVERSHOT)
    over = np.where(overshot, OVERSHOOT * rng.random(count) ** 2 * (1 - lam), 0.0).astype(np.float32)
    return Levels(torch.from_numpy(level), start, *map(torch.from_numpy, (lam, way, over, blind, overshot)))


def part_of_the_way(start: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how far an image-to-image start goes to the style: a smooth step from 0 at 0 to 1 at FULL."""
    x = np.clip(start / FULL, 0, 1)
    part: NDArray[np.float64] = x * x * (3 - 2 * x)
    return part


def recolour_chance(start: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how likely the source wears other colours than the caption says: never at low starts, often at high."""
    chance: NDArray[np.float64] = np.clip((start - RECOLOUR[0]) / (RECOLOUR[1] - RECOLOUR[0]), 0, 1) * RECOLOURED
    return chance


def noised(
    target: Tensor, source: Tensor, mean: Tensor, levels: Levels, noise: Tensor, drawn: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sample, the velocity that leads to the bridge's end, and the loss weight of each item (N×1×1×1).

    target, source, mean: latents times SCALE (N×4×H×W), the last of what an empty prompt stands for. drawn: what the
    bridge leads to instead of its end, as far as the sample has come: the model's own picture, whose faults it so
    learns to mend. The weight gives min(signal/noise + 1, the cap) in units of the squared error of a clean latent of
    deviation 1 (min-SNR weighting, arXiv 2303.09556).
    """
    a, s = (values[levels.level].view(-1, 1, 1, 1) for values in (SIGNAL, NOISE))
    end = source + levels.way.view(-1, 1, 1, 1) * (target - source)
    ahead = end if drawn is None else drawn
    between = ahead + levels.lam.view(-1, 1, 1, 1) * (source - ahead) + levels.over.view(-1, 1, 1, 1) * (end - mean)
    sample = torch.where(levels.blind.view(-1, 1, 1, 1), 0.0, a) * between + s * noise
    velocity = (a * sample - end) / s
    usual = WEIGHT_CAP if drawn is None else OWN_WEIGHT_CAP
    cap = torch.where(levels.vague.view(-1, 1, 1, 1), VAGUE_WEIGHT_CAP, usual)
    weight = torch.minimum(1 + (SCALE * a / s).square(), cap) * (s / SCALE).square()
    return sample, velocity, weight


def at_start(levels: Levels) -> Levels:
    """Return the same bridges where they begin."""
    begun, none = torch.ones_like(levels.lam), torch.zeros_like(levels.over)
    return replace(levels, level=torch.from_numpy(levels.start), lam=begun, over=none)


def clean(sample: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
    """Return the clean latent that a velocity stands for."""
    a, s = (values[level].view(-1, 1, 1, 1) for values in (SIGNAL, NOISE))
    return a * sample - s * velocity
