"""Jobs from Blender's side: one backend, one timer that drains its events, and what becomes of the results.

Nothing here waits: operators that block, in scripts and without a window, use wait().
"""

from __future__ import annotations

import atexit
import importlib.util
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import bpy

from ..backend.errors import BackendError, DiffusionError
from ..backend.events import Event, Result
from ..backend.request import Request
from ..backend.transport.protocol import Backend
from .preferences import backend_python, engine_options, jobs_folder, preferences

log = logging.getLogger(__name__)

INTERVAL = 0.1  # seconds between two looks at the backend
JOBS_KEPT = 20  # ended ones, for the panel's last words


@dataclass
class Job:
    """One request on its way: what the panel shows of it, and what to do with its pictures."""

    id: str
    title: str
    apply: Callable[[Job], None]
    kind: str = "queued"
    progress: float = 0.0
    message: str = "Waiting"
    remedy: str = ""
    results: tuple[Result, ...] = ()
    text: str = ""
    seconds: float = 0.0
    started: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.kind in ("finished", "failed", "cancelled")

    @property
    def sentence(self) -> str:
        """What to tell the artist about it now."""
        return f"{self.message} {self.remedy}".strip()

    def time_left(self) -> float | None:
        """Return the seconds that it will go on, judged by its steps so far, or None where that can't be told."""
        if self.kind != "progress" or self.progress < 0.1:
            return None
        return (time.monotonic() - self.started) * (1 - self.progress) / self.progress


class _State:
    """What lives from register() to unregister()."""

    backend: Backend | None = None
    key: tuple[object, ...] = ()
    jobs: dict[str, Job]


_state = _State()
_state.jobs = {}


def submit(request: Request, title: str, apply: Callable[[Job], None]) -> Job:
    """Send a request to the backend; apply(job) is called on the main thread once its pictures are there.

    Raises DiffusionError where the request is wrong or the backend can't be started.
    """
    job = Job(_backend().submit(request), title, apply)
    _state.jobs[job.id] = job
    over = [known.id for known in _state.jobs.values() if known.is_over]
    for old in over[:-JOBS_KEPT]:
        del _state.jobs[old]
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=INTERVAL, persistent=True)
    return job


def wait(job: Job, tell: Callable[[Job], None] | None = None) -> None:
    """Block until a job is over, for scripts and the command line; tell(job) is called after each event."""
    while not job.is_over:
        for changed in drain():
            if changed is job and tell is not None:
                tell(job)
        time.sleep(INTERVAL / 10)


def drain() -> list[Job]:
    """Take in what the backend has said, apply what is finished, and return the jobs that changed. Never waits."""
    if _state.backend is None:
        return []
    changed = []
    for event in _state.backend.poll():
        job = _state.jobs.get(event.job)
        if job is not None and not job.is_over:
            _take(job, event)
            changed.append(job)
    return changed


def cancel(job: Job) -> None:
    """Ask for a job's end; it comes as an event."""
    if _state.backend is not None and not job.is_over:
        job.message = "Cancelling"
        _state.backend.cancel(job.id)


def running() -> list[Job]:
    """Return the jobs that aren't over, in the order they were submitted."""
    return [job for job in _state.jobs.values() if not job.is_over]


def last() -> Job | None:
    """Return the job that was submitted last, if any."""
    return next(reversed(_state.jobs.values()), None)


def backend_state() -> str:
    """Return in a short sentence how the backend is."""
    return _state.backend.state() if _state.backend is not None else "Starts with the first picture"


def shut_down() -> None:
    """Stop the backend and everything that it runs."""
    backend, _state.backend = _state.backend, None
    if backend is not None:
        backend.close()


def _take(job: Job, event: Event) -> None:
    """Bring a job to where an event says it is."""
    if event.kind == "started":
        job.started = time.monotonic()
    job.progress, job.message, job.remedy = event.progress, event.message, event.remedy
    job.results, job.text, job.seconds = event.results, event.text, event.seconds
    job.kind = event.kind
    if event.kind == "finished":
        try:
            job.apply(job)
        except DiffusionError as error:
            job.kind, job.message, job.remedy = "failed", error.sentence, error.remedy
        except RuntimeError as error:  # what Blender raises
            log.exception("%s could not be shown", job.title)
            job.kind, job.message = "failed", f"The picture could not be shown: {error}"
            job.remedy = " ".join(f"It is kept at {result.path}." for result in job.results[:1])
    if event.kind == "failed":
        log.warning("%s failed: %s", job.title, job.sentence)


def _backend() -> Backend:
    """Return the backend that the preferences name, started anew where they have changed."""
    chosen = preferences()
    python = backend_python() if chosen.backend == "subprocess" else ""
    options = engine_options()
    key = (chosen.backend, python, options)
    if _state.backend is not None and _state.key == key:
        return _state.backend
    if running():
        raise BackendError("The preferences have changed while a picture is made.", "Wait for it, or cancel it.")
    shut_down()
    _state.backend = _make_backend(chosen.backend, python)
    _state.key = key
    return _state.backend


def _make_backend(kind: str, python: str) -> Backend:
    from ..backend.transport.embedded import EmbeddedBackend
    from ..backend.transport.subprocess import SubprocessBackend

    if kind == "embedded":
        if importlib.util.find_spec("torch") is None:
            raise BackendError(
                "Blender's own Python has no torch.", "Choose Separate Process in the extension's preferences."
            )
        return EmbeddedBackend(jobs_folder(), engine_options())
    return SubprocessBackend(python, jobs_folder(), engine_options())


def _tick() -> float | None:
    """Drain on Blender's timer, redraw what shows jobs, and stop once there are none."""
    if drain():
        redraw()
    return INTERVAL if running() else None


def redraw() -> None:
    """Have the viewports' sidebars drawn again, which show jobs, and not the scene beside them: that can be slow."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions:
                if area.type == "VIEW_3D" and region.type == "UI":
                    region.tag_redraw()


def register() -> None:
    """Make sure that no child outlives Blender."""
    atexit.register(shut_down)


def unregister() -> None:
    """Stop the timer and the backend."""
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    shut_down()
    _state.jobs.clear()
    atexit.unregister(shut_down)
