"""The queue on disk: in which order jobs wait, whose they are, and what a session that died has left behind.

In the folder of all jobs, beside the jobs' own folders:
    queue-SESSION.json    the ids of the jobs that wait, in order, after some that wait no more
    queue-SESSION.lock    locked by the session's process as long as it lives; the system unlocks it at its death
    queue-SESSION.log     the last words of the session's worker
and in each job's folder an empty file owner-SESSION. Taking a job over is renaming that file: of two that try at once
only one can, so that no job runs twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Literal, NamedTuple

from .disk import write_atomically
from .errors import BackendError
from .events import Event, Result, cancelled_event
from .job import create_job, disk_error, kept_results, last_event, log_event, read_note
from .request import Request

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)

JOB = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")  # the names that create_job() gives; nothing else is ever removed
NOBODY = "nobody"  # owner of a job that anyone may take up
JOBS_KEPT = 50  # ended ones
BYTES_KEPT = 2_000_000_000  # of ended ones
UNBORN_TIME = 3600.0  # seconds after which a folder without a request is no job in the making any more

State = Literal["waiting", "interrupted", "finished", "over"]


class Leftover(NamedTuple):
    """A job that no living session looks after: it waits, was interrupted, or has pictures that nobody took in."""

    job: str
    state: State
    note: dict[str, str]
    event: Event | None  # the last of its log
    results: tuple[Result, ...]  # finished pictures


class JobQueue:
    """The jobs of one session, which wait in an order of the artist's; to be used from one thread.

    paused: whether take() holds back what waits.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.session = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        self.paused = False
        self._waiting: list[str] = []
        self._lock: IO[bytes] | None = None

    @property
    def waiting(self) -> tuple[str, ...]:
        """The ids of the jobs that wait, the next one first."""
        return tuple(self._waiting)

    def folder(self, job: str) -> Path:
        """Return the folder of a job."""
        return self.root / job

    def path(self, kind: str) -> Path:
        """Return the session's own file of that ending."""
        return self.root / f"queue-{self.session}.{kind}"

    def add(self, request: Request, note: Mapping[str, str] | None = None) -> str:
        """Append a request and return its job's id; raises DiffusionError as create_job() does."""
        self._open()
        folder = create_job(self.root, request, note)
        try:
            (folder / f"owner-{self.session}").touch()
        except OSError as error:
            raise disk_error(error, folder) from error
        self._waiting.append(folder.name)
        self._save()
        return folder.name

    def resume(self, job: str) -> None:
        """Take up a job that was left behind, as the last to run; raises BackendError where another session has it."""
        self.claim(job)
        if state_of(self.folder(job)) not in ("waiting", "interrupted"):
            raise BackendError("That job has ended already.")
        self._log(Event(job, "queued", message="Waiting"))
        self._waiting.append(job)
        self._save()

    def take(self) -> Path | None:
        """Return the folder of the next job, which waits no more; None while there is none or the queue is paused.

        The file still names it: its own log tells that it has begun, and the others' order is the same.
        """
        if self.paused or not self._waiting:
            return None
        return self.folder(self._waiting.pop(0))

    def put_back(self, job: str) -> None:
        """Let a job that was taken but never began wait again, as the first."""
        self._waiting.insert(0, job)
        self._save()

    def move(self, job: str, place: int) -> None:
        """Put a waiting job at a place, 0 the front; places beyond the ends are the ends. Others are left alone."""
        if job in self._waiting:
            self._waiting.remove(job)
            self._waiting.insert(max(place, 0), job)
            self._save()

    def withdraw(self, job: str) -> Event | None:
        """End a waiting job as cancelled, and return the event that tells so; None where it wasn't waiting."""
        if job not in self._waiting:
            return None
        self._waiting.remove(job)
        self._save()
        return self.cancelled(job)

    def cancelled(self, job: str) -> Event:
        """Write down that a job is over because it was cancelled, and return the event that tells so."""
        event = cancelled_event(job, kept_results(self.folder(job)))
        self._log(event)
        return event

    def applied(self, job: str) -> None:
        """Write down that the results of a job that has ended have been taken in; one left to be resumed has not."""
        event = last_event(self.folder(job))
        if event is not None and event.is_last:
            self._log(Event(job, "applied"))

    def abandon(self, job: str) -> None:
        """Leave a job to whoever takes it up: it is offered again."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)
            self._save()
        self._pass_on(job, self.session, NOBODY)

    def claim(self, job: str) -> None:
        """Take over a job that was left behind; raises BackendError where another session was faster."""
        self._open()
        owner = _owner(self.folder(job))
        if owner is None or _is_alive(self.root, owner) or not self._pass_on(job, owner, self.session):
            raise BackendError("That job is not to be had any more.", "Another Blender may have taken it up.")

    def discard(self, job: str) -> None:
        """End a job that was left behind, whatever it was; raises BackendError where another session has it."""
        self.claim(job)
        self.cancelled(job)
        self.applied(job)  # whatever it had finished

    def close(self) -> None:
        """End the session: what waits and what runs is left to the next one."""
        self._waiting.clear()  # in memory only: the file keeps their order
        _OPEN.discard(self.session)
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            with contextlib.suppress(OSError):
                self.path("lock").unlink()

    def _pass_on(self, job: str, giver: str, taker: str) -> bool:
        folder = self.folder(job)
        try:
            (folder / f"owner-{giver}").rename(folder / f"owner-{taker}")
        except OSError:
            return False
        return True

    def _open(self) -> None:
        if self._lock is not None:
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = self.path("lock").open("ab")
        except OSError as error:
            raise disk_error(error, self.root) from error
        _OPEN.add(self.session)
        if not _locked(self._lock, wait=True):
            log.warning("%s can't be locked: another Blender may offer this one's jobs", self.root)

    def _save(self) -> None:
        try:
            write_atomically(self.path("json"), json.dumps({"waiting": self._waiting}).encode(), flush=False)
        except OSError as error:  # the jobs themselves are on disk; only their order would be lost
            log.warning("the queue's order could not be written: %s", error)

    def _log(self, event: Event) -> None:
        try:
            log_event(self.folder(event.job), event)
        except OSError as error:
            log.warning("%s of job %s could not be written down: %s", event.kind, event.job, error)


def state_of(folder: Path) -> State:
    """Return how far a job came by its log: it waits, was interrupted, has results nobody took in, or is over."""
    if not (folder / "request.json").is_file():
        return "over"
    event = last_event(folder)
    if event is None or event.kind == "queued":
        return "waiting"
    if event.kind in ("started", "picture"):
        return "interrupted"
    return "finished" if event.kind == "finished" or (event.is_last and event.results) else "over"


def leftovers(root: Path) -> list[Leftover]:
    """Return the jobs that no living session looks after and that aren't over, in the order in which they waited."""
    living = _Living(root)
    found = []
    for folder in _job_folders(root):
        owner = _owner(folder)
        if owner is None or living.has(owner):
            continue
        state = state_of(folder)
        if state != "over":
            event = last_event(folder)
            results = event.results if event is not None and event.is_last else kept_results(folder)
            found.append(Leftover(folder.name, state, read_note(folder), event, results))
    places = _places(root)
    return sorted(found, key=lambda left: (places.get(left.job, ("", 0)), _made(root / left.job)))


def tidy(root: Path, jobs: int = JOBS_KEPT, size: int = BYTES_KEPT) -> None:
    """Remove the folders of all but the last jobs that have ended, within a number and a size in bytes.

    Jobs that wait, run or were interrupted stay, whosever they are, and so does all that isn't a job of ours; what dead
    sessions leave beside the jobs goes.
    """
    living = _Living(root)
    count, taken = 0, 0
    for folder in reversed(_job_folders(root)):
        state = state_of(folder)
        if state in ("waiting", "interrupted") or (state == "finished" and living.has(_owner(folder) or NOBODY)):
            continue
        try:
            if not (folder / "request.json").exists() and time.time() - folder.stat().st_mtime < UNBORN_TIME:
                continue
            count, taken = count + 1, taken + sum(file.stat().st_size for file in folder.iterdir())
        except FileNotFoundError:  # another session tidies too
            continue
        if count > jobs or taken > size:
            shutil.rmtree(folder, ignore_errors=True)
    left = {folder.name for folder in _job_folders(root) if state_of(folder) == "waiting"}
    for file in root.glob("queue-*.*"):
        session = file.stem.removeprefix("queue-")
        if not living.has(session) and not (file.suffix == ".json" and left & set(_order(file))):
            with contextlib.suppress(OSError):
                file.unlink()


_OPEN: set[str] = set()  # the sessions of this very process


class _Living:
    """Which sessions live, each asked once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, bool] = {NOBODY: False}

    def has(self, session: str) -> bool:
        """Whether a session's process still runs."""
        if session not in self._known:
            self._known[session] = _is_alive(self._root, session)
        return self._known[session]


def _is_alive(root: Path, session: str) -> bool:
    if session in _OPEN:
        return True
    try:
        with (root / f"queue-{session}.lock").open("rb+") as file:
            return not _locked(file, wait=False)
    except OSError:
        return False


def _locked(file: IO[bytes], wait: bool) -> bool:
    """Lock a file for this process until it is closed, and return whether that worked."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _job_folders(root: Path) -> list[Path]:
    """Return the folders of all jobs, the oldest first."""
    try:
        return sorted(
            entry for entry in root.iterdir() if JOB.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink()
        )
    except OSError:
        return []


def _made(folder: Path) -> int:
    """Return when a job was made, finer than its name tells."""
    try:
        return (folder / "request.json").stat().st_mtime_ns
    except OSError:
        return 0


def _owner(folder: Path) -> str | None:
    return next((path.name.removeprefix("owner-") for path in folder.glob("owner-*")), None)


def _places(root: Path) -> dict[str, tuple[str, int]]:
    """Return where each job stood in its session's queue."""
    return dict(_stood(root))


def _stood(root: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    for file in sorted(root.glob("queue-*.json")):
        for place, job in enumerate(_order(file)):
            yield job, (file.stem, place)


def _order(file: Path) -> list[str]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    jobs = document.get("waiting") if isinstance(document, dict) else None
    return [str(job) for job in jobs] if isinstance(jobs, list) else []
