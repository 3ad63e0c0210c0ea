"""Writing to the disk so that a crash leaves a whole file or none, and folders that may or may not be there."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from .errors import DiffusionError, InvalidRequest


def write_atomically(path: Path, content: bytes, *, flush: bool = True) -> None:
    """Write a file whole or not at all: to a temporary name beside it, flushed to the disk, then renamed over it.

    Without flush the disk takes its time, for a caller that must not wait. OSError of the disk is raised as it is; the
    temporary file is then removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{secrets.token_hex(8)}{path.suffix}")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            if flush:
                os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def output_folder(path: Path) -> Path:
    """Return a folder that pictures can be written to, made if need be; raises InvalidRequest where it can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()  # many pictures later would be late to tell
    except OSError as error:
        raise InvalidRequest(f"{path} can't be a folder for the pictures: {error.strerror}.") from error
    return path


def copy_whole(source: Path, target: Path) -> None:
    """Copy a finished picture to where it is wanted, whole or not at all; raises DiffusionError where it can't be."""
    try:
        write_atomically(target, source.read_bytes())
    except OSError as error:
        raise DiffusionError(f"{target} could not be written: {error.strerror}.", "Choose another folder.") from error
