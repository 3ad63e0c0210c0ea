"""The models that read a picture: BLIP says what it shows, CLIP which words fit it. Found, fetched, loaded, run here.

Importing this costs neither torch nor the hub's library: Blender asks it what would have to be downloaded.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError, OutOfMemory
from ..request import Array
from ..settings import EMBEDDED
from ..settings.interrogate import Interrogate
from .hub import fetch, snapshot
from .load import HUB_NAME, Options, choose_device, choose_precision

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

GIGABYTES = {  # of model.safetensors on the hub, for those that are likely to be named
    "Salesforce/blip-image-captioning-large": 1.9,
    "Salesforce/blip-image-captioning-base": 1.0,
    "openai/clip-vit-large-patch14": 1.7,
    "openai/clip-vit-large-patch14-336": 1.7,
    "openai/clip-vit-base-patch16": 0.6,
    "openai/clip-vit-base-patch32": 0.6,
}
EMBEDDED_CAPTIONER = Path(__file__).parent / "embedded_captioner"  # made by training/captioner.py
FETCHED = ["*.json", "*.txt", "model*.safetensors"]  # of a hub name: never pickles, which can run code
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's pixels, red, green, blue in 0–1; BLIP was trained with the same
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
CAPTION_START = "a picture of"  # BLIP learnt captions as what goes on from these words
COSINE_SCALE = 100.0  # CLIP's own, before the softmax over a list
WORDS_AT_ONCE = 32
LAYERS = ("BlipEncoderLayer", "BlipTextLayer", "CLIPEncoderLayer")  # each looks for a cancel before it runs


def find_model(name: str) -> Path | None:
    """Return the folder of a model on this machine, or None where its hub name has not been fetched yet.

    name: "embedded", a folder, or a hub name such as owner/model. Asks no network. Raises ModelError for any other.
    """
    if name == EMBEDDED:
        return EMBEDDED_CAPTIONER
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # "~name" of no user
        path = Path(name)
    if name and path.is_dir():
        return path
    if path.is_absolute() or not HUB_NAME.fullmatch(name):
        raise ModelError(f"There is no model at “{name}”.", "Give a folder, or a hub name such as owner/model.")
    folder = snapshot(name)
    if folder is None or not (folder / "config.json").is_file():
        return None
    return folder if any(path.is_file() for path in folder.glob("*.safetensors")) else None


def download_needed(settings: Interrogate) -> list[tuple[str, float | None]]:
    """Return hub name and size in GB (None where it isn't known) of each model that is not on this machine yet.

    Looks at the disk alone. Raises ModelError for a name that is neither a folder nor a hub name.
    """
    names = [settings.caption_model, *([settings.ranking_model] if settings.ranks else [])]
    return [(name, GIGABYTES.get(name)) for name in names if find_model(name) is None]


def describe_downloads(needed: Sequence[tuple[str, float | None]]) -> str:
    """Return names and sizes as an artist reads them: "owner/model (1.9 GB) and owner/other (size unknown)"."""
    return " and ".join(f"{name} ({f'{size:.1f} GB' if size else 'size unknown'})" for name, size in needed)


def require_models(settings: Interrogate, online: bool) -> None:
    """Raise ModelError, one for all of them, where models are missing that may not be fetched."""
    needed = download_needed(settings)
    if needed and not online:
        raise ModelError(
            f"Interrogate needs {describe_downloads(needed)}, not on this machine yet, and online access is off.",
            "Allow Online Access in Blender's preferences (System) to fetch them once, or choose folders on disk.",
        )


def fetch_model(name: str, options: Options, check: Callable[[], None], share: Callable[[float, str], None]) -> Path:
    """Return the folder of a model, fetched from the hub first if need be; check, share and errors as of hub.fetch."""
    found = find_model(name)
    if found is not None:
        return found
    fetch(name, options, share, check, FETCHED)
    found = find_model(name)
    if found is None:
        raise ModelError(f"{name} has no weights as safetensors.", "Choose another; pickles can run code.")
    return found


class Reader:
    """One model that reads pictures: it rests on the processor and visits its device; its layers watch for a cancel."""

    family = ""

    def __init__(self, folder: Path, options: Options) -> None:
        import transformers.utils.logging

        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.device = choose_device(options.device)
        self.dtype = _precision(options, self.device)
        self.watch: Callable[[], None] = lambda: None
        self.tokenizer, self.model = _load(folder, self.family, self.dtype)
        for module in self.model.modules():
            if type(module).__name__ in LAYERS:
                module.register_forward_pre_hook(lambda *_: self.watch())

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Have the model on its device for a while, without gradients; raises OutOfMemory where it doesn't fit."""
        import torch

        from .model import memory_errors

        try:
            with memory_errors("read the picture"), torch.inference_mode():
                self.model.to(self.device)
                yield
        except OutOfMemory as error:
            raise OutOfMemory(error.sentence, "Use fewer beams, a smaller model, or the device cpu.") from error
        finally:
            self.model.to("cpu")

    def pixels(self, picture: Array, crop: bool) -> torch.Tensor:
        """Return a picture (uint8 H×W×3 sRGB) as the model takes it: 1×3×side×side, its middle square alone if crop."""
        import torch
        from PIL import Image

        side = int(self.model.config.vision_config.image_size)
        height, width = picture.shape[:2]
        short = min(height, width)
        left, top = (width - short) / 2, (height - short) / 2
        box = (left, top, left + short, top + short) if crop else None
        resized = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC, box=box)
        values = (np.asarray(resized, dtype=np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(
            DEVIATION, np.float32
        )
        return torch.from_numpy(values).permute(2, 0, 1)[None].to(self.device, self.dtype)


class Captioner(Reader):
    """BLIP: says in words what a picture shows."""

    family = "blip"

    def caption(self, picture: Array, beams: int, minimum_length: int, maximum_length: int) -> str:
        """Return the caption of a picture (uint8 H×W×3 sRGB); lengths in tokens; the same picture, the same caption."""
        with self.at_work():
            start = self.tokenizer(CAPTION_START, return_tensors="pt").to(self.device)
            tokens = self.model.generate(
                pixel_values=self.pixels(picture, crop=False),
                input_ids=start.input_ids,
                attention_mask=start.attention_mask,
                num_beams=beams,
                min_length=minimum_length,
                max_length=maximum_length,
                do_sample=False,
            )
            said = tokens[0, start.input_ids.shape[1] - 1 :]  # less the words it started from
        return str(self.tokenizer.decode(said, skip_special_tokens=True)).strip()


class Ranker(Reader):
    """CLIP: says how well words fit a picture. What it makes of a list is kept, since lists are tried again."""

    family = "clip"

    def __init__(self, folder: Path, options: Options) -> None:
        super().__init__(folder, options)
        self._features: dict[tuple[str, ...], torch.Tensor] = {}

    def look(self, picture: Array) -> torch.Tensor:
        """Return the features of a picture (uint8 H×W×3 sRGB): D float32, of length 1."""
        with self.at_work():
            found = self.model.get_image_features(pixel_values=self.pixels(picture, crop=True)).pooler_output
        return _unit(found)[0]

    def rank(
        self, look: torch.Tensor, words: Sequence[str], told: Callable[[float], None] = lambda _: None
    ) -> list[tuple[str, float]]:
        """Return words and their shares (0–1, in sum 1), best first: the softmax of 100 times the cosines.

        look: from look(). told(done): called as the words are read, done in 0–1.
        """
        key = tuple(words)
        if key not in self._features:
            self._features[key] = self._read(key, told)
        shares = (COSINE_SCALE * (self._features[key] @ look)).softmax(0).tolist()
        return sorted(zip(words, shares, strict=True), key=lambda pair: -pair[1])

    def _read(self, words: Sequence[str], told: Callable[[float], None]) -> torch.Tensor:
        import torch

        parts = []
        length = int(self.model.config.text_config.max_position_embeddings)
        with self.at_work():
            for first in range(0, len(words), WORDS_AT_ONCE):
                told(first / len(words))
                tokens = self.tokenizer(
                    list(words[first : first + WORDS_AT_ONCE]),
                    padding=True,
                    truncation=True,
                    max_length=length,
                    return_tensors="pt",
                ).to(self.device)
                features = self.model.get_text_features(tokens.input_ids, tokens.attention_mask)
                parts.append(_unit(features.pooler_output))
        return torch.cat(parts)


@functools.lru_cache(maxsize=1)
def load_captioner(folder: Path, options: Options) -> Captioner:
    """Return the BLIP model of a folder, the last one kept; raises ModelError with what is wrong with it."""
    return Captioner(folder, options)


@functools.lru_cache(maxsize=1)
def load_ranker(folder: Path, options: Options) -> Ranker:
    """Return the CLIP model of a folder, the last one kept; raises ModelError with what is wrong with it."""
    return Ranker(folder, options)


def _unit(features: torch.Tensor) -> torch.Tensor:
    single = features.float().cpu()
    unit: torch.Tensor = single / single.norm(dim=-1, keepdim=True)
    return unit


def _precision(options: Options, device: str) -> torch.dtype:
    """Return the preference's, but always float32 on a processor: half precision blurs the ranks and saves little."""
    return choose_precision("float32" if device == "cpu" else options.precision, device)


def _load(folder: Path, family: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return tokenizer and model of a folder, of that family alone, from safetensors alone."""
    import transformers
    from safetensors import SafetensorError

    model_class = {"blip": transformers.BlipForConditionalGeneration, "clip": transformers.CLIPModel}[family]
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = config.get("model_type") if isinstance(config, dict) else None
        if found != family:
            raise ModelError(
                f"{folder} holds a model of the kind {found}, not {family}.",
                "The caption model is a BLIP model, the ranking model a CLIP model.",
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, report = model_class.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        log.info("loading %s failed", folder, exc_info=True)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelError(
            f"The model in {folder} could not be loaded: {reason}.",
            "Choose a folder with config.json, model.safetensors and the tokenizer's files.",
        ) from error
    if report["missing_keys"]:
        raise ModelError(
            f"The model in {folder} lacks {len(report['missing_keys'])} of its weights.",
            "Choose a BLIP model made for captions, or a whole CLIP model.",
        )
    return tokenizer, model.eval()
