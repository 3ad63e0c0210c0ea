"""The process behind hub.Fetching: one line of JSON in, lines of JSON out; it ends when its input does.

In: {"name": …, "patterns": […], "only_size": …, "device": …, "precision": …}
Out: {"type": "size", "files": …, "total": …, "left": …}, {"type": "progress", "done": …} in bytes of those left, and at
the end {"type": "done", "folder": …} or {"type": "failed", "sentence": …, "remedy": …}
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from filelock import FileLock
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import hf_raise_for_status

from ..errors import ModelError
from .hub import BILLION, Size, cache_folder, repository
from .load import choose_device, choose_precision
from .pipeline_files import INDEX, needed_files, parse_index

NETWORK: type[BaseException] = HfHubHTTPError.__bases__[0]  # of the library's client for HTTP, which changes with it
WAIT = 20.0  # seconds for the hub's answer
NEWS = 0.2  # seconds between two words on the progress
TRIES = 3  # without a byte between them
PAUSE = 1.0  # seconds between two of them
FULL = (errno.ENOSPC, errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC)
WINDOWS_FULL = 112
PARTIAL_CONTENT, UNSATISFIABLE = 206, 416  # HTTP's codes for the rest of a file, and for a rest that there isn't
SHA256 = 64  # hexadecimal digits, as the hub tags large files


@dataclass(frozen=True)
class Wanted:
    """One file to fetch: its name in the repository, its bytes, and its tag where the hub says so."""

    name: str
    size: int
    tag: str


def main() -> None:
    """Do the one job that the input asks for."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    name = job["name"]
    try:
        commit, wanted = ask(name, job["patterns"], lambda: takes_half(job["device"], job["precision"]))
        left = sum(file.size - held(name, commit, file) for file in wanted)
        size = Size(len(wanted), sum(file.size for file in wanted), left)
        tell(type="size", files=size.files, total=size.total, left=size.left)
        folder = "" if job["only_size"] else fetch_all(name, commit, wanted, left)
        tell(type="done", folder=folder)
    except ModelError as error:
        tell(type="failed", sentence=error.sentence, remedy=error.remedy)
    except (NETWORK, OSError, HFValidationError) as error:
        sentence, remedy = explain(error, name)
        tell(type="failed", sentence=sentence, remedy=remedy)


def tell(**message: Any) -> None:
    """Write one line to the parent."""
    print(json.dumps(message), flush=True)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)  # the parent is gone; what is written stays, as after a kill


def takes_half(device: str, precision: str) -> bool:
    """Return whether models run in half precision with these options."""
    if precision == "automatic":
        return choose_precision(precision, choose_device(device)).itemsize == 2
    return precision != "float32"


def ask(name: str, patterns: Sequence[str], half: Callable[[], bool]) -> tuple[str, list[Wanted]]:
    """Return the commit of a repository's main branch, and which of its files are wanted."""
    info = huggingface_hub.HfApi().model_info(name, files_metadata=True, timeout=WAIT)
    files = {file.rfilename: file for file in info.siblings or []}
    commit = str(info.sha)
    if patterns:
        names = [path for path in files if any(fnmatch.fnmatch(path, pattern) for pattern in patterns)]
    elif INDEX in files:
        index = parse_index(_read(name, INDEX, commit), name)
        names = needed_files(index, files, half(), name)
    else:
        raise ModelError(f"{name} is no diffusers model.", f"Choose a model that has a {INDEX}.")
    wanted = [Wanted(path, files[path].size or 0, _tag(files[path])) for path in names]
    return commit, sorted(wanted, key=lambda file: file.size)


def _tag(file: RepoSibling) -> str:
    return (file.lfs.sha256 if file.lfs is not None else file.blob_id) or ""


def _read(name: str, path: str, commit: str) -> bytes:
    """Return the content of a small file, without a trace in the cache."""
    url = huggingface_hub.hf_hub_url(name, path, revision=commit)
    response = huggingface_hub.get_session().get(url, headers=build_hf_headers(), follow_redirects=True, timeout=WAIT)
    hf_raise_for_status(response)
    content: bytes = response.content
    return content


def held(name: str, commit: str, file: Wanted) -> int:
    """Return how many bytes of a file are here already."""
    folder = repository(name)
    if (folder / "snapshots" / commit / file.name).exists():
        return file.size
    for path in (folder / "blobs" / file.tag, _partial(name, file.tag)) if file.tag else ():
        if path.exists():
            return min(path.stat().st_size, file.size)
    return 0


def _partial(name: str, tag: str) -> Path:
    return repository(name) / "blobs" / f"{tag}.resumed.incomplete"


def fetch_all(name: str, commit: str, wanted: list[Wanted], left: int) -> str:
    """Return the snapshot's folder, having fetched what it lacks: weights by ourselves, the rest by the library.

    The library writes half a file under a name of one process, and throws it away.
    """
    require_space(name, left)
    progress = Progress()
    for file in wanted:
        present = (repository(name) / "snapshots" / commit / file.name).exists()
        if file.name.endswith(".safetensors") and not present:
            fetch_weights(name, commit, file, progress)
        elif not present:
            progress.add(file.size)
    return huggingface_hub.snapshot_download(name, allow_patterns=[file.name for file in wanted])


class Progress:
    """Counts fetched bytes, and tells the parent now and then."""

    def __init__(self) -> None:
        self._done = 0
        self._told = 0.0

    def add(self, count: int) -> None:
        """Count so many bytes, fewer than none where they were fetched in vain."""
        self._done += count
        if time.monotonic() - self._told > NEWS:
            self._told = time.monotonic()
            tell(type="progress", done=self._done)


def require_space(name: str, left: int) -> None:
    """Raise ModelError where the disk with the cache has less room than that."""
    folder = cache_folder()
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < left:
        raise ModelError(
            f"{name} needs {left / BILLION:.2f} GB, and the disk with {folder} has {free / BILLION:.2f} GB left.",
            "Make room, or set the environment variable HF_HOME to a folder on another disk.",
        )


def fetch_weights(name: str, commit: str, file: Wanted, progress: Progress) -> None:
    """Put a file where the library looks for it, going on from what an earlier try left."""
    url = huggingface_hub.hf_hub_url(name, file.name, revision=commit)
    metadata = huggingface_hub.get_hf_file_metadata(url)
    tag = str(metadata.etag)
    blob, partial = repository(name) / "blobs" / tag, _partial(name, tag)
    lock = cache_folder() / ".locks" / repository(name).name / f"{tag}.lock"  # the library's own
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if blob.exists():
            return
        failures, before = 0, 0
        while not _fetch_rest(url, partial, metadata.size or file.size, progress):
            after = partial.stat().st_size
            failures, before = (0 if after > before else failures + 1), after
            if failures == TRIES:
                raise ConnectionError("the connection broke")
            time.sleep(PAUSE)
        _verify(partial, tag, name)
        partial.replace(blob)


def _fetch_rest(url: str, partial: Path, size: int, progress: Progress) -> bool:
    """Fetch what a partial file lacks; returns whether it is whole, raises what the network raises before a byte."""
    start = partial.stat().st_size if partial.exists() else 0
    if start == size and size:
        return True
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    session = huggingface_hub.get_session()
    with partial.open("ab") as target:
        try:
            with session.stream("GET", url, headers=headers, follow_redirects=True, timeout=WAIT) as response:
                if start and response.status_code != PARTIAL_CONTENT:  # the server can't go on, or has another file
                    target.truncate(0)
                    progress.add(-start)
                    if response.status_code == UNSATISFIABLE:
                        return False
                hf_raise_for_status(response)
                for block in response.iter_bytes():
                    target.write(block)
                    progress.add(len(block))
        except HfHubHTTPError:
            raise
        except NETWORK:
            if target.tell() == start:
                raise
    return partial.stat().st_size == size or not size


def _verify(partial: Path, tag: str, name: str) -> None:
    """Raise ModelError, and throw the file away, where its bytes aren't those that the hub's tag promises."""
    if len(tag) != SHA256:
        return
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != tag:
        partial.unlink()
        raise ModelError(f"A file of {name} arrived damaged.", "Fetch it again: the other files are kept.")


def explain(error: BaseException, name: str) -> tuple[str, str]:
    """Return a sentence and a remedy for what the library or the system raised while a model was fetched."""
    answer = getattr(error, "response", None)
    code = getattr(answer, "status_code", 0)
    if isinstance(error, GatedRepoError):
        return (
            f"{name} is gated: its authors ask you to agree to their terms first.",
            f"Agree at {huggingface_hub.constants.ENDPOINT}/{name}, and log in once with “hf auth login”, or set "
            "HF_TOKEN.",
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return f"The hub has no model {name}, or it is private.", "Check its name; for a private one set HF_TOKEN."
    if code in (401, 403):
        return f"The hub refuses {name} to this token.", "Log in again with “hf auth login”, or set HF_TOKEN."
    if code == 429:
        return "The hub has had too many requests from here.", "Wait some minutes and try again."
    if code:
        return f"The hub answered with an error ({code}) for {name}.", "Try again later: what was fetched is kept."
    system = error if isinstance(error, OSError) else None
    if system is not None and (system.errno in FULL or getattr(system, "winerror", 0) == WINDOWS_FULL):
        return "The disk is full.", "Make room and try again: what was fetched is kept."
    if isinstance(error, PermissionError):
        return f"The hub's cache {cache_folder()} can't be written to.", "Allow it, or set HF_HOME to another folder."
    return "The hub could not be reached.", "Check the network and try again: what was fetched is kept."


if __name__ == "__main__":
    main()
