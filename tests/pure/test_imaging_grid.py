"""Grids of pictures with and without captions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFont

from backend.errors import InvalidRequest
from backend.imaging import grid
from backend.imaging.pictures import Picture


def plain(width: int, height: int, value: int) -> Picture:
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.mark.parametrize(
    ("count", "rows", "expected"),
    [
        (1, None, (1, 1)),
        (2, None, (1, 2)),
        (3, None, (2, 2)),
        (4, None, (2, 2)),
        (6, None, (2, 3)),
        (7, None, (3, 3)),
        (12, None, (3, 4)),
        (13, None, (4, 4)),
        (5, 1, (1, 5)),
        (5, 9, (5, 1)),
    ],
)
def test_grid_shapes_by_value(count: int, rows: int | None, expected: tuple[int, int]) -> None:
    assert grid.grid_shape(count, rows) == expected


@given(st.integers(1, 500))
def test_grids_hold_every_picture(count: int) -> None:
    rows, columns = grid.grid_shape(count)
    assert rows * columns >= count and (columns - 1) * rows < count


def test_cells_are_the_largest_size_and_centre_the_rest_on_white() -> None:
    out = grid.image_grid([plain(8, 8, 10), plain(4, 2, 20), None, plain(8, 8, 30)])
    assert out.shape == (16, 16, 3)
    assert (out[:8, :8] == 10).all() and (out[8:, 8:] == 30).all() and (out[8:, :8] == 255).all()
    assert (out[3:5, 10:14] == 20).all() and (out[:3, 8:] == 255).all() and (out[:8, 8:10] == 255).all()


def test_captions_stand_above_the_columns_and_beside_the_rows() -> None:
    cells: list[Picture | None] = [plain(96, 64, 200), plain(96, 64, 200), None, plain(96, 64, 200)]
    out = grid.captioned_grid(cells, ["CFG 7", "CFG 14"], ["Denoising: 0.25", "Denoising: 0.75"], margin=4)
    height, width = out.shape[:2]
    top, left = height - 2 * 64 - 4, width - 2 * 96 - 4
    assert top > 12 and left > 60
    assert (out[top : top + 64, left : left + 96] == 200).all()
    for x in (left, left + 100):
        assert (out[:top, x : x + 96].min(axis=(0, 1)) < 90).all()
    for y in (top, top + 68):
        assert (out[y : y + 64, :left].min(axis=(0, 1)) < 90).all()
    assert (out[:top, :left] == 255).all()
    blank = out[top + 68 :, left : left + 96]
    assert (blank == 255).mean() > 0.9 and blank.min() > 90


def test_empty_captions_take_no_room() -> None:
    assert grid.captioned_grid([plain(8, 8, 0)] * 2, ["", ""], [""]).shape == (8, 16, 3)


def test_contact_sheet_puts_captions_under_pictures() -> None:
    out = grid.contact_sheet(
        [plain(96, 64, 200)] * 2, ["Lanczos", "a longer caption that has to be wrapped"], margin=10
    )
    assert out.shape[1] == 2 * 106 + 10
    assert (out[10:74, 10:106] == 200).all()
    assert out[76:, 10:106].min() < 90 and out[76:, 116:212].min() < 90


@given(st.text("ab cd\n", max_size=80), st.integers(20, 200))
def test_wrapped_lines_fit_and_lose_nothing(text: str, width: int) -> None:
    font = ImageFont.load_default(12)
    lines = grid.wrap(text, font, width)
    assert all(font.getlength(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")


def test_wrong_grids_are_refused() -> None:
    wrong: list[Callable[[], object]] = [
        lambda: grid.image_grid([]),
        lambda: grid.image_grid([None]),
        lambda: grid.image_grid([plain(8, 8, 0)], 0),
        lambda: grid.image_grid([plain(16000, 1, 0), plain(1, 16000, 0)]),
        lambda: grid.captioned_grid([plain(8, 8, 0)], ["a", "b"], ["c"]),
        lambda: grid.contact_sheet([plain(8, 8, 0)], []),
    ]
    for call in wrong:
        with pytest.raises(InvalidRequest):
            call()
