"""What a chosen model can't do, and why, told by its small files alone: nothing is loaded, and torch isn't needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..settings import EMBEDDED
from .folders import expanded
from .load import EMBEDDED_FOLDER, HUB_NAME
from .pipeline_files import Signature, read_index, signature_of
from .recognise import family_title, is_pickle, read_safetensors_header
from .samplers import FLOW_SAMPLERS, FLOW_SCHEDULES, is_flow

LARGEST_CONFIG = 1_000_000  # bytes; a network's configuration has about two thousand
# The beginning of a pipeline's class → its family; the first match counts. Those of no UNet are flow-matching models.
CLASS_FAMILIES = (
    ("StableDiffusionXL", "Stable Diffusion XL"),
    ("StableDiffusion3", "Stable Diffusion 3"),
    ("Flux2", "Flux 2"),
    ("Flux", "Flux"),
    ("ZImage", "Z-Image"),
    ("QwenImage", "Qwen-Image"),
)
SECOND_WIDTH = 1024  # of Stable Diffusion 2's text encoder, as its UNet says; 1's has 768
INPAINTING_CHANNELS = 9

# In the classes of pipelines whose models see the picture beside the one they make.
EDITORS = ("Kontext", "Flux2", "QwenImageEdit")

TOLD = "{family} is told its CFG scale as a number, and knows no negative prompt."
DISTILLED = "This model is distilled: it knows neither CFG scale nor negative prompt."
NO_SKIP = "{family} reads prompts by no CLIP, which alone has layers to skip."
NO_SEAMS = "{family} can't make seamless pictures: that takes a UNet."
FEW_STEPS = {"LCMScheduler": "LCM", "TCDScheduler": "TCD"}  # a distilled model's own scheduler → our sampler
NO_MERGING = "{family} can't merge tokens: that takes a UNet."
NO_SHORTCUT = "{family} can leave out no part of a step."
UNHURRIED = ("Stable Diffusion 3", "Z-Image")  # whose transformers diffusers' caches don't know
NO_REFINER = "{family} takes no refiner: that is made for Stable Diffusion XL."
NO_IP_ADAPTER = "{family} takes no IP-Adapter here: these are for Stable Diffusion 1 and XL."
NO_EXTRA = "Only an inpainting model is shown the masked part."


@dataclass(frozen=True)
class Traits:
    """A model's family, "" where nothing tells it, whether it solves a flow, and what it can't do.

    limits: sentences by the names of the settings that do nothing, or can't be had, with this model. edits: whether it
    sees the picture beside the one that it makes. few_steps: the sampler by which it needs few, "" where it needs many.
    """

    family: str = ""
    flow: bool = False
    limits: Mapping[str, str] = field(default_factory=dict)
    edits: bool = False
    few_steps: str = ""

    def can_sample(self, sampler: str) -> bool:
        """Whether a sampler can solve this model."""
        return not self.flow or sampler in FLOW_SAMPLERS

    def can_follow(self, schedule: str) -> bool:
        """Whether this model's samplers can follow a schedule."""
        return not self.flow or schedule in FLOW_SCHEDULES


UNKNOWN = Traits()


def traits_of(name: str) -> Traits:
    """Return the traits of what a Model setting names; UNKNOWN, which has no limits, where that can't be told."""
    path = EMBEDDED_FOLDER if name == EMBEDDED else expanded(name)
    if not path.exists() and HUB_NAME.fullmatch(name):
        from .hub import snapshot  # which knows this package's names

        path = snapshot(name) or path
    try:
        return _traits(path, signature_of(path))
    except OSError:
        return UNKNOWN


@lru_cache(maxsize=32)
def _traits(path: Path, signature: Signature) -> Traits:
    try:
        return _of_folder(path) if path.is_dir() else _of_file(path)
    except (OSError, ModelError):
        return UNKNOWN


def family_of_folder(folder: Path, kind: str) -> str:
    """Return the family of a diffusers folder whose pipeline is of that class, "" where it is none of ours."""
    unet = read_config(folder / "unet" / "config.json")
    family = next((family for beginning, family in CLASS_FAMILIES if kind.startswith(beginning)), "")
    if not family and kind.startswith("StableDiffusion"):
        family = "Stable Diffusion 2" if unet.get("cross_attention_dim") == SECOND_WIDTH else "Stable Diffusion 1"
    is_fill = family == "Flux" and "Fill" in kind
    return f"{family} inpainting" if family and (is_fill or unet.get("in_channels") == INPAINTING_CHANNELS) else family


def is_editing(kind: str) -> bool:
    """Whether the models of a pipeline of that class see the picture beside the one that they make."""
    return any(word in kind for word in EDITORS)


def read_config(path: Path) -> dict[str, Any]:
    """Return what a small JSON file says, nothing where it can't be read."""
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _of_folder(folder: Path) -> Traits:
    index = read_index(folder)
    family = family_of_folder(folder, str(index["_class_name"]))
    scheduler = read_config(folder / "scheduler" / "scheduler_config.json")
    transformer = read_config(folder / "transformer" / "config.json")
    limits = _limits(family, bool(transformer), bool(transformer.get("guidance_embeds")))
    if index.get("is_distilled"):
        limits |= dict.fromkeys(("negative_prompt", "cfg_scale"), DISTILLED)
    few_steps = FEW_STEPS.get(str(scheduler.get("_class_name")), "")
    return Traits(family, is_flow(scheduler), limits, is_editing(str(index["_class_name"])), few_steps)


def _of_file(path: Path) -> Traits:
    if is_pickle(path):
        return UNKNOWN
    family = family_title(read_safetensors_header(path).shapes)
    return Traits(family, False, _limits(family, False, False)) if family else UNKNOWN


def _limits(family: str, is_transformer: bool, is_told: bool) -> dict[str, str]:
    """Return what a model of that family can't do. is_told: it takes its CFG scale as a number."""
    limits = {}
    if is_told:
        limits["negative_prompt"] = TOLD
    if is_transformer and family != "Stable Diffusion 3":
        limits["clip_skip"] = NO_SKIP
    if is_transformer:
        limits |= {"seamless_x": NO_SEAMS, "seamless_y": NO_SEAMS, "refiner": NO_REFINER, "ip_adapter": NO_IP_ADAPTER}
        limits["token_merging_ratio"] = NO_MERGING
        if family in UNHURRIED:
            limits["fast_mode"] = NO_SHORTCUT
    if not family.endswith("inpainting"):
        limits["conditioning_mask_strength"] = NO_EXTRA
    return {name: sentence.format(family=family) for name, sentence in limits.items()}
