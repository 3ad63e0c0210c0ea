"""Pickles of strangers: only their tensors and plain values are read, and no code of theirs is ever run."""

from __future__ import annotations

import pickle
import re
import struct
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError
from .recognise import damaged

# Names that the pickles of training tools mention beside their tensors: all of them become _Forgotten. Numpy's own
# dtype must not be let in: it crashes the process on a state that makes no sense.
FORGOTTEN = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    *(f"numpy.dtypes.{name}DType" for name in ("Float64", "Float32", "Int64")),
)
# What torch raises, beside UnpicklingError, where a pickle's bytes make no sense.
UNREADABLE = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error)
UNSAFE = re.compile(r"GLOBAL (\S+)")


class _Forgotten:
    """Takes the place of everything in a checkpoint that is neither tensor nor plain value; it keeps nothing."""

    def __new__(cls, *arguments: object) -> _Forgotten:
        return super().__new__(cls)

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_pickle(path: Path, inside: str = "state_dict") -> dict[str, Any]:
    """Return the dictionary in a pickle, or what it has under that name, by its keys.

    Raises ModelError where there is anything but tensors and plain values, or it is damaged.
    """
    misnamed = path.suffix.lower() == ".safetensors"  # for torch, such a name says more than the content
    try:
        with path.open("rb") as file, torch.serialization.safe_globals([(_Forgotten, name) for name in FORGOTTEN]):
            is_zip = file.read(2) == b"PK"
            file.seek(0)
            source = file if misnamed else path
            mapped = is_zip and not misnamed
            state = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        found = UNSAFE.search(str(error))
        if found is None:
            raise damaged(path, str(error).partition("WeightsUnpickler error: ")[2]) from error
        raise ModelError(
            f"{path.name} would run code when it is loaded ({found[1]}), so it was not.",
            "Choose it as a .safetensors file.",
        ) from error
    except UNREADABLE as error:
        raise damaged(path, str(error)) from error
    while isinstance(state, dict) and isinstance(state.get(inside), dict):
        state = state[inside]
    if not isinstance(state, dict):
        raise ModelError(f"{path.name} holds no weights, but a {type(state).__name__}.", "Choose another file.")
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors) > path.stat().st_size:
        raise damaged(path, "its tensors are larger than the file")
    return {str(key): value for key, value in state.items()}
