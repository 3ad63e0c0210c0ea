"""Models of the hub: found in its cache without any network, and fetched by a process that a cancel ends at once.

Importing this costs neither torch nor the hub's library: Blender asks it what is there, and runs the process.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import ModelError
from ..processes import LineProcess, last_words
from ..settings import EMBEDDED
from .load import HUB_NAME, SINGLE_FILES, Options
from .pipeline_files import INDEX, missing_parts, read_index

log = logging.getLogger(__name__)

LOOK = 0.1  # seconds between two looks at a download
BILLION = 1e9  # bytes in a GB
HIDDEN = ("PYTHONPATH", "PYTHONHOME", "HF_HUB_OFFLINE")  # of Blender's own Python, and what is set by us


def nothing() -> None:
    """Check for no cancel."""


@dataclass(frozen=True)
class Size:
    """What a model takes: how many files, their bytes, and how many of these are still to be fetched."""

    files: int
    total: int
    left: int

    def __str__(self) -> str:
        fetched = "" if self.left == self.total else f", {self.left / BILLION:.2f} GB of them still to fetch"
        return f"{self.total / BILLION:.2f} GB in {self.files} files{fetched}"


# --- What is there ---


def cache_folder() -> Path:
    """Return where the hub's library keeps what it has fetched, by its own environment variables."""
    for variable, below in (("HF_HUB_CACHE", "."), ("HUGGINGFACE_HUB_CACHE", "."), ("HF_HOME", "hub")):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser() / below
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def repository(name: str) -> Path:
    """Return the folder in the cache of a hub name such as owner/model."""
    return cache_folder() / f"models--{name.replace('/', '--')}"


def snapshot(name: str) -> Path | None:
    """Return the folder of a hub name's files at their last fetch, perhaps not all of them; None without a fetch."""
    folder = repository(name)
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    found = folder / "snapshots" / commit
    return found if commit and found.is_dir() else None


def find_pipeline(name: str) -> Path | None:
    """Return the folder of a hub name's diffusers model, None where it was never fetched as a whole."""
    folder = snapshot(name)
    if folder is None or not (folder / INDEX).is_file():
        return None
    return None if missing_parts(folder, read_index(folder)) else folder


def is_hub_name(name: str) -> bool:
    """Return whether a Model setting names a model of the hub: no file or folder of this machine."""
    if name == EMBEDDED or not HUB_NAME.fullmatch(name):
        return False
    return Path(name).suffix.lower() not in SINGLE_FILES and not Path(name).exists()


# --- Fetching ---


class Fetching:
    """One process that asks for a model's size, or fetches it; poll() never waits, close() ends it at once.

    What was fetched is kept, half a file too: the next one goes on from there.
    """

    def __init__(
        self,
        name: str,
        options: Options,
        patterns: Sequence[str] = (),
        only_size: bool = False,
        python: str = sys.executable,
    ) -> None:
        """Start it. patterns: the files of a model that is no pipeline. Raises ModelError where it may not or can't."""
        if not options.online:
            raise ModelError(
                f"{name} is not on this machine, and online access is off.",
                "Allow Online Access in Blender's preferences (System), or choose a model on disk.",
            )
        if not HUB_NAME.fullmatch(name):
            raise ModelError(f"“{name}” is no name of the hub.", "Give one such as owner/model.")
        self.name = name
        self.size: Size | None = None
        self.done = 0  # bytes fetched of those that were left
        self.folder: Path | None = None
        self.error: ModelError | None = None
        self.is_over = False
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        try:
            self._child = _start(python, self._errors)
        except OSError as error:
            self._errors.close()
            raise ModelError(f"{python} could not be started: {error.strerror or error}.", "Choose another.") from error
        job = {"name": name, "patterns": list(patterns), "only_size": only_size}
        self._child.send({**job, "device": options.device, "precision": options.precision})

    @property
    def share(self) -> float:
        """How much of it is on this machine, in 0–1."""
        if self.size is None or not self.size.total:
            return 0.0
        return min((self.size.total - self.size.left + self.done) / self.size.total, 1.0)

    @property
    def message(self) -> str:
        """What it is doing, for the artist."""
        if self.size is None:
            return f"Asking the hub for {self.name}"
        there = self.share * self.size.total / BILLION
        return f"Fetching {self.name}: {there:.2f} of {self.size.total / BILLION:.2f} GB"

    def poll(self, wait: float = 0.0) -> bool:
        """Take in what the process says, waiting that many seconds for a first word; returns whether it said any."""
        heard = False
        while not self.is_over:
            try:
                message = self._child.hear(0.0 if heard else wait)
            except queue.Empty:
                break
            heard = True
            self._take(message)
        return heard

    def close(self) -> None:
        """End it now, whatever it does."""
        self.is_over = True
        self._child.kill()
        self._errors.close()

    def _take(self, message: dict[str, Any] | None) -> None:
        kind = "ended" if message is None else message.get("type")
        if message is None:
            self.error = self._died()
        elif kind == "size":
            self.size = Size(message["files"], message["total"], message["left"])
        elif kind == "progress":
            self.done = message["done"]
        elif kind == "done":
            self.folder = Path(message["folder"]) if message["folder"] else None
        elif kind == "failed":
            self.error = ModelError(message["sentence"], message["remedy"])
        if kind in ("ended", "done", "failed"):
            self.close()

    def _died(self) -> ModelError:
        code = self._child.process.wait()
        lines = last_words(self._errors)
        log.warning("fetching %s ended with code %s: %s", self.name, code, "\n".join(lines))
        if lines and "No module named" in lines[-1]:
            return ModelError("The backend's Python has no huggingface_hub.", "Install the backend's packages there.")
        return ModelError(f"{self.name} could not be fetched: the process ended (code {code}).", "Try again.")


def _start(python: str, errors: IO[bytes]) -> LineProcess:
    environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    # The library's other way to fetch can't go on from half a file.
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    flags = ["-E", "-s"]
    if python == sys.executable:  # which finds its packages as we do, wherever Blender has put them
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        flags = []
    return LineProcess([python, *flags, "-B", "-m", "backend.models.fetcher"], errors, "hub", environment)


def size_of(name: str, options: Options, check: Callable[[], None] = nothing) -> Size:
    """Return what a hub name's pipeline takes, fetching none of it; check() may raise, which ends the asking.

    Raises ModelError where the hub can't or may not be asked, or has no such model.
    """
    return _run(Fetching(name, options, only_size=True), check, lambda share, message: None)[0]


def fetch(
    name: str,
    options: Options,
    share: Callable[[float, str], None],
    check: Callable[[], None],
    patterns: Sequence[str] = (),
) -> Path:
    """Return the folder of a hub name's model, fetched as far as it isn't here yet.

    share(done, message): called often, done in 0–1. check() may raise, and what it raises ends the download at once;
    what was fetched so far is kept for the next time. patterns: the wanted files' names, by default those of a
    diffusers pipeline. Raises ModelError where the model can't be fetched.
    """
    folder = _run(Fetching(name, options, patterns), check, share)[1]
    assert folder is not None  # which the process says when it is done
    return folder


def ensure_fetched(
    name: str, options: Options, share: Callable[[float, str], None], check: Callable[[], None]
) -> Path | None:
    """Return the folder of a Model setting that is a hub name, fetched if need be; None for every other setting.

    share and check as for fetch(). Asks no network for a model that is here, nor for a file or folder. Raises
    ModelError where it can't be fetched, or may not.
    """
    if not is_hub_name(name):
        return None
    return find_pipeline(name) or fetch(name, options, share, check)


def _run(
    fetching: Fetching, check: Callable[[], None], share: Callable[[float, str], None]
) -> tuple[Size, Path | None]:
    try:
        while not fetching.is_over:
            check()
            fetching.poll(LOOK)
            if not fetching.is_over:
                share(fetching.share, fetching.message)
    finally:
        fetching.close()
    if fetching.error is not None:
        raise fetching.error
    assert fetching.size is not None  # said before the end
    return fetching.size, fetching.folder
