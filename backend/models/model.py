"""A loaded diffusion model: pictures to latents and back, prompts to embeddings, a watch in every forward pass."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import ModelError, OutOfMemory
from ..request import Array

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PROMPTS_KEPT = 32
INPAINTING_CHANNELS = 9  # latents, the mask, and the masked picture's latents
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # Linux, Windows, MPS
MIDDLE_GREY = np.uint8(127)  # what such a model was shown in place of the masked part


class Model:
    """One diffusers image-to-image pipeline with its device and precision.

    Latents are float32 tensors B×4×h×w, scaled as the UNet takes them, whatever the precision of the weights: the
    sampling itself always runs in float32, and noise is drawn on the CPU, so that a seed means the same everywhere.
    """

    def __init__(self, pipe: DiffusionPipeline, name: str, device: str, dtype: torch.dtype, native: int) -> None:
        self.pipe = pipe
        self.name = name
        self.device = device
        self.dtype = dtype
        self.native = native
        self.noise_schedule: dict[str, Any] = dict(pipe.scheduler.config)  # the model's own; each run builds on it anew
        self.watch: Callable[[], None] = lambda: None
        self.extra_channels: torch.Tensor | None = None  # of an inpainting UNet: mask and masked picture, 1×5×h×w
        self._prompts: OrderedDict[tuple[str, str, bool], dict[str, torch.Tensor]] = OrderedDict()
        pipe.unet.register_forward_pre_hook(self._before_unet, with_kwargs=True)
        pipe.unet.register_forward_hook(self._after_unet)
        for module in self._watched_modules():
            module.register_forward_pre_hook(lambda *_: self.watch())

    @property
    def scale_factor(self) -> int:
        """How many pixels of a picture's side make one latent."""
        factor: int = self.pipe.vae_scale_factor
        return factor

    @property
    def is_inpainting(self) -> bool:
        """Whether the UNet also takes a mask and the masked picture."""
        channels: int = self.pipe.unet.config.in_channels
        return channels == INPAINTING_CHANNELS

    def _watched_modules(self) -> Iterator[torch.nn.Module]:
        unet, vae = self.pipe.unet, self.pipe.vae
        yield from unet.down_blocks
        yield from unet.up_blocks
        yield from vae.encoder.down_blocks
        yield from vae.decoder.up_blocks
        for name in ("text_encoder", "text_encoder_2"):
            encoder = getattr(self.pipe, name, None)
            if encoder is not None:
                yield from (m for m in encoder.modules() if type(m).__name__ == "CLIPEncoderLayer")

    def _before_unet(self, unet: torch.nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        self.watch()
        sample, *others = args
        if self.extra_channels is not None:
            extra = self.extra_channels.to(sample).expand(sample.shape[0], -1, -1, -1)
            sample = torch.cat([sample, extra], dim=1)
        return self._cast((sample, *others)), self._cast(kwargs)

    def _after_unet(self, unet: torch.nn.Module, args: Any, output: Any) -> Any:
        return tuple(tensor.float() for tensor in output) if isinstance(output, tuple) else output

    def _cast(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim > 1 and value.is_floating_point():
            return value.to(self.dtype)
        if isinstance(value, dict):
            return {name: self._cast(item) for name, item in value.items()}
        if isinstance(value, tuple):
            return tuple(self._cast(item) for item in value)
        return value

    @torch.inference_mode()
    def encode(self, picture: Array) -> torch.Tensor:
        """Return the latents (1×4×h×w float32) of a picture (uint8 H×W×3 sRGB, sides multiples of scale_factor)."""
        vae = self.pipe.vae
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        with memory_errors(f"encode a picture of {picture.shape[1]}×{picture.shape[0]}"):
            mean = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode()
        latents: torch.Tensor = mean.float() * vae.config.scaling_factor
        return latents

    @contextmanager
    def seeing(self, picture: Array, mask: Array, latent_mask: torch.Tensor) -> Iterator[None]:
        """Give an inpainting UNet its five extra channels for a while: latent mask, and picture with that part grey.

        picture: uint8 H×W×3; mask: float32 H×W, 1 repainted; latent_mask: 1×1×h×w. Other UNets take no notice.
        """
        if self.is_inpainting:
            hidden = (mask > 0.5)[..., None]
            masked = self.encode(np.where(hidden, MIDDLE_GREY, picture))
            self.extra_channels = torch.cat([latent_mask.to(masked), masked], dim=1)
        try:
            yield
        finally:
            self.extra_channels = None

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> Array:
        """Return the pictures (uint8 B×H×W×3 sRGB) of latents; where half precision gives NaN, decode in float32."""
        vae = self.pipe.vae
        scaled = latents / vae.config.scaling_factor
        with memory_errors(f"decode a picture of {scaled.shape[3] * self.scale_factor} pixels' width"):
            pixels = vae.decode(scaled.to(vae.dtype), return_dict=False)[0].float()
            if not torch.isfinite(pixels).all() and vae.dtype != torch.float32:
                vae.to(torch.float32)
                pixels = vae.decode(scaled, return_dict=False)[0].float()
        if not torch.isfinite(pixels).all():
            raise ModelError(
                f"{self.name} gave a picture without colours (NaN).",
                "Set Precision to Full in the preferences, or use another model.",
            )
        array = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return np.asarray(array)

    @torch.inference_mode()
    def encode_prompts(self, prompt: str, negative_prompt: str, guided: bool) -> dict[str, torch.Tensor]:
        """Return the pipeline's arguments for a prompt and, where guided, its negative; kept for the next call."""
        key = (prompt, negative_prompt if guided else "", guided)
        if key not in self._prompts:
            encoded = self.pipe.encode_prompt(
                prompt=prompt,
                device=self.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=guided,
                negative_prompt=negative_prompt if guided else None,
            )
            names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
            self._prompts[key] = {
                name: tensor.float() for name, tensor in zip(names, encoded, strict=False) if tensor is not None
            }
            while len(self._prompts) > PROMPTS_KEPT:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return self._prompts[key]


@contextmanager
def memory_errors(doing: str) -> Iterator[None]:
    """Turn running out of memory into a sentence that says at what."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"There was not enough memory to {doing}.", "Choose a smaller size.") from error
    except RuntimeError as error:
        if not any(words in str(error) for words in NO_MEMORY):
            raise
        raise OutOfMemory(f"There was not enough memory to {doing}.", "Choose a smaller size.") from error
