"""Jobs from Blender's side: one queue, one backend, one timer that drains its events, and what becomes of the results.

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
from ..backend.queue import JobQueue, Leftover
from ..backend.request import Request
from ..backend.transport.protocol import Backend
from . import leftovers
from .preferences import backend_python, engine_options, jobs_folder, live_previews, preferences
from .scene import preview

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
    preview: int = 0  # how many there were so far
    scene: int = 0  # session_uid of the scene that it is made for
    first: tuple[float, float] | None = None  # when the first share of the work was done, and how large it was

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.kind in ("finished", "failed", "cancelled")

    @property
    def sentence(self) -> str:
        """What to tell the artist about it now."""
        return f"{self.message} {self.remedy}".strip()

    def time_left(self) -> float | None:
        """Return the seconds that it will go on by the pace of its steps so far, None where that can't be told yet."""
        if self.kind != "progress" or self.first is None or self.progress <= self.first[1]:
            return None
        since, share = self.first  # loading came before, whose pace says nothing
        return (time.monotonic() - since) * (1 - self.progress) / (self.progress - share)


class _State:
    """What lives from register() to unregister()."""

    backend: Backend | None = None
    queue: JobQueue | None = None
    key: tuple[object, ...] = ()
    jobs: dict[str, Job]
    said: list[Event]  # by a backend that has gone, and not taken in yet
    looking: bool = False  # whether the panel still shows what an earlier look found


_state = _State()
_state.jobs, _state.said = {}, []


def submit(request: Request, title: str, apply: Callable[[Job], None], view: str = "") -> Job:
    """Send a request to the backend; apply(job) is called on the main thread once it is over and pictures are there.

    view: the mark of the view that it shows, for results that are taken in after a restart. Raises DiffusionError where
    the request is wrong or the backend can't be started.
    """
    note = {"title": title, "file": bpy.data.filepath, "scene": bpy.context.scene.name, "view": view}
    return _follow(Job(_backend().submit(request, note), title, apply, scene=bpy.context.scene.session_uid))


def resume(left: Leftover, apply: Callable[[Job], None], scene: int) -> Job:
    """Send a job that was left behind to the backend; raises DiffusionError where that can't be.

    scene: the session_uid of the one that it is made for.
    """
    backend = _backend()
    leftovers.forget(left)
    backend.resume(left.job)
    return _follow(Job(left.job, left.note.get("title", ""), apply, scene=scene))


def take_in(left: Leftover, apply: Callable[[Job], None]) -> Job:
    """Apply the results of a job that were never applied; raises DiffusionError where that can't be.

    One that was interrupted is offered again afterwards: the rest of it can still be made.
    """
    text = left.event.text if left.event is not None else ""
    job = Job(left.job, left.note.get("title", ""), apply, results=left.results, text=text)
    leftovers.forget(left)
    queue().claim(left.job)
    shown = _apply(job)
    if shown and left.state == "interrupted":
        queue().abandon(left.job)
    look_for_leftovers()
    if not shown:
        raise DiffusionError(job.message, job.remedy)
    return job


def discard(left: Leftover) -> None:
    """Drop a job that was left behind; raises DiffusionError where another Blender has taken it up."""
    leftovers.forget(left)
    queue().discard(left.job)


def queue() -> JobQueue:
    """Return the queue of this session."""
    if _state.queue is None:
        _state.queue = JobQueue(jobs_folder())
    return _state.queue


def _follow(job: Job) -> Job:
    """Keep a job that the backend has, and have the timer look after it."""
    _state.jobs[job.id] = job
    over = [known.id for known in _state.jobs.values() if known.is_over]
    for old in over[:-JOBS_KEPT]:
        del _state.jobs[old]
    _start_timer()
    return job


def look_for_leftovers() -> None:
    """Look for jobs that were left behind; the panel is drawn anew with what is found."""
    leftovers.look(queue().root)
    _state.looking = True
    _start_timer()


def _start_timer() -> None:
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=INTERVAL, persistent=True)


def wait(job: Job, tell: Callable[[Job], None] | None = None) -> None:
    """Block until a job is over, for scripts: a paused queue goes on; tell(job) is called after each event."""
    queue().paused = False
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
    for event in _heard():
        job = _state.jobs.get(event.job)
        if event.kind == "picture":  # announced only: it is taken in at the job's end, if it is among the results then
            continue
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
    """Return the jobs that aren't over: the one that is being made, then those that wait, in their order."""
    order = queue().waiting
    active = [job for job in _state.jobs.values() if not job.is_over]
    return sorted(active, key=lambda job: order.index(job.id) if job.id in order else -1)


def last() -> Job | None:
    """Return the job that was submitted last, if any."""
    return next(reversed(_state.jobs.values()), None)


def backend_state() -> str:
    """Return in a short sentence how the backend is."""
    return _state.backend.state() if _state.backend is not None else "Starts with the first picture"


def device() -> str:
    """Return the device that holds the models, "" where none does or it isn't known."""
    return _state.backend.device() if _state.backend is not None else ""


def room() -> int:
    """Return the bytes that models may take on that device, 0 where it isn't known."""
    return _state.backend.room() if _state.backend is not None else 0


def free_memory() -> bool:
    """Have the backend free its models, and return whether it does: not while a job runs."""
    return _state.backend is not None and not running() and _state.backend.free()


def shut_down() -> None:
    """Stop the backend and everything that it runs; what isn't over is offered the next time."""
    for part in (_state.backend, _state.queue):
        if part is not None:
            part.close()
    _state.backend = _state.queue = None


def _heard() -> list[Event]:
    """Return what the backend has said; the next job begins by the preferences as they are now."""
    backend = _state.backend
    assert backend is not None
    if queue().waiting and not queue().paused:
        try:
            backend = _backend()
        except BackendError as error:
            backend.retiring = True
            if backend.rests():
                backend.give_up(error.sentence, error.remedy)
    events, _state.said = [*_state.said, *backend.poll()], []
    return events


def _take(job: Job, event: Event) -> None:
    """Bring a job to where an event says it is."""
    if event.kind == "started":
        job.first = None
    elif event.kind == "progress" and event.progress > 0 and job.first is None:
        job.first = time.monotonic(), event.progress
    job.preview = max(job.preview, event.preview) if event.kind == "progress" else 0
    job.progress, job.message, job.remedy = event.progress, event.message, event.remedy
    job.results, job.text, job.seconds = event.results, event.text, event.seconds
    job.kind = event.kind
    if event.kind == "finished" or event.results:
        _apply(job)
    if event.kind == "failed":
        log.warning("%s failed: %s", job.title, job.sentence)
    if job.is_over:
        look_for_leftovers()  # a failed one may be resumed, and old ones may have to go


def _apply(job: Job) -> bool:
    """Take in what a job has made, and return whether Blender could; else it is offered again."""
    try:
        job.apply(job)
        queue().applied(job.id)
        return True
    except DiffusionError as error:
        job.kind, job.message, job.remedy = "failed", error.sentence, error.remedy
    except RuntimeError as error:  # what Blender raises
        log.exception("%s could not be shown", job.title)
        job.kind, job.message = "failed", f"The picture could not be shown: {error}"
        job.remedy = " ".join(f"It is kept at {result.path}." for result in job.results[:1])
    queue().abandon(job.id)
    return False


def _backend() -> Backend:
    """Return the backend that the preferences name, or the one before while something is made there still.

    That one begins no further job: those that wait are the next one's. Nothing is ever ended by a changed preference.
    Raises BackendError where the preferences name none that there can be.
    """
    chosen = preferences()
    python = backend_python() if chosen.backend == "subprocess" else ""
    key = (chosen.backend, python, engine_options())
    backend = _state.backend
    if backend is None or _state.key != key:
        following = _make_backend(chosen.backend, python)
        if backend is not None:
            backend.retiring = True
            if not backend.rests():
                return backend
            _state.said += backend.poll()
            backend.free()
            backend.close()
        backend = _state.backend = following
        _state.key = key
    backend.retiring = False
    backend.idle = chosen.idle_seconds
    backend.previews = live_previews()
    return backend


def _make_backend(kind: str, python: str) -> Backend:
    """Return a backend over this session's queue, which starts nothing before its first job."""
    from ..backend.transport.embedded import EmbeddedBackend
    from ..backend.transport.subprocess import SubprocessBackend

    if kind == "embedded":
        if importlib.util.find_spec("torch") is None:
            raise BackendError(
                "Blender's own Python has no torch.", "Choose Separate Process in the extension's preferences."
            )
        return EmbeddedBackend(queue(), engine_options())
    return SubprocessBackend(python, queue(), engine_options())


def _tick() -> float | None:
    """Drain on Blender's timer, redraw what shows jobs, and stop once there are none."""
    found = _state.looking and not leftovers.is_looking()
    _state.looking = _state.looking and not found
    changed = bool(drain())
    if show_preview() or changed or found:
        redraw()
    return INTERVAL if running() or _state.looking else None


def show_preview() -> bool:
    """Show the newest preview of the picture that is being made, if any; return whether what is on show has changed."""
    active = running()
    if not active:
        return preview.clear()
    job = active[0]
    return preview.follow(job.id, job.preview, queue().folder(job.id), job.scene)


def redraw() -> None:
    """Have the viewports' sidebars drawn again, which show jobs, and not the scene beside them: that can be slow."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions:
                if area.type == "VIEW_3D" and region.type == "UI":
                    region.tag_redraw()


def register() -> None:
    """Make sure that no child outlives Blender, and look for what the last session left behind."""
    atexit.register(shut_down)
    look_for_leftovers()


def unregister() -> None:
    """Stop the timer and the backend."""
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    shut_down()
    preview.clear()
    _state.jobs.clear()
    atexit.unregister(shut_down)
