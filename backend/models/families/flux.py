"""Flux, Flux Kontext and Flux Fill: a transformer on 2×2 packed latents, which flows from noise to a picture."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch.nn import functional

from ..conditioning import Conditioning
from . import Shown
from .flow import LESS, asked_size, embeds_and_pooled, padded

PATCH = 2  # latents a side of what the transformer takes as one token


class FluxKontextImg2ImgPipeline(diffusers.FluxImg2ImgPipeline):  # type: ignore[misc]
    """Flux Kontext from a picture, that its denoiser also sees beside the sample: tells the family, nothing else."""


class Flux:
    """The transformer of a pipeline; see Family.

    Latents stay B×C×h×w everywhere but inside `denoise`, which packs them into tokens and unpacks what comes back. So
    noise, masks and windows are the same as for any other family. Kontext sees a picture as further tokens, Fill a
    picture without its masked part, and the mask, as further channels.
    """

    seamless_by: tuple[torch.nn.Module, ...] = ()

    def __init__(self, pipe: Any) -> None:
        self.network: torch.nn.Module = pipe.transformer
        self.side_step = int(pipe.vae_scale_factor) * PATCH
        # A model distilled from a guided one takes the scale as a number, and knows no negative prompt.
        self.takes_negative = not pipe.transformer.config.guidance_embeds
        self._channels = int(pipe.vae.config.latent_channels)
        self._fraction = int(pipe.vae_scale_factor)
        self.is_inpainting: bool = pipe.transformer.config.in_channels > PATCH**2 * self._channels
        self.is_editing = "Kontext" in type(pipe).__name__
        self._forward = pipe.transformer.forward
        pipe._pack_latents = lambda latents, *_: latents

    def shown(self, shown: Shown) -> torch.Tensor | None:
        if self.is_editing:
            return shown.encode(shown.picture)
        if not self.is_inpainting:
            return None
        hidden = shown.encode(shown.without_masked)
        mask = functional.pixel_unshuffle(torch.from_numpy(shown.mask.round())[None, None], self._fraction)
        return torch.cat([hidden, mask.to(hidden)], dim=1)

    def denoise(self, sample: torch.Tensor, timestep: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor]:
        count, _, height, width = sample.shape
        whole = padded(sample, PATCH)
        rows, columns = whole.shape[2] // PATCH, whole.shape[3] // PATCH
        seen = whole.chunk(whole.shape[1] // self._channels, dim=1) if self.is_editing else [whole]
        guidance = kwargs.pop("guidance")
        kwargs |= {
            "hidden_states": torch.cat([pack(part) for part in seen], dim=1),
            "timestep": timestep[:1].expand(count),
            "guidance": None if guidance is None else guidance[:1].expand(count),
            "img_ids": torch.cat([places(rows, columns, index) for index in range(len(seen))]).to(sample.device),
        }
        found = unpack(self._forward(**kwargs)[0][:, : rows * columns], rows, columns)
        return (found[:, :, :height, :width],)

    def asked(self, conditionings: list[Conditioning], count: int, given: dict[str, Any]) -> dict[str, Any]:
        return embeds_and_pooled(conditionings, count)

    def arguments(self, latents: torch.Tensor, strength: float, cfg_scale: float) -> dict[str, Any]:
        guidance = 1.0 if self.takes_negative else cfg_scale
        size = asked_size(latents, PATCH, self.side_step)
        return {"strength": strength * LESS, "guidance_scale": guidance, **size}


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Return latents (B×C×h×w, even sides) as tokens (B × h/2·w/2 × 4C), row by row."""
    count, channels, height, width = latents.shape
    patches = latents.reshape(count, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * PATCH**2)


def unpack(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return tokens (B × rows·columns × 4C) as latents (B×C×2·rows×2·columns)."""
    patches = tokens.reshape(len(tokens), rows, columns, -1, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(len(tokens), -1, rows * PATCH, columns * PATCH)


def places(rows: int, columns: int, picture: int = 0) -> torch.Tensor:
    """Return the tokens' places (rows·columns × 3 float32): which picture, row and column."""
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.full_like(down, picture), down, across], dim=-1).reshape(-1, 3).float()
