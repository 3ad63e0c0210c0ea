"""What both ways to an engine have in common: the contract, and the words that pass between parent and worker.

Lines of JSON, one object a line, each with the id of the job that it is about, "" for none. To the worker:
    {"type": "run", "job": ID, "folder": PATH, "idle": SECONDS, "previews": {…}}
                                                                  run that folder's job, free the models so long after
    {"type": "cancel", "job": ID}                                 stop that job as soon as can be
    {"type": "free", "job": ""}                                   free the models, once no job runs
    end of input                                                  the parent is gone: leave at once
From the worker:
    {"type": "hello", "job": "", "protocol": 3, …}                once, first of all but beats: versions, device, memory
    {"type": "beat", "job": ID, "held": BYTES, "room": BYTES}     each second, whatever else goes on, and before a job's
                                                                  last event: what the process holds, and what models
                                                                  may take (0: unknown)
    {"type": "event", "job": ID, …}                               an Event
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..events import Event
from ..previews import Previews
from ..queue import JobQueue
from ..request import Request

PROTOCOL = 3
BEAT = 1.0  # seconds between two beats
IDLE = 300.0  # seconds without work after which the models are freed, where nothing else is wished


class Backend(Protocol):
    """Where requests go. No method blocks; pictures and errors come back as events.

    queue: the jobs that wait. idle: seconds without work after which the models are freed, 0 for never. previews: how
    the picture so far is to be seen in the folder of a job that begins from now on. retiring: whether to begin no
    further job, because another backend is to take the queue over.
    """

    queue: JobQueue
    idle: float
    previews: Previews
    retiring: bool

    def submit(self, request: Request, note: Mapping[str, str] | None = None) -> str:
        """Queue a request and return its job's id; raises DiffusionError where it can't even be tried."""

    def resume(self, job: str) -> None:
        """Queue a job that was left behind; raises DiffusionError where it can't be had, or can't even be tried."""

    def poll(self) -> list[Event]:
        """Return what happened since the last call."""

    def cancel(self, job: str) -> None:
        """Ask a job to stop; its "cancelled" event follows unless it finished first."""

    def rests(self) -> bool:
        """Whether nothing is being made or loaded."""

    def give_up(self, sentence: str, remedy: str) -> None:
        """Tell of every job that it can't go on, and why; each is left in its folder, to be resumed."""

    def free(self) -> bool:
        """Have the models freed, and return whether that was asked for: not while a job runs."""

    def device(self) -> str:
        """Return the device that the models run on, "" where it isn't known yet."""

    def room(self) -> int:
        """Return the bytes that models may take on that device, those of the loaded one included; 0 if unknown."""

    def state(self) -> str:
        """Return in one short sentence how the backend is."""

    def close(self) -> None:
        """Stop everything and leave nothing running; what waits or runs stays in its folder, to be resumed.

        The queue ends with it, but for one that is retiring.
        """
