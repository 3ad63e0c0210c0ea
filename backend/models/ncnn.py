"""Networks in ncnn's format: the list of layers (.param, text) and their weights (.bin), read into numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError

PARAM_MAGIC = "7767517"
"""First line of every .param file."""

HALF_TAG = 0x01306B47
"""Word before a layer's weights that says they are 16-bit floats; 0 says 32-bit."""

OUTPUTS, KERNEL, HAS_BIAS, WEIGHT_COUNT = 0, 1, 5, 6
"""Keys of a Convolution's parameters that are read here."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One layer: its kind as ncnn spells it, its parameters by number, and its float32 weights.

    A Convolution has a weight of (out, in, k, k) and a bias of (out,); a PReLU has its slopes as the weight.
    """

    kind: str
    parameters: dict[int, str]
    weight: Floats | None = None
    bias: Floats | None = None


class _Weights:
    """A cursor over the bytes of a .bin file."""

    def __init__(self, content: bytes, name: str) -> None:
        self._content = content
        self._name = name
        self._offset = 0

    def take(self, count: int, kind: type[np.float16 | np.float32 | np.uint32]) -> NDArray[np.generic]:
        """The next `count` little-endian values; every array starts at a multiple of four bytes."""
        size = np.dtype(kind).itemsize * count
        if count < 0 or self._offset + size > len(self._content):
            raise ModelError(f"The weights of “{self._name}” are cut short.", "Install the upscaler's package again.")
        values = np.frombuffer(self._content, np.dtype(kind).newbyteorder("<"), count, self._offset)
        self._offset += -(-size // 4) * 4
        return values

    def tagged(self, count: int) -> Floats:
        tag = int(self.take(1, np.uint32).astype(np.int64)[0])
        if tag not in (0, HALF_TAG):
            raise ModelError(f"The weights of “{self._name}” are of an unknown kind.", "Use 16-bit or 32-bit weights.")
        return self.take(count, np.float16 if tag else np.float32).astype(np.float32)

    def at_end(self) -> bool:
        return self._offset == len(self._content)


def _parameters(words: list[str]) -> dict[int, str]:
    return {int(key): value for key, _, value in (word.partition("=") for word in words)}


def _layers(text: str, name: str) -> list[Layer]:
    lines = text.split("\n")
    if lines[0].strip() != PARAM_MAGIC:
        raise ModelError(f"“{name}” is not a list of ncnn layers.", "Install the upscaler's package again.")
    layers = []
    try:
        for line in lines[2:]:
            words = line.split()
            if words:
                inputs, outputs = int(words[2]), int(words[3])
                layers.append(Layer(words[0], _parameters(words[4 + inputs + outputs :])))
        expected = int(lines[1].split()[0])
    except (ValueError, IndexError) as error:
        raise ModelError(f"The layers of “{name}” can't be read.", "Install the upscaler's package again.") from error
    if len(layers) != expected:
        raise ModelError(f"“{name}” lacks some of its layers.", "Install the upscaler's package again.")
    return layers


def _with_weights(layer: Layer, weights: _Weights) -> Layer:
    numbers = layer.parameters
    if layer.kind == "PReLU":
        return Layer(layer.kind, numbers, weights.take(int(numbers[0]), np.float32).astype(np.float32))
    if layer.kind != "Convolution":
        return layer
    outputs, kernel, count = int(numbers[OUTPUTS]), int(numbers[KERNEL]), int(numbers[WEIGHT_COUNT])
    weight = weights.tagged(count).reshape(outputs, count // (outputs * kernel**2), kernel, kernel)
    bias = weights.take(outputs, np.float32).astype(np.float32) if numbers.get(HAS_BIAS) == "1" else None
    return Layer(layer.kind, numbers, weight, bias)


def read(param: Path) -> list[Layer]:
    """The layers of a network in the order of its .param file, with the weights of the .bin file beside it.

    Raises ModelError where a file is missing, is no such file, or does not hold exactly the weights of its layers.
    """
    try:
        text, content = param.read_text(encoding="ascii"), param.with_suffix(".bin").read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"The upscaler “{param.stem}” can't be read.", "Install the upscaler's package again."
        ) from error
    weights = _Weights(content, param.stem)
    try:
        layers = [_with_weights(layer, weights) for layer in _layers(text, param.name)]
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"The layers of “{param.stem}” don't fit its weights.", "Install its package again."
        ) from error
    if not weights.at_end():
        raise ModelError(f"“{param.stem}” holds more weights than its layers take.", "Install its package again.")
    return layers
