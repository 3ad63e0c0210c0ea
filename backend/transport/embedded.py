"""The engine in this very process, on a thread of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
from pathlib import Path

from ..engine import Engine
from ..events import Event
from ..job import create_job, run_job
from ..models.load import Options
from ..request import Request

STOP_TIME = 10.0  # seconds to wait for the running step when closing


class EmbeddedBackend:
    """Runs jobs one after another on a worker thread; see protocol.Backend."""

    def __init__(self, jobs: Path, options: Options) -> None:
        self._jobs = jobs
        self._engine = Engine(options)
        self._waiting: queue.Queue[Path | None] = queue.Queue()
        self._events: queue.Queue[Event] = queue.Queue()
        self._cancelled: set[str] = set()
        self._current: str | None = None
        self._thread: threading.Thread | None = None

    def submit(self, request: Request) -> str:
        folder = create_job(self._jobs, request)
        self._events.put(Event(folder.name, "queued", message="Waiting"))
        self._waiting.put(folder)
        if self._thread is None or not self._thread.is_alive():
            self._start()
        return folder.name

    def poll(self) -> list[Event]:
        events = []
        while not self._events.empty():
            events.append(self._events.get_nowait())
        current = self._current
        if current and self._thread is not None and not self._thread.is_alive():
            self._current = None  # a bug ended the thread; its traceback is on the console
            events.append(Event(current, "failed", message="The embedded backend stopped.", remedy=SEE_CONSOLE))
            if not self._waiting.empty():
                self._start()
        return events

    def cancel(self, job: str) -> None:
        self._cancelled.add(job)

    def state(self) -> str:
        return "Working in Blender's process" if self._current else "Ready in Blender's process"

    def close(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                while (folder := self._waiting.get_nowait()) is not None:
                    self._cancelled.add(folder.name)
            if self._current:
                self._cancelled.add(self._current)
            self._waiting.put(None)
            self._thread.join(STOP_TIME)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="viewport-diffusion", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (folder := self._waiting.get()) is not None:
            job = folder.name
            if job in self._cancelled:
                self._events.put(Event(job, "cancelled", message="Cancelled"))
                continue
            self._current = job
            run_job(self._engine, folder, self._events.put, lambda: job in self._cancelled)  # noqa: B023 - run at once
            self._current = None


SEE_CONSOLE = "The console says more; generate again to go on."
