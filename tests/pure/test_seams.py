"""The seam index by value: 1 without seams, the more the more visible they are."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import InvalidRequest
from backend.imaging.pictures import Picture
from backend.imaging.seams import seam_index
from backend.imaging.tiles import combine, plan_tiles, split


def texture(width: int, height: int) -> Picture:
    return np.random.RandomState(5).randint(96, 160, (height, width, 3)).astype(np.uint8)


def slope(width: int, height: int, per_pixel: int) -> Picture:
    columns = np.broadcast_to(np.arange(width) * per_pixel, (height, width))
    return np.repeat((columns % 251).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize("overlap", [0, 16])
def test_a_picture_that_was_never_cut_has_no_seams(overlap: int) -> None:
    grid = plan_tiles(200, 136, 64, 64, overlap)
    assert seam_index(texture(200, 136), grid) == pytest.approx(1, abs=0.03)


def test_a_step_at_the_border_counts_as_often_as_the_slope_beside_it() -> None:
    picture = slope(64, 40, 2)
    picture[:, 32:] += 4
    assert seam_index(picture, plan_tiles(64, 40, 32, 40, 0)) == pytest.approx(3)
    upright = np.ascontiguousarray(picture.swapaxes(0, 1))
    assert seam_index(upright, plan_tiles(40, 64, 40, 32, 0)) == pytest.approx(3)
    with_alpha = np.dstack([picture, texture(64, 40)[:, :, 0]])
    assert seam_index(with_alpha, plan_tiles(64, 40, 32, 40, 0)) == pytest.approx(3)


def test_both_borders_of_an_overlap_are_looked_at() -> None:
    grid = plan_tiles(96, 40, 56, 40, 16)
    assert grid.columns == (0, 40)
    for border in (40, 56):
        picture = slope(96, 40, 1)
        picture[:, border:] += 8
        assert seam_index(picture, grid) == pytest.approx((1 + 9) / 2)


def test_tiles_that_differ_show_only_where_they_do_not_overlap() -> None:
    indices = []
    for overlap in (0, 8, 32):
        grid = plan_tiles(224, 160, 64, 64, overlap)
        parts = split(slope(224, 160, 1), grid)
        made = [part + np.uint8(24 * (index % 2)) for index, part in enumerate(parts)]
        indices.append(seam_index(combine(made, grid), grid))
    assert indices[0] > 3 and max(indices[1:]) < 1.1


def test_a_flat_picture_has_no_seams_and_one_with_nothing_else_has_many() -> None:
    grid = plan_tiles(64, 64, 32, 32, 0)
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert seam_index(flat, grid) == 1
    flat[:, 32:] += 1
    assert seam_index(flat, grid) > 1e6


def test_what_has_no_borders_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        seam_index(texture(64, 64), plan_tiles(64, 64, 64, 64, 0))
    with pytest.raises(InvalidRequest):
        seam_index(texture(64, 65), plan_tiles(64, 64, 32, 32, 0))
