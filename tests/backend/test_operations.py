"""The operations on the real engine: what each setting changes, and what nothing may change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.engine import Engine
from backend.errors import Cancelled, InvalidRequest, ModelError
from backend.imaging import masks
from backend.models.samplers import SAMPLERS
from backend.request import Request
from backend.settings import Inpaint, Outpaint, Upscale
from tests.backend.helpers import FEW, Picture, departure, img2img, run


def test_denoising_zero_gives_the_input_back(engine: Engine, picture: Picture) -> None:
    assert np.array_equal(run(engine, img2img(picture, denoising_strength=0.0)), picture)


def test_the_same_request_twice_gives_the_same_pixels(engine: Engine, picture: Picture) -> None:
    request = img2img(picture, denoising_strength=0.5)
    assert np.array_equal(run(engine, request), run(engine, request))


@pytest.mark.parametrize(
    "change",
    [
        {"cfg_scale": 6.0},
        {"denoising_strength": 0.8},
        {"steps": 5},
        {"seed": 12},
        {"sampler": "DPM++ 2M"},
        {"schedule": "SGM Uniform"},
        {"prompt": "black ink line drawing of a man"},
        {"negative_prompt": "blue background"},
        {"style": "watercolor painting"},
        {"exact_steps": True},
    ],
)
def test_every_setting_changes_the_picture(engine: Engine, picture: Picture, change: dict[str, Any]) -> None:
    before = run(engine, img2img(picture, denoising_strength=0.5))
    after = run(engine, img2img(picture, **{"denoising_strength": 0.5, **change}))
    assert not np.array_equal(before, after)


def test_distance_from_the_input_grows_with_denoising(engine: Engine, picture: Picture) -> None:
    distances = [
        departure(run(engine, img2img(picture, denoising_strength=d, steps=8)), picture) for d in (0.1, 0.4, 0.9)
    ]
    assert distances == sorted(distances) and len(set(distances)) == 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_paints_and_keeps_out_of_the_mask(
    engine: Engine, picture: Picture, mask: NDArray[np.float32], sampler: str
) -> None:
    settings = Inpaint(**{**FEW, "steps": 4, "sampler": sampler}, denoising_strength=0.9)
    result = run(engine, Request(settings, {"init": picture, "mask": mask}))
    overlay = masks.overlay_mask(masks.blur(mask, settings.mask_blur))
    assert np.array_equal(result[overlay == 0], picture[overlay == 0])
    assert np.abs(result[mask == 1].astype(int) - picture[mask == 1]).mean() > 5


@pytest.mark.parametrize("content", ["fill", "original", "latent_noise", "latent_nothing"])
@pytest.mark.parametrize("area", ["whole_picture", "only_masked"])
def test_masked_content_and_area_each_give_their_own_picture(
    engine: Engine, picture: Picture, mask: NDArray[np.float32], content: str, area: str
) -> None:
    settings = Inpaint(**FEW, masked_content=content, inpaint_area=area)
    result = run(engine, Request(settings, {"init": picture, "mask": mask}))
    assert result.shape == picture.shape
    other = Inpaint(**FEW, masked_content="fill" if content == "original" else "original", inpaint_area=area)
    assert not np.array_equal(result, run(engine, Request(other, {"init": picture, "mask": mask})))


def test_only_masked_keeps_the_sources_size(engine: Engine, picture: Picture, mask: NDArray[np.float32]) -> None:
    source, cut = picture[:200, :232], mask[:200, :232]
    result = run(engine, Request(Inpaint(**FEW, inpaint_area="only_masked"), {"init": source, "mask": cut}))
    assert result.shape == source.shape


def test_not_masked_repaints_the_other_side(engine: Engine, picture: Picture, mask: NDArray[np.float32]) -> None:
    settings = Inpaint(**FEW, mask_mode="not_masked", mask_blur=0, denoising_strength=0.9)
    result = run(engine, Request(settings, {"init": picture, "mask": mask}))
    assert np.array_equal(result[mask == 1], picture[mask == 1])
    assert not np.array_equal(result[mask == 0], picture[mask == 0])


def test_a_blank_mask_is_a_sentence(engine: Engine, picture: Picture) -> None:
    with pytest.raises(InvalidRequest, match="blank"):
        run(engine, Request(Inpaint(**FEW), {"init": picture, "mask": np.zeros((256, 256), np.float32)}))


def test_transparency_comes_back_where_it_is_kept(engine: Engine, picture: Picture) -> None:
    alpha = np.zeros((256, 256), np.uint8)
    alpha[50:240, 100:156] = 255
    source = np.dstack([picture, alpha])
    assert np.array_equal(run(engine, img2img(source, denoising_strength=0.3))[..., 3], alpha)
    assert run(engine, img2img(source, denoising_strength=0.3, keep_alpha=False)).shape[2] == 3


@pytest.mark.parametrize("method", ["mk2", "poor_mans"])
def test_outpaint_grows_by_the_pixels_and_keeps_the_picture(engine: Engine, picture: Picture, method: str) -> None:
    settings = Outpaint(**FEW, method=method, pixels_right=40, pixels_up=24, mask_blur=2)
    result = run(engine, Request(settings, {"init": picture}))
    if method == "mk2":
        assert result.shape == (280, 296, 3)
        assert np.array_equal(result[24 + 40 :, : 256 - 40], picture[40:, : 256 - 40])
    else:
        assert result.shape[0] >= 280 and result.shape[1] >= 296
    assert len(np.unique(result[:10].reshape(-1, 3), axis=0)) > 10


def test_the_border_of_a_bright_picture_is_filled_bright_up_to_the_seam(engine: Engine) -> None:
    bright = np.full((256, 256, 3), 230, np.uint8)
    settings = Outpaint(**FEW, method="poor_mans", pixels_right=64, mask_blur=8, denoising_strength=0.1)
    assert run(engine, Request(settings, {"init": bright})).min() > 180


def test_upscale_enlarges_by_the_scale(engine: Engine, picture: Picture) -> None:
    settings = Upscale(upscaler="R-ESRGAN AnimeVideo x2", scale=2.0)
    assert run(engine, Request(settings, {"init": picture[:64, :80]})).shape == (128, 160, 3)


def test_any_canvas_comes_out_at_its_own_size(engine: Engine, picture: Picture) -> None:
    result = run(engine, img2img(picture, width=640, height=360, denoising_strength=0.4))
    assert result.shape == (360, 640, 3)


def test_a_cancel_stops_within_a_step_and_the_next_run_is_whole(engine: Engine, picture: Picture) -> None:
    expected = run(engine, img2img(picture, denoising_strength=0.9))
    for step in range(1, 4):
        seen: list[str] = []
        with pytest.raises(Cancelled):
            engine.run(
                img2img(picture, denoising_strength=0.9),
                lambda share, text, seen=seen: seen.append(text),  # type: ignore[misc]
                lambda seen=seen, step=step: any(text.startswith(f"Step {step} ") for text in seen),  # type: ignore[misc]
            )
        assert seen[-1] == f"Step {step} of 3"
    assert np.array_equal(run(engine, img2img(picture, denoising_strength=0.9)), expected)


def test_progress_never_says_done_before_the_picture(engine: Engine, picture: Picture) -> None:
    shares: list[float] = []
    engine.run(img2img(picture), lambda share, text: shares.append(share), lambda: False)
    assert shares == sorted(shares) and max(shares) < 1


@pytest.mark.parametrize("name", ["/nowhere/model", "/nowhere/model.safetensors", "owner/model", "nonsense"])
def test_a_missing_model_is_a_sentence_without_the_network(engine: Engine, picture: Picture, name: str) -> None:
    with pytest.raises(ModelError):
        run(Engine(), img2img(picture, model=name))


def test_an_earlier_sampler_leaves_no_trace(engine: Engine, picture: Picture) -> None:
    request = img2img(picture, sampler="DPM++ 2M", steps=6)
    before = run(engine, request)
    for sampler in ("DPM++ 3M", "DPM++ 2M SDE", "DEIS"):
        run(engine, img2img(picture, sampler=sampler))
    assert np.array_equal(run(engine, request), before)


@pytest.mark.parametrize("settings", [{"steps": 60}, {"steps": 20, "exact_steps": True, "denoising_strength": 0.05}])
def test_a_distilled_sampler_stays_within_its_schedule(
    engine: Engine, picture: Picture, settings: dict[str, Any]
) -> None:
    assert run(engine, img2img(picture, sampler="LCM", **settings)).shape == picture.shape
