"""What an operation is handed besides its request, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import Cancelled
from ..imaging.pictures import flatten
from ..models.hub import ensure_fetched
from ..previews import Frame, Viewer
from ..request import Array
from ..settings import Diffusion, Settings

if TYPE_CHECKING:
    from ..models.load import Models
    from ..models.model import Model
    from ..models.previews import Previewer

NO_SEED = -1
ALMOST_DONE = 0.99  # progress says no more than this before the pictures are there


@dataclass(frozen=True, eq=False)
class Picture:
    """One finished picture: uint8 H×W×3 or H×W×4 sRGB, the settings that make it alone, more pairs of its infotext.

    name: what it is if it is no result of its own but comes along with the next one, such as "mask".
    """

    pixels: Array
    settings: Settings
    extras: Mapping[str, object] = field(default_factory=dict)
    name: str = ""

    @property
    def seed(self) -> int:
        """The seed that made it, or -1 where its operation has none."""
        return getattr(self.settings, "seed", NO_SEED)


@dataclass(frozen=True, eq=False)
class Output:
    """What an operation gives back: pictures, or a text about one; notice is a sentence for the artist."""

    pictures: list[Picture] = field(default_factory=list)
    text: str = ""
    notice: str = ""


class Keeper:
    """Takes finished pictures while others are still made, so that no end of the run loses them; this one forgets."""

    def keep(self, picture: Picture) -> None:
        """Take one more."""

    def keep_instead(self, pictures: Sequence[Picture], sentence: str) -> None:
        """Take pictures in the place of all before, and the sentence that tells the artist what they are."""


class Run:
    """One run of one operation: it reports how far it is, and stops within a fraction of a step once cancelled."""

    def __init__(
        self,
        models: Models,
        emit: Callable[[float, str], None],
        is_cancelled: Callable[[], bool],
        keeper: Keeper | None = None,
        viewer: Viewer | None = None,
        reference: Array | None = None,
    ) -> None:
        self.models = models
        self.reference = reference  # the picture (uint8 H×W×3 or 4) that an IP-Adapter goes by
        self._emit = emit
        self.is_cancelled = is_cancelled
        self.keeper = keeper or Keeper()
        self._viewer = viewer or Viewer()
        self._frame: Frame | None = None
        self._start, self._end = 0.0, 1.0
        self._progress = 0.0
        self._title = ""
        self.notices: list[str] = []

    def check(self) -> None:
        """Raise Cancelled if the artist has cancelled the job."""
        if self.is_cancelled():
            raise Cancelled

    def keep(self, picture: Picture) -> Picture:
        """Hand a finished picture over at once, and return it: whatever becomes of the rest, the artist has it."""
        self.keeper.keep(picture)
        return picture

    def model(self, settings: Diffusion) -> Model:
        """Return the settings' model, loaded, with their VAE, refiner and IP-Adapter, watching for this run's cancel.

        A model is no refiner of its own.
        """
        name, refiner = settings.model, settings.refiner
        model = self._loaded(name, lambda: self.models.get(name, settings.vae))
        if refiner in ("", name):
            self.models.drop_refiner()
        else:
            model.refiner = self._loaded(refiner, lambda: self.models.refiner(refiner))
        reference = None if self.reference is None else flatten(self.reference)
        model.use_ip_adapter(settings.ip_adapter, settings.ip_adapter_scale, reference)
        return model

    def _loaded(self, name: str, load: Callable[[], Model]) -> Model:
        if not self.models.is_loaded(name):
            ensure_fetched(name, self.models.options, lambda share, message: self.say(message), self.check)
            self.say(f"Loading {self.models.title(name)}")
        from ..models.watch import Watching

        with Watching(self.check):
            model = load()
        model.watch = self.check
        model.savings.tell = self.notice
        return model

    def notice(self, sentence: str) -> None:
        """Tell the artist a sentence now, and again when the pictures are there; the same one is told once."""
        if sentence not in self.notices:
            self.notices.append(sentence)
            self.say(sentence)

    def previewer(self, model: Model) -> Previewer | None:
        """Return what shows predictions of that model to whoever wants to see them, None where nobody does."""
        if not self._viewer.wanted.every:
            return None
        from ..models.previews import Previewer

        return Previewer(model, self._viewer, self._frame)

    @contextmanager
    def framed(self, frame: Frame) -> Iterator[None]:
        """Let what is predicted inside be seen in a frame of its own, such as the whole that it is a part of."""
        before, self._frame = self._frame, frame
        try:
            yield
        finally:
            self._frame = before

    def say(self, message: str) -> None:
        """Tell what is being done now."""
        self.check()
        self._emit(self._progress, f"{self._title}{message}")

    @contextmanager
    def part(self, index: int, count: int, title: str = "") -> Iterator[None]:
        """Make all that is reported inside part index of count equal ones, so that progress runs once over all.

        title: what that part is, such as "Picture 2 of 4", said before each message.
        """
        start, end, before = self._start, self._end, self._title
        self._start = start + (end - start) * index / count
        self._end = start + (end - start) * (index + 1) / count
        self._title = f"{before}{title}: " if title and count > 1 else before
        try:
            yield
        finally:
            self._start, self._end, self._title = start, end, before

    def count(self, done: int, total: int) -> None:
        """Report that many model calls done; the last share is kept for what follows them."""
        self.share(done / (total + 1), f"Step {done} of {total}")

    def share(self, done: float, message: str = "Enlarging") -> None:
        """Report that share (0–1) of the work done."""
        self.check()
        self._progress = min(ALMOST_DONE, max(self._progress, self._start + (self._end - self._start) * done))
        self._emit(self._progress, f"{self._title}{message}")
