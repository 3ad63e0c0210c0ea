"""The engine in a process of its own: its crash is a sentence, never the end of Blender."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BackendError
from ..events import Event
from ..job import create_job
from ..models.load import Options
from ..request import Request
from .protocol import PROTOCOL

ROOT = Path(__file__).resolve().parents[2]  # the folder that holds the package backend
GRACE = 10.0  # seconds a cancelled job may go on before its process is ended
MAXIMUM_DEATHS = 3  # in a row
STOP_TIME = 2.0  # seconds for the process to leave by itself when its input ends

# What the last words of a dead worker mean: a piece of them → what to tell and what to do.
CAUSES = (
    ("No module named 'torch'", "The chosen Python has no torch.", "Install the backend's packages there."),
    ("No module named", "The chosen Python lacks a package: {line}.", "Install the backend's packages there."),
    ("No space left on device", "The disk is full.", "Make room and generate again."),
    ("CUDA driver", "The graphics driver does not fit the installed torch.", "Update the driver, or choose CPU."),
    ("out of memory", "The device ran out of memory.", "Choose a smaller size and generate again."),
    ("not enough memory", "There was not enough memory.", "Choose a smaller size and generate again."),
    ("can't allocate memory", "There was not enough memory.", "Choose a smaller size and generate again."),
)
KILLED = "The backend's process was killed"


@dataclass
class _Worker:
    """One child process, and what its reader thread has heard."""

    process: subprocess.Popen[str]
    log: Path
    heard: queue.Queue[dict[str, Any] | None] = field(default_factory=queue.Queue)

    def listen(self) -> None:
        """Read the child's lines until they end; runs on a thread of its own."""
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                with contextlib.suppress(json.JSONDecodeError, RecursionError):
                    message = json.loads(line)
                    if isinstance(message, dict):
                        self.heard.put(message)
        finally:
            self.heard.put(None)

    def send(self, message: dict[str, Any]) -> None:
        """Write one line; a child that died in between is noticed by its silence."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()


class SubprocessBackend:
    """Runs jobs one after another in a child; see protocol.Backend. The queue is kept here, so that it outlives it."""

    def __init__(self, python: str, jobs: Path, options: Options) -> None:
        self._python = python
        self._jobs = jobs
        self._options = options
        self._worker: _Worker | None = None
        self._hello: dict[str, Any] | None = None
        self._waiting: deque[Path] = deque()
        self._current: Path | None = None
        self._cancelled: dict[str, float] = {}
        self._events: deque[Event] = deque()
        self._deaths = 0

    def submit(self, request: Request) -> str:
        folder = create_job(self._jobs, request)
        self._waiting.append(folder)
        self._events.append(Event(folder.name, "queued", message="Waiting"))
        self._deaths = 0
        try:
            self._pump()
        except BackendError:
            self._waiting.remove(folder)
            raise
        return folder.name

    def poll(self) -> list[Event]:
        while self._worker is not None and not self._worker.heard.empty():
            message = self._worker.heard.get_nowait()
            if message is None:
                self._bury()
            else:
                self._hear(message)
        self._end_stubborn()
        try:
            self._pump()
        except BackendError as error:
            self._give_up(error.sentence, error.remedy)
        events = list(self._events)
        self._events.clear()
        return events

    def cancel(self, job: str) -> None:
        for folder in self._waiting:
            if folder.name == job:
                self._waiting.remove(folder)
                self._events.append(Event(job, "cancelled", message="Cancelled"))
                return
        if self._current is not None and self._current.name == job and self._worker is not None:
            self._cancelled.setdefault(job, time.monotonic())
            self._worker.send({"type": "cancel", "job": job})

    def state(self) -> str:
        if self._worker is None:
            return "Starts with the first picture"
        if self._hello is None:
            return "Starting"
        return f"{'Working' if self._current else 'Ready'} on {str(self._hello.get('device', '')).upper()}"

    def close(self) -> None:
        worker, self._worker = self._worker, None
        self._waiting.clear()
        if worker is None:
            return
        assert worker.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            worker.process.stdin.close()
        try:
            worker.process.wait(STOP_TIME)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()

    def _pump(self) -> None:
        """Start the child if there is work for it, and hand it the next job if it is idle."""
        if self._current is not None or not self._waiting:
            return
        if self._worker is None:
            self._worker = self._start()
        self._current = self._waiting.popleft()
        self._worker.send({"type": "run", "job": self._current.name, "folder": str(self._current)})

    def _start(self) -> _Worker:
        log = self._jobs / "worker.log"
        self._hello = None
        try:
            with log.open("wb") as errors:
                process = subprocess.Popen(
                    worker_command(self._python, self._options),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd=ROOT,
                    env=worker_environment(self._options.online),
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows would open a console
                )
        except OSError as error:
            reason = error.strerror or str(error)
            raise BackendError(
                f"{self._python} could not be started: {reason}.", "Choose a Python with torch in the preferences."
            ) from error
        worker = _Worker(process, log)
        threading.Thread(target=worker.listen, name="viewport-diffusion-reader", daemon=True).start()
        return worker

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get("type") == "hello":
            self._hello = message
            if message.get("protocol") != PROTOCOL:
                self._give_up("The backend is of another version.", "Install extension and backend together.")
                self.close()
            return
        try:
            event = Event.from_wire(message)
        except ValueError:
            return
        if self._current is None or event.job != self._current.name:
            return
        if event.is_last:
            self._current = None
            self._cancelled.pop(event.job, None)
            self._deaths = 0
        self._events.append(event)

    def _bury(self) -> None:
        """The child is dead: tell its job, and stop trying after too many deaths in a row."""
        worker, self._worker = self._worker, None
        assert worker is not None
        code = worker.process.wait()
        sentence, remedy = cause_of_death(code, worker.log)
        self._deaths += 1
        job, self._current = self._current, None
        if job is not None and job.name in self._cancelled:
            del self._cancelled[job.name]
            self._events.append(Event(job.name, "cancelled", message="Cancelled"))
        elif job is not None:
            self._events.append(Event(job.name, "failed", message=sentence, remedy=remedy))
        if self._deaths >= MAXIMUM_DEATHS:
            self._give_up(f"The backend died {self._deaths} times in a row. {sentence}", remedy)

    def _give_up(self, sentence: str, remedy: str) -> None:
        jobs = [*([self._current] if self._current else []), *self._waiting]
        self._current = None
        self._waiting.clear()
        self._events.extend(Event(job.name, "failed", message=sentence, remedy=remedy) for job in jobs)

    def _end_stubborn(self) -> None:
        if self._current is None or self._worker is None:
            return
        asked = self._cancelled.get(self._current.name)
        if asked is not None and time.monotonic() - asked > GRACE:
            self._worker.process.kill()


def worker_command(python: str, options: Options) -> list[str]:
    """Return the child's command: isolated from the user's own Python settings, unbuffered, writing no bytecode."""
    command = [python, "-E", "-s", "-B", "-u", "-m", "backend", "worker"]
    command += ["--device", options.device, "--precision", options.precision]
    return [*command, "--online"] if options.online else command


def worker_environment(online: bool) -> dict[str, str]:
    """Return the child's environment, without the settings of Blender's own Python."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "HF_HUB_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**environment, "HF_HUB_OFFLINE": "0" if online else "1"}


def cause_of_death(code: int, log: Path) -> tuple[str, str]:
    """Return a sentence and a remedy for a child that ended with that code, from its last words."""
    words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    last = words[-1].strip() if words else ""
    again = "Generate again: the backend starts anew."
    if code == -9 or code == 137:
        return f"{KILLED}, perhaps because the machine ran out of memory.", again
    for sign, sentence, remedy in CAUSES:
        for line in reversed(words[-20:]):
            if sign in line:
                return sentence.format(line=line.partition(": ")[2] or line), remedy
    if code < 0:
        return f"{KILLED} by signal {-code}.", again
    return f"The backend's process stopped (code {code}). {last}".strip(), f"{again} The whole story is in {log}."
