"""The engine in a process of its own: its crash is a sentence, never the end of Blender."""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BackendError
from ..events import Event
from ..job import last_event
from ..models.load import Options
from ..processes import LineProcess
from ..queue import JobQueue
from ..request import Request
from .causes import cause_of_death
from .protocol import IDLE, PROTOCOL
from .queued import QueuedBackend

# Seconds a cancelled job may go on, and after each picture that it still hands over, before its process is ended. The
# slowest of what it may have to do is to compress the picture so far: of 8192² pixels, 11 s were measured.
GRACE = 20.0
LOADING_GRACE = 60.0  # the same for one that was still loading: the next job most likely wants what is loaded
SILENCE = 60.0  # seconds without a beat after which a process is taken for hung; loading a library can hold one up
LOOK = 1.0  # seconds; longer pauses between two looks, as of a machine that slept, aren't held against the process
QUIET = 5.0  # seconds without a beat, or a minute without news of a job, before the panel tells
STUCK = 60.0
MAXIMUM_DEATHS = 3  # in a row
STOP_TIME = 2.0  # seconds for the process to leave by itself when its input ends
SILENT = ("The backend's process no longer answered, and was ended.", "Generate again: the backend starts anew.")


@dataclass
class _Worker:
    """One child process, and what is known of it."""

    child: LineProcess
    log: Path
    hello: dict[str, Any] | None = None
    held: int = 0  # bytes of memory
    room: int = 0  # bytes that models may take
    silence: float = 0.0  # seconds without a line, as far as they were watched
    verdict: tuple[str, str] | None = None  # why we ended it ourselves
    ended: float | None = None  # when its output ended


class SubprocessBackend(QueuedBackend):
    """Runs jobs one after another in a child; see protocol.Backend. The queue is kept here, so that it outlives it."""

    def __init__(self, python: str, jobs: Path | JobQueue, options: Options, idle: float = IDLE) -> None:
        super().__init__(jobs, idle)
        self._python = python
        self._options = options
        self._worker: _Worker | None = None
        self._stopping: dict[str, float] = {}  # cancelled jobs that the child still has → until when it may
        self._deaths = 0
        self._looked = time.monotonic()
        self._news = time.monotonic()  # when the running job was last heard of

    def submit(self, request: Request, note: Mapping[str, str] | None = None) -> str:
        self._deaths = 0
        return super().submit(request, note)

    def resume(self, job: str) -> None:
        self._deaths = 0
        super().resume(job)

    def poll(self) -> list[Event]:
        if self._worker is not None:
            self._listen(self._worker)
            self._watch()
        try:
            self._pump()
        except BackendError as error:
            self.give_up(error.sentence, error.remedy)
        return self._drained()

    def free(self) -> bool:
        worker = self._worker
        if worker is None or self._current is not None:
            return False
        worker.child.send({"type": "free", "job": ""})
        return True

    def device(self) -> str:
        worker = self._worker
        return str(worker.hello.get("device", "")) if worker is not None and worker.hello is not None else ""

    def room(self) -> int:
        return self._worker.room if self._worker is not None else 0

    def state(self) -> str:
        worker = self._worker
        if worker is None:
            return "Starts with the next picture"
        if worker.silence > QUIET and self._current is not None:
            return f"Has not answered for {worker.silence:.0f} s"
        if worker.hello is None:
            return "Starting"
        stuck = time.monotonic() - self._news
        if self._current is not None and stuck > STUCK:
            return f"Working on {self.device().upper()}, {stuck:.0f} s at one step"
        held = f", holding {worker.held / 1e9:.1f} GB" if worker.held else ""
        return f"{'Working' if self._current else 'Ready'} on {self.device().upper()}{held}"

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.child.close(STOP_TIME)

    def _ready(self) -> None:
        if self._worker is None:
            self._worker = self._start()

    def _run(self, folder: Path) -> None:
        assert self._worker is not None
        self._news = time.monotonic()
        order = {"type": "run", "job": folder.name, "folder": str(folder), "idle": self.idle}
        self._worker.child.send({**order, "previews": self.previews.to_wire()})

    def _ask_to_stop(self, job: str, began: bool) -> None:
        self._stopping[job] = time.monotonic() + (GRACE if began else LOADING_GRACE)
        if self._worker is not None:
            self._worker.child.send({"type": "cancel", "job": job})

    def _start(self) -> _Worker:
        log = self.queue.path("log")
        try:
            with log.open("wb") as errors:
                command = worker_command(self._python, self._options)
                child = LineProcess(command, errors, "reader", worker_environment(self._options.online))
        except OSError as error:
            reason = error.strerror or str(error)
            raise BackendError(
                f"{self._python} could not be started: {reason}.", "Choose a Python with torch in the preferences."
            ) from error
        return _Worker(child, log)

    def _listen(self, worker: _Worker) -> None:
        """Take in what the child has said, and count the seconds of its silence."""
        now = time.monotonic()
        worker.silence += min(now - self._looked, LOOK)
        self._looked = now
        while True:
            try:
                message = worker.child.hear()
            except queue.Empty:
                return
            worker.silence = 0.0
            if message is None:
                worker.ended = now
            elif message.get("type") == "hello":
                self._greet(worker, message)
            elif message.get("type") == "beat":
                held = message.get("held")
                worker.held = held if isinstance(held, int) else 0
                room = message.get("room")
                worker.room = room if isinstance(room, int) else 0
            elif message.get("type") == "event":
                with contextlib.suppress(ValueError):
                    self._hear(Event.from_wire(message))

    def _greet(self, worker: _Worker, hello: dict[str, Any]) -> None:
        worker.hello = hello
        if hello.get("protocol") != PROTOCOL:
            worker.child.process.kill()
            worker.verdict = ("The backend is of another version.", "Install extension and backend together.")
            self._deaths = MAXIMUM_DEATHS  # it won't get better by trying

    def _hear(self, event: Event) -> None:
        if event.is_last:
            self._stopping.pop(event.job, None)
            self._deaths = 0
        self._news = time.monotonic()
        if event.kind == "picture" and event.job in self._stopping:
            self._stopping[event.job] = max(self._stopping[event.job], self._news + GRACE)
        super()._hear(event)

    def _watch(self) -> None:
        """End a child that hangs or won't stop, and bury one that is dead."""
        worker = self._worker
        if worker is None:
            return
        now = time.monotonic()
        if worker.ended is not None:
            if worker.child.process.poll() is not None:
                self._bury(worker)
            elif now - worker.ended > STOP_TIME:
                worker.child.process.kill()
        elif any(now > until for until in self._stopping.values()):
            worker.child.process.kill()
            self._stopping = dict.fromkeys(self._stopping, float("inf"))
        elif worker.silence > SILENCE and worker.verdict is None:
            worker.verdict = SILENT
            worker.child.process.kill()

    def _bury(self, worker: _Worker) -> None:
        """The child is dead: tell its job if it had begun, else keep it, and stop trying after too many deaths."""
        self._worker = None
        self._stopping.clear()
        code, greeted = worker.child.process.returncode, worker.hello is not None
        sentence, remedy = worker.verdict or cause_of_death(code, worker.log, greeted=greeted)
        self._deaths += 1
        if self._current is not None:
            self._settle(self._current, sentence, remedy)
        if self._deaths >= MAXIMUM_DEATHS:
            times = f"The backend died {self._deaths} times in a row. " if worker.verdict is None else ""
            self.give_up(f"{times}{sentence}", remedy)

    def _settle(self, folder: Path, sentence: str, remedy: str) -> None:
        """Decide what a dead child's job has come to by its own log, which says more than was heard."""
        job, written = folder.name, last_event(folder)
        if written is not None and written.is_last:
            super()._hear(written)
        elif self._cancelled:
            self._say_cancelled(job)
        elif written is not None and written.kind in ("started", "picture"):
            self._current = None
            self._say_failed(job, sentence, remedy)  # never run twice unasked: the job itself may have killed it
        else:
            self._current = None
            self.queue.put_back(job)


def worker_command(python: str, options: Options) -> list[str]:
    """Return the child's command: isolated from the user's own Python settings, unbuffered, writing no bytecode."""
    command = [python, "-E", "-s", "-B", "-u", "-m", "backend", "worker"]
    command += ["--device", options.device, "--precision", options.precision, "--memory", options.memory]
    for flag, folders in (
        ("--lora-folder", options.lora_folders),
        ("--embedding-folder", options.embedding_folders),
        ("--model-folder", options.model_folders),
    ):
        command += [f"{flag}={folder}" for folder in folders]
    flags = {"--compile": options.compiled, "--online": options.online}
    return [*command, *(flag for flag, wanted in flags.items() if wanted)]


def worker_environment(online: bool) -> dict[str, str]:
    """Return the child's environment, without the settings of Blender's own Python."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "HF_HUB_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**environment, "HF_HUB_OFFLINE": "0" if online else "1"}
