"""The noise that a picture grows from, by the web UI's rules for seeds, variations and seed resizing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch

from ..settings import Diffusion
from ..settings.diffusion import CPU, NV
from .philox import AsOnNvidia, PhiloxGenerator

SEEDS = 2**32  # there are that many; counting on past the last begins again
NEARLY_PARALLEL = 0.9995  # cosine above which spherical interpolation is as good as linear, and would divide by zero


class Seed(NamedTuple):
    """What one picture's noise is drawn from; size: latents (width, height) to draw it at, None for their own."""

    seed: int
    variation_seed: int = 0
    variation_strength: float = 0.0
    size: tuple[int, int] | None = None
    rng: str = CPU

    def generator(self) -> torch.Generator:
        """Return a fresh generator, on the CPU, so that a seed means the same on every machine."""
        return generator_of(self.seed, self.rng)


def generator_of(seed: int, rng: str) -> torch.Generator:
    """Return a fresh generator of the random number generator set; NV's works inside as_set() alone."""
    return PhiloxGenerator(seed) if rng == NV else torch.Generator("cpu").manual_seed(seed)


def as_set(seeds: Sequence[Seed]) -> AbstractContextManager[object]:
    """Return the context in which torch.randn draws from the seeds' generators."""
    return AsOnNvidia() if any(seed.rng == NV for seed in seeds) else nullcontext()


def single(settings: Diffusion, index: int) -> dict[str, Any]:
    """Return the changes that turn a batch's settings into those of its picture `index` alone.

    The seed counts on, or with a variation strength the variation seed does, and the seed stays.
    """
    name = "variation_seed" if settings.variation_strength > 0 else "seed"
    return {name: (getattr(settings, name) + index) % SEEDS, "batch_count": 1, "batch_size": 1}


def seed_of(settings: Diffusion, scale_factor: int) -> Seed:
    """Return the seed of the settings of one picture, for a model with that many pixels a latent."""
    size = (settings.seed_resize_width // scale_factor, settings.seed_resize_height // scale_factor)
    return Seed(
        settings.seed,
        settings.variation_seed,
        settings.variation_strength,
        size if min(size) > 0 else None,
        settings.rng,
    )


def draw_noise(seeds: Sequence[Seed], channels: int, height: int, width: int) -> torch.Tensor:
    """Return noise (B×C×h×w float32 on the CPU), each picture's from its own seed: a batch equals its singles."""
    with as_set(seeds):
        return torch.cat([_draw(seed, channels, height, width) for seed in seeds])


def _draw(seed: Seed, channels: int, height: int, width: int) -> torch.Tensor:
    small_width, small_height = seed.size or (width, height)
    shape = (1, channels, small_height, small_width)
    noise = torch.randn(shape, generator=seed.generator())
    if seed.variation_strength > 0:
        other = torch.randn(shape, generator=generator_of(seed.variation_seed, seed.rng))
        noise = interpolate(seed.variation_strength, noise, other)
    if seed.size is None:
        return noise
    large = torch.randn((1, channels, height, width), generator=seed.generator())
    return paste_centred(noise, large)


def interpolate(share: float, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return noise (1×C×h×w) on the arc from the first to the second at that share (0–1), column by column.

    Spherical interpolation (Shoemake 1985) along h, as the web UI does; linear between parallels.
    """
    cosine = (first / first.norm(dim=2, keepdim=True) * second / second.norm(dim=2, keepdim=True)).sum(2)
    if float(cosine.mean()) > NEARLY_PARALLEL:
        return first * (1 - share) + second * share
    angle = torch.acos(cosine.clamp(-1, 1)).unsqueeze(2)
    return (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)


def paste_centred(small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
    """Return the larger noise with the other one in its middle, cropped where it is larger itself."""
    pasted = large.clone()
    height, width = (min(a, b) for a, b in zip(small.shape[2:], large.shape[2:], strict=True))
    to_y, to_x = (large.shape[2] - height) // 2, (large.shape[3] - width) // 2
    from_y, from_x = (small.shape[2] - height) // 2, (small.shape[3] - width) // 2
    pasted[:, :, to_y : to_y + height, to_x : to_x + width] = small[
        :, :, from_y : from_y + height, from_x : from_x + width
    ]
    return pasted
