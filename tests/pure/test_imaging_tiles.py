"""Tiles, loopback curves and X/Y/Z ranges by the measured values and by their rules."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import InvalidRequest
from backend.imaging import curves, ranges, tiles
from backend.imaging.pictures import Picture
from backend.imaging.regions import Region


def noise(width: int, height: int, channels: int = 3) -> Picture:
    return np.random.RandomState(2).randint(0, 256, (height, width, channels)).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "columns", "rows"),
    [
        ((1024, 1024), 512, 64, (0, 256, 512), (0, 256, 512)),
        ((1000, 700), 512, 64, (0, 244, 488), (0, 188)),
        ((513, 513), 512, 64, (0, 1), (0, 1)),
        ((512, 512), 512, 64, (0,), (0,)),
        ((400, 288), 512, 64, (0,), (0,)),
        ((1024, 512), 512, 0, (0, 512), (0,)),
    ],
)
def test_tiles_lie_at_the_measured_places(
    size: tuple[int, int], tile: int, overlap: int, columns: tuple[int, ...], rows: tuple[int, ...]
) -> None:
    grid = tiles.plan_tiles(*size, tile, tile, overlap)
    assert (grid.columns, grid.rows) == (columns, rows)
    assert (grid.tile_width, grid.tile_height) == (min(tile, size[0]), min(tile, size[1]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_tiles_cover_the_picture_overlap_and_come_back_exactly(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 120)), data.draw(st.integers(1, 120))
    tile_width, tile_height = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    overlap = data.draw(st.integers(0, min(tile_width, tile_height) - 1))
    if (tile_width - overlap) * (tile_height - overlap) < width * height / 400:
        return
    grid = tiles.plan_tiles(width, height, tile_width, tile_height, overlap)
    assert all(Region(0, 0, width, height).contains(region) for region in grid.regions)
    for edges, tile, length in (
        (grid.columns, grid.tile_width, width),
        (grid.rows, grid.tile_height, height),
    ):
        assert edges[0] == 0 and edges[-1] + tile == length
        assert all(near + tile - far >= overlap for near, far in pairwise(edges))
    picture = noise(width, height)
    assert (tiles.combine(tiles.split(picture, grid), grid) == picture).all()


def test_tiles_join_through_a_linear_ramp() -> None:
    grid = tiles.plan_tiles(16, 8, 10, 8, 4)
    black, white = np.zeros((8, 10, 3), np.uint8), np.full((8, 10, 3), 255, np.uint8)
    row = tiles.combine([black, white], grid)[3, :, 0]
    assert grid.columns == (0, 6)
    assert row.tolist() == [0] * 6 + [0, 63, 127, 191] + [255] * 6
    upright = tiles.plan_tiles(8, 16, 8, 10, 4)
    column = tiles.combine([b.swapaxes(0, 1) for b in (black, white)], upright)[:, 3, 0]
    assert column.tolist() == row.tolist()


def test_a_missing_tile_is_taken_from_the_fallback() -> None:
    picture = noise(100, 40)
    grid = tiles.plan_tiles(100, 40, 40, 40, 8)
    made: list[Picture | None] = [None, *tiles.split(picture, grid)[1:]]
    assert (tiles.combine(made, grid, picture) == picture).all()
    with pytest.raises(InvalidRequest):
        tiles.combine(made, grid)


@pytest.mark.parametrize(
    "arguments", [(64, 64, 32, 32, 32), (64, 64, 32, 32, -1), (0, 64, 32, 32, 4), (64, 64, 0, 8, 0)]
)
def test_wrong_tiles_are_refused(arguments: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(InvalidRequest):
        tiles.plan_tiles(*arguments)


def test_tiles_of_another_size_or_number_are_refused() -> None:
    grid = tiles.plan_tiles(64, 64, 40, 40, 8)
    with pytest.raises(InvalidRequest):
        tiles.split(noise(64, 65), grid)
    with pytest.raises(InvalidRequest):
        tiles.combine([noise(40, 40)], grid)
    with pytest.raises(InvalidRequest):
        tiles.combine([noise(40, 41)] * 4, grid)


@pytest.mark.parametrize(
    ("first", "final", "loops", "curve", "expected"),
    [
        (0.75, 0.5, 4, "linear", (0.75, 0.6667, 0.5833, 0.5)),
        (0.75, 0.5, 4, "aggressive", (0.75, 0.625, 0.5335, 0.5)),
        (0.75, 0.5, 4, "lazy", (0.75, 0.7165, 0.625, 0.5)),
        (0.3, 0.9, 5, "aggressive", (0.3, 0.5296, 0.7243, 0.8543, 0.9)),
        (0.3, 0.9, 1, "lazy", (0.3,)),
    ],
)
def test_loopback_curves_by_value(
    first: float, final: float, loops: int, curve: curves.Curve, expected: tuple[float, ...]
) -> None:
    strengths = curves.loopback_strengths(first, final, loops, curve)
    assert tuple(round(strength, 4) for strength in strengths) == expected


@given(st.floats(0, 1), st.floats(0, 1), st.integers(2, 32), st.sampled_from(curves.CURVES))
def test_loopback_runs_from_first_to_final(first: float, final: float, loops: int, curve: curves.Curve) -> None:
    strengths = curves.loopback_strengths(first, final, loops, curve)
    assert len(strengths) == loops and strengths[0] == first and strengths[-1] == pytest.approx(final)
    assert all(min(first, final) - 1e-9 <= strength <= max(first, final) + 1e-9 for strength in strengths)


def test_wrong_loopbacks_are_refused() -> None:
    wrong: list[tuple[float, float, int, str]] = [
        (1.5, 0.5, 4, "linear"),
        (0.5, float("nan"), 4, "linear"),
        (0.5, 0.5, 0, "linear"),
        (0.5, 0.5, 4, "steep"),
    ]
    for first, final, loops, curve in wrong:
        with pytest.raises(InvalidRequest):
            curves.loopback_strengths(first, final, loops, curve)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-10 (+3)", [1, 4, 7, 10]),
        ("1-10 [4]", [1, 4, 7, 10]),
        ("10-5 (-3)", [10, 7]),
        ("-3 - 3 (+2)", [-3, -1, 1, 3]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("5-1", [5, 4, 3, 2, 1]),
        ("7", [7]),
        ("-7, +3, 1-3", [-7, 3, 1, 2, 3]),
        ("1-10 [3]", [1, 5, 10]),
        ("2-2", [2]),
        ("", []),
    ],
)
def test_whole_ranges_by_value(text: str, expected: list[int]) -> None:
    assert ranges.integers(text) == expected
    if "[3]" not in text:
        assert ranges.floats(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-1 (+0.25)", [0, 0.25, 0.5, 0.75, 1]),
        ("0-1 (+.1)", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        ("0.5-1.5 [3]", [0.5, 1, 1.5]),
        ("1-0 (-0.5), 7.5", [1, 0.5, 0, 7.5]),
    ],
)
def test_real_ranges_by_value(text: str, expected: list[float]) -> None:
    assert ranges.floats(text) == expected


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 9))
def test_ranges_include_both_ends_that_their_step_meets(first: int, last: int, step: int) -> None:
    signed = step if last >= first else -step
    found = ranges.integers(f"{first} - {last} ({signed:+d})")
    assert found == list(range(first, last + (1 if signed > 0 else -1), signed))


def test_lists_keep_quoted_commas() -> None:
    assert ranges.values('red, "blue, green" ,, x') == ["red", "blue, green", "x"]
    assert ranges.sizes("512x768, 64X64") == [(512, 768), (64, 64)]


@pytest.mark.parametrize(
    "text", ["a", "1-10 (-3)", "1-10 (+0)", "1-10 [0]", "1-99999", "0-1 [5000]", "nan", "1.5", "1e3"]
)
def test_wrong_whole_ranges_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        ranges.integers(text)


def test_wrong_lists_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        ranges.floats("inf")
    with pytest.raises(InvalidRequest):
        ranges.values(",".join("1" * 2000))
    for text in ("512", "0x5", "axb"):
        with pytest.raises(InvalidRequest):
            ranges.sizes(text)
