"""What differs between families of models, one small class each; the rest is Model's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ...request import Array
from ..conditioning import Conditioning

MIDDLE_GREY = np.float32(127)  # what inpainting models were shown in place of the masked part


@dataclass(frozen=True, eq=False)
class Shown:
    """What a denoiser can be shown beside the sample.

    picture: uint8 H×W×3; mask: float32 H×W, 1 repainted; latent_mask: 1×1×h×w; strength: how grey the masked part is,
    0–1, the web UI's conditioning mask strength; encode: from a picture to its latents (1×C×h×w).
    """

    picture: Array
    mask: Array
    latent_mask: torch.Tensor
    strength: float
    encode: Callable[[Array], torch.Tensor]

    @property
    def without_masked(self) -> Array:
        """The picture with its masked part grey."""
        hidden = np.round(self.mask)[..., None] * np.float32(self.strength)
        grey: Array = (self.picture + (MIDDLE_GREY - self.picture) * hidden).round().astype(np.uint8)
        return grey


class Family(Protocol):
    """A family's part of a model: what its pipeline calls its own, and how its denoiser is asked.

    A denoiser is handed latents (B×C×h×w), perhaps with what it is shown as further channels, and gives back latents,
    whatever it does with them inside.
    """

    network: torch.nn.Module  # the denoiser
    side_step: int  # pixels; sides that are multiples of it suit the model best
    takes_negative: bool  # whether it is guided away from a negative prompt, or only told how much to heed the prompt
    is_inpainting: bool  # whether the denoiser also takes a mask and the masked picture
    is_editing: bool  # whether it also takes the whole picture that it starts from
    seamless_by: tuple[
        torch.nn.Module, ...
    ]  # modules whose convolutions make a picture go on beyond its edges; or none

    def shown(self, shown: Shown) -> torch.Tensor | None:
        """Return what the denoiser sees beside the sample, as further channels of it (1×K×h×w); None for nothing."""

    def denoise(self, sample: torch.Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the denoiser itself; returns a tuple that begins with its prediction for the sample."""

    def asked(self, conditionings: list[Conditioning], count: int, given: dict[str, Any]) -> dict[str, Any]:
        """Return the denoiser's arguments for conditionings, each for `count` samples, in place of the given ones."""

    def arguments(self, latents: torch.Tensor, strength: float, cfg_scale: float) -> dict[str, Any]:
        """Return the pipeline's own arguments for latents, a StepPlan's strength and a CFG scale."""


def stacked(tensors: list[torch.Tensor], count: int) -> torch.Tensor:
    """Return tensors (1×…) one below the other, each `count` times."""
    return torch.cat([tensor.repeat(count, *(1,) * (tensor.ndim - 1)) for tensor in tensors])


def family_of(pipe: Any) -> Family:
    """Return the family of a pipeline that load.py knows."""
    from .flux import Flux
    from .flux2 import Flux2
    from .qwen_image import QwenImage
    from .sd3 import StableDiffusion3
    from .unet import UNet
    from .z_image import ZImage

    classes: dict[str, Callable[[Any], Family]] = {
        "StableDiffusion3": StableDiffusion3,
        "Flux2": Flux2,
        "Flux": Flux,
        "ZImage": ZImage,
        "QwenImage": QwenImage,
    }
    kind = type(pipe).__name__
    return next((cls(pipe) for start, cls in classes.items() if kind.startswith(start)), None) or UNet(pipe)
