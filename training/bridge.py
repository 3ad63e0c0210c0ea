"""The noise schedule, and the bridge: noised samples that lie between a source picture's latent and its target's.

Image-to-image starts at a level t0 from a·source + s·noise, with nothing of the style yet: its progress is 0. Every
step moves the sample towards the end that the model predicts, and so along the bridge, source + progress·(target −
source). Training on such samples makes image-to-image of a render MOVE to the style; training on clean pictures alone
would only clean the render up.

A prompt leads to the end at once, at low levels a part of what is left, so that the style comes gradually as denoising
grows. No prompt keeps the source as it is and only goes on with what is seen begun (`HASTE`). From half the way on both
lead to the end, from beyond it both lead back: so guidance (CFG) may overshoot in its first steps, but has nothing to
add at its last, where a model that tells prompt from none until the end has its colours burnt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.mixture import Mixture

LEVELS = 1000
# The noise is that of a "scaled_linear" schedule, divided. A model so small can't invent again what noise has buried:
# with Stable Diffusion's half strength took stripes, hands and faces, a third of that still left broad areas mottled.
# With this 20 steps begin with 0.10 of the latents' deviation at a strength of 0.55, 0.24 at 0.7, 0.49 at 0.8; the top
# has 7. To multiply the latents instead (scaling_factor) would be the same noise, but velocities mix sample and noise
# as if latents had a deviation of 1: the network then had to hand on every detail itself, and handed on a blur.
BETAS, QUIETER = (0.00002, 0.0274), 16.0
BLIND, BLINDED = 930, 0.2  # from this level up, that share of samples without a source is noise alone, as text-to-image
# Levels of samples without a source are drawn as the span's share u² below the top, since what a picture shows is
# decided where 20 steps take but four.
ABOVE = 2.0
LOWEST, HIGHEST = 60, 960  # starts of bridges
USUAL = (430, 850)  # the starts that artists use most
RENAMING = (430, 930)  # and where they name another colour, up to a garment that is inpainted anew,
HIGHER = 0.6  # drawn as a number from 0 to 1 to this power: at the upper end colours are taken least
OVERSHOOT = 2.0  # how far beyond their end bridges lie at most
LAGGING = 0.9  # the progress up to which colours may lag
HASTE = 1.0  # what without a prompt is added to the progress, as a share of it
FULL = 450  # the level from which on a prompt leads the whole way
# Of the loss in units of the clean latent's squared error. With 60 levels of 0.7, where colours are renamed, counted
# a sixth of those below 0.55; without the floor, those of a bridge at 0.9 count a sixteenth.
WEIGHT_CAP, WEIGHT_FLOOR = 20.0, 3.0


def schedule() -> tuple[Tensor, Tensor]:
    """Return the shares of signal and of noise (LEVELS each, float64, a² + s² = 1)."""
    betas = torch.linspace(BETAS[0] ** 0.5, BETAS[1] ** 0.5, LEVELS, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    variance = (1 - kept) / kept / QUIETER**2
    return (1 / (1 + variance)).sqrt(), (variance / (1 + variance)).sqrt()


def trained_betas() -> list[float]:
    """Return the schedule as diffusers' schedulers take it (LEVELS)."""
    kept = schedule()[0].square()
    before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    return [float(f"{beta:.6g}") for beta in (1 - kept / before).tolist()]


SIGNAL, NOISE = (part.float() for part in schedule())
SIGMA = NOISE / SIGNAL


def shares(level: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is signal and what is noise at levels (N), to be multiplied with latents (N×1×1×1 each)."""
    return SIGNAL[level].view(-1, 1, 1, 1), NOISE[level].view(-1, 1, 1, 1)


@dataclass
class Levels:
    """Where the samples of a batch (N) are."""

    level: Tensor  # int64, the step's level t
    progress: Tensor  # along the bridge: 0 at the source, 1 at the target, more where guidance has overshot
    bridged: Tensor  # bool: comes from a source
    blind: Tensor  # bool: nothing of the picture is left


def draw_levels(rng: np.random.Generator, count: int, mixture: Mixture) -> tuple[Levels, NDArray[np.bool_]]:
    """Draw levels for a batch, and which of its samples' sources wear other colours than the caption says."""
    bridge = rng.random(count) >= mixture.alone
    recoloured = bridge & (rng.random(count) < mixture.recoloured)
    renaming = RENAMING[0] + (RENAMING[1] - RENAMING[0]) * rng.random(count) ** HIGHER
    usual = np.where(recoloured, renaming.astype(np.int64), rng.integers(*USUAL, count))
    start = np.where(rng.random(count) < mixture.usual, usual, rng.integers(LOWEST, HIGHEST, count))
    begun, later = rng.random(count) < mixture.first, rng.integers(5, start)
    alone = LEVELS - 1 - ((LEVELS - 1 - mixture.lowest_alone) * rng.random(count) ** ABOVE).astype(np.int64)
    level = np.where(bridge, np.where(begun, start, later), alone)
    # The lower a bridge has come from its start, the more of the style is there.
    progress = np.where(begun, 0.0, rng.random(count) ** (later / start))
    overshot = ~begun & (rng.random(count) < mixture.overshot)
    progress = np.where(overshot, 1 + OVERSHOOT * rng.random(count) ** 2, progress)
    blind = ~bridge & (level >= BLIND) & (rng.random(count) < BLINDED)
    progress = np.where(bridge, progress, 1.0).astype(np.float32)
    return Levels(*map(torch.from_numpy, (level, progress, bridge, blind))), recoloured


def lag(rng: np.random.Generator, progress: float) -> float:
    """Return how much of (target in the source's colours - target) to add to a source, for colours behind the style.

    Steps lead on what is easy first, so that samples have the style already and their old colours still. With this
    source the bridge comes at `progress` from source + progress·(target in colours between - source), and goes straight
    to the target from there.
    """
    if not 0 < progress < LAGGING:
        return 0.0
    return float(rng.random()) * progress / (1 - progress)


def ahead(level: Tensor, progress: Tensor, told: Tensor) -> Tensor:
    """Return the progress that a sample shall be led to (N), by a prompt (told) or without one."""
    part = (level / FULL).clamp(max=1)
    pull = (part.square() * (3 - 2 * part)) ** 3  # a smooth step from 0 to 1, and late
    further = torch.maximum(progress * (1 + HASTE), progress + told * pull * (1 - progress))
    return further.clamp(max=1)


def along(source: Tensor, target: Tensor, progress: Tensor) -> Tensor:
    """Return what lies on the bridges from source to target (N×4×H×W) at a progress (N)."""
    return source + progress.view(-1, 1, 1, 1) * (target - source)


def noised(between: Tensor, levels: Levels, noise: Tensor) -> Tensor:
    """Return the sample that the sampler would see; `between` lies on the bridges (N×4×H×W)."""
    a, s = shares(levels.level)
    return torch.where(levels.blind.view(-1, 1, 1, 1), 0.0, a) * between + s * noise


def aim(sample: Tensor, end: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """Return the velocity (N×4×H×W) that leads from a sample to a clean latent, and the loss weight (N×1×1×1).

    The weight gives min(signal/noise + 1, WEIGHT_CAP) in units of the squared error of a clean latent of deviation 1
    (min-SNR weighting, arXiv 2303.09556), on a bridge at least WEIGHT_FLOOR; beyond a bridge's end it is less, as
    errors are relative to how far that has led.
    """
    a, s = shares(levels.level)
    least = torch.where(levels.bridged, WEIGHT_FLOOR, 1.0).view(-1, 1, 1, 1)
    weight = (1 + (a / s).square()).clamp(max=WEIGHT_CAP).maximum(least) * s.square()
    return (a * sample - end) / s, weight / levels.progress.clamp(min=1).square().view(-1, 1, 1, 1)


def clean(sample: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
    """Return the clean latent that a velocity stands for."""
    a, s = shares(level)
    return a * sample - s * velocity
