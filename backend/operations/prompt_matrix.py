"""Prompt matrix: a grid of every combination of the parts of a prompt, which | separates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..errors import InvalidRequest
from ..imaging.grid import captioned_grid, captioned_size
from ..imaging.ranges import MAX_VALUES
from ..request import Request
from ..settings import PromptMatrix
from .cells import Cell, Cells, make_cells, plain_settings, planned_size
from .noise import SEEDS
from .run import Output, Picture, Run

BASE = "without"  # what the picture of no variable part is called where it fails


def prompt_matrix(request: Request, run: Run) -> Output:
    """Return the single pictures where they are wanted, and last the grid of all combinations.

    Raises InvalidRequest for a prompt without |, and for a grid of too many pixels, before the first picture.
    """
    settings = request.settings
    assert isinstance(settings, PromptMatrix)
    name = "negative_prompt" if settings.matrix_of_negative else "prompt"
    first, *parts = split_parts(getattr(settings, name))
    if not parts:
        which = "negative prompt" if settings.matrix_of_negative else "prompt"
        raise InvalidRequest(f"The {which} has no | between its parts.", "Write it like: a house | at night | in rain.")
    if 2 ** len(parts) > MAX_VALUES:
        raise InvalidRequest(f"{len(parts)} parts have {2 ** len(parts)} combinations.", "Give 9 at most.")
    base = plain_settings(settings, request.images)
    cells = []
    for index, chosen in enumerate(combinations(parts)):
        ordered = [*chosen, first] if settings.put_at_start else [first, *chosen]
        prompt = ", ".join(part for part in ordered if part)
        seed = (base.seed + index * settings.different_seeds) % SEEDS
        changes: dict[str, Any] = {"seed": seed, name: prompt}
        cells.append(Cell(dataclasses.replace(base, **changes), ", ".join(chosen) or BASE))
    across = (len(parts) + 1) // 2
    columns = [", ".join(chosen) for chosen in combinations(parts[:across])]
    rows = [", ".join(chosen) for chosen in combinations(parts[across:])]
    captioned_size(planned_size(base, request.images), columns, rows, margin=settings.margin)

    def draw_grid(made: Cells) -> list[Picture]:
        grid = Picture(captioned_grid(made.tiles, columns, rows, margin=settings.margin), settings)
        return [*made.beside_grid(settings.include_cells), grid]

    made = make_cells(cells, request.images, run, draw=draw_grid)
    run.say("Drawing the grid")
    return Output(draw_grid(made), notice=made.notice)


def combinations(parts: Sequence[str]) -> list[list[str]]:
    """Return every subset of the parts, in their order; the nth holds the parts that are 1 in n's binary digits."""
    return [[part for bit, part in enumerate(parts) if number >> bit & 1] for number in range(2 ** len(parts))]


def split_parts(prompt: str) -> list[str]:
    r"""Return the parts between the | of a prompt, stripped; \| and those inside brackets, [a|b], don't count."""
    parts, depth, escaped = [""], 0, False
    closes = prompt.count("]")
    for character in prompt:
        if character == "|" and depth == 0 and not escaped:
            parts.append("")
            continue
        if not escaped and character == "[" and depth < closes:
            depth += 1
        if not escaped and character == "]":
            closes -= 1
            depth = max(depth - 1, 0)
        escaped = character == "\\" and not escaped
        parts[-1] += character
    return [part.strip() for part in parts]
