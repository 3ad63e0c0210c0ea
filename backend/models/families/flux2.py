"""Flux 2 and Flux 2 Klein: a transformer on patches of a VAE of their own, for which diffusers has no img2img."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from torch.nn import functional

from ..conditioning import Conditioning
from . import Shown, stacked
from .flow import LESS, asked_size

PATCH = 2  # of the VAE's latents a side of what the transformer takes as one token
REFERENCE = 10  # the place in time of the first picture that the transformer is shown


class _FromPicture:
    """Flux 2's pipelines begun from a picture, as the others' img2img pipelines are."""

    @torch.no_grad()
    def __call__(
        self: Any,
        prompt_embeds: torch.Tensor,
        image: torch.Tensor,
        strength: float,
        num_inference_steps: int,
        guidance_scale: float,
        callback_on_step_end: Callable[..., dict[str, Any]],
        **_: Any,
    ) -> tuple[torch.Tensor]:
        """Return latents denoised from an image's (both B×C×h×w), of whose schedule that share is run."""
        steps, scheduler = num_inference_steps, self.scheduler
        options = {} if scheduler.config.get("use_flow_sigmas") else {"sigmas": np.linspace(1, 1 / steps, steps)}
        mu = compute_empirical_mu(image_seq_len=image.shape[2] * image.shape[3], num_steps=steps)
        scheduler.set_timesteps(steps, device=image.device, mu=mu, **options)
        begin = int(max(steps - min(steps * strength, steps), 0)) * scheduler.order
        timesteps = scheduler.timesteps[begin:]
        scheduler.set_begin_index(begin)
        self._num_timesteps = len(timesteps)
        latents = scheduler.scale_noise(image, timesteps[:1].repeat(len(image)), torch.zeros_like(image))
        guidance = torch.full([len(image)], guidance_scale, device=image.device)
        for step, timestep in enumerate(timesteps):
            found = self.transformer(
                hidden_states=latents, timestep=timestep.expand(len(image)) / 1000, guidance=guidance,
                encoder_hidden_states=prompt_embeds,
            )[0]  # fmt: skip
            latents = scheduler.step(found, timestep, latents, return_dict=False)[0]
            callback_on_step_end(self, step, timestep, {"latents": latents})
        return (latents,)


class Flux2Img2ImgPipeline(_FromPicture, diffusers.Flux2Pipeline):  # type: ignore[misc]
    """Flux 2 from a picture."""


class Flux2KleinImg2ImgPipeline(_FromPicture, diffusers.Flux2KleinPipeline):  # type: ignore[misc]
    """Flux 2 Klein from a picture."""


class PatchVAE(diffusers.AutoencoderKLFlux2):  # type: ignore[misc, no-any-unimported]
    """Flux 2's VAE with latents as the transformer takes them: 2×2 of them as channels of one, normalised."""

    def encode(self, pixels: torch.Tensor) -> Any:
        """Return the distribution of a picture's latents, of which there is the mode alone."""
        latents = functional.pixel_unshuffle(super().encode(pixels).latent_dist.mode(), PATCH)
        mean, deviation = self._statistics(latents)
        found = (latents - mean) / deviation
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: found))

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> Any:
        """Return the pictures of latents."""
        mean, deviation = self._statistics(latents)
        return super().decode(functional.pixel_shuffle(latents * deviation + mean, PATCH), return_dict=return_dict)

    def _statistics(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        variance = self.bn.running_var.view(1, -1, 1, 1) + self.config.batch_norm_eps
        return self.bn.running_mean.view(1, -1, 1, 1).to(like), variance.sqrt().to(like)


class Flux2:
    """The transformer of a pipeline; see Family. The picture that it starts from it also sees, as further tokens."""

    is_inpainting = False
    is_editing = True
    seamless_by: tuple[torch.nn.Module, ...] = ()

    def __init__(self, pipe: Any) -> None:
        self.network: torch.nn.Module = pipe.transformer
        pipe.vae.__class__ = PatchVAE
        pipe.vae_scale_factor *= PATCH
        self.side_step = int(pipe.vae_scale_factor)
        self.takes_negative = not (pipe.transformer.config.guidance_embeds or pipe.config.get("is_distilled"))
        self._channels = int(pipe.transformer.config.in_channels)
        self._forward = pipe.transformer.forward

    def shown(self, shown: Shown) -> torch.Tensor | None:
        return shown.encode(shown.picture)

    def denoise(self, sample: torch.Tensor, timestep: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor]:
        count, channels, rows, columns = sample.shape
        seen = sample.chunk(channels // self._channels, dim=1)
        where = [places(index * REFERENCE, rows, columns) for index in range(len(seen))]
        kwargs |= {
            "hidden_states": torch.cat([part.flatten(2).transpose(1, 2) for part in seen], dim=1),
            "timestep": timestep[:1].expand(count),
            "guidance": kwargs["guidance"][:1].expand(count),
            "img_ids": torch.cat(where).to(sample.device),
            "txt_ids": places(0, 1, 1, kwargs["encoder_hidden_states"].shape[1]).to(sample.device),
            "return_dict": False,
        }
        found = self._forward(**kwargs)[0][:, : rows * columns]
        return (found.transpose(1, 2).reshape(count, -1, rows, columns),)

    def asked(self, conditionings: list[Conditioning], count: int, given: dict[str, Any]) -> dict[str, Any]:
        return {"encoder_hidden_states": stacked([c.embeds for c in conditionings], count)}

    def arguments(self, latents: torch.Tensor, strength: float, cfg_scale: float) -> dict[str, Any]:
        guidance = 1.0 if self.takes_negative else cfg_scale
        return {"strength": strength * LESS, "guidance_scale": guidance, **asked_size(latents, 1, self.side_step)}


def places(time: int, rows: int, columns: int, words: int = 1) -> torch.Tensor:
    """Return the tokens' places (rows·columns·words × 4): time, row, column and word."""
    return torch.cartesian_prod(torch.tensor([time]), *(torch.arange(n) for n in (rows, columns, words)))
