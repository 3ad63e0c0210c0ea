"""Looks at whether the artist has cancelled, many times in every part of the work: loading, steps, painting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import Conv2d, Conv3d, Module, ModuleList
from torch.overrides import TorchFunctionMode

Look = Callable[[], None]  # raises what ends the work


def watch_forward(network: Module, look: Look) -> None:
    """Have a network look before each of its blocks, of whatever family: what stands in its lists.

    Those of attention and of what follows it stand in lists of their own, so that a look is never further away than one
    layer. Convolutions are looked at on their own where they are large, as at the end of a VAE's decoder. While a block
    is compiled, what is inside of it doesn't look, since that would cut it to pieces: compiled blocks look before each.
    """
    for part in _parts(network):
        part.register_forward_pre_hook(lambda *_: None if torch.compiler.is_compiling() else look())


def _parts(network: Module) -> Iterator[Module]:
    for module in network.modules():
        if isinstance(module, ModuleList):
            yield from (item for item in module if item is not None)
        elif isinstance(module, (Conv2d, Conv3d)):
            yield module


class Watching(TorchFunctionMode):
    """Inside a with block, looks before every call of torch: for loading, which runs through no network of ours."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self._look()
        return function(*args, **(kwargs or {}))
