"""The networks of the built-in upscalers, run in torch on weights in ncnn's format."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from . import ncnn

if TYPE_CHECKING:
    import torch

Step: TypeAlias = Callable[[float], None]
"""Told, several times a second, which share (0-1) of one call is done; it may raise Cancelled."""


class Network(Protocol):
    """From (1, 3, h, w) sRGB in 0-1, single precision, to (1, 3, h * scale, w * scale)."""

    def __call__(self, picture: torch.Tensor, step: Step) -> torch.Tensor:
        """Return the picture enlarged, saying how far it is."""


Convolution: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"


class CompactNetwork:
    """SRVGGNetCompact: 3x3 convolutions with PReLU, pixel shuffle by 4, added to the picture enlarged by nearest."""

    def __init__(self, convolutions: Sequence[Convolution], slopes: Sequence[torch.Tensor], scale: int) -> None:
        self._convolutions = convolutions
        self._slopes = slopes
        self._scale = scale

    def __call__(self, picture: torch.Tensor, step: Step) -> torch.Tensor:
        from torch.nn import functional

        x = picture
        for index, ((weight, bias), slope) in enumerate(zip(self._convolutions, self._slopes, strict=False)):
            step(index / len(self._convolutions))
            x = functional.prelu(functional.conv2d(x.to(weight.dtype), weight, bias, padding=1), slope)
        x = functional.conv2d(x.float(), *self._convolutions[-1], padding=1)
        x = functional.pixel_shuffle(x, 4) + functional.interpolate(picture, scale_factor=4, mode="nearest")
        if self._scale == 4:
            return x
        size = [side * self._scale for side in picture.shape[-2:]]
        return functional.interpolate(x, size=size, mode="bicubic", align_corners=False)


class RRDBNetwork:
    """RRDBNet of Real-ESRGAN: residual-in-residual dense blocks, then twice nearest by 2 and a convolution."""

    LAST_CONVOLUTIONS = 0.15
    """Share of the time that the convolutions on the enlarged picture take, about, with six blocks."""

    def __init__(self, convolutions: Sequence[Convolution]) -> None:
        self._convolutions = convolutions
        self._blocks = (len(convolutions) - 6) // 15

    def _convolve(self, x: torch.Tensor, index: int) -> torch.Tensor:
        from torch.nn import functional

        weight, bias = self._convolutions[index]
        return functional.conv2d(x.to(weight.dtype), weight, bias, padding=1)

    def _activated(self, x: torch.Tensor, index: int) -> torch.Tensor:
        from torch.nn import functional

        return functional.leaky_relu_(self._convolve(x, index), 0.2)

    def _dense_block(self, x: torch.Tensor, first: int, step: Callable[[], None]) -> torch.Tensor:
        import torch

        features = [x]
        for index in range(first, first + 4):
            step()
            features.append(self._activated(torch.cat(features, 1), index))
        step()
        return self._convolve(torch.cat(features, 1), first + 4) * 0.2 + x

    def __call__(self, picture: torch.Tensor, step: Step) -> torch.Tensor:
        from torch.nn import functional

        shallow = x = self._convolve(picture, 0)
        index = 1
        for block in range(self._blocks):
            block_input = x
            for part in range(3):
                share = (block + part / 3) / self._blocks * (1 - self.LAST_CONVOLUTIONS)
                x = self._dense_block(x, index, functools.partial(step, share))
                index += 5
            x = x * 0.2 + block_input
        x = self._convolve(x, index) + shallow
        for doubling in (1, 2):
            step(1 - self.LAST_CONVOLUTIONS / doubling)
            x = self._activated(functional.interpolate(x, scale_factor=2, mode="nearest"), index + doubling)
        step(1 - self.LAST_CONVOLUTIONS / 3)
        return self._convolve(self._activated(x, index + 3), index + 4)


def best_dtype(device: str) -> torch.dtype:
    """The number type a network runs fastest in: half on CUDA, bfloat16 on processors that compute with it."""
    import torch

    if device.startswith("cuda"):
        return torch.float16
    # Asked of torch by a private name, which an older or newer torch may lack: then single precision serves.
    computes_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    if device == "cpu" and computes_bfloat16():
        return torch.bfloat16
    return torch.float32


@functools.lru_cache(maxsize=2)
def load_network(
    param: Path, kind: Literal["compact", "rrdb"], scale: int, device: str, dtype: torch.dtype | None = None
) -> Network:
    """The network of a .param file on a device; ModelError where its weights are missing or of another shape."""
    import torch

    layers = ncnn.read(param)
    target = dtype or best_dtype(device)

    def tensor(values: NDArray[np.float32]) -> torch.Tensor:
        placed = torch.from_numpy(values.copy()).to(device, target)
        return placed.contiguous(memory_format=torch.channels_last) if placed.ndim == 4 else placed

    convolutions = [
        (tensor(layer.weight), tensor(layer.bias))
        for layer in layers
        if layer.kind == "Convolution" and layer.weight is not None and layer.bias is not None
    ]
    # The last convolution makes the picture's levels, and bfloat16 knows fewer of them than a picture has.
    convolutions[-1:] = [(weight.float(), bias.float()) for weight, bias in convolutions[-1:]]
    slopes = [tensor(layer.weight) for layer in layers if layer.kind == "PReLU" and layer.weight is not None]
    if kind == "compact" and len(convolutions) == len(slopes) + 1:
        return CompactNetwork(convolutions, slopes, scale)
    if kind == "rrdb" and len(convolutions) > 6 and (len(convolutions) - 6) % 15 == 0:
        return RRDBNetwork(convolutions)
    raise ModelError(f"The weights of “{param.stem}” have another shape than they should.", "Install them again.")
