"""What the UNet's training draws, and weighs its samples by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")

from training import samples
from training.encode import RECORD, Latents
from training.mixture import MIXTURES
from training.pictures import KEPT_BACK, layouts
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
    ways = samples.ways_from_render(Latents(records, maps, maps, [{"styles": s} for s in styles]))
    mean = (17 + 1 + 4 + 4) / 4
    assert ways == pytest.approx({"render": 1, "ink": 17 / mean, "anime": 1 / mean, "flat": 4 / mean, "oil": 4 / mean})


def test_errors_count_more_where_a_style_leaves_marks() -> None:
    render = np.zeros((4, 8, 8), np.float16)
    line, tint = render.copy(), render + np.float16(0.5)
    line[:, 3] = 2
    weights = samples.weights_of_marks(line, render)
    assert weights[3].tolist() == [1 + samples.MARKED * 8] * 8 and (np.delete(weights, 3, 0) == 1).all()
    assert (samples.weights_of_marks(tint, render) == 1 + samples.MARKED).all(), "as far everywhere"
    assert (samples.weights_of_marks(render, render) == 1).all()
    line[:, 3, 1:] = 0
    assert samples.weights_of_marks(line, render).max() == 1 + samples.MARKED * samples.MOST_MARKED


def scene(number: int, pose: str, framing: str, azimuth: float = 0.0, props: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what of a scene's facts decides whether it is learnt without a source."""
    return {"seed": number, "pose": pose, "framing": framing, "azimuth": azimuth, "props": list(props)}


def test_one_layout_of_each_named_pose_and_framing_is_learnt_without_a_source() -> None:
    kept = [scene(number, "standing", "full body") for number in range(KEPT_BACK)]
    others = [
        scene(12, "standing", "full body", -40.0),
        scene(13, "standing", "full body", 5.0),
        scene(14, "standing", "full body", 0.0, ("ball",)),
        scene(15, "dynamic pose", "full body"),
        scene(16, "standing", "portrait", 30.0),
        scene(17, "kicking", "portrait"),
        scene(18, "kicking", "upper body", 90.0),
    ]
    again = [scene(13, "standing", "full body", 5.0), scene(18, "kicking", "upper body", 90.0)]
    assert layouts(others) == [13, 16, 18]
    assert samples.known_alone(kept + others + again) == [13, 16, 18, 19, 20]


def test_styles_that_are_recognised_least_are_drawn_more_often() -> None:
    rng, styles = np.random.default_rng(2), ["ink", "watercolor", "anime", "flat"]
    never = replace(MIXTURES["plain"], render_as_target=0.0)
    drawn = np.bincount([samples.drawn_style(rng, styles, never) for _ in range(4000)], minlength=5)
    assert drawn / 4000 == pytest.approx(np.array([0, 1, 3, 2, 1]) / 7, abs=0.03)
    always = replace(never, render_as_target=1.0)
    assert {samples.drawn_style(rng, styles, always) for _ in range(20)} == {0}


def test_errors_count_more_where_another_colour_is_named_but_not_on_backdrops() -> None:
    shown = np.array([[Region.TOP, Region.TOP_SECOND], [Region.SKY, Region.HAIR]], np.uint8)
    assert samples.weights_of_places(shown, ("top", "sky")).tolist() == [[samples.RENAMED, 1], [1, 1]]
    assert samples.weights_of_places(shown, ()).tolist() == [[1, 1], [1, 1]]
    wide = np.full((10, 10), Region.SKY, np.uint8)
    wide[0, 0] = Region.TOP
    assert samples.weights_of_places(wide, ("top",))[0, 0] == pytest.approx(
        samples.RENAMED * (samples.LARGE / 0.01) ** 0.5
    )
    dots = np.array([[0, 255], [0, 51]], np.uint8)
    weights = samples.weights_of_places(shown, ("top",), dots)
    assert weights == pytest.approx(np.array([[samples.RENAMED, 1 + samples.DOTTED], [1, 1 + samples.DOTTED / 5]]))
