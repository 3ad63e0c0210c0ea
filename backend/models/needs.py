"""How much memory a picture takes with a model, told by files' headers and configurations before anything is loaded.

What a network holds while it works is counted in numbers a pixel of the picture that is made; tools/memory.py counts
them and measures what the machine takes for them (docs/memory.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ModelError
from ..settings import EMBEDDED
from .hub import find_pipeline, is_hub_name
from .load import place_of
from .memory import PROCESSES
from .pipeline_files import (
    Signature,
    choose_weights,
    has_weights,
    missing_parts,
    names_in,
    parts_of,
    read_index,
    signature_of,
)
from .recognise import UNET, VAE, is_pickle, read_safetensors_header, tell_family
from .traits import is_editing

MODES = ("full", "medium", "low")  # each takes less memory than the one before, and more time
TILE_SIDE = 576  # pixels: a tile of 512 with what is decoded around it
ALL_AT_ONCE = 1024**2  # pixels; no larger picture goes through the VAE at once, whatever memory there is
QWEN_IMAGE_SIDE = 1328  # pixels: the square among the sizes that its model card gives
QWEN_IMAGE_EDIT_SIDE = 1024  # pixels: the square that its own pipeline brings pictures to
CONFIGS = Path(__file__).parent / "configs"

# Numbers a pixel that are alive at once, by what they are in proportion to: counted over the tensors of one forward
# pass of Stable Diffusion 1, XL and 3, Flux, Qwen-Image, Z-Image and the embedded model.
ATTENDING_UNET, UNET_ALONE = 0.41, 0.25  # × the first level's channels, with attention there and without
USUAL_SIDE = 8  # pixels that a latent of those UNets stands for
TRANSFORMER = 25.0 / 256  # × channels; a token is 16×16 pixels
DECODER, ENCODER = 3.0, 5.0  # × channels of the second and of the first level
FILM_DECODER, FILM_ENCODER = 18.0, 10.0  # × the base width of a video model's VAE
COPIES = 0.3  # × all weights: what a processor's libraries hold beside weights that lie in a file (docs/memory.md)
PICTURE = 40  # bytes a pixel of the canvas, mask and result, and of copies of them
FULL = 4  # bytes of a number in float32


class Work(NamedTuple):
    """By how much a machine takes more than the numbers themselves: libraries' own buffers, and what lies between."""

    denoise: float
    decode: float
    encode: float


# On a processor: peak resident memory by tools/memory.py. On a card: the usual 2200 and 1100 times pixels times bytes
# for Stable Diffusion's VAE; its denoiser's is a processor's, unmeasured.
PROCESSOR, CARD = Work(1.9, 1.6, 1.15), Work(1.9, 2200 / (3 * 256), 1100 / (5 * 128))


@dataclass(frozen=True)
class Part:
    """The weights of one part of a model, in numbers: all, those outside of its blocks, those of its largest block."""

    numbers: int = 0
    outside: int = 0
    block: int = 0

    @property
    def in_blocks(self) -> int:
        """What it takes where its blocks take turns."""
        return self.outside + self.block


@dataclass(frozen=True)
class Anatomy:
    """What a model is made of: the weights of its parts, and the numbers a pixel that these work with.

    native: side in pixels of the squares that it was trained on. upcast: whether its VAE overflows half precision, and
    so has float32.
    """

    text: Part
    denoiser: Part
    vae: Part
    denoise: float
    decode: float
    encode: float
    native: int
    upcast: bool = False


class Job(NamedTuple):
    """What is asked of a model: the picture's size as it makes it, how many at once, the bytes of a number."""

    width: int
    height: int
    batch: int = 1
    item: int = 2
    on_card: bool = False
    guided: bool = True  # whether each step also asks for the negative prompt
    window: int = 0  # pixels that the denoiser looks at, where those aren't all

    @property
    def is_large(self) -> bool:
        """Whether the picture is larger than a tile."""
        return self.width * self.height > TILE_SIDE**2


class MemoryPlan(NamedTuple):
    """How a picture is made within a machine's memory; room: what there is, 0 where that isn't known."""

    mode: str
    tiled: bool
    bytes: int
    room: int

    @property
    def fits(self) -> bool:
        """Whether there is enough, as far as can be told."""
        return self.room == 0 or self.bytes <= self.room


def plan_memory(anatomy: Anatomy, job: Job, room: int, wanted: str = "automatic") -> MemoryPlan:
    """Return the first way of making a picture that fits into the room, else the most sparing one.

    wanted: a mode to keep to, or "automatic". A picture goes through the VAE in tiles where it doesn't fit at once.
    """
    modes = MODES if wanted == "automatic" else (wanted,)
    ways = [(mode, tiled) for mode in modes for tiled in ((False, True) if job.is_large else (False,))]
    plans = [MemoryPlan(mode, tiled, bytes_needed(anatomy, job, mode, tiled), room) for mode, tiled in ways]
    return next((plan for plan in plans if plan.fits), plans[-1])


def bytes_needed(anatomy: Anatomy, job: Job, mode: str, tiled: bool) -> int:
    """Return the most bytes that a picture takes at any moment in a mode, its weights included.

    full: everything stays. medium: text encoders, denoiser and VAE take turns. low: their blocks do too, and a step
    looks at one sample at a time.
    """
    work = CARD if job.on_card else PROCESSOR
    pixels = job.width * job.height
    samples = 1 if mode == "low" else job.batch * (2 if job.guided else 1)
    seen = min(pixels, TILE_SIDE**2 if tiled else ALL_AT_ONCE)
    vae_item = FULL if anatomy.upcast and job.item < FULL and job.on_card else job.item
    denoise = anatomy.denoise * work.denoise * (job.window or pixels) * samples * job.item
    draw = max(anatomy.decode * work.decode, anatomy.encode * work.encode) * seen * vae_item
    text, denoiser, vae = (
        part.numbers * item
        for part, item in ((anatomy.text, job.item), (anatomy.denoiser, job.item), (anatomy.vae, vae_item))
    )
    if mode == "full":
        most = text + denoiser + vae + max(denoise, draw)
    elif mode == "medium":
        most = max(text, denoiser + denoise, vae + draw)
    else:
        blocks = [part.in_blocks * job.item for part in (anatomy.text, anatomy.denoiser)]
        most = max(blocks[0], blocks[1] + denoise, vae + draw)
    if not job.on_card and mode != "full":
        weights = text + denoiser + vae
        most = min(most + COPIES * weights, weights + max(denoise, draw))
    return int(most + PICTURE * pixels * job.batch)


@lru_cache(maxsize=32)
def item_bytes(precision: str, device: str) -> int:
    """Return the bytes of a number in that precision; "automatic" is what load.choose_precision takes on a device."""
    if precision != "automatic":
        return FULL if precision == "float32" else 2
    processor = PROCESSES / "cpuinfo"
    if device != "cpu":
        return 2
    return (
        2 if processor.exists() and "avx512_bf16" in processor.read_text(encoding="ascii", errors="replace") else FULL
    )


# --- What a model is made of ---


def anatomy_of(name: str) -> Anatomy | None:
    """Return what a model is made of by its files, None where they aren't here or don't tell; loads nothing."""
    try:
        folder = find_pipeline(name) if name != EMBEDDED and is_hub_name(name) else place_of(name)
        return None if folder is None else _anatomy(folder, signature_of(folder))
    except (OSError, RuntimeError):  # RuntimeError: "~name" of no user
        return None


@lru_cache(maxsize=32)
def _anatomy(path: Path, signature: Signature) -> Anatomy | None:
    try:
        if path.is_dir():
            return _of_folder(path)
        return None if is_pickle(path) else _of_file(path)
    except (OSError, ModelError, ValueError, LookupError, TypeError):  # a file that is cut off, or says nonsense
        return None


def _of_folder(folder: Path) -> Anatomy | None:
    parts: dict[str, Part] = {}
    index = read_index(folder)
    if missing_parts(folder, index):
        return None
    for name in filter(has_weights, parts_of(index)):
        shapes: dict[str, tuple[int, ...]] = {}
        for file in choose_weights(names_in(folder / name), False):
            if file.endswith(".safetensors"):
                shapes |= read_safetensors_header(folder / name / file).shapes
        parts[name] = part_of(shapes)
    denoiser = "unet" if "unet" in parts else "transformer"
    text = [part for name, part in parts.items() if name.startswith("text_encoder")]
    network, autoencoder = (
        json.loads((folder / name / "config.json").read_text(encoding="utf-8")) for name in (denoiser, "vae")
    )
    kind = str(index["_class_name"])
    native = native_side(kind, network, autoencoder)
    return put_together(_joined(text), parts[denoiser], parts["vae"], network, autoencoder, native, is_editing(kind))


def _of_file(path: Path) -> Anatomy:
    shapes = read_safetensors_header(path).shapes
    family = tell_family(shapes, path.name)
    vae = {key: shape for key, shape in shapes.items() if key.startswith(VAE)}
    denoiser = part_of({key: shape for key, shape in shapes.items() if key.startswith(UNET)})
    text = part_of({key: shape for key, shape in shapes.items() if key not in vae and not key.startswith(UNET)})
    network, autoencoder = (
        json.loads((CONFIGS / family / name / "config.json").read_text(encoding="utf-8")) for name in ("unet", "vae")
    )
    native = native_side("StableDiffusion", network, autoencoder)
    return put_together(text, denoiser, part_of(vae), network, autoencoder, native)


def native_side(kind: str, network: Mapping[str, Any], autoencoder: Mapping[str, Any]) -> int:
    """Return the side in pixels of the squares that a model was trained on.

    kind: the class of its pipeline; network, autoencoder: the configurations of its denoiser and its VAE.
    """
    if kind.startswith("StableDiffusion"):
        return int(network["sample_size"]) << len(autoencoder["block_out_channels"]) - 1
    if kind.startswith("QwenImage"):
        return int(autoencoder.get("sample_size", QWEN_IMAGE_EDIT_SIDE if "Edit" in kind else QWEN_IMAGE_SIDE))
    return int(autoencoder["sample_size"])


def anatomy_of_modules(text_encoders: Iterable[Any], network: Any, vae: Any, native: int, edits: bool) -> Anatomy:
    """Return what a loaded model is made of, by its networks; native, edits: as for put_together."""
    text, denoiser, autoencoder = (
        _joined(part_of({key: tuple(tensor.shape) for key, tensor in part.named_parameters()}) for part in parts)
        for parts in (text_encoders, [network], [vae])
    )
    return put_together(text, denoiser, autoencoder, network.config, vae.config, native, edits)


# What takes turns, as of diffusers' and of the original layout; a block of the former is three of the latter.
BLOCK = re.compile(r"^(?:.*?\.)?((?:\w+_blocks?|layers?|block|resblocks|\w+_refiner)\.\d+|mid_block|middle_block)\.")
ORIGINAL, IN_ONE = re.compile(r"(input|output)_blocks"), 3


def part_of(shapes: Mapping[str, tuple[int, ...]]) -> Part:
    """Return the numbers of tensors by their names and shapes."""
    blocks: dict[str, int] = {}
    numbers = 0
    for key, shape in shapes.items():
        count = 1
        for side in shape:
            count *= side
        numbers += count
        found = BLOCK.match(key)
        if found is not None:
            name = key[: found.end(1)]
            blocks[name] = blocks.get(name, 0) + count
    largest = max(blocks.values(), default=0) * (IN_ONE if any(map(ORIGINAL.search, blocks)) else 1)
    return Part(numbers, numbers - sum(blocks.values()), largest)


def _joined(parts: Iterable[Part]) -> Part:
    """Return several text encoders as one part: they are used together, their blocks take turns."""
    found = list(parts)
    return Part(
        sum(part.numbers for part in found),
        sum(part.outside for part in found),
        max((part.block for part in found), default=0),
    )


def put_together(
    text: Part,
    denoiser: Part,
    vae: Part,
    network: Mapping[str, Any],
    autoencoder: Mapping[str, Any],
    native: int,
    edits: bool = False,
) -> Anatomy:
    """Return the anatomy of parts with these configurations of diffusers.

    native: side in pixels of the squares that the model was trained on. edits: whether the denoiser sees the picture
    beside the sample, as so many tokens more.
    """
    if "block_out_channels" in network:
        attending = str(network["down_block_types"][0]).startswith("CrossAttn")
        latents = (USUAL_SIDE / (1 << len(autoencoder["block_out_channels"]) - 1)) ** 2
        denoise = network["block_out_channels"][0] * (ATTENDING_UNET if attending else UNET_ALONE) * latents
    else:
        width = network.get("dim") or network["num_attention_heads"] * network["attention_head_dim"]
        denoise = width * TRANSFORMER * (2 if edits else 1)
    if "base_dim" in autoencoder:
        decode, encode = (autoencoder["base_dim"] * share for share in (FILM_DECODER, FILM_ENCODER))
    else:
        first, second = (autoencoder["block_out_channels"] * 2)[:2]
        decode, encode = second * DECODER, first * ENCODER
    upcast = bool(autoencoder.get("force_upcast", False))
    return Anatomy(text, denoiser, vae, float(denoise), float(decode), float(encode), native, upcast)
