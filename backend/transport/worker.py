"""The child process: reads lines of JSON, runs jobs, writes events; it leaves when its parent does."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import IO, Any

from ..engine import Engine
from ..errors import DiffusionError
from ..events import Event
from ..job import run_job
from ..models.load import Options, choose_device, quiet_libraries
from .protocol import PROTOCOL


def main(options: Options) -> int:
    """Serve the parent on standard input and output until it closes them."""
    wire = _claim_standard_output()
    quiet_libraries(options.online)
    engine = Engine(options)
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()
    cancelled: set[str] = set()
    threading.Thread(target=_listen, args=(_claim_standard_input(), waiting, cancelled), daemon=True).start()
    _send(wire, _hello(options))

    def emit(event: Event) -> None:
        _send(wire, event.to_wire())

    while True:
        message = waiting.get()
        job = str(message["job"])
        if job in cancelled:
            emit(Event(job, "cancelled", message="Cancelled"))
        else:
            run_job(engine, Path(message["folder"]), emit, lambda job=job: job in cancelled)  # type: ignore[misc]


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


def _send(wire: IO[str], message: dict[str, Any]) -> None:
    try:
        wire.write(json.dumps(message) + "\n")
        wire.flush()
    except OSError:
        os._exit(0)  # the parent is gone


def _listen(orders: IO[str], waiting: queue.Queue[dict[str, Any]], cancelled: set[str]) -> None:
    for line in orders:
        try:
            message = json.loads(line)
            kind, job = message["type"], str(message["job"])
        except (json.JSONDecodeError, KeyError, TypeError, RecursionError):
            print(f"not understood: {line[:200]!r}", file=sys.stderr)
            continue
        if kind == "run" and isinstance(message.get("folder"), str):
            waiting.put(message)
        elif kind == "cancel":
            cancelled.add(job)
    os._exit(0)  # end of input: the parent died or closed us, whatever runs now has nobody to go to


def _hello(options: Options) -> dict[str, Any]:
    import torch

    try:
        device = choose_device(options.device)
    except DiffusionError:
        device = options.device  # the first job says what is wrong with it
    total = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else _system_memory()
    return {
        "type": "hello",
        "protocol": PROTOCOL,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "device": device,
        "memory": total,
    }


def _system_memory() -> int:
    """Return the machine's memory in bytes, 0 where it can't be told."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
