"""Which models this machine has: embedded, diffusers folders, single files, other tools' folders, the hub's cache.

Names, headers and small configurations are read, never a weight; neither torch nor a network is asked. What was read is
remembered for as long as the files stay as they are.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from ..settings import EMBEDDED
from .folders import MODELS, expanded, tool_places
from .hub import cache_folder, snapshot
from .load import EMBEDDED_FOLDER, PIPELINES, SINGLE_FILES
from .pipeline_files import (
    INDEX,
    PICKLES,
    Index,
    Signature,
    choose_weights,
    has_weights,
    missing_parts,
    names_in,
    parts_of,
    read_index,
    signed,
)
from .recognise import family_title, is_pickle, read_safetensors_header, tell_family
from .traits import family_of_folder

EMBEDDED_KIND, FOLDER, SINGLE_FILE, HUB_CACHE, NO_FOLDER = (
    "embedded",
    "diffusers folder",
    "single file",
    "hub cache",
    "no folder",
)
UNKNOWN = "unknown"
UNTIL_LOADED = "unknown until loaded"  # a pickle's keys aren't read before
DEEPEST = 12  # folders below a chosen one


@dataclass(frozen=True)
class Entry:
    """One model: its name for the Model setting, and what an artist wants to know before choosing it.

    problem is a sentence where it can't be used.
    """

    name: str
    title: str
    family: str
    kind: str
    bytes: int
    problem: str = ""


_known: dict[str, tuple[Signature, Entry]] = {}


def find_models(folders: Iterable[str | Path] = ()) -> list[Entry]:
    """Return the models in the chosen folders and in the usual places: the embedded one, the usable ones, the others.

    A chosen folder that isn't there is an entry with a problem. Raises nothing for what can't be read.
    """
    found: dict[str, Entry] = {}
    seen: set[tuple[int, int]] = set()
    for entry in (*_embedded(), *_hub_cache(), *(entry for folder in folders for entry in _chosen(folder, seen))):
        found.setdefault(entry.name, entry)
    return sorted(found.values(), key=lambda e: (e.kind != EMBEDDED_KIND, bool(e.problem), e.title.casefold(), e.name))


def _embedded() -> list[Entry]:
    if not (EMBEDDED_FOLDER / INDEX).is_file():
        return []
    entry = _folder_entry(EMBEDDED_FOLDER)
    return [dataclasses.replace(entry, name=EMBEDDED, title="Embedded", kind=EMBEDDED_KIND)]


def _hub_cache() -> Iterator[Entry]:
    for name in sorted(_names(cache_folder())):
        if name.startswith("models--"):
            owner, _, model = name.removeprefix("models--").partition("--")
            folder = snapshot(f"{owner}/{model}")
            if folder is not None and (folder / INDEX).is_file():
                entry = _folder_entry(folder)
                problem = entry.problem and f"{entry.problem} Fetch it again to go on."
                yield dataclasses.replace(
                    entry, name=f"{owner}/{model}", title=f"{owner}/{model}", kind=HUB_CACHE, problem=problem
                )


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _chosen(folder: str | Path, seen: set[tuple[int, int]]) -> Iterator[Entry]:
    """Find what a chosen folder holds, in the usual places alone where it is another tool's."""
    path = expanded(folder).absolute()
    if not path.is_dir():
        yield Entry(str(path), path.name or str(path), UNKNOWN, NO_FOLDER, 0, f"There is no folder {path}.")
        return
    for place in tool_places(path, MODELS) or [path]:
        yield from _below(place, seen, DEEPEST)


def _below(folder: Path, seen: set[tuple[int, int]], deeper: int) -> Iterator[Entry]:
    """Find what a folder holds, each folder looked into once: links may lead in circles."""
    try:
        about = folder.stat()
        if (about.st_dev, about.st_ino) in seen:
            return
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(folder) as entries:
            items = sorted(entries, key=lambda item: item.name)
    except OSError:
        return
    if any(item.name == INDEX for item in items):
        yield _folder_entry(folder)
        return
    for item in items:
        if item.name.startswith((".", "models--")):  # the latter are the hub's, which has names of its own
            continue
        try:
            is_folder, is_file = item.is_dir(), item.is_file()
        except OSError:
            continue
        if is_folder and deeper:
            yield from _below(Path(item.path), seen, deeper - 1)
        elif is_file and item.name.lower().endswith(SINGLE_FILES):
            yield from _file_entry(Path(item.path))


def _file_entry(path: Path) -> Iterator[Entry]:
    try:
        about = path.stat()
        signature: Signature = (("", about.st_size, about.st_mtime_ns),)
        known = _known.get(str(path))
        if known is None or known[0] != signature:
            family, problem = _look_into(path)
            known = signature, Entry(str(path), path.stem, family, SINGLE_FILE, about.st_size, problem)
            _known[str(path)] = known
    except OSError as error:
        known = (), Entry(str(path), path.stem, UNKNOWN, SINGLE_FILE, 0, f"It can't be read: {error.strerror}.")
    yield known[1]


def _look_into(path: Path) -> tuple[str, str]:
    """Return the family and the problem of a single file."""
    family = ""
    try:
        if is_pickle(path):
            return UNTIL_LOADED, ""
        shapes = read_safetensors_header(path).shapes
        family = family_title(shapes)
        tell_family(shapes, path.name)
    except ModelError as error:
        return family or UNKNOWN, str(error)
    return family, ""


def _folder_entry(folder: Path) -> Entry:
    """Return the entry of a folder with a model_index.json."""
    try:
        index: Index = read_index(folder)
    except ModelError as error:
        return Entry(str(folder), folder.name, UNKNOWN, FOLDER, 0, str(error))
    signature = (signed(folder / INDEX), *(signed(path) for path in _files(folder, index)))
    known = _known.get(str(folder))
    if known is None or known[0] != signature:
        family = family_of_folder(folder, str(index["_class_name"])) or UNKNOWN
        problem = _problem_of(folder, index)
        size = sum(part[1] for part in signature)
        known = signature, Entry(str(folder), folder.name, family, FOLDER, size, problem)
        _known[str(folder)] = known
    return known[1]


def _files(folder: Path, index: Index) -> list[Path]:
    return [folder / part / name for part in parts_of(index) for name in sorted(names_in(folder / part))]


def _problem_of(folder: Path, index: Index) -> str:
    """Return a sentence where a folder's model can't be used: another kind, parts missing, or cut off."""
    kind = str(index["_class_name"])
    if kind not in PIPELINES:
        return f"It is a {kind}, which can't turn a picture into a picture here."
    missing = missing_parts(folder, index)
    if any(name.endswith(PICKLES) for part in missing for name in names_in(folder / part)):
        return "It has its weights only as pickles, which can run code."
    if missing:
        return f"It lacks its {' and '.join(missing)}: it was copied or fetched only in part."
    try:
        for part in filter(has_weights, parts_of(index)):
            for name in choose_weights(names_in(folder / part), False):
                if name.endswith(".safetensors"):
                    read_safetensors_header(folder / part / name)
    except ModelError as error:
        return str(error)
    except OSError as error:
        return f"It can't be read: {error.strerror}."
    return ""
