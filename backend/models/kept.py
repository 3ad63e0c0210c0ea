"""What a model worked out lately and is likely to be asked again: prompts read, pictures encoded."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch

from ..request import Array

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """Values by what they were made from, of at most so many bytes together; those not used for longest go first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._held = 0  # bytes

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made now unless it is kept; nobody may write into it."""
        if key not in self._values:
            value = make()
            self._values[key] = value
            self._held += size_of(value)
        self._values.move_to_end(key)
        while self._held > self._most and len(self._values) > 1:
            _, oldest = self._values.popitem(last=False)
            self._held -= size_of(oldest)
        return self._values[key]

    def clear(self) -> None:
        """Forget all of them."""
        self._values.clear()
        self._held = 0

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Key) -> bool:
        return key in self._values


def sign(picture: Array) -> Hashable:
    """Return what tells a picture (contiguous uint8 H×W×3) from others, for a key."""
    return hashlib.blake2b(picture.data).digest(), picture.shape


def size_of(value: Any) -> int:
    """Return the bytes of the tensors in a value: a tensor, or tuples and mappings of them."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if hasattr(value, "values"):
        return sum(size_of(item) for item in value.values())
    return sum(size_of(item) for item in value) if isinstance(value, tuple) else 0
