"""What both ways to an engine share: one job at a time from the queue on disk, and a cancel that never waits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from ..errors import BackendError
from ..events import Event, failed_event
from ..job import kept_results
from ..previews import Previews
from ..queue import JobQueue
from ..request import Request
from .protocol import IDLE


class QueuedBackend(ABC):
    """Base of the backends: it keeps the queue and knows the running job; a subclass runs it. See protocol.Backend."""

    def __init__(self, jobs: Path | JobQueue, idle: float = IDLE) -> None:
        self.queue = jobs if isinstance(jobs, JobQueue) else JobQueue(jobs)
        self.idle = idle
        self.previews = Previews()
        self.retiring = False
        self._events: deque[Event] = deque()
        self._current: Path | None = None
        self._began = False  # whether the running job has reported a part of its work
        self._cancelled = False  # whether the running job was asked to stop

    def submit(self, request: Request, note: Mapping[str, str] | None = None) -> str:
        job = self.queue.add(request, note)
        self._events.append(Event(job, "queued", message="Waiting"))
        try:
            self._pump()
        except BackendError:
            self.queue.withdraw(job)
            raise
        return job

    def resume(self, job: str) -> None:
        self.queue.resume(job)
        self._events.append(Event(job, "queued", message="Waiting"))
        try:
            self._pump()
        except BackendError:
            self.queue.abandon(job)
            raise

    def cancel(self, job: str) -> None:
        withdrawn = self.queue.withdraw(job)
        if withdrawn is not None:
            self._events.append(withdrawn)
        elif self._current is not None and self._current.name == job and not self._cancelled:
            self._ask_to_stop(job, self._began)
            self._cancelled = True
            if not self._began:  # starting or loading, which nothing can stop, and whose fruit the next job will want
                self._say_cancelled(job)

    def rests(self) -> bool:
        return self._current is None

    def give_up(self, sentence: str, remedy: str) -> None:
        jobs = [*([self._current.name] if self._current else []), *self.queue.waiting]
        self._current = None
        for job in jobs:
            self._say_failed(job, sentence, remedy)

    def close(self) -> None:
        self._stop()
        self._current = None
        if not self.retiring:
            self.queue.close()

    @abstractmethod
    def _stop(self) -> None:
        """End what runs jobs."""

    @abstractmethod
    def _ready(self) -> None:
        """Make sure that there is something to run jobs; raises BackendError where there can't be."""

    @abstractmethod
    def _run(self, folder: Path) -> None:
        """Begin a job; its events come to _hear()."""

    @abstractmethod
    def _ask_to_stop(self, job: str, began: bool) -> None:
        """Have a job stop; one that hasn't begun to report its work is waited for by nobody."""

    def _pump(self) -> None:
        """Begin the next job if none runs."""
        if self._current is not None or self.retiring or self.queue.paused or not self.queue.waiting:
            return
        self._ready()
        self._current = self.queue.take()
        self._began = self._cancelled = False
        if self._current is not None:
            self._run(self._current)

    def _hear(self, event: Event) -> None:
        """Pass on what is said of the running job, and of no other: that one was given up."""
        if self._current is None or event.job != self._current.name:
            return
        self._began = self._began or event.progress > 0
        if event.is_last:
            self._current = None
        self._events.append(event)

    def _say_cancelled(self, job: str) -> None:
        self._current = None
        self._events.append(self.queue.cancelled(job))

    def _say_failed(self, job: str, sentence: str, remedy: str) -> None:
        """Tell of a job that can't go on; it is left in its folder, to be resumed."""
        self.queue.abandon(job)
        self._events.append(failed_event(job, sentence, remedy, kept_results(self.queue.folder(job))))

    def _drained(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        return events
