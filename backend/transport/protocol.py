"""What both ways to an engine have in common: the contract, and the words that pass between parent and worker.

Lines of JSON, one object a line. To the worker:
    {"type": "run", "job": ID, "folder": PATH}     run the job of that folder
    {"type": "cancel", "job": ID}                  stop that job as soon as can be
    end of input                                   the parent is gone: leave at once
From the worker:
    {"type": "hello", "protocol": 1, ...}          once, first: versions, device, memory
    {"type": "event", "job": ID, ...}              an Event
"""

from __future__ import annotations

from typing import Protocol

from ..events import Event
from ..request import Request

PROTOCOL = 1


class Backend(Protocol):
    """Where requests go. No method blocks; pictures and errors come back as events."""

    def submit(self, request: Request) -> str:
        """Queue a request and return its job's id; raises DiffusionError where it can't even be tried."""

    def poll(self) -> list[Event]:
        """Return what happened since the last call."""

    def cancel(self, job: str) -> None:
        """Ask a job to stop; its "cancelled" event follows unless it finished first."""

    def state(self) -> str:
        """Return in one short sentence how the backend is."""

    def close(self) -> None:
        """Stop everything and leave nothing running."""
