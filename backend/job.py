"""A job is a folder: request.json, arrays as .npy, the finished PNGs with their infotext, a log of events.

Each picture is in the folder, and in the log, as soon as it is finished: no end of the job loses it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

from .disk import write_atomically
from .engine import Engine, with_seeds
from .errors import Cancelled, DiffusionError
from .events import FINISHED, Event, Result, cancelled_event, failed_event
from .operations.run import Keeper, Picture
from .previews import FileViewer, Previews
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


def run_job(
    engine: Engine, folder: Path, emit: Emit, is_cancelled: Callable[[], bool], previews: Previews | None = None
) -> None:
    """Run the request of a job's folder and leave its pictures there; say how it goes, and how it ended, by events.

    previews: how the picture so far is to be seen there meanwhile; None for not at all.
    """
    job = folder.name

    def conclude(event: Event) -> None:
        with contextlib.suppress(OSError):  # a full disk is told, if it can't be written down
            log_event(folder, event)
        emit(event)

    def fail(sentence: str, remedy: str) -> None:
        conclude(failed_event(job, sentence, remedy, tuple(kept.results), kept.sentence))

    began = time.monotonic()
    kept = Kept(folder, emit)
    viewer = FileViewer(folder, previews or Previews())

    def tell(share: float, text: str) -> None:
        emit(Event(job, "progress", share, text, preview=viewer.count))

    try:
        started = Event(job, "started", message="Starting")
        log_event(folder, started)
        emit(started)
        request = Request.load(folder)
        output = engine.run(request, tell, is_cancelled, kept, viewer)
        results = tuple(kept.save(picture) for picture in output.pictures)
        seconds = time.monotonic() - began
        conclude(Event(job, "finished", 1.0, output.notice or FINISHED, "", results, output.text, seconds))
    except Cancelled:
        conclude(cancelled_event(job, tuple(kept.results), kept.sentence))
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
    finally:
        viewer.remove()


class Kept(Keeper):
    """The finished pictures of a running job, each in its folder and announced as soon as it is handed over.

    results: what the artist gets if the job ends now; sentence: what they are, where their number doesn't say it.
    """

    def __init__(self, folder: Path, emit: Emit) -> None:
        self.results: list[Result] = []
        self.sentence = ""
        self._folder = folder
        self._emit = emit
        self._count = 0
        self._saved: WeakKeyDictionary[Picture, Result] = WeakKeyDictionary()

    def keep(self, picture: Picture) -> None:
        """Take one more."""
        self.results.append(self.save(picture))

    def keep_instead(self, pictures: Sequence[Picture], sentence: str) -> None:
        """Take pictures in the place of all before."""
        self.results = [self.save(picture) for picture in pictures]
        self.sentence = sentence

    def save(self, picture: Picture) -> Result:
        """Return where a picture is in the folder, written and announced if it isn't there yet."""
        if picture not in self._saved:
            result = save_picture(self._folder / f"result-{self._count}.png", picture)
            self._count += 1
            self._saved[picture] = result
            event = Event(self._folder.name, "picture", results=(result,))
            log_event(self._folder, event)
            self._emit(event)
        return self._saved[picture]


def save_picture(path: Path, picture: Picture) -> Result:
    """Write a picture as PNG with its infotext, whole or not at all, and return where it is."""
    from .imaging.files import save
    from .operations.parameters import describe

    infotext = describe(picture)
    save(picture.pixels, path, infotext)
    return Result(str(path), picture.seed, infotext, picture.name)


def log_event(folder: Path, event: Event) -> None:
    """Add an event to the log of a job's folder; raises OSError where the disk refuses."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(event.to_wire(), ensure_ascii=False) + "\n")


def last_event(folder: Path) -> Event | None:
    """Return the last event that a job's log holds, None for a job that was never begun."""
    return next(_events(reversed(_lines(folder))), None)


def kept_results(folder: Path) -> tuple[Result, ...]:
    """Return the pictures that the last run of a job had finished, by its log, in the order in which they were made.

    One that waits to run again still has those of before.
    """
    results: list[Result] = []
    for event in _events(_lines(folder)):
        if event.kind == "started":
            results.clear()
        elif event.kind == "picture":
            results += event.results
    return tuple(results)


def _lines(folder: Path) -> list[str]:
    try:
        return (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _events(lines: Iterable[str]) -> Iterator[Event]:
    """Return the events of a log's lines; a torn line is passed over."""
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
            yield Event.from_wire(json.loads(line))


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
