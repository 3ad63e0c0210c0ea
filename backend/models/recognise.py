"""What a checkpoint file is, told by its first bytes and its header alone: neither torch nor a weight is read."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError

Shapes = dict[str, tuple[int, ...]]

CHOOSE = "Choose a whole Stable Diffusion 1, 2 or XL checkpoint."
COPY_AGAIN = "Copy or download it again."
LONGEST_HEADER = 32_000_000  # bytes; those of the largest models have 0.5 million

UNET = "model.diffusion_model."
VAE = ("first_stage_model.", "vae.")
INPUT = f"{UNET}input_blocks.0.0.weight"
UNCLIP = f"{UNET}label_emb.0.0.weight"  # SDXL has it too
# The text encoders' keys → the family; a refiner has only the first of SDXL's places, with an OpenCLIP encoder in it.
FAMILIES = {
    "cond_stage_model.transformer.": "sd1",
    "cond_stage_model.model.": "sd2",
    "conditioner.embedders.1.": "sdxl",
    "conditioner.embedders.0.model.": "refiner",
}
TITLES = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL"}
# A pattern of a key → families that are told, though not as whole checkpoints of these.
TRANSFORMERS = ((r"joint_blocks\.0\.", "Stable Diffusion 3"), (r"double_(stream_)?blocks\.0\.", "Flux"))

# The UNet's input channels → what such a model is, where it is none that takes a picture's latents, or these, a mask
# and the masked picture's latents (9).
OTHER_INPUTS = {
    5: "a depth-to-image model, which takes a depth map",
    7: "Stable Diffusion's x4 upscaler",
    8: "a model with a second picture for input, such as InstructPix2Pix",
}

# What else a file may be: a pattern that one of its keys has, what that is, and what to do. The first match counts.
ADDITION = "It only adds to a model: choose a whole checkpoint."
NOT_WHOLE: tuple[tuple[str, str, str], ...] = (
    (r"lora_(up|down|[AB]|unet|te\d?)\b|^lora_|\.(hada|lokr)_w1|\.oft_blocks|\.lora\.", "a LoRA", ADDITION),
    (r"^(emb_params|string_to_param|clip_[lg])$", "a textual inversion embedding", ADDITION),
    (r"^control_model\.|controlnet_|input_hint_block\.", "a ControlNet", ADDITION),
    (r"^(image_proj|ip_adapter)(\.|$)", "an IP-Adapter", ADDITION),
    (
        r"^(params|params_ema|conv_first\.weight|model\.0\.weight|body\.0\..*rdb1\..*)$",
        "an upscaler",
        "Choose it under Upscale.",
    ),
    (r"joint_blocks\.0\.", "a Stable Diffusion 3 model, another family", CHOOSE),
    (r"double_(stream_)?blocks\.0\.", "a Flux model, another family", CHOOSE),
    (r"^edm_", "a model of the EDM kind, whose noise levels are other ones", CHOOSE),
    (r"motion_modules\.|\.time_stack\.|temporal_transformer|^patch_embedding\.", "a video model", CHOOSE),
)
PARTS: tuple[tuple[str, str, str], ...] = (
    (
        r"^(down_blocks|up_blocks|mid_block|transformer_blocks)\.",
        "the UNet or transformer of a model in diffusers' layout",
        "Choose the model's folder, the one that has a model_index.json.",
    ),
    (r"^(first_stage_model\.|vae\.)?(encoder|decoder)\.(conv_in|mid)", "a VAE alone, only a part of a model", CHOOSE),
    (
        r"^(cond_stage_model\.|conditioner\.)|(^|\.)(text_model|resblocks|encoder\.block)\.",
        "a text encoder alone, only a part of a model",
        CHOOSE,
    ),
)


@dataclass(frozen=True)
class Header:
    """What a file says about itself before any weight is read: the tensors' shapes, and its metadata."""

    shapes: Shapes
    metadata: Mapping[str, str]


def tell_family(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    """Return the family of a whole checkpoint with these keys: sd1, sd2 or sdxl, with -inpaint for 9 input channels.

    name is the file's name for messages. Raises ModelError that says what else it is.
    """
    _refuse(shapes, NOT_WHOLE, name)
    if INPUT not in shapes:
        _refuse(shapes, PARTS, name)
        raise ModelError(f"{name} holds no Stable Diffusion model.", CHOOSE)
    family = next((family for prefix, family in FAMILIES.items() if _has(shapes, prefix)), None)
    if family == "refiner":
        raise ModelError(
            f"{name} is the refiner of Stable Diffusion XL as a single file, which can't be read.",
            "Choose the refiner's diffusers folder or hub name as the refiner, the base model as the model.",
        )
    missing = [
        part
        for part, has in (("text encoder", family is not None), ("VAE", any(_has(shapes, prefix) for prefix in VAE)))
        if not has
    ]
    if missing:
        raise ModelError(f"{name} lacks the {' and the '.join(missing)} of a whole model.", CHOOSE)
    assert family is not None  # or the text encoder would be missing
    channels = shapes[INPUT][1] if len(shapes[INPUT]) == 4 else 0
    if channels not in (4, 9):
        other = OTHER_INPUTS.get(channels, f"a model with {channels} input channels in place of 4 or 9")
        raise ModelError(f"{name} is {other}.", CHOOSE)
    if UNCLIP in shapes and family != "sdxl":
        raise ModelError(f"{name} is a model that takes a picture for its prompt (unCLIP).", CHOOSE)
    return f"{family}-inpaint" if channels == 9 else family


def family_title(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the family of a checkpoint with these keys as an artist reads it, empty where they tell none."""
    try:
        family, _, inpainting = tell_family(shapes, "").partition("-")
    except ModelError:
        keys = "\n".join(shapes)
        return next((title for pattern, title in TRANSFORMERS if re.search(pattern, keys)), "")
    return f"{TITLES[family]} inpainting" if inpainting else TITLES[family]


def _has(keys: Iterable[str], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in keys)


def _refuse(keys: Iterable[str], kinds: tuple[tuple[str, str, str], ...], name: str) -> None:
    text = "\n".join(keys)  # one search over all of them is several times as fast as one for each
    for pattern, what, remedy in kinds:
        if re.search(pattern, text, re.MULTILINE):
            raise ModelError(f"{name} is {what}.", remedy)


def is_pickle(path: Path) -> bool:
    """Return whether a file is torch's zip or pickle rather than safetensors; raises ModelError where it is neither."""
    name = path.name
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise ModelError(f"{name} is empty.", COPY_AGAIN)
    if start[8:9] == b"{" and start[7] == 0:  # after eight bytes with the header's length
        return False
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return True
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{name} is only a Git LFS pointer to the weights.", "Fetch the file with git lfs pull.")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ModelError(f"{name} is a web page under a model's name.", "Download it again, logged in where needed.")
    if start.startswith(b"GGUF"):
        raise ModelError(f"{name} is a GGUF file.", "Choose a .safetensors file.")
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        raise ModelError(f"{name} is a text file, not a model.", CHOOSE)
    if not any(start):
        raise ModelError(f"{name} is filled with zeros: its download was never finished.", COPY_AGAIN)
    raise ModelError(f"{name} is neither a safetensors nor a checkpoint file.", CHOOSE)


def read_safetensors_header(path: Path) -> Header:
    """Return the header of a .safetensors file, without the library; raises ModelError where it is damaged."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise damaged(path, "its header is longer than the file")
        if length > LONGEST_HEADER:
            raise damaged(path, "its header is longer than that of any model")
        text = file.read(length)
    try:
        entries = json.loads(text)
        metadata = entries.pop("__metadata__", None) or {}
        shapes: Shapes = {}
        end = 0
        for key, entry in entries.items():
            first, last = map(operator.index, entry["data_offsets"])
            shapes[key] = tuple(map(operator.index, entry["shape"]))
            if not 0 <= first <= last:
                raise ValueError(f"{key} has no place in it")
            end = max(end, last)
        strings = {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, "its header makes no sense") from error
    if 8 + length + end != size:
        raise damaged(path, f"{size} bytes in place of {8 + length + end}")
    return Header(shapes, strings)


def damaged(path: Path, reason: str) -> ModelError:
    """Return the error for a file that its own header doesn't fit."""
    reason = (reason.strip() or "it ends too early").splitlines()[0].partition(". ")[0].rstrip(".")
    return ModelError(f"{path.name} is damaged or was copied only in part ({reason}).", COPY_AGAIN)
