"""Stable Diffusion 1, 2 and XL: a UNet on latents, guided by a negative prompt."""

from __future__ import annotations

from typing import Any

import torch

from ..conditioning import Conditioning
from ..ip_adapter import EMBEDS
from . import Shown, stacked

# How fine a picture Stable Diffusion XL's refiner is told to make, and to be led away from, as in the web UI.
AESTHETIC, NEGATIVE_AESTHETIC = 6.0, 2.5
INPAINTING_CHANNELS = 9  # latents, the mask, and the masked picture's latents


class UNet:
    """The UNet of a pipeline; see Family."""

    takes_negative = True
    is_editing = False

    def __init__(self, pipe: Any) -> None:
        self.network: torch.nn.Module = pipe.unet
        self.side_step = int(pipe.vae_scale_factor)
        self.is_inpainting: bool = pipe.unet.config.in_channels == INPAINTING_CHANNELS
        self.seamless_by: tuple[torch.nn.Module, ...] = (pipe.unet, pipe.vae)
        self.denoise = pipe.unet.forward
        self._pipe = pipe

    def shown(self, shown: Shown) -> torch.Tensor | None:
        if not self.is_inpainting:
            return None
        masked = shown.encode(shown.without_masked)
        return torch.cat([shown.latent_mask.to(masked), masked], dim=1)

    def asked(self, conditionings: list[Conditioning], count: int, given: dict[str, Any]) -> dict[str, Any]:
        asked: dict[str, Any] = {"encoder_hidden_states": stacked([c.embeds for c in conditionings], count)}
        added = given.get("added_cond_kwargs")
        if added:
            pooled = [c.pooled for c in conditionings if c.pooled is not None]
            asked["added_cond_kwargs"] = {
                **added,
                "text_embeds": stacked(pooled, count),
                "time_ids": self._times(added["time_ids"][:1], conditionings).repeat_interleave(count, 0),
            }
        if all(EMBEDS in c.extra for c in conditionings):
            embeds = stacked([c.extra[EMBEDS] for c in conditionings], count)
            asked["added_cond_kwargs"] = {**asked.get("added_cond_kwargs", {}), EMBEDS: [embeds]}
        return asked

    def _times(self, times: torch.Tensor, conditionings: list[Conditioning]) -> torch.Tensor:
        """Return the sizes (1×K), which a refiner's score ends, for each of some texts (N×K)."""
        times = times.repeat(len(conditionings), 1)
        if self._pipe.config.get("requires_aesthetics_score"):
            times[[c.is_negative for c in conditionings], -1] = NEGATIVE_AESTHETIC
        return times

    def arguments_alone(self, width: int, height: int, like: torch.Tensor) -> dict[str, Any]:
        """Return what the UNet takes beside sample and timestep, for a picture of that size in pixels, unprompted."""
        if self._pipe.unet.config.addition_embed_type != "text_time":
            return {"encoder_hidden_states": None}
        size, corner = (height, width), (0, 0)
        width_of_text = int(self._pipe.text_encoder_2.config.projection_dim)
        times, _ = self._pipe._get_add_time_ids(
            size, corner, size, AESTHETIC, AESTHETIC, size, corner, size, like.dtype, width_of_text
        )
        return {"encoder_hidden_states": None, "added_cond_kwargs": {"time_ids": times.to(like.device)}}

    def arguments(self, latents: torch.Tensor, strength: float, cfg_scale: float) -> dict[str, Any]:
        return {"strength": strength, "guidance_scale": 1.0}  # the guide sees to the CFG scale
