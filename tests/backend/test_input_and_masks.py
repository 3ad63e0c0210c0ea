"""The upscaler for img2img, which enlarges the input, and the masks that come back beside a result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.engine import Engine
from backend.events import Event
from backend.imaging import masks
from backend.imaging.pictures import load, mask_to_bytes
from backend.imaging.resize import resize
from backend.job import create_job, run_job
from backend.models.upscalers import upscale
from backend.operations.parameters import describe, settings_from_text
from backend.operations.run import Picture as Made
from backend.request import Request
from backend.settings import Img2Img, Inpaint, Loopback, Settings, XYZPlot
from tests.backend.helpers import FEW, Picture

MODEL = "R-ESRGAN AnimeVideo x2"
QUICK: dict[str, Any] = {**FEW, "steps": 2, "denoising_strength": 0.6}
Mask = NDArray[np.float32]


def made(engine: Engine, settings: Settings, picture: Picture, mask: Mask | None = None) -> list[Made]:
    """Return the pictures of a request."""
    images: dict[str, Any] = {"init": picture} if mask is None else {"init": picture, "mask": mask}
    return engine.run(Request(settings, images), lambda share, text: None, lambda: False).pictures


@pytest.mark.parametrize("mode", ["just_resize", "crop_and_resize", "resize_and_fill"])
def test_an_input_that_grows_is_enlarged_by_the_upscaler_set(engine: Engine, picture: Picture, mode: str) -> None:
    small = picture[40:140, 60:180]  # 120×100
    settings = Img2Img(**{**QUICK, "denoising_strength": 0.0}, resize_mode=mode)
    expected = resize(small, 256, 256, mode, enlarge=lambda array, factor: upscale(array, factor, MODEL))
    plain, enlarged = (
        made(engine, dataclasses.replace(settings, upscaler_for_img2img=name), small)[0].pixels
        for name in ("None", MODEL)
    )
    assert np.array_equal(plain, resize(small, 256, 256, mode)) and np.array_equal(enlarged, expected)
    assert not np.array_equal(plain, enlarged)


def test_an_input_that_shrinks_or_stays_is_not_touched_by_it(engine: Engine, picture: Picture) -> None:
    for side in (128, 256):
        settings = Img2Img(**{**QUICK, "denoising_strength": 0.0, "width": side, "height": side})
        chosen = dataclasses.replace(settings, upscaler_for_img2img=MODEL)
        assert np.array_equal(made(engine, settings, picture)[0].pixels, made(engine, chosen, picture)[0].pixels)


def test_the_masked_part_is_enlarged_by_it_too_and_it_is_told(engine: Engine, picture: Picture, mask: Mask) -> None:
    settings = Inpaint(**QUICK, inpaint_area="only_masked", only_masked_padding=0)
    plain = made(engine, settings, picture, mask)[0]
    enlarged = made(engine, dataclasses.replace(settings, upscaler_for_img2img=MODEL), picture, mask)[0]
    assert not np.array_equal(plain.pixels, enlarged.pixels)
    assert "Upscaler" not in describe(plain) and f"Upscaler for img2img: {MODEL}" in describe(enlarged)
    assert settings_from_text(describe(enlarged)).settings["upscaler_for_img2img"] == MODEL


@pytest.mark.parametrize("area", ["whole_picture", "only_masked"])
def test_masks_come_back_before_their_result(engine: Engine, picture: Picture, mask: Mask, area: str) -> None:
    settings = Inpaint(**QUICK, inpaint_area=area, return_mask=True, return_mask_composite=True, batch_count=2)
    pictures = made(engine, settings, picture, mask)
    assert [one.name for one in pictures] == ["mask", "masked composite", ""] * 2
    assert [one.seed for one in pictures] == [11] * 3 + [12] * 3
    blurred = masks.blur(mask, 4, 4)
    overlay = mask_to_bytes(masks.overlay_mask(blurred) if area == "whole_picture" else blurred)
    shown, composite, result = (one.pixels for one in pictures[:3])
    assert np.array_equal(shown, np.repeat(overlay[..., None], 3, axis=2))
    assert np.array_equal(composite[..., :3], result) and np.array_equal(composite[..., 3], overlay)
    plain = made(engine, dataclasses.replace(settings, return_mask=False, return_mask_composite=False), picture, mask)
    assert np.array_equal(plain[0].pixels, result) and len(plain) == 2


def test_scripts_go_on_from_the_result_not_from_its_mask(engine: Engine, picture: Picture, mask: Mask) -> None:
    for cls, more in ((Loopback, {"loops": 2}), (XYZPlot, {"x_type": "seed", "x_values": "1,2"})):
        plain = made(engine, cls(**QUICK, **more), picture, mask)  # type: ignore[operator]
        masked = made(engine, cls(**QUICK, **more, return_mask=True), picture, mask)  # type: ignore[operator]
        assert np.array_equal(plain[-1].pixels, masked[-1].pixels)


def test_masks_are_named_in_the_jobs_results(engine: Engine, jobs: Path, picture: Picture, mask: Mask) -> None:
    settings = Inpaint(**QUICK, return_mask=True, batch_count=2)
    folder = create_job(jobs, Request(settings, {"init": picture, "mask": mask}))
    events: list[Event] = []
    run_job(engine, folder, events.append, lambda: [event.kind for event in events].count("picture") == 2)
    last = events[-1]
    assert last.message == "Cancelled. 1 finished picture is kept."  # with its mask
    assert [result.name for result in last.results] == ["mask", ""]
    assert [Event.from_wire(event.to_wire()) for event in events] == events
    assert load(Path(last.results[0].path)).shape == picture.shape
