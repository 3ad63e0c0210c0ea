"""X/Y/Z plot: a grid of pictures, each axis of which changes one setting."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence

from ..imaging.grid import captioned_grid, captioned_size
from ..request import Array, Request
from ..settings import RANDOM_SEED, Img2Img, XYZPlot
from .axes import Axis, in_order, read_axis, require_different
from .cells import SEED_NAMES, Cell, Cells, make_cells, plain_settings, planned_size, settle_seeds
from .noise import SEEDS
from .run import Output, Picture, Run

Captions = tuple[list[str], list[str], list[str]]


def xyz_plot(request: Request, run: Run) -> Output:
    """Return the single pictures where they are wanted, a grid for each Z value, and last one of those grids.

    Every value, and the size of the grid, is checked first. A cell that fails is blank, and the notice tells why.
    """
    settings = request.settings
    assert isinstance(settings, XYZPlot)
    images = request.images
    base = plain_settings(settings, images)
    draw = random.Random(settings.seed)
    axes = [
        read_axis(
            letter.upper(),
            getattr(settings, f"{letter}_type"),
            getattr(settings, f"{letter}_values"),
            base,
            None if settings.keep_random_seeds else draw,
        )
        for letter in "xyz"
    ]
    require_different(axes)
    cells = plan_cells(settings, base, axes, draw)
    captions = _captions(settings, axes)
    _require_room(settings, cells, captions, images)
    counts = [len(axis.values) for axis in axes]
    order = [x + counts[0] * (y + counts[1] * z) for x, y, z in in_order(axes)]

    def draw_grids(made: Cells) -> list[Picture]:
        grids = [Picture(grid, settings, _extras(settings, axes)) for grid in _grids(settings, made.tiles, captions)]
        return [*made.beside_grid(settings.include_cells), *grids]

    made = make_cells(cells, images, run, order, draw_grids)
    run.say("Drawing the grid")
    return Output(draw_grids(made), notice=made.notice)


def plan_cells(settings: XYZPlot, base: Img2Img, axes: Sequence[Axis], draw: random.Random) -> list[Cell]:
    """Return the checked settings of all cells, X fastest and Z slowest, none of their seeds random any more.

    Raises InvalidRequest for a value that is out of range.
    """
    if settings.keep_random_seeds:
        base = dataclasses.replace(base, seed=RANDOM_SEED, variation_seed=RANDOM_SEED)
    varied = (settings.vary_seeds_x, settings.vary_seeds_y, settings.vary_seeds_z)
    x_axis, y_axis, z_axis = axes
    # As in the web UI, an axis that doesn't vary them keeps no seeds free for itself.
    across, down = (len(axis.values) if vary else 1 for axis, vary in zip((x_axis, y_axis), varied, strict=False))
    strides = (1, across, across * down)
    cells = []
    for z, z_value in enumerate(z_axis.values):
        for y, y_value in enumerate(y_axis.values):
            for x, x_value in enumerate(x_axis.values):
                chosen = z_value.change(y_value.change(x_value.change(base)))
                chosen.check()
                chosen = settle_seeds(chosen, draw)
                more = sum(
                    place * stride for place, stride, vary in zip((x, y, z), strides, varied, strict=True) if vary
                )
                chosen = dataclasses.replace(chosen, seed=(chosen.seed + more) % SEEDS)
                names = [value.caption for value in (x_value, y_value, z_value) if value.caption]
                cells.append(Cell(chosen, ", ".join(names)))
    return cells


def _captions(settings: XYZPlot, axes: Sequence[Axis]) -> Captions:
    x, y, z = ([value.caption if settings.draw_legend else "" for value in axis.values] for axis in axes)
    return x, y, z


def _require_room(settings: XYZPlot, cells: Sequence[Cell], captions: Captions, images: Mapping[str, Array]) -> None:
    """Raise InvalidRequest where the grid would have too many pixels."""
    x, y, z = captions
    inner = []
    for start in range(0, len(cells), len(x) * len(y)):
        sizes = [planned_size(cell.settings, images) for cell in cells[start : start + len(x) * len(y)]]
        cell = max(width for width, _ in sizes), max(height for _, height in sizes)
        inner.append(captioned_size(cell, x, y, margin=settings.margin))
    largest = max(width for width, _ in inner), max(height for _, height in inner)
    captioned_size(largest, z, [""], margin=settings.margin)


def _grids(settings: XYZPlot, tiles: Sequence[Array | None], captions: Captions) -> list[Array]:
    """Return the grid of each Z value that has a picture, and after several of them the grid of those."""
    x, y, z = captions
    inner: list[Array | None] = []
    for start in range(0, len(tiles), len(x) * len(y)):
        part = tiles[start : start + len(x) * len(y)]
        empty = all(tile is None for tile in part)
        inner.append(None if empty else captioned_grid(part, x, y, margin=settings.margin))
    grids = [grid for grid in inner if grid is not None]
    if len(inner) == 1 and not z[0]:
        return grids
    whole = captioned_grid(inner, z, [""], margin=settings.margin)
    return [*grids, whole] if len(inner) > 1 else [whole]


def _extras(settings: XYZPlot, axes: Sequence[Axis]) -> dict[str, object]:
    """Return the infotext's pairs on seeds that were random, as the values that they became."""
    if settings.keep_random_seeds:
        return {}
    return {
        f"Fixed {letter} Values": ", ".join(value.text for value in axis.values)
        for letter, axis in zip("XYZ", axes, strict=True)
        if axis.kind in SEED_NAMES
    }
