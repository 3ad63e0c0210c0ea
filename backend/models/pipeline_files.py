"""Which files of a model in diffusers' layout are needed, and whether a folder has them: names alone, no library."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ModelError

INDEX = "model_index.json"
LARGEST_INDEX = 1_000_000  # bytes; a model_index.json has about one thousand
HALF = "fp16"  # what the variant of the weights in half precision is called
CONFIG_NAMES = ("config.json", "scheduler_config.json")
UNUSED = ("safety_checker",)  # its answer is a black picture
SMALL_FILES = (".json", ".txt", ".model")  # .model: a vocabulary of SentencePiece, no pickle
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>\w+))?"
    r"(?:-(?P<shard>\d{5})-of-(?P<count>\d{5}))?(?:\.(?P<old_variant>\w+))?\.safetensors"
)
SHARDS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>\w+))?\.safetensors\.index(?:\.(?P<new_variant>\w+))?\.json"
)

Index = Mapping[str, Any]
Signature = tuple[tuple[str, int, int], ...]


def read_index(folder: Path) -> Index:
    """Return what a folder's model_index.json says; raises ModelError where it can't be read."""
    path = folder / INDEX
    try:
        with path.open("rb") as file:
            return parse_index(file.read(LARGEST_INDEX + 1), str(folder))
    except OSError as error:
        raise ModelError(f"{path} can't be read ({error.strerror}).", "Choose another folder.") from error


def signature_of(path: Path) -> Signature:
    """Return what changes with a single file, or with a diffusers folder's configurations and the names of its files.

    Raises OSError where a folder can't be read.
    """
    if not path.is_dir():
        return (signed(path),)
    parts = sorted(part for part in path.iterdir() if part.is_dir())
    configs = (part / name for part in parts for name in CONFIG_NAMES)
    return tuple(signed(each) for each in (path / INDEX, *parts, *configs))


def signed(path: Path) -> tuple[str, int, int]:
    """Return a path, its size in bytes and when it was changed; zeros where it isn't there."""
    try:
        about = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), about.st_size, about.st_mtime_ns


def parse_index(content: bytes, name: str) -> Index:
    """Return what a model_index.json says; name is its model's. Raises ModelError where that makes no sense."""
    try:
        if len(content) > LARGEST_INDEX:
            raise ValueError("too long")
        index = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The {INDEX} of {name} makes no sense.", "Copy or download it again.") from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise ModelError(f"The {INDEX} of {name} names no pipeline.", "Choose a diffusers model.")
    return index


def parts_of(index: Index) -> list[str]:
    """Return the names of the parts that an index lists, each a folder of its own, less those that aren't used."""
    return [
        part
        for part, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None and part not in UNUSED
    ]


def has_weights(part: str) -> bool:
    """Return whether a part is a network, as against a tokenizer or a scheduler."""
    return part.startswith("text_encoder") or part in ("unet", "transformer", "vae", "image_encoder")


def needed_files(index: Index, names: Iterable[str], half: bool, title: str) -> list[str]:
    """Return those of a repository's files (paths with "/") that loading its pipeline needs, never a pickle.

    half: the weights in half precision where there are such. Raises ModelError where a part has no safetensors.
    """
    inside: dict[str, list[str]] = {part: [] for part in parts_of(index)}
    for name in names:
        path = PurePosixPath(name)
        if len(path.parts) == 2 and path.parts[0] in inside:
            inside[path.parts[0]].append(path.name)
    needed = [INDEX]
    for part, files in inside.items():
        weights = choose_weights(files, half)
        if has_weights(part) and not weights:
            pickled = any(name.endswith(PICKLES) for name in files)
            raise ModelError(
                f"{title} has its {part} {'only as pickles' if pickled else 'nowhere as safetensors'}.",
                "Choose another; pickles can run code.",
            )
        small = [name for name in files if name.endswith(SMALL_FILES) and not SHARDS.fullmatch(name)]
        needed += [f"{part}/{name}" for name in sorted({*small, *weights})]
    return needed


def choose_weights(files: Iterable[str], half: bool) -> list[str]:
    """Return those of a part's files that are its weights, with their index, in one variant; none where it lacks any.

    Half precision if asked for and there; else full; else half after all. Parts of which some are missing don't count.
    """
    present = list(files)
    for variant in (HALF, "", HALF) if half else ("", HALF):
        weights = _whole(present, variant)
        if weights:
            return weights
    return []


def _whole(files: list[str], variant: str) -> list[str]:
    """Return the weights of one variant: a single file, or all of its shards with their index."""
    shards: dict[int, str] = {}
    count = 0
    for name in files:
        match = WEIGHTS.fullmatch(name)
        if match is None or (match["variant"] or match["old_variant"] or "") != variant:
            continue
        if match["shard"] is None:
            return [name]
        shards[int(match["shard"])] = name
        count = int(match["count"])
    indices = [name for name in files if (match := SHARDS.fullmatch(name)) and _variant(match) == variant]
    if not count or not indices or set(shards) != set(range(1, count + 1)):
        return []
    return [*shards.values(), *indices]


def _variant(match: re.Match[str]) -> str:
    return match["variant"] or match["new_variant"] or ""


def missing_parts(folder: Path, index: Index) -> list[str]:
    """Return the parts that a folder lacks: without a file, or networks without their configuration or weights."""
    lacking = []
    for part in parts_of(index):
        files = names_in(folder / part)
        has_all = not has_weights(part) or ("config.json" in files and choose_weights(files, False))
        if not files or not has_all:
            lacking.append(part)
    return lacking


def variant_in(folder: Path) -> str | None:
    """Return the variant to load a folder's weights by: "fp16" where a network there has no others, else None."""
    for part in parts_of(read_index(folder)):
        if has_weights(part):
            files = names_in(folder / part)
            if not _whole(files, "") and _whole(files, HALF):
                return HALF
    return None


def names_in(folder: Path) -> list[str]:
    """Return the names of the files in a folder, none where it can't be read; a link to nothing is no file."""
    try:
        return [path.name for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []
