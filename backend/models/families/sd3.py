"""Stable Diffusion 3 and 3.5: a transformer on latents in patches, guided by a negative prompt."""

from __future__ import annotations

from typing import Any

import torch

from ...errors import InvalidRequest
from ..conditioning import Conditioning
from . import Shown
from .flow import LESS, asked_size, embeds_and_pooled, padded


class StableDiffusion3:
    """The transformer of a pipeline; see Family."""

    is_inpainting = False
    is_editing = False
    takes_negative = True
    seamless_by: tuple[torch.nn.Module, ...] = ()

    def __init__(self, pipe: Any) -> None:
        config = pipe.transformer.config
        self.network: torch.nn.Module = pipe.transformer
        self.side_step = int(pipe.vae_scale_factor) * int(config.patch_size)
        self._patch = int(config.patch_size)
        self._most = self._patch * int(config.pos_embed_max_size)  # latents a side: it knows no places beyond
        self._forward = pipe.transformer.forward

    def shown(self, shown: Shown) -> torch.Tensor | None:
        return None

    def denoise(self, sample: torch.Tensor, timestep: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor]:
        count, _, height, width = sample.shape
        whole = padded(sample, self._patch)
        if max(whole.shape[2:]) > self._most:
            raise InvalidRequest(
                "The picture is too long for Stable Diffusion 3.", "Choose proportions that are nearer to a square."
            )
        found = self._forward(**{**kwargs, "hidden_states": whole, "timestep": timestep[:1].expand(count)})[0]
        return (found[:, :, :height, :width],)

    def asked(self, conditionings: list[Conditioning], count: int, given: dict[str, Any]) -> dict[str, Any]:
        return embeds_and_pooled(conditionings, count)

    def arguments(self, latents: torch.Tensor, strength: float, cfg_scale: float) -> dict[str, Any]:
        size = asked_size(latents, self._patch, self.side_step)
        return {"strength": strength * LESS, "guidance_scale": 1.0, **size}
