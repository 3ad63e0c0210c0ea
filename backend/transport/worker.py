"""The child process: reads lines of JSON, runs jobs, writes events and beats; it leaves when its parent does."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from ..engine import Engine
from ..errors import DiffusionError
from ..events import Event
from ..job import run_job
from ..models.load import Options, choose_device, quiet_libraries
from .memory import free_models, held_memory, system_memory
from .protocol import BEAT, PROTOCOL


class Wire:
    """The way to the parent: lines of JSON, whole ones whichever thread writes; the process ends where it is cut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file = _claim_standard_output()

    def send(self, message: dict[str, Any]) -> None:
        """Write one line."""
        try:
            with self._lock:
                self._file.write(json.dumps(message) + "\n")
                self._file.flush()
        except OSError:
            os._exit(0)  # the parent is gone


class Worker:
    """What the threads of the process share."""

    def __init__(self, options: Options) -> None:
        self.wire = Wire()
        self.orders = _claim_standard_input()
        self.options = options
        self.waiting: queue.Queue[dict[str, Any]] = queue.Queue()
        self.cancelled: set[str] = set()
        self.job = ""  # the running one
        self.device = ""  # known once torch is there

    def serve(self) -> None:
        """Greet, and run job after job; when there is none for as long as the last one said, free the models."""
        for thread in (self.listen, self.beat):  # first of all: to import torch and to load take long
            threading.Thread(target=thread, daemon=True).start()
        quiet_libraries(self.options.online)
        engine = Engine(self.options)
        hello = greeting(self.options)
        self.device = str(hello["device"])
        self.wire.send(hello)
        idle: float | None = None
        while True:
            try:
                message = self.waiting.get(timeout=idle)
            except queue.Empty:
                message = {"type": "free"}
            if message["type"] == "free":
                free_models(engine)
                idle = None
            else:
                self.run(engine, message)
                idle = float(message.get("idle") or 0) or None

    def run(self, engine: Engine, message: dict[str, Any]) -> None:
        """Run one job unless it was cancelled while it waited."""
        job = str(message["job"])
        self.job = job

        def emit(event: Event) -> None:
            self.wire.send(event.to_wire())

        if job in self.cancelled:
            emit(Event(job, "cancelled", message="Cancelled"))
        else:
            run_job(engine, Path(message["folder"]), emit, lambda: job in self.cancelled)
        self.job = ""
        self.cancelled.discard(job)

    def listen(self) -> None:
        """Take in the parent's lines until they end."""
        for line in self.orders:
            try:
                message = json.loads(line)
                kind, job = message["type"], str(message["job"])
            except (json.JSONDecodeError, KeyError, TypeError, RecursionError):
                print(f"not understood: {line[:200]!r}", file=sys.stderr)
                continue
            if kind == "free" or (kind == "run" and isinstance(message.get("folder"), str)):
                self.waiting.put(message)
            elif kind == "cancel":
                self.cancelled.add(job)
        os._exit(0)  # end of input: the parent died or closed us, whatever runs now has nobody to go to

    def beat(self) -> None:
        """Show each second that the process lives, however long a step takes."""
        while True:
            held = held_memory(self.device) if self.device else 0
            self.wire.send({"type": "beat", "job": self.job, "held": held})
            time.sleep(BEAT)


def main(options: Options) -> int:
    """Serve the parent on standard input and output until it closes them."""
    Worker(options).serve()
    return 0


def greeting(options: Options) -> dict[str, Any]:
    """Return the hello: versions, device, and its memory in bytes."""
    import torch

    try:
        device = choose_device(options.device)
    except DiffusionError:
        device = options.device  # the first job says what is wrong with it
    on_card = device.startswith("cuda") and torch.cuda.is_available()
    return {
        "type": "hello",
        "job": "",
        "protocol": PROTOCOL,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "device": device,
        "memory": torch.cuda.get_device_properties(0).total_memory if on_card else system_memory(),
    }


def _claim_standard_output() -> IO[str]:
    """Keep a copy of descriptor 1 for the wire, and point 1 at 2, so that no library can write into the wire."""
    sys.stdout.flush()
    wire = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    return wire


def _claim_standard_input() -> IO[str]:
    """Keep a copy of descriptor 0 for the orders, and close 0 to all others: on Windows imports can hang on it."""
    orders = os.fdopen(os.dup(0), encoding="utf-8", errors="replace")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return orders
