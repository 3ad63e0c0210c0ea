"""What a backend says about its jobs: one small tuple, always with the job's id, that travels as a line of JSON."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

Kind = Literal["queued", "started", "progress", "picture", "finished", "failed", "cancelled", "applied"]
KINDS = get_args(Kind)
FINISHED = "Finished"  # the message of a picture that there is nothing more to say about
LAST_KINDS = ("finished", "failed", "cancelled")  # a job says one of these, once, and nothing after it


class Result(NamedTuple):
    """One finished picture: its PNG in the job's folder, the seed that made it, its infotext.

    name: what it is if it only comes along with the next one, such as "mask".
    """

    path: str
    seed: int
    infotext: str
    name: str = ""


class Event(NamedTuple):
    """One step in a job's life.

    progress: 0–1, the share of model calls done; 1 only once the picture is there. message: what is being done, or on
    failure the sentence for the artist, with its remedy. results: the job's pictures; of one that was cancelled or
    failed those that were finished before; a "picture" event announces each as soon as it is there, though a later one
    such as a grid may take its place. text: what an operation that reads a picture says of it.
    seconds: wall time of the finished job. preview: how many there were so far; the last is in the job's folder.
    "applied" stands in a job's log only: its pictures have been taken in.
    """

    job: str
    kind: Kind
    progress: float = 0.0
    message: str = ""
    remedy: str = ""
    results: tuple[Result, ...] = ()
    text: str = ""
    seconds: float = 0.0
    preview: int = 0

    @property
    def is_last(self) -> bool:
        """Whether the job is over."""
        return self.kind in LAST_KINDS

    def to_wire(self) -> dict[str, Any]:
        """Return the event as the object of one line of JSON."""
        return {"type": "event", **self._asdict(), "results": [result._asdict() for result in self.results]}

    @classmethod
    def from_wire(cls, line: dict[str, Any]) -> Event:
        """Return the event of one line; raises ValueError for anything that to_wire() didn't write."""
        fields = {name: line[name] for name in cls._fields if name in line}
        try:
            results = tuple(
                Result(str(r["path"]), int(r["seed"]), str(r["infotext"]), str(r.get("name", "")))
                for r in fields.pop("results", ())
            )
            event = cls(**fields, results=results)
            numbers = 0 <= event.progress <= 1 and 0 <= event.seconds < math.inf and 0 <= event.preview < math.inf
        except (TypeError, KeyError, OverflowError) as error:
            raise ValueError(f"not an event: {error!r}") from error
        texts = (event.job, event.message, event.remedy, event.text)
        if event.kind not in KINDS or not numbers or not all(isinstance(text, str) for text in texts):
            raise ValueError("not an event")
        return event


def cancelled_event(job: str, results: tuple[Result, ...] = (), kept: str = "") -> Event:
    """Return the event of a job that was cancelled, with the pictures that were finished before.

    kept: the sentence on those pictures, where their number doesn't say it.
    """
    return Event(job, "cancelled", message=". ".join(["Cancelled", *_kept(results, kept)]), results=results)


def failed_event(job: str, sentence: str, remedy: str = "", results: tuple[Result, ...] = (), kept: str = "") -> Event:
    """Return the event of a job that failed, with the pictures that were finished before; kept: as for a cancel."""
    return Event(job, "failed", message=" ".join([sentence, *_kept(results, kept)]), remedy=remedy, results=results)


def _kept(results: tuple[Result, ...], sentence: str) -> list[str]:
    """Return the sentence that tells how many pictures are kept, none where none is."""
    if sentence or not results:
        return [sentence] if sentence else []
    count = sum(1 for result in results if not result.name)
    return [f"{count} finished pictures are kept." if count != 1 else "1 finished picture is kept."]
