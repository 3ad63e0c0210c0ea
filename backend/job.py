"""A job is a folder: request.json, arrays as .npy, the finished PNGs with their infotext, a log of events."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .disk import write_atomically
from .engine import Engine, with_seeds
from .errors import Cancelled, DiffusionError
from .events import FINISHED, Event, Result
from .operations.run import Picture
from .request import Request

log = logging.getLogger(__name__)

Emit = Callable[[Event], None]

LOG = "events.jsonl"
NOTE = "note.json"
SHORT_WRITE = "requested and"  # what numpy says, without a number, where an array does not fit on the disk
SEE_LOG = "Other settings may work; the backend's log says more."


def create_job(root: Path, request: Request, note: Mapping[str, str] | None = None) -> Path:
    """Write a request into a new folder below root, and return it; its name is the job's id, in order of time.

    The request is checked first, and its seed settled, so that running the folder again gives the same picture.
    note: what the one who asks wants to find again with the results, such as a title. Raises InvalidRequest, or
    DiffusionError where the folder can't be written.
    """
    request.check()
    request = with_seeds(request)
    folder = root / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True)
        if note:
            write_atomically(folder / NOTE, json.dumps(dict(note), ensure_ascii=False).encode(), flush=False)
        request.save(folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise disk_error(error, folder) from error
    return folder


def run_job(engine: Engine, folder: Path, emit: Emit, is_cancelled: Callable[[], bool]) -> None:
    """Run the request of a job's folder and leave its pictures there; say how it goes, and how it ended, by events."""
    job = folder.name

    def conclude(event: Event) -> None:
        with contextlib.suppress(OSError):  # a full disk is told, if it can't be written down
            log_event(folder, event)
        emit(event)

    def fail(sentence: str, remedy: str) -> None:
        conclude(Event(job, "failed", message=sentence, remedy=remedy))

    began = time.monotonic()
    try:
        started = Event(job, "started", message="Starting")
        log_event(folder, started)
        emit(started)
        request = Request.load(folder)
        output = engine.run(request, lambda share, text: emit(Event(job, "progress", share, text)), is_cancelled)
        results = tuple(save_picture(folder / f"result-{i}.png", p) for i, p in enumerate(output.pictures))
        seconds = time.monotonic() - began
        conclude(Event(job, "finished", 1.0, output.notice or FINISHED, "", results, output.text, seconds))
    except Cancelled:
        conclude(Event(job, "cancelled", message="Cancelled"))
    except DiffusionError as error:
        fail(error.sentence, error.remedy)
    except MemoryError:
        fail("There was not enough memory.", "Choose a smaller size.")
    except (RuntimeError, ValueError) as error:  # what torch and diffusers raise; the next job may well run
        log.exception("job %s", job)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        fail(f"The picture could not be made: {reason}", SEE_LOG)
    except OSError as error:
        told = disk_error(error, folder)
        fail(told.sentence, told.remedy)


def save_picture(path: Path, picture: Picture) -> Result:
    """Write a picture as PNG with its infotext, whole or not at all, and return where it is."""
    from .imaging.files import save
    from .operations.parameters import describe

    infotext = describe(picture)
    save(picture.pixels, path, infotext)
    return Result(str(path), picture.seed, infotext)


def log_event(folder: Path, event: Event) -> None:
    """Add an event to the log of a job's folder; raises OSError where the disk refuses."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(event.to_wire(), ensure_ascii=False) + "\n")


def last_event(folder: Path) -> Event | None:
    """Return the last event that a job's log holds, None for a job that was never begun; a torn line is passed over."""
    try:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
            return Event.from_wire(json.loads(line))
    return None


def read_note(folder: Path) -> dict[str, str]:
    """Return what was noted when a job was made; empty where nothing was, or it can't be read."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(name): str(value) for name, value in note.items()} if isinstance(note, dict) else {}


def disk_error(error: OSError, folder: Path) -> DiffusionError:
    """Return what the disk's refusal means to an artist."""
    if error.errno == errno.ENOSPC or SHORT_WRITE in str(error):
        return DiffusionError(f"The disk of {folder.parent} is full.", "Make room and generate again.")
    reason = error.strerror or str(error)
    return DiffusionError(
        f"The job's folder {folder} could not be used: {reason}.", "Make room, or allow writing there."
    )
