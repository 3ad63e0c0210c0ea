"""What a model goes without so that its memory suffices: planned before a picture, and more where it runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from ..errors import OutOfMemory
from .memory import free_caches, free_memory, give_back, in_words, memory_for_models
from .needs import ALL_AT_ONCE, MODES, Anatomy, Job, MemoryPlan, bytes_needed, plan_memory

if TYPE_CHECKING:
    from .placement import Placement

NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # Linux, Windows, MPS
REMEDY = "Choose a smaller size or a smaller batch, or close other programs."
TRY = "Choose a smaller size or a smaller batch; or set Memory to Low in the preferences, to try all the same."

Result = TypeVar("Result")

# The ladder: what is given up where memory runs out, the cheapest first, and what the artist is told.
CACHES, TILES, *_ = RUNGS = ("caches", "tiles", *MODES[1:])
SAID = {
    CACHES: "Memory ran out: what was kept for later pictures was let go.",
    TILES: "Memory ran out: the picture goes through the VAE in tiles.",
    "medium": "Memory ran out: the model's parts take turns (Medium).",
    "low": "Memory ran out: the model's blocks take turns (Low), which is slow.",
}


class Savings:
    """How one model gets along with the memory that there is.

    wanted: the mode of Options. anatomy: None where it isn't known. tell: is given a sentence for each thing that is
    given up; a run sets it.
    """

    def __init__(self, placement: Placement, anatomy: Anatomy | None, wanted: str) -> None:
        self.placement = placement
        self.tiled = False
        self.tell: Callable[[str], None] = lambda sentence: None
        self.forget: Callable[[], None] = lambda: None  # drops what the model keeps for later
        self._anatomy = anatomy
        self._wanted = wanted
        self._job: Job | None = None
        self._learnt: set[str] = set()  # rungs that were needed, though the plan didn't say so

    @property
    def one_at_a_time(self) -> bool:
        """Whether the denoiser looks at one sample at a time."""
        return self.placement.mode == "low"

    def is_tiled(self, pixels: int) -> bool:
        """Return whether a picture of that many pixels goes through the VAE in tiles."""
        return pixels > ALL_AT_ONCE or self.tiled

    def prepare(self, job: Job) -> None:
        """Plan for a picture and do what the plan says.

        Raises OutOfMemory where no way of making it fits into what is free, on a processor, whose system would end the
        process; not where the artist has chosen the mode.
        """
        self._job = job
        if self._anatomy is None:
            self._apply(MemoryPlan("full" if self._wanted == "automatic" else self._wanted, False, 0, 0))
            return
        plan = plan_memory(self._anatomy, job, memory_for_models(self.placement.device, self.held()), self._wanted)
        require_possible(plan, self.placement.device, self._wanted, self.held())
        self._apply(plan)

    def attempt(self, doing: str, part: str, work: Callable[[], Result]) -> Result:
        """Return what work() gives with a part of the model; where memory runs out, save more, tell, and do it again.

        doing: what that is, in words. Only this piece of work is done again. Raises OutOfMemory with numbers where
        nothing is left to save.
        """
        while True:
            try:
                self.placement.use(part)
                return work()
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
            # Outside of the handler: what the failed work held is let go with its traceback.
            if not self._save_more():
                raise self._not_enough(doing)

    def _save_more(self) -> bool:
        """Go down one rung of the ladder, and return whether there was one."""
        modes = MODES.index(self.placement.mode)
        over = {CACHES: CACHES in self._learnt, TILES: self.tiled, "medium": modes >= 1, "low": modes >= 2}
        rung = next((rung for rung in RUNGS if not over[rung]), None)
        if rung is None:
            self._learnt.discard(CACHES)  # what other pictures keep may be let go the next time
            return False
        self.forget()
        free_caches()
        if rung == TILES:
            self.tiled = True
        elif rung in MODES:
            self.placement.change(rung)
        self._learnt.add(rung)
        give_back(self.placement.device)
        self.tell(SAID[rung])
        return True

    def _apply(self, plan: MemoryPlan) -> None:
        self._learnt.discard(CACHES)
        self.tiled = plan.tiled or TILES in self._learnt
        learnt = max((MODES.index(rung) for rung in self._learnt if rung in MODES), default=0)
        mode = MODES[max(learnt, MODES.index(plan.mode))]
        if mode != self.placement.mode:
            self.placement.change(mode)
            give_back(self.placement.device)

    def held(self) -> int:
        """Return the bytes that the weights take where they are used."""
        return self.placement.held()

    def _not_enough(self, doing: str) -> OutOfMemory:
        """Return the error that says how much is needed and how much there is."""
        sentence, there = f"There is not enough memory to {doing}", free_memory(self.placement.device) + self.held()
        if self._anatomy is not None and self._job is not None:
            least = bytes_needed(self._anatomy, self._job, "low", self.tiled or self._job.is_large)
            sentence += f": at least {in_words(least)} are needed"
            sentence += f", {in_words(there)} are free" if there else ""
        return OutOfMemory(f"{sentence}.", REMEDY)


def require_possible(plan: MemoryPlan, device: str, wanted: str, held: int = 0) -> None:
    """Raise OutOfMemory where a plan needs more than a processor has left: its system would end the process.

    held: bytes that weights take already.

    Not where the artist has chosen the mode, nor on a card, which says so itself.
    """
    if wanted != "automatic" or device != "cpu" or plan.fits:
        return
    there = free_memory(device) + held
    if plan.bytes > there:
        raise OutOfMemory(
            f"There is not enough memory to make the picture: about {in_words(plan.bytes)} are needed, "
            f"{in_words(there)} are free.",
            TRY,
        )


def ran_out(error: Exception) -> bool:
    """Return whether an error says that there was no memory left."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in NO_MEMORY)
