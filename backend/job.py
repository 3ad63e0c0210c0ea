"""A job is a folder: request.json, arrays as .npy, the finished PNGs with their infotext, a log of events."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from .engine import Engine, with_seeds
from .errors import Cancelled, DiffusionError
from .events import FINISHED, Event, Result
from .operations.run import Picture
from .request import Request

log = logging.getLogger(__name__)

Emit = Callable[[Event], None]

SEE_LOG = "Other settings may work; the backend's log says more."


def create_job(root: Path, request: Request) -> Path:
    """Write a request into a new folder below root, and return it; its name is the job's id, in order of time.

    The request is checked first, and its seed settled, so that running the folder again gives the same picture.
    Raises InvalidRequest, or DiffusionError where the folder can't be written.
    """
    request.check()
    request = with_seeds(request)
    folder = root / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True)
        request.save(folder)
    except OSError as error:
        raise _disk_error(error, folder) from error
    return folder


def run_job(engine: Engine, folder: Path, emit: Emit, is_cancelled: Callable[[], bool]) -> None:
    """Run the request of a job's folder and leave its pictures there; say how it goes, and how it ended, by events."""
    job = folder.name

    def say(event: Event) -> None:
        if event.kind != "progress":
            _log(folder, event)
        emit(event)

    started = time.monotonic()
    try:
        say(Event(job, "started", message="Starting"))
        request = Request.load(folder)
        output = engine.run(request, lambda share, text: emit(Event(job, "progress", share, text)), is_cancelled)
        results = tuple(save_picture(folder / f"result-{i}.png", p) for i, p in enumerate(output.pictures))
        seconds = time.monotonic() - started
        say(Event(job, "finished", 1.0, output.notice or FINISHED, "", results, output.text, seconds))
    except Cancelled:
        say(Event(job, "cancelled", message="Cancelled"))
    except DiffusionError as error:
        emit(Event(job, "failed", message=error.sentence, remedy=error.remedy))
    except MemoryError:
        emit(Event(job, "failed", message="There was not enough memory.", remedy="Choose a smaller size."))
    except (RuntimeError, ValueError) as error:  # what torch and diffusers raise; the next job may well run
        log.exception("job %s", job)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        emit(Event(job, "failed", message=f"The picture could not be made: {reason}", remedy=SEE_LOG))
    except OSError as error:
        told = _disk_error(error, folder)
        emit(Event(job, "failed", message=told.sentence, remedy=told.remedy))


def save_picture(path: Path, picture: Picture) -> Result:
    """Write a picture as PNG with its infotext, whole or not at all, and return where it is."""
    from .imaging.files import save
    from .operations.parameters import describe

    infotext = describe(picture)
    save(picture.pixels, path, infotext)
    return Result(str(path), picture.seed, infotext)


def _log(folder: Path, event: Event) -> None:
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(event.to_wire(), ensure_ascii=False) + "\n")


def _disk_error(error: OSError, folder: Path) -> DiffusionError:
    reason = error.strerror or str(error)
    return DiffusionError(
        f"The job's folder {folder} could not be used: {reason}.", "Make room, or allow writing there."
    )
