"""Which LoRAs, embeddings, VAEs and IP-Adapters this machine has, and for which family: names and headers alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from .folders import EMBEDDINGS, LORAS
from .recognise import Header, read_safetensors_header

SUFFIX = ".safetensors"  # the one kind of file that can hold no code
PICKLED = (".pt", ".bin")  # what embeddings are in too; of these only tensors are read (pickles.py)
SD1, SD2, SDXL, FLUX = "Stable Diffusion 1", "Stable Diffusion 2", "Stable Diffusion XL", "Flux"
WIDTHS = {768: SD1, 1024: SD2, 2048: SDXL}  # of what a UNet's cross-attention is told
DOWN = re.compile(r"attn2[._]to_k.*(lora_down|lora_A|lora\.down)")  # takes in a vector of that width
# What only one family's keys have, where no width tells.
SIGNS = ((r"^lora_te2_|^text_encoder_2\.", SDXL), (r"(^|_|\.)(single_transformer|double|single)_blocks[._]", FLUX))


@dataclass(frozen=True)
class Addition:
    """One file that adds to a model: its name as a prompt says it, its path, and its family, "" where that isn't told.

    problem is a sentence where it can't be used.
    """

    name: str
    path: str
    family: str = ""
    problem: str = ""


_known: dict[str, tuple[tuple[int, int, str], Addition]] = {}


def files_in(folders: Iterable[str | Path], kind: str = LORAS) -> dict[str, Path]:
    """Return the files of a kind in folders and below, by their names without the suffix.

    Of those of one name the .safetensors counts, and the first.
    """
    found: dict[str, Path] = {}
    for suffix in (SUFFIX, *PICKLED) if kind == EMBEDDINGS else (SUFFIX,):
        for folder in folders:
            # Not rglob, which raises where a folder vanishes while it is read.
            tree = os.walk(Path(folder).expanduser())
            for path in sorted(Path(place, name) for place, _, names in tree for name in names):
                if path.suffix == suffix:
                    found.setdefault(path.stem, path)
    return found


def find_additions(kind: str, folders: Iterable[str | Path]) -> list[Addition]:
    """Return the files of a kind (folders.py) in folders and below, by name; what is damaged has a problem."""
    found = [_look_into(kind, name, path) for name, path in files_in(folders, kind).items()]
    return sorted(found, key=lambda addition: (bool(addition.problem), addition.name.casefold()))


def _look_into(kind: str, name: str, path: Path) -> Addition:
    try:
        about = path.stat()
        signature = about.st_size, about.st_mtime_ns, kind
        known = _known.get(str(path))
        if known is None or known[0] != signature:
            pickled = path.suffix in PICKLED  # which doesn't tell before it is read
            family = "" if pickled else family_of_addition(kind, read_safetensors_header(path))
            known = signature, Addition(name, str(path), family)
            _known[str(path)] = known
        return known[1]
    except ModelError as error:
        return Addition(name, str(path), problem=str(error))
    except OSError as error:
        return Addition(name, str(path), problem=f"It can't be read: {error.strerror}.")


def family_of_addition(kind: str, header: Header) -> str:
    """Return the family that a LoRA or an embedding was made for, "" where its tensors don't tell."""
    if kind == LORAS:
        return _family_of_lora(header.shapes)
    if kind == EMBEDDINGS and {"clip_l", "clip_g"} <= set(header.shapes):
        return SDXL
    if kind == EMBEDDINGS and len(header.shapes) == 1:
        (shape,) = header.shapes.values()
        return WIDTHS.get(shape[-1], "") if shape else ""
    return ""


def _family_of_lora(shapes: Mapping[str, tuple[int, ...]]) -> str:
    width = next((shape[1] for key, shape in shapes.items() if len(shape) > 1 and DOWN.search(key)), None)
    if width is not None:
        return WIDTHS.get(width, "")
    keys = "\n".join(shapes)
    return next((family for pattern, family in SIGNS if re.search(pattern, keys, re.MULTILINE)), "")
