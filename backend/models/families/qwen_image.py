"""Qwen-Image and Qwen-Image-Edit: a transformer on 2×2 packed latents, a video model's VAE, a language model."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_dimensions
from PIL import Image
from transformers import Qwen2VLProcessor

from ...request import Array
from ..conditioning import Conditioning
from . import Shown, stacked
from .flow import LESS, asked_size, padded
from .flux import PATCH, pack, unpack


class StillProcessor(Qwen2VLProcessor):  # type: ignore[misc]
    """Qwen2-VL's reader of texts and pictures without that of films, which can't be had without torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)


class _FromPicture:
    """Qwen-Image-Edit's pipelines begun from a picture, as Qwen-Image's img2img pipeline is.

    seen_pixels: of the picture as the language model sees it, of any shape.
    """

    seen_pixels: int
    __call__ = diffusers.QwenImageImg2ImgPipeline.__call__
    check_inputs = diffusers.QwenImageImg2ImgPipeline.check_inputs
    get_timesteps = diffusers.QwenImageImg2ImgPipeline.get_timesteps

    @classmethod
    def from_pretrained(cls, source: Any, *, local_files_only: bool, **options: Any) -> Any:
        """Return the pipeline in a folder or of a hub name."""
        where = {"local_files_only": local_files_only}
        processor = StillProcessor.from_pretrained(source, subfolder="processor", **where)
        parent: Any = super()
        pipe = parent.from_pretrained(source, processor=processor, **where, **options)
        pipe.text_encoder.register_forward_pre_hook(_mark_picture, with_kwargs=True)
        return pipe

    def encode_prompt(
        self: Any, prompt: str | None = None, image: Array | None = None, device: Any = None, **embeds: Any
    ) -> Any:
        """Return a prompt's embeddings and their mask, read beside a picture (uint8 H×W×3)."""
        seen = None
        if prompt is not None and image is not None:
            width, height, *_ = calculate_dimensions(self.seen_pixels, image.shape[1] / image.shape[0])
            seen = self.image_processor.resize(Image.fromarray(image), height, width)
            prompt = prompt.replace(self.processor.image_token, "")  # which would stand for one more picture
        parent: Any = super()
        return parent.encode_prompt(prompt, seen, device, **embeds)


class QwenImageEditImg2ImgPipeline(_FromPicture, diffusers.QwenImageEditPipeline):  # type: ignore[misc]
    """Qwen-Image-Edit from a picture."""

    seen_pixels = 1024**2  # as in its own pipeline


class QwenImageEditPlusImg2ImgPipeline(_FromPicture, diffusers.QwenImageEditPlusPipeline):  # type: ignore[misc]
    """Qwen-Image-Edit 2509 and later from a picture."""

    seen_pixels = 384**2  # as in its own pipeline


def _mark_picture(encoder: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Tell a language model which of its tokens are a picture's, and so have a place in two dimensions.

    The pipelines of diffusers 0.42 don't, and transformers 5 takes that without a word (diffusers' issue 14194).
    """
    if given.get("image_grid_thw") is not None:
        given["mm_token_type_ids"] = (given["input_ids"] == encoder.config.image_token_id).int()
    return args, given


class QwenImage:
    """The transformer of a pipeline; see Family. As for Flux, latents are packed inside `denoise` alone.

    Edit sees a picture twice: as further tokens, and through the language model that reads the prompt.
    """

    is_inpainting = False
    takes_negative = True
    seamless_by: tuple[torch.nn.Module, ...] = ()

    def __init__(self, pipe: Any) -> None:
        self.network: torch.nn.Module = pipe.transformer
        self.side_step = int(pipe.vae_scale_factor) * PATCH
        self.is_editing = "Edit" in type(pipe).__name__
        self._channels = int(pipe.vae.config.z_dim)
        self._forward = pipe.transformer.forward
        self._pipe = pipe
        pipe.prepare_latents = self._noisy
        pipe.image_processor.register_to_config(vae_latent_channels=self._channels)  # which Edit's doesn't know

    def shown(self, shown: Shown) -> torch.Tensor | None:
        return shown.encode(shown.picture) if self.is_editing else None

    def denoise(self, sample: torch.Tensor, timestep: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor]:
        count, _, height, width = sample.shape
        whole = padded(sample, PATCH)
        rows, columns = whole.shape[2] // PATCH, whole.shape[3] // PATCH
        seen = whole.chunk(whole.shape[1] // self._channels, dim=1)
        kwargs |= {
            "hidden_states": torch.cat([pack(part) for part in seen], dim=1),
            "timestep": timestep[:1].expand(count),
            "img_shapes": [[(1, rows, columns)] * len(seen)] * count,
        }
        found = unpack(self._forward(**kwargs)[0][:, : rows * columns], rows, columns)
        return (found[:, :, :height, :width],)

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
