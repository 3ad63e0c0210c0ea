"""Settings, requests and their folders: what goes in comes out, and what is wrong is a sentence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import InvalidRequest
from backend.models.samplers import SAMPLERS, SCHEDULES, split_sampler
from backend.request import Request, whole_side
from backend.settings import OPERATIONS, Img2Img, Inpaint, Upscale, make_settings

PICTURE = np.arange(64 * 72 * 3, dtype=np.uint8).reshape(64, 72, 3)
MASK = np.zeros((64, 72), np.float32)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_defaults_are_valid_and_every_setting_is_declared_in_full(operation: str) -> None:
    settings = OPERATIONS[operation]()
    settings.check()
    for item in dataclasses.fields(settings):
        assert item.metadata["label"] and item.metadata["description"], item.name
        assert not item.metadata["description"].endswith("."), item.name
        if isinstance(item.default, (int, float)) and not isinstance(item.default, bool):
            assert item.metadata["minimum"] <= item.default <= item.metadata["maximum"]


def test_a_saved_request_comes_back_whole(tmp_path: Path) -> None:
    request = Request(Inpaint(prompt="naïve “quotes”, 猫", seed=5), {"init": PICTURE, "mask": MASK})
    request.save(tmp_path)
    loaded = Request.load(tmp_path)
    assert loaded.settings == request.settings
    assert np.array_equal(loaded.images["init"], PICTURE) and np.array_equal(loaded.images["mask"], MASK)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cfg_scale": 31.0}, "CFG Scale"),
        ({"cfg_scale": float("nan")}, "finite"),
        ({"steps": 0}, "Sampling Steps"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"seed": 2**32}, "Seed"),
        ({"denoising_strength": -0.1}, "Denoising"),
        ({"sampler": "Euler b"}, "Euler a"),
        ({"width": 20_000}, "Width"),
        ({"prompt": "a\0b"}, "null"),
        ({"guidance_scale": 3.0}, "cfg_scale"),
    ],
)
def test_a_wrong_setting_is_a_sentence_that_names_it(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        make_settings(Img2Img, values)


@pytest.mark.parametrize(
    "images",
    [
        {},
        {"init": PICTURE},
        {"init": PICTURE, "mask": MASK[:10]},
        {"init": PICTURE, "mask": np.full((64, 72), np.nan, np.float32)},
        {"init": PICTURE, "mask": MASK + 2},
        {"init": PICTURE.astype(np.float32), "mask": MASK},
        {"init": PICTURE[..., 0], "mask": MASK},
        {"init": np.zeros((0, 8, 3), np.uint8), "mask": np.zeros((0, 8), np.float32)},
    ],
)
def test_wrong_images_are_refused(images: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Request(Inpaint(), images).check()


def test_whole_numbers_serve_where_a_number_is_wanted() -> None:
    assert make_settings(Upscale, {"scale": 2}).scale == 2.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(document=json_values)
def test_any_json_is_a_request_or_a_sentence(document: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("request")
    (folder / "request.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InvalidRequest):
        Request.load(folder)


@given(st.binary(max_size=200))
def test_any_bytes_for_an_array_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("request")
    Request(Upscale(), {"init": PICTURE}).save(folder)
    (folder / "init.npy").write_bytes(content)
    with pytest.raises(InvalidRequest):
        Request.load(folder).check()


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    Request(Upscale(), {"init": PICTURE}).save(tmp_path)
    np.save(tmp_path / "init.npy", np.array([{"run": "me"}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidRequest):
        Request.load(tmp_path)


def test_old_sampler_names_are_split_and_unknown_ones_list_the_known() -> None:
    assert split_sampler("DPM++ 2M Karras") == ("DPM++ 2M", "Karras")
    assert split_sampler("Euler a", "Karras") == ("Euler a", "Karras")
    with pytest.raises(InvalidRequest, match="Euler a"):
        split_sampler("Eular a")
    with pytest.raises(InvalidRequest, match=", ".join(SCHEDULES)):
        split_sampler(next(iter(SAMPLERS)), "Karass")


@pytest.mark.parametrize(("pixels", "side"), [(500, 504), (1, 64), (99999, 4096), (512.4, 512)])
def test_sides_become_multiples_of_eight(pixels: float, side: int) -> None:
    assert whole_side(pixels) == side


def test_a_style_goes_before_the_prompt_or_around_it() -> None:
    assert Img2Img(prompt="a cat", style="ink").full_prompt == "ink, a cat"
    assert Img2Img(prompt="a cat", style="ink of {prompt}, clean").full_prompt == "ink of a cat, clean"
    assert Img2Img(prompt="", style="ink").full_prompt == "ink"
    assert Img2Img(prompt="", style="ink of {prompt}, clean").full_prompt == "ink, clean"
