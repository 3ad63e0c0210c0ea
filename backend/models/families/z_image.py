"""Z-Image: a transformer on latents in patches, which reads prompts through a language model."""

from __future__ import annotations

from typing import Any

import torch

from ..conditioning import Conditioning
from . import Shown, stacked
from .flow import LESS, asked_size, padded

PATCH = 2  # latents a side of what the transformer takes as one token


class ZImage:
    """The transformer of a pipeline; see Family.

    It takes latents and prompts as lists, one of each a picture; here they are lists inside `denoise` alone.
    """

    is_inpainting = False
    is_editing = False
    takes_negative = True
    seamless_by: tuple[torch.nn.Module, ...] = ()

    def __init__(self, pipe: Any) -> None:
        self.network: torch.nn.Module = pipe.transformer
        self.side_step = int(pipe.vae_scale_factor) * PATCH
        self._forward = pipe.transformer.forward
        # By which it knows latents, that have to stay as they are, from pixels.
        pipe.image_processor.register_to_config(vae_latent_channels=pipe.vae.config.latent_channels)

    def shown(self, shown: Shown) -> torch.Tensor | None:
        return None

    def denoise(self, sample: torch.Tensor, timestep: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        count, _, height, width = sample.shape
        texts = kwargs["cap_feats"] if "cap_feats" in kwargs else args[0]
        found = self._forward(
            list(padded(sample, PATCH).unsqueeze(2)), timestep[:1].expand(count), list(texts), return_dict=False
        )[0]
        return (torch.stack(list(found)).squeeze(2)[:, :, :height, :width],)

    def asked(self, conditionings: list[Conditioning], count: int, given: dict[str, Any]) -> dict[str, Any]:
        return {"cap_feats": stacked([c.embeds for c in conditionings], count)}

    def arguments(self, latents: torch.Tensor, strength: float, cfg_scale: float) -> dict[str, Any]:
        size = asked_size(latents, PATCH, self.side_step)
        return {"strength": strength * LESS, "guidance_scale": 0.0, **size}
