"""What a prompt adds to a model by a name, from small files: LoRAs, and words learnt by textual inversion."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, ModelError
from .additions import PICKLED, SUFFIX, files_in
from .folders import EMBEDDINGS

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

NEAR = 0.4  # how alike two names are (difflib's ratio) to be worth a guess
GUESSES = 5

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
# A second number is what some tools write for the text encoder alone; it is left out of account.
TAG = re.compile(rf"<lora:([^<>]+?)(?::({_NUMBER}))?(?::{_NUMBER})?>")

# What diffusers and peft raise for weights that don't fit the model, or that they don't know how to read.
UNFIT = (ValueError, RuntimeError, LookupError, TypeError, AttributeError, NotImplementedError)

Version = tuple[str, int, int]  # a file's path, time and size


def read_tags(prompt: str) -> tuple[str, dict[str, float]]:
    """Return a prompt without its <lora:name:weight>, and the weights by name: 1 where none is given, or their sum."""
    weights: dict[str, float] = {}
    for found in TAG.finditer(prompt):
        weights[found[1]] = weights.get(found[1], 0.0) + (1.0 if found[2] is None else float(found[2]))
    return TAG.sub("", prompt), weights


# --- Files ---


def find_lora(name: str, folders: Sequence[str]) -> Path:
    """Return the file of a LoRA: a path, or a name in the folders; raises InvalidRequest with names that are near."""
    path = Path(name).expanduser()
    if path.is_absolute():
        if path.suffix.lower() != SUFFIX:
            raise InvalidRequest(f"“{path.name}” is no {SUFFIX} file.", "Other files of a LoRA could run code.")
        if not path.is_file():
            raise InvalidRequest(f"There is no LoRA at {path}.", "Check the <lora:…> in the prompt.")
        return path
    known = files_in(folders)
    for chosen in (name, path.stem if path.suffix.lower() == SUFFIX else name):
        if chosen in known:
            return known[chosen]
    near = difflib.get_close_matches(name, known, GUESSES, NEAR) or sorted(known)[:GUESSES]
    guess = f"There are: {', '.join(near)}." if near else "Choose folders that hold LoRAs, or give a whole path."
    raise InvalidRequest(f"There is no LoRA “{name}”.", guess)


def version_of(path: Path) -> Version:
    """Return what changes when a file does; raises ModelError where it can't be reached."""
    try:
        state = path.stat()
    except OSError as error:
        raise ModelError(f"“{path.name}” can't be reached.", "Check that its disk is there.") from error
    return str(path), state.st_mtime_ns, state.st_size


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a .safetensors file; raises ModelError where it is damaged or can't be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
        return tensors
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"“{path.name}” is damaged or was copied only in part.", "Copy or download it again."
        ) from error


# --- LoRA ---


class Loras:
    """The LoRAs that are in a pipeline now; its own weights are never touched, and all there is of them can go."""

    def __init__(self, pipe: Any, folders: Sequence[str] = ()) -> None:
        self._pipe = pipe
        self._folders = folders
        self.active: tuple[tuple[Version, float], ...] = ()

    def apply(self, weights: Mapping[str, float]) -> None:
        """Put those LoRAs into the model, and no others.

        weights: by name; one of 0 is left out. Raises InvalidRequest where there is none of that name, or it was made
        for another family, ModelError where its file is damaged; then none of them is in the model.
        """
        paths = {name: find_lora(name, self._folders) for name in weights}
        wanted = tuple((version_of(path), weights[name]) for name, path in paths.items() if weights[name] != 0)
        if wanted == self.active:
            return
        self.remove()
        if not wanted:
            return
        with contextlib.ExitStack() as undo:
            undo.callback(self._unload)
            for index, ((file, _, _), _) in enumerate(wanted):
                self._load(Path(file), _adapter(index))
            self._pipe.set_adapters([_adapter(i) for i in range(len(wanted))], [weight for _, weight in wanted])
            undo.pop_all()
        self.active = wanted

    def remove(self) -> None:
        """Take all of them out: the model is as it was loaded, to the bit."""
        if self.active:
            self.active = ()
            self._unload()

    def _unload(self) -> None:
        if hasattr(self._pipe, "unload_lora_weights"):
            self._pipe.unload_lora_weights()

    def _load(self, path: Path, adapter: str) -> None:
        from .savings import ran_out
        from .single_file import read_header

        if importlib.util.find_spec("peft") is None:
            raise ModelError("LoRAs need the package peft, which is not installed.", "Install the backend again.")
        header = read_header(path)
        unfit = InvalidRequest(
            f"The LoRA “{path.stem}” doesn't fit this model: it was made for another family, or is of another kind.",
            "Take it out of the prompt, or choose a model of its family.",
        )
        if not any("lora" in key for key in header.shapes) or not hasattr(self._pipe, "load_lora_weights"):
            raise unfit
        try:
            self._pipe.load_lora_weights(str(path), adapter_name=adapter, use_safetensors=True, local_files_only=True)
        except UNFIT as error:
            if ran_out(error):
                raise
            log.info("loading %s failed", path, exc_info=True)
            raise unfit from error
        if not any(adapter in names for names in self._pipe.get_list_adapters().values()):
            raise unfit


def _adapter(index: int) -> str:
    return f"prompt_{index}"


# --- Textual inversion ---


@dataclass(frozen=True, eq=False)
class Embedding:
    """What stands in a prompt for a word: vectors (n×D float32) for each text encoder, by its place; "" is any."""

    name: str
    version: Version
    vectors: Mapping[str, torch.Tensor]

    def for_encoder(self, place: str, width: int) -> torch.Tensor:
        """Return the vectors (n×D) for the text encoder of that name in a pipeline, whose embeddings have that width.

        Raises InvalidRequest where it has none of that width.
        """
        found = self.vectors.get("")
        if found is None:
            found = self.vectors.get("clip_g" if place == "text_encoder_2" else "clip_l")
        if found is None or found.shape[1] != width:
            raise InvalidRequest(
                f"The embedding “{self.name}” doesn't fit this model: it was made for another family.",
                "Take it out of the prompts, or choose a model of its family.",
            )
        return found


def find_embeddings(texts: Iterable[str], folders: Sequence[str]) -> dict[str, Embedding]:
    """Return the embeddings in the folders whose names are words of the texts, by their names in lower case.

    Raises ModelError where one of these files is damaged, or holds no embedding.
    """
    if not folders:
        return {}
    whole = "\n".join(texts)
    known = files_in(folders, EMBEDDINGS)
    return {name.lower(): _read(name, path) for name, path in known.items() if pattern([name]).search(whole)}


def pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Return what matches any of the names where it is a whole word, in group 1; longer ones first."""
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, longest_first))})(?![\w-])", re.IGNORECASE)


def _read(name: str, path: Path) -> Embedding:
    found = _read_pickled(path) if path.suffix in PICKLED else read_weights(path)
    tensors = {key: tensor.detach().float() for key, tensor in found.items()}
    if not {"clip_l", "clip_g"} & set(tensors) and len(tensors) == 1:
        tensors = {"": next(iter(tensors.values()))}
    vectors = {key: tensor[None] if tensor.ndim == 1 else tensor for key, tensor in tensors.items()}
    if not set(vectors) <= {"", "clip_l", "clip_g"} or any(tensor.ndim != 2 for tensor in vectors.values()):
        raise ModelError(f"“{path.name}” holds no embedding.", "Take it out of the folder of embeddings.")
    return Embedding(name, version_of(path), vectors)


def _read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of an embedding's pickle, of the web UI's kind or of diffusers'."""
    import torch

    from .pickles import read_pickle

    try:
        values = read_pickle(path, "string_to_param")
    except OSError as error:
        raise ModelError(f"“{path.name}” can't be read.", "Check that its disk is there.") from error
    return {key: value for key, value in values.items() if isinstance(value, torch.Tensor)}
