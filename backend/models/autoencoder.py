"""Pictures to latents and back by a model's VAE: large ones in tiles, in full precision where half overflows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..errors import ModelError
from ..request import Array
from .savings import Savings
from .tiled_vae import Tell, Wrap, decode_in_tiles, encode_in_tiles

OVERFLOWED = "The VAE overflowed in half precision: it runs in full precision from now on."


def nothing(share: float) -> None:
    """Tell nobody."""


class Autoencoder:
    """What a pipeline's VAE does, whichever that is at the moment.

    title: the model's name for messages. latents are as its denoiser takes them.
    """

    def __init__(self, pipe: Any, title: str, device: str, savings: Savings) -> None:
        self._pipe = pipe
        self._title = title
        self._device = device
        self._savings = savings
        self.wrap: Wrap = (False, False)  # whether pictures go on beyond their edges

    @torch.inference_mode()
    def encode(self, picture: Array, tell: Tell = nothing) -> torch.Tensor:
        """Return the latents (1×C×h×w float32) of a picture (uint8 H×W×3 sRGB, sides multiples of the VAE's step)."""
        height, width = picture.shape[:2]

        def read() -> torch.Tensor:
            if not self._savings.is_tiled(height * width):
                latents = self._encode_at_once(picture)
                tell(1.0)
                return latents
            encoder, step = self._pipe.vae.encoder, self._pipe.vae_scale_factor
            return encode_in_tiles(self._encode_at_once, encoder, picture, step, tell, self.wrap)

        return self._savings.attempt(f"read a picture of {width}×{height}", "vae", read)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, tell: Tell = nothing) -> Array:
        """Return the pictures (uint8 B×H×W×3 sRGB) of latents (B×C×h×w)."""
        height, width = (side * self._pipe.vae_scale_factor for side in latents.shape[2:])

        def draw() -> Array:
            if not self._savings.is_tiled(height * width):
                pictures = self._decode_at_once(latents)
                tell(1.0)
                return pictures
            decoder, step = self._pipe.vae.decoder, self._pipe.vae_scale_factor
            return np.stack(
                [decode_in_tiles(self._decode_at_once, decoder, one[None], step, tell, self.wrap) for one in latents]
            )

        return self._savings.attempt(f"draw a picture of {width}×{height}", "vae", draw)

    def _encode_at_once(self, picture: Array) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        pixels = pixels[:, :, None] if self._has_time else pixels
        mean = self._finite(lambda vae: vae.encode(pixels.to(self._device, vae.dtype)).latent_dist.mode().float())
        shift, scale = self._scaling()
        latents: torch.Tensor = ((mean[:, :, 0] if self._has_time else mean) - shift) * scale
        return latents

    def _decode_at_once(self, latents: torch.Tensor) -> Array:
        shift, scale = self._scaling()
        scaled = latents / scale + shift
        scaled = scaled[:, :, None] if self._has_time else scaled
        pixels = self._finite(lambda vae: vae.decode(scaled.to(vae.dtype), return_dict=False)[0].float())
        pixels = pixels[:, :, 0] if self._has_time else pixels
        array = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return np.asarray(array)

    def _finite(self, work: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        """Return what the VAE works out, in full precision where half gives numbers that are none (a black picture).

        Raises ModelError where full precision does so too.
        """
        vae = self._pipe.vae
        found = work(vae)
        if not torch.isfinite(found).all() and vae.dtype != torch.float32:
            del found
            self._savings.placement.settle_part("vae")
            vae.to(torch.float32)
            self._savings.placement.replace("vae", [vae])
            self._savings.placement.use("vae")
            self._savings.tell(OVERFLOWED)
            found = work(vae)
        if not torch.isfinite(found).all():
            raise ModelError(
                f"The VAE of {self._title} gave a picture without colours (NaN).",
                "Choose another VAE or another model; or reduce LoRAs' weights and the CFG scale.",
            )
        return found

    def _scaling(self) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """Return what the denoiser's latents are of the VAE's: these less the first, times the second."""
        config = self._pipe.vae.config
        shift, scale = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
        if config.get("latents_mean") is None:
            return shift, scale
        mean, deviation = (torch.tensor(config[f"latents_{name}"], device=self._device) for name in ("mean", "std"))
        return mean.view(1, -1, 1, 1), scale / deviation.view(1, -1, 1, 1)

    @property
    def _has_time(self) -> bool:
        """Whether the VAE is a video model's, to which a picture is a film of one frame."""
        return "z_dim" in self._pipe.vae.config
