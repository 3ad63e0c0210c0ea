"""The denoiser's repeated blocks compiled for a graphics card: steps are faster once the first have waited for it."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .savings import ran_out

log = logging.getLogger(__name__)

COMPILER = "inductor"
# Versions of a block that torch makes at most, for widths, sizes, LoRAs and adapters; more of them run uncompiled. Its
# own limit is 8, which two pictures' sizes with and without a LoRA reach.
MOST_VERSIONS = 64
# The repeated blocks of a denoiser whose class doesn't name them itself.
BLOCKS = {"SD3Transformer2DModel": ("JointTransformerBlock",)}
FAILED = "Compiling failed, so the model runs uncompiled: {} Turn Compile off in the preferences to be spared this."
# What compilers raise: torch's own errors are RuntimeErrors; the rest comes of what they call, such as a C compiler.
COMPILERS_RAISE = (
    RuntimeError,
    ImportError,
    OSError,
    subprocess.SubprocessError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    AssertionError,
)

Module = torch.nn.Module


class Compiled:
    """The compiled blocks of one denoiser; where compiling fails, all of them run uncompiled from then on.

    tell: is given a sentence when that happens. compiler: one that torch knows by that name.

    It is the forward of a block that is compiled: hooks on the block itself, which look for a cancel and place weights,
    stay outside. Those inside of it are not seen once it is compiled: those of `watch` keep still there, and whoever
    else puts some there pauses it.
    """

    def __init__(self, network: Module, tell: Callable[[str], None], compiler: str | Callable[..., Any] = "") -> None:
        self._tell = tell
        self._active = True
        config: Any = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, MOST_VERSIONS)
        for block in repeated_blocks(network):
            # A second size makes a version for all sizes.
            compiled = torch.compile(block.forward, backend=compiler or COMPILER)
            block.forward = self._guarded(compiled, block.forward)  # type: ignore[method-assign]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run the blocks uncompiled inside a with block."""
        before, self._active = self._active, False
        try:
            yield
        finally:
            self._active = before

    def _guarded(self, compiled: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
        """Return what does a block's work compiled, and uncompiled where that can't be."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self._active:
                return plain(*args, **kwargs)
            try:
                return compiled(*args, **kwargs)
            except COMPILERS_RAISE as error:
                if not is_compilers(error) and ran_out(error):
                    raise
                cause = error.with_traceback(None)  # which would hold what the failed work made
            found = plain(*args, **kwargs)  # raises what is not the compiler's fault
            self._give_up(cause)
            return found

        return forward

    def _give_up(self, error: Exception) -> None:
        self._active = False
        log.warning("compiling failed", exc_info=error)
        inner = getattr(error, "inner_exception", error)  # what torch's own error was raised for
        lines = str(inner).strip().splitlines() or [type(inner).__name__]
        self._tell(FAILED.format(f"{lines[0].rstrip('.')}."))


def repeated_blocks(network: Module) -> list[Module]:
    """Return the blocks of a denoiser that are many of a kind, so that a few compilations serve them all."""
    names: Any = getattr(network, "_repeated_blocks", None) or BLOCKS.get(type(network).__name__, ())
    return [module for module in network.modules() if type(module).__name__ in names]


def is_compilers(error: Exception) -> bool:
    """Return whether an error is one of torch's compiler, whatever words it has."""
    return isinstance(error, torch._dynamo.exc.TorchDynamoException)
