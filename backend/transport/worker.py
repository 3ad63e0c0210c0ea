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
from ..events import Event, cancelled_event
from ..job import run_job
from ..models.load import Options, choose_device, quiet_libraries
from ..models.memory import memory_for_models
from ..previews import Previews
from ..processes import parse_line
from ..queue import JOB
from .memory import free_models, held_memory, system_memory
from .protocol import BEAT, PROTOCOL

LONGEST_IDLE = 1e6  # seconds; a thread can't be told to wait for much longer


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
        self.engine: Engine | None = None

    def serve(self) -> None:
        """Greet, and run job after job; when there is none for as long as the last one said, free the models."""
        for thread in (self.listen, self.beat):  # first of all: to import torch and to load take long
            threading.Thread(target=thread, daemon=True).start()
        quiet_libraries(self.options.online)
        engine = self.engine = Engine(self.options)
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
                idle = message["idle"] or None

    def run(self, engine: Engine, message: dict[str, Any]) -> None:
        """Run one job unless it was cancelled while it waited.

        Its last event waits until what the job held is let go, behind a beat that says how much is free again.
        """
        job = message["job"]
        self.job = job
        last: list[Event] = []

        def emit(event: Event) -> None:
            if event.is_last:
                last.append(event)
            else:
                self.wire.send(event.to_wire())

        if job in self.cancelled:
            emit(cancelled_event(job))
        else:
            run_job(engine, Path(message["folder"]), emit, lambda: job in self.cancelled, message["previews"])
        self.job = ""
        self.cancelled.discard(job)
        self.show_life()
        for event in last:
            self.wire.send(event.to_wire())

    def listen(self) -> None:
        """Take in the parent's lines until they end."""
        for line in self.orders:
            order = read_order(line)
            if order is None:
                print(f"not understood: {line[:200]!r}", file=sys.stderr)
            elif order["type"] == "cancel":
                self.cancelled.add(order["job"])
            else:
                self.waiting.put(order)
        os._exit(0)  # end of input: the parent died or closed us, whatever runs now has nobody to go to

    def beat(self) -> None:
        """Show each second that the process lives, however long a step takes."""
        while True:
            self.show_life()
            time.sleep(BEAT)

    def show_life(self) -> None:
        """Send a beat."""
        device, engine = self.device, self.engine
        held = held_memory(device) if device else 0
        room = memory_for_models(device, engine.models.held()) if device and engine is not None else 0
        self.wire.send({"type": "beat", "job": self.job, "held": held, "room": room})


def read_order(line: str) -> dict[str, Any] | None:
    """Return what the parent wants, None for a line that is no order.

    Of type "run" it has the job, the job's absolute folder, idle, the seconds after which to free the models (0 for
    never), and the previews; of type "cancel" the job; of type "free" nothing else.
    """
    message = parse_line(line) or {}
    kind, job, folder, idle = (message.get(name) for name in ("type", "job", "folder", "idle"))
    if kind == "free":
        return {"type": kind}
    if not isinstance(job, str) or not JOB.fullmatch(job):
        return None
    if kind == "cancel":
        return {"type": kind, "job": job}
    if kind != "run" or not isinstance(folder, str) or "\0" in folder:
        return None
    if not Path(folder).is_absolute() or Path(folder).name != job:
        return None  # nothing is ever written anywhere else
    known = isinstance(idle, (int, float)) and 0 <= idle <= LONGEST_IDLE
    previews = Previews.from_wire(message.get("previews"))
    return {"type": kind, "job": job, "folder": folder, "idle": idle if known else 0, "previews": previews}


def main(options: Options) -> int:
    """Serve the parent on standard input and output until it closes them."""
    Worker(options).serve()
    return 0


def greeting(options: Options) -> dict[str, Any]:
    """Return the hello: versions, device ("" where there is no such one), and its memory in bytes."""
    import torch

    try:
        device = choose_device(options.device)
    except DiffusionError:
        device = ""  # the first job says what is wrong with it
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
