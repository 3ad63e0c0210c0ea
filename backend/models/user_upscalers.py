"""Upscalers of the user's own: a file of weights, whose architecture the library spandrel recognises."""

from __future__ import annotations

import functools
import importlib
import pickle
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, ModelError
from .upscaler_networks import Network, Step

if TYPE_CHECKING:
    import torch

SUFFIXES = (".safetensors", ".pth", ".ckpt", ".pt")

SMALLEST_SIDE = 32
"""Pixels that a network is given at least: those with windows mirror the picture into them, which needs a whole one."""

LARGEST_SCALE = 16
"""What no known upscaler exceeds; a damaged file's scale would ask for a picture of any size."""

PURPOSES = ("SR", "Restoration")
"""What spandrel calls upscalers, and networks that clean a picture without enlarging it."""

DAMAGED = (
    pickle.UnpicklingError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    AssertionError,
    ZeroDivisionError,
    OverflowError,
)
"""What torch raises for a file that isn't one of weights, and spandrel for weights that don't make a network."""

_STAND_IN = "torchvision.transforms.functional"


class UserNetwork:
    """A network of spandrel's as the built-in ones are called: it says how far it is, and takes a picture of any size.

    scale: by how much it enlarges, 1 for one that only cleans.
    """

    def __init__(self, descriptor: Any, dtype: torch.dtype) -> None:
        self.scale = int(descriptor.scale)
        self._descriptor = descriptor
        self._dtype = dtype
        self._parts = [module for module in descriptor.model.modules() if not any(module.children())]

    def __call__(self, picture: torch.Tensor, step: Step) -> torch.Tensor:
        import torch
        from torch.nn import functional

        height, width = picture.shape[-2:]
        border = (0, max(SMALLEST_SIDE - width, 0), 0, max(SMALLEST_SIDE - height, 0))
        seen = functional.pad(picture, border, "replicate").to(self._dtype)
        done = 0

        def before_part(module: torch.nn.Module, inputs: Any) -> None:
            nonlocal done
            step(min(done / len(self._parts), 1))
            done += 1

        hooks = [part.register_forward_pre_hook(before_part) for part in self._parts]
        try:
            # Some networks draw noise: the same noise each time gives the same bytes.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                enlarged = self._descriptor(seen if self._descriptor.input_channels == 3 else seen.transpose(0, 1))
        finally:
            for hook in hooks:
                hook.remove()
        if enlarged.shape[0] == 3:
            enlarged = enlarged.transpose(0, 1)
        return enlarged[..., : height * self.scale, : width * self.scale]  # type: ignore[no-any-return]


def load_user_upscaler(file: str, device: str = "cpu") -> tuple[Network, int]:
    """The network in a file of weights (.safetensors, .pth, .ckpt, .pt) on a device, and its scale.

    Only numbers are read from the file, never code. Raises InvalidRequest where no file is named, ModelError where it
    is missing, damaged, of an unknown architecture or no upscaler. The last two stay loaded until their files change.
    """
    if not file.strip():
        raise InvalidRequest("No upscaler file is chosen.", "Choose a .safetensors or .pth file, or another upscaler.")
    try:
        path = Path(file).expanduser().resolve()
        state = path.stat() if path.is_file() else None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: "~name" of no user
        raise ModelError(f"The upscaler file {file} can't be reached.", "Choose another file.") from error
    if state is None:
        raise ModelError(f"There is no upscaler file {file}.", "Choose a .safetensors or .pth file that exists.")
    if path.suffix.lower() not in SUFFIXES:
        raise ModelError(
            f"“{path.name}” is not an upscaler file.", f"Choose a file that ends in {', '.join(SUFFIXES)}."
        )
    network = _load(path, (state.st_mtime_ns, state.st_size), device)
    return network, network.scale


@functools.lru_cache(maxsize=2)
def _load(path: Path, version: tuple[int, int], device: str) -> UserNetwork:
    import torch

    spandrel = _import_spandrel()
    weights = _read_weights(path)
    try:
        descriptor = spandrel.ModelLoader(device="cpu").load_from_state_dict(weights)
    except spandrel.UnsupportedModelError as error:
        raise ModelError(
            f"“{path.name}” is of no architecture that can be run here.", "Choose the file of an upscaler."
        ) from error
    except DAMAGED as error:
        raise ModelError(
            f"The weights in “{path.name}” don't make a whole network.", "Copy or download it again."
        ) from error
    known = descriptor.purpose in PURPOSES and 1 <= descriptor.scale <= LARGEST_SCALE
    if not known or (descriptor.input_channels, descriptor.output_channels) not in ((3, 3), (1, 1)):
        raise ModelError(f"“{path.name}” is no upscaler of colour pictures.", "Choose the file of an upscaler.")
    dtype = torch.float16 if device.startswith("cuda") and descriptor.supports_half else torch.float32
    descriptor.model.eval().requires_grad_(False)
    descriptor.to(torch.device(device), dtype)
    return UserNetwork(descriptor, dtype)


def _read_weights(path: Path) -> Mapping[str, Any]:
    """Read tensors by name; from a pickle only by torch's reader of weights, which runs nothing that a file names."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix.lower() == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, *DAMAGED) as error:
        raise ModelError(
            f"“{path.name}” can't be read: it is damaged, or holds more than weights.",
            "Copy or download it again; a .safetensors file is the safest kind.",
        ) from error
    if not isinstance(weights, Mapping) or not weights:
        raise ModelError(f"“{path.name}” holds no weights.", "Choose the file of an upscaler.")
    return weights


def _import_spandrel() -> Any:
    with _torchvision_stand_in():
        try:
            return importlib.import_module("spandrel")
        except ModuleNotFoundError as error:
            raise ModelError(
                f"Upscaler files need the package {error.name}, which is not installed.",
                "Install requirements/upscalers.txt as the README says, or choose a built-in upscaler.",
            ) from error


@contextmanager
def _torchvision_stand_in() -> Iterator[None]:
    """Let spandrel be imported without torchvision, whose three functions only its face and inpainting networks call.

    Those are refused here. torchvision's builds must fit torch's to the letter, so one that is installed may not load.
    """
    names = [_STAND_IN.rsplit(".", depth)[0] for depth in (2, 1, 0)]
    if "spandrel" in sys.modules or names[0] in sys.modules:
        yield
        return
    modules = {name: ModuleType(name) for name in names}
    for function in ("InterpolationMode", "normalize", "rotate"):
        setattr(modules[_STAND_IN], function, None)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
