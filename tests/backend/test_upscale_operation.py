"""The operation Upscale on the real engine: sizes, two upscalers, transparency, what the infotext is told, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from backend.engine import Engine
from backend.errors import Cancelled, DiffusionError, InvalidRequest, ModelError
from backend.imaging.pictures import Picture
from backend.models import upscalers
from backend.operations.parameters import describe
from backend.operations.run import Picture as Made
from backend.operations.upscale import blend, crop_centred, enlarged_size
from backend.request import Request
from backend.settings import Upscale
from tests.backend.test_upscalers import difference, drawing
from tests.backend.test_user_upscalers import small_network

FAST = "R-ESRGAN AnimeVideo x2"


def made(engine: Engine, picture: Picture, **settings: Any) -> Made:
    """Return the picture of an Upscale request; the fast upscaler unless the settings name one."""
    request = Request(Upscale(**{"upscaler": FAST, **settings}), {"init": picture})
    (result,) = engine.run(request, lambda share, text: None, lambda: False).pictures
    return result


def test_every_upscaler_of_the_panel_is_one_of_the_backend() -> None:
    for item in dataclasses.fields(Upscale):
        if item.name in ("upscaler", "upscaler_2"):
            assert set(item.metadata["choices"]) == {*upscalers.UPSCALERS, upscalers.FILE}


@pytest.mark.parametrize(
    ("size", "settings", "expected"),
    [
        ((100, 60), {"scale": 2.0}, (200, 120)),
        ((101, 63), {"scale": 1.5}, (144, 88)),
        ((100, 50), {"scale": 8.0, "maximum_side": 400}, (400, 200)),
        ((1000, 400), {"scale": 4.0, "maximum_side": 1024}, (1024, 408)),
        ((100, 50), {"scale": 2.0, "maximum_side": 400}, (200, 96)),
        ((100, 50), {"scale": 2.0, "maximum_side": 200}, (200, 96)),
        ((500, 300), {"scale": 2.0, "maximum_side": 256}, (256, 152)),
        ((100, 50), {"resize_mode": "scale_to", "width": 300, "height": 300}, (600, 300)),
        ((100, 50), {"resize_mode": "scale_to", "width": 301, "height": 30, "maximum_side": 64}, (301, 150)),
        ((3, 7), {"resize_mode": "scale_to", "width": 100, "height": 100}, (100, 233)),
        ((1, 1), {"resize_mode": "scale_to", "width": 9, "height": 16384}, (16384, 16384)),
        ((400, 200), {"resize_mode": "scale_to", "width": 100, "height": 50}, (100, 50)),
    ],
)
def test_sizes(size: tuple[int, int], settings: dict[str, Any], expected: tuple[int, int]) -> None:
    assert enlarged_size(Upscale(**settings), *size) == expected


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (50, 50), (1, 1), (33, 97)])
@pytest.mark.parametrize("target", [(96, 96), (130, 77), (40, 20)])
def test_scale_to_reaches_the_size_exactly_and_cuts_evenly(
    engine: Engine, size: tuple[int, int], target: tuple[int, int]
) -> None:
    picture = np.ascontiguousarray(drawing(128)[: size[1], : size[0]])
    settings = {"resize_mode": "scale_to", "width": target[0], "height": target[1], "upscaler": "Lanczos"}
    cut = made(engine, picture, **settings).pixels
    whole = made(engine, picture, **settings, crop_to_fit=False).pixels
    assert cut.shape == (target[1], target[0], 3)
    assert whole.shape[0] >= target[1] and whole.shape[1] >= target[0]
    assert whole.shape[0] == target[1] or whole.shape[1] == target[0]
    left, top = whole.shape[1] // 2 - target[0] // 2, whole.shape[0] // 2 - target[1] // 2
    assert np.array_equal(cut, whole[top : top + target[1], left : left + target[0]])


def test_the_crop_is_centred() -> None:
    ramp = np.repeat(np.arange(10, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(4, axis=0)
    assert crop_centred(ramp, 4, 2)[0, :, 0].tolist() == [3, 4, 5, 6] and crop_centred(ramp, 4, 2).shape == (2, 4, 3)
    assert np.array_equal(crop_centred(ramp, 10, 4), ramp)


def test_none_leaves_the_picture_as_it_is(engine: Engine) -> None:
    picture = np.dstack([drawing(32), np.full((32, 32), 77, np.uint8)])
    result = made(engine, picture, upscaler="None", upscaler_2=FAST, scale=4.0)
    assert np.array_equal(result.pixels, picture)


def test_the_second_upscaler_is_blended_by_its_visibility(engine: Engine) -> None:
    picture = drawing(32)
    first, second = made(engine, picture).pixels, made(engine, picture, upscaler="Nearest").pixels
    assert np.array_equal(made(engine, picture, upscaler_2="Nearest", upscaler_2_visibility=0.0).pixels, first)
    assert np.array_equal(made(engine, picture, upscaler_2="Nearest", upscaler_2_visibility=1.0).pixels, second)
    quarter = made(engine, picture, upscaler_2="Nearest", upscaler_2_visibility=0.25).pixels
    assert abs(quarter - (0.75 * first + 0.25 * second)).max() <= 0.5 + 1e-4


def test_blending_by_value_with_transparency_weighs_colours_by_opacity() -> None:
    first = np.array([[[200, 0, 0, 255], [200, 0, 0, 255], [9, 9, 9, 0]]], np.uint8)
    second = np.array([[[0, 100, 0, 255], [0, 100, 0, 0], [9, 9, 9, 0]]], np.uint8)
    assert blend(first, second, 0.5).tolist() == [[[100, 50, 0, 255], [200, 0, 0, 128], [0, 0, 0, 0]]]
    tall = np.zeros((600, 2, 3), np.uint8)
    assert (blend(tall, tall + 100, 0.3) == 30).all()


def test_transparency_is_kept(engine: Engine) -> None:
    alpha = np.zeros((48, 48), np.uint8)
    alpha[12:36, 12:36] = 255
    picture = np.dstack([np.where(alpha[:, :, None] > 0, drawing(48), 0), alpha])
    settings: dict[str, Any]
    for settings in ({}, {"upscaler_2": "Lanczos"}, {"resize_mode": "scale_to", "width": 96, "height": 96}):
        out = made(engine, picture, **settings).pixels
        assert out.shape == (96, 96, 4)
        assert (out[32:64, 32:64, 3] > 250).all() and (out[:16, :, 3] < 5).all()
        opaque = made(engine, drawing(48), **settings).pixels
        assert difference(out[36:60, 36:60, :3], opaque[36:60, 36:60]).mean() < 2


def test_what_the_infotext_is_told(engine: Engine, tmp_path: Path) -> None:
    safetensors.torch.save_file(small_network(), tmp_path / "4x own.safetensors")
    file = str(tmp_path / "4x own.safetensors")
    told = describe(made(engine, drawing(16), upscaler="File", upscaler_file=file, maximum_side=512))
    pairs = "Postprocess upscale by: 2.0, Postprocess max side length: 512, Postprocess upscaler: 4x own"
    assert pairs in told and str(tmp_path) not in told
    told = describe(made(engine, drawing(16), resize_mode="scale_to", width=40, height=24, upscaler_2="Lanczos"))
    assert (
        f"Postprocess upscale to: 40x24, Postprocess crop to fit: True, Postprocess upscaler: {FAST}, "
        "Postprocess upscaler 2: Lanczos, Postprocess upscaler 2 visibility: 0.5"
    ) in told
    assert "Postprocess" not in describe(made(engine, drawing(16), upscaler="None"))


def test_files_of_ones_own_serve_as_either_upscaler(engine: Engine, tmp_path: Path) -> None:
    for scale in (2, 4):
        safetensors.torch.save_file(small_network(scale=scale), tmp_path / f"{scale}.safetensors")
    two, four = str(tmp_path / "2.safetensors"), str(tmp_path / "4.safetensors")
    picture = drawing(32)
    first = made(engine, picture, upscaler="File", upscaler_file=two).pixels
    second = made(engine, picture, upscaler="File", upscaler_file=four).pixels
    assert first.shape == second.shape == (64, 64, 3) and not np.array_equal(first, second)
    own = {"upscaler": "File", "upscaler_file": two, "upscaler_2": "File", "upscaler_2_file": four}
    assert np.array_equal(made(engine, picture, **own).pixels, blend(first, second, 0.5))


WRONG: list[tuple[dict[str, Any], type[DiffusionError]]] = [
    ({"upscaler": "ESRGAN"}, InvalidRequest),
    ({"upscaler_2": ""}, InvalidRequest),
    ({"upscaler": "File"}, InvalidRequest),
    ({"upscaler_2": "File"}, InvalidRequest),
    ({"upscaler_2": "File", "upscaler_2_file": "missing.pth"}, ModelError),
    ({"scale": float("nan")}, InvalidRequest),
    ({"scale": 0.5}, InvalidRequest),
    ({"scale": True}, InvalidRequest),
    ({"upscaler_2_visibility": 1.5}, InvalidRequest),
    ({"maximum_side": -1}, InvalidRequest),
    ({"resize_mode": "crop"}, InvalidRequest),
    ({"resize_mode": "scale_to", "width": 0}, InvalidRequest),
    ({"resize_mode": "scale_to", "width": 16385}, InvalidRequest),
    ({"resize_mode": "scale_to", "width": 16384, "height": 16384}, InvalidRequest),
    ({"upscaler_file": "a\0b", "upscaler": "File"}, InvalidRequest),
]


@pytest.mark.parametrize(("settings", "error"), WRONG)
def test_wrong_settings_are_refused_before_anything_is_computed(
    engine: Engine, settings: dict[str, Any], error: type[DiffusionError]
) -> None:
    seen: list[str] = []
    request = Request(Upscale(**{"upscaler": FAST, **settings}), {"init": drawing(60)[:40]})
    with pytest.raises(error) as raised:
        engine.run(request, lambda share, text: seen.append(text), lambda: False)
    assert raised.value.sentence.endswith(".") and "Enlarging" not in " ".join(seen)


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((4096, 8), {"scale": 8.0}),
        ((8, 9000), {"scale": 2.0, "upscaler": "Lanczos"}),
        ((5000, 8), {"scale": 2.0, "upscaler": "R-ESRGAN 4x+"}),
        ((8, 1000), {"resize_mode": "scale_to", "width": 1000, "height": 1000}),
    ],
)
def test_pictures_that_would_be_too_large_are_refused(
    engine: Engine, size: tuple[int, int], settings: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="16384"):
        made(engine, np.zeros((size[1], size[0], 3), np.uint8), **settings)


def test_progress_runs_once_over_both_upscalers_and_a_cancel_stops_in_either(engine: Engine) -> None:
    request = Request(Upscale(upscaler=FAST, upscaler_2="R-ESRGAN AnimeVideo x4"), {"init": drawing(64)})
    seen: list[tuple[float, str]] = []
    engine.run(request, lambda share, text: seen.append((share, text)), lambda: False)
    shares = [share for share, _ in seen]
    assert shares == sorted(shares) and 0.4 < shares[len(shares) // 2] < 0.6 and shares[-1] > 0.95
    assert "Upscaler 2 of 2: Enlarging" in {text for _, text in seen}
    for stop in (0.1, 0.7):
        reached: list[float] = []
        with pytest.raises(Cancelled):
            engine.run(
                request,
                lambda share, text, reached=reached: reached.append(share),  # type: ignore[misc]
                lambda reached=reached, stop=stop: max(reached, default=0) >= stop,  # type: ignore[misc]
            )
        assert max(reached) < stop + 0.1


def test_the_same_request_gives_the_same_bytes(engine: Engine) -> None:
    picture = drawing(40)
    assert np.array_equal(made(engine, picture).pixels, made(engine, picture).pixels)
