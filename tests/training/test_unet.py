"""What the UNet's training weighs its samples by."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")

from training import unet
from training.encode import RECORD, Latents
from training.regions import Region


def test_how_far_a_style_is_from_renders_is_measured_over_its_pictures() -> None:
    records = np.zeros((2, *RECORD), np.float16)
    styles = [["ink", "anime", "flat", "oil"], ["ink", "anime", "oil", "flat"]]
    away = {"ink": (3.0, 5.0), "anime": (1.0, 1.0), "flat": (2.0, 2.0), "oil": (2.0, 2.0)}
    for number, names in enumerate(styles):
        records[number, 0, 0] = 0.5  # the render
        for place, name in enumerate(names, 1):
            records[number, 0, place] = 0.5 - away[name][number]
    maps = np.zeros((2, 64, 64), np.uint8)
    ways = unet.ways_from_render(Latents(records, maps, maps, [{"styles": s} for s in styles]))
    mean = (17 + 1 + 4 + 4) / 4
    assert ways == pytest.approx({"render": 1, "ink": 17 / mean, "anime": 1 / mean, "flat": 4 / mean, "oil": 4 / mean})


def test_errors_count_more_where_a_style_leaves_marks() -> None:
    render = np.zeros((4, 8, 8), np.float16)
    line, tint = render.copy(), render + np.float16(0.5)
    line[:, 3] = 2
    weights = unet.weights_of_marks(line, render)
    assert weights[3].tolist() == [1 + unet.MARKED * 8] * 8 and (np.delete(weights, 3, 0) == 1).all()
    assert (unet.weights_of_marks(tint, render) == 1 + unet.MARKED).all(), "as far everywhere"
    assert (unet.weights_of_marks(render, render) == 1).all()
    line[:, 3, 1:] = 0
    assert unet.weights_of_marks(line, render).max() == 1 + unet.MARKED * unet.MOST_MARKED


def test_few_scenes_of_named_poses_are_learnt_without_a_source() -> None:
    facts = [{"pose": pose} for pose in ("standing", "dynamic pose", "walking")] * 200
    known = unet.known_alone(facts)
    assert known[:4] == [0, 2, 3, 5] and len(known) == unet.KNOWN_ALONE
    assert unet.known_alone(facts[1:2]) == []


def test_errors_count_more_where_another_colour_is_named_but_not_on_backdrops() -> None:
    shown = np.array([[Region.TOP, Region.TOP_SECOND], [Region.SKY, Region.HAIR]], np.uint8)
    assert unet.weights_of_places(shown, ("top", "sky")).tolist() == [[unet.RENAMED, 1], [1, 1]]
    assert unet.weights_of_places(shown, ()).tolist() == [[1, 1], [1, 1]]
    wide = np.full((10, 10), Region.SKY, np.uint8)
    wide[0, 0] = Region.TOP
    assert unet.weights_of_places(wide, ("top",))[0, 0] == pytest.approx(unet.RENAMED * (unet.LARGE / 0.01) ** 0.5)
    dots = np.array([[0, 255], [0, 51]], np.uint8)
    weights = unet.weights_of_places(shown, ("top",), dots)
    assert weights == pytest.approx(np.array([[unet.RENAMED, 1 + unet.DOTTED], [1, 1 + unet.DOTTED / 5]]))
