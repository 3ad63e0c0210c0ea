"""Flux: a transformer on 2×2 packed latents, which flows from noise to a picture."""

from __future__ import annotations

from typing import Any

import torch

from ..conditioning import Conditioning
from . import stacked
from .flow import LESS, padded

PATCH = 2  # latents a side of what the transformer takes as one token


class Flux:
    """The transformer of a pipeline; see Family.

    Latents stay B×C×h×w everywhere but inside `denoise`, which packs them into tokens and unpacks what comes back. So
    noise, masks and windows are the same as for any other family.
    """

    is_inpainting = False
    seamless_by: tuple[torch.nn.Module, ...] = ()

    def __init__(self, pipe: Any) -> None:
        self.network: torch.nn.Module = pipe.transformer
        self.native = int(pipe.vae.config.sample_size)
        self.side_step = int(pipe.vae_scale_factor) * PATCH
        # A model distilled from a guided one takes the scale as a number, and knows no negative prompt.
        self.takes_negative = not pipe.transformer.config.guidance_embeds
        self._forward = pipe.transformer.forward
        pipe._pack_latents = lambda latents, *_: latents

    def denoise(self, sample: torch.Tensor, timestep: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor]:
        count, _, height, width = sample.shape
        whole = padded(sample, PATCH)
        rows, columns = whole.shape[2] // PATCH, whole.shape[3] // PATCH
        guidance = kwargs.pop("guidance")
        kwargs |= {
            "hidden_states": pack(whole),
            "timestep": timestep[:1].expand(count),
            "guidance": None if guidance is None else guidance[:1].expand(count),
            "img_ids": places(rows, columns).to(sample.device),
        }
        found = unpack(self._forward(**kwargs)[0], rows, columns)
        return (found[:, :, :height, :width],)

    def asked(self, conditionings: list[Conditioning], count: int, given: dict[str, Any]) -> dict[str, Any]:
        return {
            "encoder_hidden_states": stacked([c.embeds for c in conditionings], count),
            "pooled_projections": stacked([c.pooled for c in conditionings if c.pooled is not None], count),
        }

    def arguments(self, latents: torch.Tensor, strength: float, cfg_scale: float) -> dict[str, Any]:
        height, width = (side * self.side_step // PATCH for side in latents.shape[2:])
        guidance = 1.0 if self.takes_negative else cfg_scale
        return {"strength": strength * LESS, "guidance_scale": guidance, "height": height, "width": width}


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Return latents (B×C×h×w, even sides) as tokens (B × h/2·w/2 × 4C), row by row."""
    count, channels, height, width = latents.shape
    patches = latents.reshape(count, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * PATCH**2)


def unpack(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return tokens (B × rows·columns × 4C) as latents (B×C×2·rows×2·columns)."""
    patches = tokens.reshape(len(tokens), rows, columns, -1, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(len(tokens), -1, rows * PATCH, columns * PATCH)


def places(rows: int, columns: int) -> torch.Tensor:
    """Return the tokens' places (rows·columns × 3 float32): 0, row and column."""
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(down), down, across], dim=-1).reshape(-1, 3).float()
