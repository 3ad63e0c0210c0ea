"""Checkpoints that a stop cannot spoil, averaged weights, and the log of figures."""

from __future__ import annotations

import copy
import csv
import logging
import signal
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from backend.models.load import choose_precision

logger = logging.getLogger(__name__)

# Where a processor has no instructions for bfloat16, autocast to it takes ten times as long as float32.
PRECISION = choose_precision("automatic", "cpu")
QUICK_BFLOAT16 = PRECISION is torch.bfloat16


class Keeper(Protocol):
    """What has a state to store, such as an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """Return it."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take it up again."""


Network = TypeVar("Network", bound=nn.Module)


class Averaged(Generic[Network]):
    """The moving average of a module's weights, quick at first and slow later."""

    def __init__(self, module: Network, decay: float) -> None:
        self.module, self.decay = copy.deepcopy(module).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move a little towards the module's weights."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), share)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the old one stays until the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint, or return None where there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=False)
    return state


def trained(cache: Path, stage: str) -> dict[str, Any]:
    """Return the checkpoint of a stage that has to come before."""
    stored = load(cache / f"{stage}.pt")
    if stored is None:
        raise FileNotFoundError(f"Train the {stage} first: python -m training {stage}")
    return stored


def replace_trained(cache: Path, stage: str, stored: dict[str, Any], parts: dict[str, Any]) -> Path:
    """Write a stage's checkpoint with other parts; return where the one before is kept, beside it as STAGE_STEP.pt."""
    kept = cache / f"{stage}_{stored['step']}.pt"
    (cache / f"{stage}.pt").replace(kept)
    save(cache / f"{stage}.pt", stored | parts)
    return kept


def paced(seconds: float, warm: int) -> Iterator[tuple[int, float]]:
    """Yield steps, from 1, for so many seconds, each with its share of a rate.

    The share rises over the first `warm` steps and falls to nothing in the last third of the time.
    """
    began, step = time.monotonic(), 0
    while (spent := time.monotonic() - began) < seconds:
        step += 1
        yield step, min(1.0, step / warm, 3 * (1 - spent / seconds))


class Stretch:
    """One stretch of a training that goes on over many: its clock, its checkpoints and its end.

    The training state is `model`, `average`, `optimiser` and what learns `beside`; the random numbers start anew from
    (seed, step), so a stretch resumed at a step draws what it would have drawn.
    """

    def __init__(
        self,
        path: Path,
        model: nn.Module,
        average: Averaged[Any],
        optimiser: Keeper,
        seconds: float,
        every: float = 240,
        beside: nn.Module | None = None,
    ) -> None:
        self.path, self.model, self.average, self.optimiser = path, model, average, optimiser
        self.beside = beside or nn.Identity()
        self.seconds, self.every = seconds, every
        self.step, self.samples, self.spent = 0, 0, 0.0
        self.stopped = False
        self._began = self._saved = time.monotonic()
        stored = load(path)
        if stored is not None:
            model.load_state_dict(stored["model"])
            average.module.load_state_dict(stored["average"])
            optimiser.load_state_dict(stored["optimiser"])
            self.beside.load_state_dict(stored["beside"])
            self.step, self.samples, self.spent = stored["step"], stored["samples"], stored["spent"]
        self.begun = self.step

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True

    @property
    def elapsed(self) -> float:
        """Seconds of training in all, earlier stretches included."""
        return self.spent + time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds left of this stretch."""
        return max(0.0, self.seconds - (time.monotonic() - self._began))

    def pace(self, warm: int) -> float:
        """Return the share of a rate that rises over the first steps and falls to nothing until the end."""
        return min(1.0, (self.step - self.begun + 1) / warm, self.left / self.seconds)

    def rng(self, seed: int) -> np.random.Generator:
        """Return the generator of this step, and seed torch alike."""
        torch.manual_seed(seed * 1_000_003 + self.step)
        return np.random.default_rng((seed, self.step))

    def store(self) -> None:
        """Write the checkpoint now."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "beside": self.beside.state_dict(),
            "step": self.step,
            "samples": self.samples,
            "spent": self.elapsed,
        }
        save(self.path, state)
        self._saved = time.monotonic()

    def steps(self) -> Iterator[bool]:
        """Yield before every step whether to measure now; save as time passes, and at the end or on SIGTERM."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        while not self.stopped and self.left > 0:
            due = time.monotonic() - self._saved > self.every
            yield due
            self.step += 1
            if due:
                self.store()
        self.store()


def smoothed(old: float, new: torch.Tensor, share: float = 0.02) -> float:
    """Return a running mean of a loss, moved a share of the way to its newest value; the first is taken as it is."""
    value = float(new.detach())
    return (1 - share) * old + share * value if old else value


class Log:
    """Figures of one stage in a CSV file; rows from before a column came leave it empty."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def rows(self) -> list[dict[str, str]]:
        """Return what has been written."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def write(self, row: dict[str, Any]) -> None:
        """Add one row, and say it."""
        rows = [*self.rows(), {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()}]
        columns = list(dict.fromkeys(chain.from_iterable(rows)))
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.path)
        logger.info(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
