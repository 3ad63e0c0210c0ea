"""What an operation is handed besides its request: models, the seed, and its voice and ear to the job."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..errors import Cancelled
from ..request import Array

if TYPE_CHECKING:
    from ..models.load import Models
    from ..models.model import Model


class Picture(NamedTuple):
    """One finished picture (uint8 H×W×3 or H×W×4 sRGB) and the seed that made it."""

    pixels: Array
    seed: int


class Run:
    """One run of one operation: it reports how far it is, and stops within a fraction of a step once cancelled."""

    def __init__(
        self, models: Models, seed: int, emit: Callable[[float, str], None], is_cancelled: Callable[[], bool]
    ) -> None:
        self.models = models
        self.seed = seed
        self._emit = emit
        self.is_cancelled = is_cancelled
        self._part, self._parts = 0, 1
        self._progress = 0.0

    def check(self) -> None:
        """Raise Cancelled if the artist has cancelled the job."""
        if self.is_cancelled():
            raise Cancelled

    def model(self, name: str) -> Model:
        """Return the model of that name, loaded, watching for this run's cancel."""
        if not self.models.is_loaded(name):
            self.say(f"Loading {self.models.title(name)}")
        model = self.models.get(name)
        model.watch = self.check
        return model

    def say(self, message: str) -> None:
        """Tell what is being done now."""
        self.check()
        self._emit(self._progress, message)

    def part(self, index: int, count: int) -> None:
        """Say that the next steps are part index of count equal ones, so that progress runs once over all of them."""
        self._part, self._parts = index, count

    def count(self, done: int, total: int) -> None:
        """Report that many model calls done; the last share is kept for what follows them."""
        self.check()
        self._progress = (self._part + done / (total + 1)) / self._parts
        self._emit(self._progress, f"Step {done} of {total}")

    def share(self, done: float) -> None:
        """Report that share (0–1) of work that isn't counted in model calls."""
        self.check()
        self._progress = min(0.99, (self._part + done) / self._parts)
        self._emit(self._progress, "Enlarging")
