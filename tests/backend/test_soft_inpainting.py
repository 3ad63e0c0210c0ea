"""Soft inpainting on the real engine: greys keep a part of the source, and nothing leaks out of the mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from backend.engine import Engine
from backend.imaging import masks
from backend.operations.soft import changed_mask, mix, soft_blend
from backend.request import Request
from backend.settings import Inpaint
from tests.backend.helpers import FEW, Picture, run

Mask = NDArray[np.float32]
SOFT: dict[str, Any] = {**FEW, "steps": 6, "denoising_strength": 0.8, "soft_inpainting": True, "mask_blur": 0}


def inpaint(picture: Picture, mask: Mask, **settings: Any) -> Request:
    return Request(Inpaint(**{**SOFT, **settings}), {"init": picture, "mask": mask})


def grey(level: float) -> Mask:
    return np.full((256, 256), level, np.float32)


@pytest.fixture(scope="module")
def fading() -> Mask:
    """A mask that grows from 0 at the left to 1 at the right, blank above and below."""
    array = np.zeros((256, 256), np.float32)
    array[64:192] = np.clip(np.linspace(-0.25, 1.25, 256), 0, 1)
    return array


@pytest.mark.parametrize("area", ["whole_picture", "only_masked"])
@pytest.mark.parametrize("content", ["original", "fill", "latent_noise"])
@pytest.mark.parametrize("blur", [0, 8])
def test_nothing_changes_where_the_mask_is_zero(
    engine: Engine, picture: Picture, fading: Mask, area: str, content: str, blur: int
) -> None:
    request = inpaint(picture, fading, inpaint_area=area, masked_content=content, mask_blur=blur, steps=3)
    result = run(engine, request)
    blank = masks.blur(fading, blur) == 0
    assert np.array_equal(result[blank], picture[blank])
    assert np.abs(result[100:150, 230:].astype(int) - picture[100:150, 230:]).mean() > 5


def test_a_mask_of_one_everywhere_is_inpainting(engine: Engine, picture: Picture) -> None:
    soft = run(engine, inpaint(picture, grey(1)))
    assert np.array_equal(soft, run(engine, inpaint(picture, grey(1), soft_inpainting=False)))


def test_the_result_leaves_the_source_the_farther_the_lighter_the_mask(engine: Engine, picture: Picture) -> None:
    levels = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    # Without guidance and over more steps: the faults of few are as large as what two light masks differ by.
    results = [run(engine, inpaint(picture, grey(m), cfg_scale=1.0, steps=12)) for m in levels]
    distances = [np.abs(result.astype(int) - picture).mean() for result in results]
    assert distances == sorted(distances)
    assert distances[0] < 0.5 * distances[-1] and len(set(distances)) == len(levels)


def test_the_same_request_gives_the_same_pixels_and_each_setting_others(
    engine: Engine, picture: Picture, fading: Mask
) -> None:
    before = run(engine, inpaint(picture, fading))
    assert np.array_equal(before, run(engine, inpaint(picture, fading)))
    for change in (
        {"soft_inpainting": False},
        {"schedule_bias": 3.0},
        {"preservation_strength": 2.0},
        {"transition_contrast_boost": 1.0},
        {"mask_influence": 1.0},
        {"difference_threshold": 2.0},
        {"difference_contrast": 6.0},
    ):
        assert not np.array_equal(before, run(engine, inpaint(picture, fading, **change))), change


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "DDIM", "Heun"])
def test_other_samplers_keep_out_of_the_mask_too(engine: Engine, picture: Picture, fading: Mask, sampler: str) -> None:
    result = run(engine, inpaint(picture, fading, sampler=sampler, steps=4))
    assert np.array_equal(result[fading == 0], picture[fading == 0])
    assert not np.array_equal(result, picture)


def test_the_masks_weight_follows_the_noise() -> None:
    settings = Inpaint(schedule_bias=2.0, preservation_strength=0.5, transition_contrast_boost=1.0)
    mask = torch.tensor([0.0, 0.25, 0.64, 1.0]).reshape(1, 1, 1, 4)
    source, new = torch.zeros(1, 4, 1, 4), torch.ones(1, 4, 1, 4)
    blend = soft_blend(source, mask, settings)
    assert torch.allclose(blend(new, 1.0)[0, 0, 0], torch.tensor([0.0, 0.5, 0.8, 1.0]))
    assert torch.allclose(blend(new, 2.0)[0, 0, 0], torch.tensor([0.0, 0.0625, 0.4096, 1.0]))
    assert torch.equal(blend(new, 0.0)[0, 0, 0], torch.tensor([0.0, 1.0, 1.0, 1.0]))
    assert torch.equal(blend(new.expand(2, -1, -1, -1), 14.6)[1, 2, 0, ::3], torch.tensor([0.0, 1.0]))
    kept = soft_blend(source, mask, Inpaint(preservation_strength=0.0))
    assert torch.equal(kept(new, 9.0)[0, 0, 0], torch.tensor([0.0, 1.0, 1.0, 1.0]))


def test_a_mix_keeps_the_length_that_its_mean_would_lose() -> None:
    source = torch.tensor([3.0, 0.0, 0.0, 0.0]).reshape(1, 4, 1, 1)
    new = torch.tensor([0.0, 4.0, 0.0, 0.0]).reshape(1, 4, 1, 1)
    half = torch.full((1, 1, 1, 1), 0.5)
    for boost, length in ((1.0, 3.5), (2.0, 12.5**0.5), (32.0, 4.0)):
        mixed = mix(source, new, half, boost)
        assert float(mixed.norm()) == pytest.approx(length, rel=0.03)
        assert float(mixed[0, 0, 0, 0] / mixed[0, 1, 0, 0]) == pytest.approx(0.75)
    assert torch.isfinite(mix(source, -source, half, 4.0)).all()
    assert torch.allclose(mix(source, source, half, 4.0), source)


def test_the_overlay_shows_what_changed_and_the_mask_decides_at_its_ends() -> None:
    before = torch.zeros(1, 4, 32, 32)
    after = before.clone()
    after[:, :, :, 16:] = 1.5
    mask = np.full((256, 256), 0.5, np.float32)
    mask[:32], mask[-32:] = 0, 1
    settings = Inpaint(difference_threshold=0.5, difference_contrast=2.0)
    overlay = changed_mask(before, after, mask, settings)
    assert overlay.shape == mask.shape and overlay.dtype == np.float32
    assert (overlay[:32] == 0).all() and (overlay[-32:] == 1).all()
    assert overlay[128, 240] == pytest.approx(0.9) and overlay[128, 10] < 1e-3
    row = overlay[128]
    assert (np.diff(row) >= -1e-6).all() and np.abs(np.diff(row)).max() < 0.06
    by_mask = changed_mask(before, after, mask, Inpaint(mask_influence=1.0))
    assert np.allclose(by_mask, mask)
    strict = changed_mask(before, after, mask, Inpaint(difference_threshold=3.0))
    assert strict[128, 240] == pytest.approx(0.2)
    assert changed_mask(before, after, mask, Inpaint(difference_threshold=0.0))[128, 240] == 1
