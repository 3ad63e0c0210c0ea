"""The engine in this very process, on a thread of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
from pathlib import Path

from ..engine import Engine
from ..errors import ModelError
from ..events import Event
from ..job import run_job
from ..models.load import Options, choose_device
from ..models.memory import memory_for_models
from ..queue import JobQueue
from .memory import free_models
from .protocol import IDLE
from .queued import QueuedBackend

STOP_TIME = 10.0  # seconds to wait for the running step when closing
FREE = "free"


class _Closing(Exception):
    """Ends the running job without a word in its log: it was not the artist who stopped it."""


class EmbeddedBackend(QueuedBackend):
    """Runs jobs one after another on a worker thread; see protocol.Backend."""

    def __init__(self, jobs: Path | JobQueue, options: Options, idle: float = IDLE) -> None:
        super().__init__(jobs, idle)
        self._engine = Engine(options)
        self._orders: queue.Queue[Path | str | None] = queue.Queue()
        self._said: queue.Queue[Event] = queue.Queue()
        self._stopped: set[str] = set()
        self._closing = False
        self._making = False  # a job that was cancelled while it loads is none any more, but its model still loads
        self._device = ""  # known once a job has loaded torch
        self._thread: threading.Thread | None = None

    def poll(self) -> list[Event]:
        while not self._said.empty():
            self._hear(self._said.get_nowait())
        current = self._current
        if current is not None and self._thread is not None and not self._thread.is_alive() and self._said.empty():
            self._current = None  # a bug ended the thread; its traceback is on the console
            self._say_failed(current.name, "The embedded backend stopped.", SEE_CONSOLE)
        self._pump()
        return self._drained()

    def free(self) -> bool:
        if self._current is None and self._thread is not None:
            self._orders.put(FREE)
            return True
        return False

    def device(self) -> str:
        return self._device

    def room(self) -> int:
        return memory_for_models(self._device, self._engine.models.held()) if self._device else 0

    def state(self) -> str:
        return "Working in Blender's process" if self._current else "Ready in Blender's process"

    def rests(self) -> bool:
        return super().rests() and not self._making

    def _stop(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._closing = True
            self._orders.put(None)
            self._thread.join(STOP_TIME)

    def _ready(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._orders = queue.Queue()
            self._thread = threading.Thread(target=self._work, name="viewport-diffusion", daemon=True)
            self._thread.start()

    def _run(self, folder: Path) -> None:
        self._orders.put(folder)

    def _ask_to_stop(self, job: str, began: bool) -> None:
        self._stopped.add(job)

    def _work(self) -> None:
        orders, resting = self._orders, False
        while not self._closing:
            try:
                order = orders.get(timeout=self.idle if self.idle and not resting else None)
            except queue.Empty:
                order = FREE
            if order is None:
                return
            resting = not isinstance(order, Path)
            if isinstance(order, Path):
                self._making = True
                try:
                    self._make(order)
                finally:
                    self._making = False
            else:
                free_models(self._engine)

    def _make(self, folder: Path) -> None:
        job = folder.name

        def is_cancelled() -> bool:
            if self._closing:
                raise _Closing
            return job in self._stopped

        if job in self._stopped:
            return
        try:
            run_job(self._engine, folder, self._said.put, is_cancelled, self.previews)
        except _Closing:
            return
        with contextlib.suppress(ModelError):  # a device that isn't there, as the job itself has told
            self._device = choose_device(self._engine.models.options.device)


SEE_CONSOLE = "The console says more; generate again to go on."
