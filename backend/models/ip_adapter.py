"""IP-Adapters: small files by which a UNet is prompted with a picture beside the words."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InvalidRequest, ModelError
from ..request import Array
from .adapters import UNFIT, read_weights, version_of
from .additions import SUFFIX
from .savings import ran_out

if TYPE_CHECKING:
    from .conditioning import Conditioning, Prompts, Texts

log = logging.getLogger(__name__)

ENCODER = "image_encoder"  # the folder of what reads the picture, beside the adapter or one above
EMBEDS = "image_embeds"  # a conditioning's tensor with what was read


class IpAdapter:
    """The IP-Adapter that is in a pipeline now, and what it was shown."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._shown: tuple[torch.Tensor, torch.Tensor] | None = None  # the picture as it is read, and none
        self._processors: Mapping[str, Any] = {}  # the attention's own, which an adapter's take the place of
        self.active: tuple[object, ...] = ()

    def apply(self, name: str, scale: float, picture: Array | None) -> None:
        """Prompt the UNet with a picture (uint8 H×W×3) from now on, that strongly; by no adapter for "" or scale 0.

        Raises InvalidRequest where the model takes none, the file fits it not, or no picture is given; ModelError where
        a file is missing or damaged. Then there is none in the model.
        """
        if not name or scale == 0:
            self.remove()
            return
        path = Path(name).expanduser()
        if picture is None:
            raise InvalidRequest(
                "The IP-Adapter has no picture to go by.", "Choose a reference image, or no IP-Adapter."
            )
        if path.suffix.lower() != SUFFIX:
            raise InvalidRequest(f"“{path.name}” is no {SUFFIX} file.", "Choose the IP-Adapter in that format.")
        if not hasattr(self._pipe, "unet") or not hasattr(self._pipe, "load_ip_adapter"):
            raise InvalidRequest("This model takes no IP-Adapter.", "Choose a Stable Diffusion 1 or XL model, or none.")
        wanted = (version_of(path), hashlib.blake2b(np.ascontiguousarray(picture).data).digest(), picture.shape)
        if wanted != self.active:
            self.remove()
            with contextlib.ExitStack() as undo:
                undo.callback(self._unload)
                self._load(path)
                self._shown = self._read(path, picture)
                undo.pop_all()
            self.active = wanted
        self._pipe.set_ip_adapter_scale(scale)

    def remove(self) -> None:
        """Take it out: the model is as it was loaded."""
        if self.active:
            self.active = ()
            self._unload()

    def added_to(self, prompts: Prompts) -> Prompts:
        """Return prompts with the picture beside their words, and with none beside the negative prompt's."""
        if self._shown is None:
            return prompts
        picture, nothing = self._shown
        positives = [(weight, _with(texts, picture)) for weight, texts in prompts.positives]
        return type(prompts)(_with(prompts.negative, nothing), positives)

    def _load(self, path: Path) -> None:
        unfit = InvalidRequest(
            f"The IP-Adapter “{path.stem}” doesn't fit this model: it was made for another family, or is none.",
            "Choose one of the model's family.",
        )
        parts: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for key, tensor in read_weights(path).items():
            part, _, rest = key.partition(".")
            if part in parts:
                parts[part][rest] = tensor
        if not all(parts.values()):
            raise unfit
        if any("lora" in key for key in parts["ip_adapter"]):
            raise InvalidRequest(
                f"The IP-Adapter “{path.stem}” is one for faces (FaceID), which can't be used here.",
                "Choose one without FaceID in its name.",
            )
        self._processors = dict(self._pipe.unet.attn_processors)
        try:
            self._pipe.load_ip_adapter(parts, subfolder="", weight_name="", image_encoder_folder=None)
        except (*UNFIT, AssertionError) as error:
            if ran_out(error):
                raise
            log.info("loading %s failed", path, exc_info=True)
            raise unfit from error

    def _unload(self) -> None:
        self._shown = None
        if self._pipe.unet.encoder_hid_proj is not None:
            self._pipe.unload_ip_adapter()
        if self._processors:  # which are taken the place of before the rest of a file is read
            self._pipe.unet.set_attn_processor(dict(self._processors))
            self._processors = {}

    @torch.inference_mode()
    def _read(self, path: Path, picture: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the image encoder makes of the picture, and of none (each 1×1×…); it is let go afterwards."""
        from diffusers.models.embeddings import ImageProjection
        from safetensors import SafetensorError
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        folder = next(
            (place / ENCODER for place in path.parents[:2] if (place / ENCODER / "config.json").is_file()), None
        )
        if folder is None:
            raise ModelError(
                f"The IP-Adapter “{path.stem}” lacks its image encoder.",
                f"Put the folder {ENCODER} that belongs to it beside it or one folder above.",
            )
        try:
            encoder: Any = CLIPVisionModelWithProjection.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except (*UNFIT, OSError, SafetensorError) as error:
            if ran_out(error):
                raise
            raise ModelError(f"The image encoder in {folder} is damaged.", "Copy or download it again.") from error
        side = encoder.config.image_size
        processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        pixels = processor(picture[..., :3], return_tensors="pt").pixel_values
        projection = self._pipe.unet.encoder_hid_proj.image_projection_layers[0]
        if isinstance(projection, ImageProjection):
            found = encoder(pixels).image_embeds
            nothing = torch.zeros_like(found)
        else:
            found, nothing = (
                encoder(values, output_hidden_states=True).hidden_states[-2]
                for values in (pixels, torch.zeros_like(pixels))
            )
        shown = found[None].to(self._pipe.device), nothing[None].to(self._pipe.device)
        try:
            projection(shown[0][0].to(next(projection.parameters())))
        except RuntimeError as error:
            if ran_out(error):
                raise
            raise InvalidRequest(
                f"The image encoder in {folder} doesn't belong to the IP-Adapter “{path.stem}”.",
                "Put the one beside it that it was made with.",
            ) from error
        return shown


def _with(texts: Texts, embeds: torch.Tensor) -> Texts:
    def extended(conditioning: Conditioning) -> Conditioning:
        extra: Mapping[str, torch.Tensor] = {**conditioning.extra, EMBEDS: embeds}
        return conditioning._replace(extra=extra)

    return [(last, extended(conditioning)) for last, conditioning in texts]
