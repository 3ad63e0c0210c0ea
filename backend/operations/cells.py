"""Several pictures of one script, of which one that fails doesn't stop the others."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..errors import DiffusionError
from ..imaging.grid import grid_shape, image_grid
from ..imaging.pictures import size_of
from ..request import Array
from ..settings import RANDOM_SEED, Img2Img, Inpaint, Script, as_settings
from .img2img import sized
from .inpaint import repaint
from .run import Picture, Run

SEED_NAMES = ("seed", "variation_seed")  # settings where -1 asks for a random one
RANDOM_SEEDS = 2**31 - 1  # random seeds stay below this, as the engine's do


@dataclass(frozen=True)
class Cell:
    """Settings of one place of a script, and what it is called when it fails."""

    settings: Img2Img
    name: str


@dataclass(frozen=True, eq=False)
class Cells:
    """What came of cells: the pictures of each, none where it failed, and a sentence on those that failed.

    left: the pictures of each cell that failed which were finished before it did.
    """

    pictures: list[list[Picture]]
    notice: str
    left: list[list[Picture]]

    @property
    def tiles(self) -> list[Array | None]:
        """One uint8 picture a cell: a batch is a grid of its own; None where the cell failed."""
        return [_tile([picture.pixels for picture in pictures if not picture.name]) for pictures in self.pictures]

    @property
    def all(self) -> list[Picture]:
        """All pictures, cell by cell."""
        return [picture for both in zip(self.left, self.pictures, strict=True) for some in both for picture in some]

    def beside_grid(self, single: bool) -> list[Picture]:
        """Return the pictures that belong beside a grid: all where single ones are wanted, else what no tile shows."""
        return self.all if single else [picture for pictures in self.left for picture in pictures]


def plain_settings(settings: Script, images: Mapping[str, Array]) -> Img2Img:
    """Return the settings of one picture of a script: of inpaint where there is a mask, else of img2img."""
    return as_settings(Inpaint if "mask" in images else Img2Img, settings)


def draw_seed(draw: random.Random) -> int:
    """Return a random seed."""
    return draw.randrange(RANDOM_SEEDS)


def settle_seeds(settings: Img2Img, draw: random.Random) -> Img2Img:
    """Return the settings with drawn seeds in place of -1; draw grows from the script's own seed, to be replayed."""
    changes: dict[str, Any] = {n: draw_seed(draw) for n in SEED_NAMES if getattr(settings, n) == RANDOM_SEED}
    return dataclasses.replace(settings, **changes)


def make_cells(
    cells: Sequence[Cell],
    images: Mapping[str, Array],
    run: Run,
    order: Sequence[int] | None = None,
    draw: Callable[[Cells], list[Picture]] | None = None,
) -> Cells:
    """Return the pictures of all cells, made in that order of their indices.

    A cell that raises DiffusionError is left empty and told in the notice; where all do, the first error is raised.
    draw: what makes a grid of the cells, for a run that stops before its end, whose grid is kept with blank cells, and
    with it the finished pictures of cells that are not whole.
    """
    made: list[list[Picture]] = [[] for _ in cells]
    left: list[list[Picture]] = [[] for _ in cells]
    failures: dict[int, DiffusionError] = {}
    finished: list[Picture] = []

    def keep(picture: Picture) -> Picture:
        finished.append(picture)
        return run.keep(picture)

    with ExitStack() as stopped:
        if draw is not None:
            stopped.callback(_keep_grid, Cells(made, "", left), finished, draw, run)
        for done, index in enumerate(range(len(cells)) if order is None else order):
            with run.part(done, len(cells), f"Picture {done + 1} of {len(cells)}"):
                run.check()
                before = len(finished)
                try:
                    made[index] = repaint(cells[index].settings, images, run, keep)
                except DiffusionError as error:
                    failures[index] = type(error)(error.sentence, error.remedy)  # whose traceback holds no model
                    left[index] = finished[before:]
        stopped.pop_all()
    if len(failures) == len(cells):
        raise next(iter(failures.values()))
    return Cells(made, _notice(cells, failures, any(left)), left)


def _keep_grid(cells: Cells, finished: list[Picture], draw: Callable[[Cells], list[Picture]], run: Run) -> None:
    """Hand the grid so far over, in the place of the single pictures of its cells, where it can be drawn at all."""
    done = sum(1 for pictures in cells.pictures if pictures)
    if not done:
        return
    try:
        drawn = draw(cells)
    except (DiffusionError, MemoryError):  # the single pictures are kept, and what stopped the run is told
        return
    loose = [picture for picture in finished if picture not in cells.all]
    sentence = f"The grid so far is kept, with {done} of its {len(cells.pictures)} pictures."
    if loose or any(cells.left):
        sentence += " Finished pictures of other cells are kept too."
    run.keeper.keep_instead([*loose, *drawn], sentence)


def planned_size(settings: Img2Img, images: Mapping[str, Array]) -> tuple[int, int]:
    """Return the width and height in pixels of the tile that comes of settings."""
    only_masked = isinstance(settings, Inpaint) and "mask" in images and settings.inpaint_area == "only_masked"
    known = sized(settings, images["init"])
    width, height = size_of(images["init"]) if only_masked else (known.width, known.height)
    rows, columns = grid_shape(settings.batch_count * settings.batch_size)
    return width * columns, height * rows


def _tile(pictures: list[Array]) -> Array | None:
    if len(pictures) < 2:
        return pictures[0] if pictures else None
    return image_grid(pictures)


def _notice(cells: Sequence[Cell], failures: Mapping[int, DiffusionError], some_left: bool) -> str:
    if not failures:
        return ""
    places: dict[str, list[str]] = {}
    for index in sorted(failures):
        places.setdefault(failures[index].sentence, []).append(cells[index].name)
    reasons = " ".join(f"{sentence} ({'; '.join(names)})" for sentence, names in places.items())
    kept = " What was finished of them before is kept." if some_left else ""
    return f"{len(failures)} of {len(cells)} pictures could not be made. {reasons}{kept}"
