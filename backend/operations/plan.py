"""What a picture will cost before it is made: how many steps run, and at which size; pure arithmetic."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..imaging.tiles import plan_tiles
from ..models.samplers import SAMPLERS, settled_sampler
from ..settings import SIDE_STEP, Denoising

GREATEST_STRENGTH = 0.999  # the web UI's cap on the strength that the steps are counted from
LONGEST_SCHEDULE = 1000  # steps; a model has no more noise levels than this

# A model trained at one size draws doubled limbs far above it and blurs far below it; inside this range of linear
# scale it is asked for the canvas as it is.
SMALLEST_SCALE, GREATEST_SCALE = 0.75, 1.6
OVERLAPPED = 8  # the part of a tile's side that it shares with its neighbour when a large canvas is refined
REFINED = 0.2  # denoising strength at which it is: sharpens, and invents nothing; SD Upscale's default


class StepPlan(NamedTuple):
    """A schedule's length and how many of its last steps run."""

    schedule: int
    executed: int

    @property
    def strength(self) -> float:
        """What makes a diffusers pipeline, which floors schedule × strength, run exactly the executed steps."""
        return min(1.0, (self.executed + 1e-6) / self.schedule)


def plan_steps(
    steps: int, denoising_strength: float, exactly: bool = False, longest: int = LONGEST_SCHEDULE
) -> StepPlan:
    """Return the schedule and the steps run for a denoising strength in 0–1, as the web UI counts them.

    Normally floor(d′·S) + 1 of S steps run, with d′ = min(d, 0.999); exactly: S steps of a schedule of floor(S/d′).
    A strength too low for its steps lengthens the schedule to at most `longest`, which a sampler may set lower than
    the model's 1000 noise levels, and runs at least one step.
    """
    strength = min(denoising_strength, GREATEST_STRENGTH)
    steps = min(steps, longest)
    if not exactly:
        return StepPlan(steps, min(steps, math.floor(strength * steps) + 1))
    schedule = longest if strength * longest <= steps else math.floor(steps / strength)
    return StepPlan(schedule, min(steps, schedule))


class Size(NamedTuple):
    """A size in pixels that a model works at."""

    width: int
    height: int


class CanvasPlan(NamedTuple):
    """How a canvas comes about: the size that the model makes, and the tiles that it is refined in afterwards, if any.

    tile: their size in pixels; overlap: by how much they share; tiles: how many, 0 where nothing is refined.
    """

    made: Size
    canvas: Size
    tile: Size
    overlap: int = 0
    tiles: int = 0

    def __str__(self) -> str:
        """The plan in the artist's words: "1024×576 → 1920×1080 in 6 tiles"."""
        sizes = [f"{size.width}×{size.height}" for size in dict.fromkeys((self.made, self.canvas))]
        return " → ".join(sizes) + (f" in {self.tiles} tiles" if self.tiles else "")


def plan_canvas(
    width: int, height: int, native: int, multiple: int = SIDE_STEP, large_canvas: str = "enlarge"
) -> CanvasPlan:
    """Return how a canvas of that size is made by a model that is at its best at native² pixels.

    Too large: at its native size, then enlarged, then refined in tiles where large_canvas is "refine"; as it is where
    that is "as_is". Too small: at the native size, then reduced. multiple: of which the sides that the model makes are.
    """
    canvas = Size(width, height)
    made = plan_size(width, height, native, multiple)
    is_large = made.width * made.height < width * height and (width * height) ** 0.5 > GREATEST_SCALE * native
    if is_large and large_canvas == "as_is":
        multiple = max(multiple, SIDE_STEP)
        made = Size(*(max(multiple, round(side / multiple) * multiple) for side in canvas))
    if not is_large or large_canvas != "refine":
        return CanvasPlan(made, canvas, canvas)
    side = max(multiple, native // multiple * multiple)
    tile, overlap = Size(min(side, width), min(side, height)), native // OVERLAPPED
    return CanvasPlan(made, canvas, tile, overlap, len(plan_tiles(width, height, *tile, overlap).regions))


def plan_of(settings: Denoising) -> StepPlan:
    """Return the steps of an operation's settings, within what its sampler can do."""
    longest = longest_schedule(settings.sampler)
    return plan_steps(settings.steps, settings.denoising_strength, settings.exact_steps, longest)


def longest_schedule(sampler: str) -> int:
    """Return how many steps a sampler's schedule can have."""
    return SAMPLERS[settled_sampler(sampler, False)].longest


def plan_size(width: int, height: int, native: int, multiple: int = SIDE_STEP) -> Size:
    """Return the size to generate a canvas at: its own where the model can, else native² pixels of its proportions.

    native: side in pixels of the square pictures that the model was trained on. Sides come out as multiples of
    `multiple` (at least 8), the nearest ones.
    """
    multiple = max(multiple, SIDE_STEP)
    scale = (width * height) ** 0.5 / native
    factor = 1.0 if SMALLEST_SCALE <= scale <= GREATEST_SCALE else 1 / scale
    return Size(
        max(multiple, round(width * factor / multiple) * multiple),
        max(multiple, round(height * factor / multiple) * multiple),
    )
