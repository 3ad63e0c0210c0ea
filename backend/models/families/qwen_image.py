"""Qwen-Image: a transformer on 2×2 packed latents, a video model's VAE, and a language model to read prompts."""

from __future__ import annotations

from typing import Any

import torch

from ..conditioning import Conditioning
from ..load import QWEN_IMAGE_SIDE
from . import Shown, stacked
from .flow import LESS, asked_size, padded
from .flux import PATCH, pack, unpack


class QwenImage:
    """The transformer of a pipeline; see Family. As for Flux, latents are packed inside `denoise` alone."""

    is_inpainting = False
    is_editing = False
    takes_negative = True
    seamless_by: tuple[torch.nn.Module, ...] = ()

    def __init__(self, pipe: Any) -> None:
        self.network: torch.nn.Module = pipe.transformer
        self.native = int(pipe.vae.config.get("sample_size", QWEN_IMAGE_SIDE))
        self.side_step = int(pipe.vae_scale_factor) * PATCH
        self._forward = pipe.transformer.forward
        self._pipe = pipe
        pipe.prepare_latents = self._noisy

    def shown(self, shown: Shown) -> torch.Tensor | None:
        return None

    def denoise(self, sample: torch.Tensor, timestep: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor]:
        count, _, height, width = sample.shape
        whole = padded(sample, PATCH)
        rows, columns = whole.shape[2] // PATCH, whole.shape[3] // PATCH
        kwargs |= {
            "hidden_states": pack(whole),
            "timestep": timestep[:1].expand(count),
            "img_shapes": [[(1, rows, columns)]] * count,
        }
        return (unpack(self._forward(**kwargs)[0], rows, columns)[:, :, :height, :width],)

    def asked(self, conditionings: list[Conditioning], count: int, given: dict[str, Any]) -> dict[str, Any]:
        # Those of one call are equally long, so that none is padded, and there is nothing to mask.
        return {
            "encoder_hidden_states": stacked([c.embeds for c in conditionings], count),
            "encoder_hidden_states_mask": None,
        }

    def arguments(self, latents: torch.Tensor, strength: float, cfg_scale: float) -> dict[str, Any]:
        size = asked_size(latents, PATCH, self.side_step)
        return {"strength": strength * LESS, "true_cfg_scale": 1.0, **size}

    def _noisy(self, image: torch.Tensor, timestep: torch.Tensor, *_: Any) -> torch.Tensor:
        """Stand in for the pipeline's preparation, which would pack latents; the scheduler brings its own noise."""
        noisy: torch.Tensor = self._pipe.scheduler.scale_noise(image, timestep, torch.zeros_like(image))
        return noisy
