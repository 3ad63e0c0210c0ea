"""A canvas larger than the model is at its best: enlarged, refined in tiles, or made as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.engine import Engine
from backend.imaging.resize import resize
from backend.models.load import Options
from backend.request import Request
from backend.settings import Inpaint
from tests.backend import tiny
from tests.backend.helpers import FEW, Picture, img2img, run

LARGE: dict[str, Any] = {"width": 640, "height": 560, "steps": 4, "denoising_strength": 0.4}


def test_each_choice_gives_the_size_asked_for_and_another_picture(engine: Engine, picture: Picture) -> None:
    made = {
        choice: run(engine, img2img(picture, **LARGE, large_canvas=choice)) for choice in ("enlarge", "refine", "as_is")
    }
    assert {one.shape for one in made.values()} == {(560, 640, 3)}
    assert len({one.tobytes() for one in made.values()}) == 3
    # Refining changes details, and leaves the picture what it was.
    small = [resize(made[choice], 64, 56, "just_resize").astype(int) for choice in ("enlarge", "refine", "as_is")]
    assert np.abs(small[1] - small[0]).mean() < 12


def test_a_canvas_that_the_model_can_make_is_the_same_by_every_choice(engine: Engine, picture: Picture) -> None:
    made = {run(engine, img2img(picture, large_canvas=choice)).tobytes() for choice in ("enlarge", "refine", "as_is")}
    assert len(made) == 1


def test_a_weak_denoising_is_not_made_stronger_by_refining(engine: Engine, picture: Picture) -> None:
    weak = {**LARGE, "denoising_strength": 0.05, "steps": 20}
    enlarged, refined = (
        run(engine, img2img(picture, **weak, large_canvas=c)).astype(int) for c in ("enlarge", "refine")
    )
    stronger = run(engine, img2img(picture, **{**weak, "denoising_strength": 0.4}, large_canvas="refine"))
    assert np.abs(refined - enlarged).mean() < np.abs(stronger - enlarged).mean()


def test_what_a_mask_keeps_is_kept_where_the_rest_is_refined(
    engine: Engine, picture: Picture, mask: NDArray[np.float32]
) -> None:
    large, covered = resize(picture, 640, 640, "just_resize"), resize(mask, 640, 640, "just_resize")
    covered = (covered > 0.5).astype(np.float32)
    settings = Inpaint(**{**FEW, "width": 640, "height": 640, "mask_blur": 0, "large_canvas": "refine"})
    images: dict[str, NDArray[Any]] = {"init": large, "mask": covered}
    result = run(engine, Request(settings, images))
    assert np.array_equal(result[covered == 0], large[covered == 0])
    enlarged = run(engine, Request(Inpaint(**{**FEW, "width": 640, "height": 640, "mask_blur": 0}), images))
    assert not np.array_equal(result[covered == 1], enlarged[covered == 1])


@pytest.mark.parametrize("family", ["kontext", "klein", "qwen_edit"])
def test_a_model_that_sees_the_picture_refines_it_too(
    family: str, tmp_path_factory: pytest.TempPathFactory, picture: Picture
) -> None:
    model = tiny.folder(family, tmp_path_factory.getbasetemp())
    common: dict[str, Any] = {"model": model, "sampler": "Euler", "width": 160, "height": 144, "steps": 2}
    own = Engine(Options(device="cpu", precision="float32"))
    refined, enlarged = (run(own, img2img(picture, **common, large_canvas=c)) for c in ("refine", "enlarge"))
    assert refined.shape == (144, 160, 3) and not np.array_equal(refined, enlarged)
    assert own.models.get(model).extra_channels is None and own.models.get(model).picture is None


def test_each_picture_of_a_batch_can_be_made_alone_and_progress_runs_once(engine: Engine, picture: Picture) -> None:
    shares: list[float] = []
    request = img2img(picture, **LARGE, large_canvas="refine", batch_size=2)
    first, second = engine.run(request, lambda share, text: shares.append(share), lambda: False).pictures
    assert shares == sorted(shares) and len({round(share, 2) for share in shares}) > 10
    assert not np.array_equal(first.pixels, second.pixels)
    alone = run(engine, Request(second.settings, request.images)).astype(int)
    assert np.abs(alone - second.pixels).mean() < 1  # a batch's convolutions add up in another order


def test_seamless_pictures_are_enlarged(engine: Engine, picture: Picture) -> None:
    seamless = {**LARGE, "seamless_x": True, "steps": 1}
    enlarged, refined = (run(engine, img2img(picture, **seamless, large_canvas=c)) for c in ("enlarge", "refine"))
    assert np.array_equal(enlarged, refined)


@pytest.mark.parametrize("choice", ["refine", "as_is"])
def test_the_choice_is_told_in_the_infotext(engine: Engine, picture: Picture, choice: str) -> None:
    from backend.operations.parameters import describe, settings_from_text

    output = engine.run(
        img2img(picture, **{**LARGE, "steps": 1}, large_canvas=choice), lambda share, text: None, lambda: False
    )
    assert settings_from_text(describe(output.pictures[0])).settings["large_canvas"] == choice
