"""Noise as NVIDIA's cards draw it, on any machine: Philox 4×32-10 (Salmon et al. 2011) and cuRAND's Box–Muller."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

# Constants of the paper: the multipliers of the two lanes, and by how much the keys grow from round to round.
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)

Words = NDArray[np.uint64]  # 32 bits each


def philox(counter: Sequence[Words], key: Sequence[np.uint64]) -> list[Words]:
    """Return four random words of 32 bits for each counter (four words of any one shape) under a key of two words."""
    first, second, third, fourth = counter
    low, high = key
    for _ in range(ROUNDS):
        product, other = first * MULTIPLIERS[0], third * MULTIPLIERS[1]
        first, second, third, fourth = (
            (other >> SHIFT) ^ second ^ low,
            other & LOW,
            (product >> SHIFT) ^ fourth ^ high,
            product & LOW,
        )
        low, high = (low + WEYL[0]) & LOW, (high + WEYL[1]) & LOW
    return [first, second, third, fourth]


class PhiloxGenerator(torch.Generator):
    """A generator whose normal noise is that of torch's on an NVIDIA card; it works inside AsOnNvidia() alone.

    There each number has a thread of its own, and each call is one step of the counter, as long as a card has as many
    threads as there are numbers: about 100,000 on small ones, more than a picture of 1024² pixels has latents.
    """

    def __new__(cls, seed: int) -> PhiloxGenerator:
        """Make what passes for a generator on the processor."""
        return super().__new__(cls, "cpu")  # type: ignore[call-arg] # its stub says less than torch takes

    def __init__(self, seed: int) -> None:
        self._key = np.uint64(seed & int(LOW)), np.uint64(seed >> 32)
        self._calls = 0

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        """Return the next standard normal noise (float32 on the CPU) of that shape."""
        count = math.prod(shape)
        zeros = np.zeros(count, np.uint64)
        counter = [zeros + np.uint64(self._calls), zeros, np.arange(count, dtype=np.uint64), zeros]
        self._calls += 1
        first, second, _, _ = philox(counter, self._key)
        # Box and Muller's transform of the middles of 2^32 intervals, of which a thread keeps the sine.
        share = (first.astype(np.float64) + 0.5) / 2**32
        angle = (second.astype(np.float64) + 0.5) * (2 * math.pi / 2**32)
        normal = np.sqrt(-2 * np.log(share)) * np.sin(angle)
        return torch.from_numpy(normal.astype(np.float32)).reshape(tuple(shape))


class AsOnNvidia(TorchFunctionMode):  # type: ignore[misc]
    """Let torch.randn draw from generators of this module's kind inside a with block, as it does from its own."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Draw, or do what torch would do."""
        named = kwargs or {}
        generator = named.get("generator")
        if function is torch.randn and isinstance(generator, PhiloxGenerator):
            noise = generator.normal(args[0] if isinstance(args[0], (tuple, list)) else args)
            return noise.to(device=named.get("device"), dtype=named.get("dtype"))
        return function(*args, **named)
