"""The table of docs/faults.md: what came of the faults that tools/faults.py runs."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field

ORPHAN_LIMIT = 2.0  # seconds in which a worker must follow its parent


@dataclass
class Kills:
    """What came of killing the worker at one moment, many times."""

    tried: int = 0
    lost: int = 0  # jobs that neither ended nor were offered again
    twice: int = 0  # jobs that were begun twice without being resumed
    hangs: int = 0
    told: list[float] = field(default_factory=list)  # seconds until the panel knows
    back: list[float] = field(default_factory=list)  # seconds until the next job runs


@dataclass
class Cancels:
    """What came of cancelling at one moment, in seconds."""

    tried: int = 0
    finished: int = 0  # the picture was there before the cancel was
    wrong: int = 0  # neither cancelled nor finished, or the next job did not finish
    told: list[float] = field(default_factory=list)
    free: list[float] = field(default_factory=list)  # until the worker began the next job


@dataclass
class Found:
    """All that came of one run."""

    kills: dict[str, Kills]
    call: float  # seconds of one model call
    cancels: dict[str, Cancels]
    orphans: dict[str, list[float]]  # seconds that workers outlived their parents
    words: dict[str, str]  # what is said about what is broken

    def is_bad(self) -> bool:
        """Whether anything was lost, hung, stayed or went untold."""
        lost = any(kill.lost or kill.twice or kill.hangs for kill in self.kills.values())
        wrong = any(stop.wrong for stop in self.cancels.values())
        late = any(lived > ORPHAN_LIMIT for times in self.orphans.values() for lived in times)
        return lost or wrong or late or any("HANG" in said or "NOT TOLD" in said for said in self.words.values())


def machine() -> str:
    """Return in a line what this was measured on."""
    import torch

    cores = os.cpu_count()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    threads = f"{os.environ.get('OMP_NUM_THREADS', cores)} of them used"
    return f"{platform.system()} {platform.machine()}, {cores} cores ({threads}), {versions}"


def seconds(values: list[float]) -> str:
    """Return median and worst of a list."""
    return f"{statistics.median(values):.2f} / {max(values):.2f}" if values else "–"


def table(found: Found, work: str, times: int) -> str:
    """Return the page as Markdown."""
    return "\n".join(
        [
            "# What happens when things break",
            "",
            f"Written by `python tools/faults.py --times {times}`, which does it all for real:",
            f"{machine()}; the embedded model at {work}. Seconds are median / worst.",
            *killed(found.kills),
            *cancelled(found.cancels, found.call),
            *orphaned(found.orphans),
            "",
            "## What is said",
            "",
            "| broken | sentence |",
            "|---|---|",
            *(f"| {name} | {said} |" for name, said in found.words.items()),
            "",
        ]
    )


def killed(kills: dict[str, Kills]) -> list[str]:
    """Return the lines on killed workers."""
    return [
        "",
        "## The worker is killed (`kill -9`) with a second job waiting",
        "",
        "A job that had begun is told as failed and offered again; one that had not runs as if nothing had happened.",
        "Lost: neither ended nor offered, or not finished once resumed. Back: the first job of the new worker begins.",
        "",
        "| at | times | jobs lost | run twice | hangs | seconds until noticed | seconds until back |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {kill.tried} | {kill.lost} | {kill.twice} | {kill.hangs} | {seconds(kill.told)} "
            f"| {seconds(kill.back)} |"
            for name, kill in kills.items()
        ),
    ]


def cancelled(cancels: dict[str, Cancels], call: float) -> list[str]:
    """Return the lines on cancelled jobs."""
    return [
        "",
        "## A job is cancelled",
        "",
        f"One model call takes {call:.3f} s here. Told: the job is over for the artist, who doesn't wait for what",
        "can't be stopped. Free: the worker began the next job.",
        "",
        "| when it says | times | finished first | wrong | seconds until told | seconds until free | in calls |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {stop.tried} | {stop.finished} | {stop.wrong} | {seconds(stop.told)} | {seconds(stop.free)} "
            f"| {seconds([free / call for free in stop.free])} |"
            for name, stop in cancels.items()
        ),
    ]


def orphaned(orphans: dict[str, list[float]]) -> list[str]:
    """Return the lines on killed parents."""
    return [
        "",
        "## The parent is killed (`kill -9`)",
        "",
        f"| worker at | times | alive after {ORPHAN_LIMIT:.0f} s | seconds until gone |",
        "|---|---|---|---|",
        *(
            f"| {name} | {len(times)} | {sum(lived > ORPHAN_LIMIT for lived in times)} | {seconds(times)} |"
            for name, times in orphans.items()
        ),
    ]
