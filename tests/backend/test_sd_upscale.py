"""SD upscale on the real engine: sizes, seams, what each setting changes, and that large pictures pass in tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend.engine import Engine
from backend.errors import Cancelled, InvalidRequest
from backend.imaging.seams import seam_index
from backend.imaging.tiles import plan_tiles
from backend.models import tiled_vae
from backend.request import Request
from backend.settings import SDUpscale
from tests.backend.helpers import FEW, Picture, departure, run

CHEAP: dict[str, Any] = {**FEW, "upscaler": "Lanczos", "denoising_strength": 0.4}


def sd_upscale(picture: Picture, **settings: Any) -> Request:
    return Request(SDUpscale(**{**CHEAP, **settings}), {"init": picture})


@pytest.fixture(scope="module")
def textured() -> Picture:
    """A cloudy texture of 192×192, alike everywhere, so that only a seam can stand out."""
    random = np.random.RandomState(3)
    coarse = random.randint(40, 216, (24, 24, 3)).astype(np.uint8)
    soft = np.array(Image.fromarray(coarse).resize((192, 192), Image.Resampling.BICUBIC)).astype(int)
    array: Picture = np.clip(soft + random.randint(-12, 13, soft.shape), 0, 255).astype(np.uint8)
    return array


@pytest.mark.parametrize("method", ["seamless", "tiles"])
@pytest.mark.parametrize(
    ("size", "scale"), [((96, 64), 2.0), ((33, 21), 1.0), ((131, 77), 1.5), ((1, 3), 3.0), ((150, 90), 3.35)]
)
def test_the_result_is_of_the_size_asked_for(
    engine: Engine, picture: Picture, method: str, size: tuple[int, int], scale: float
) -> None:
    source = picture[60 : 60 + size[1], 60 : 60 + size[0]]
    result = run(engine, sd_upscale(source, method=method, scale=scale, steps=1, overlap=32))
    assert result.shape == (int(size[1] * scale), int(size[0] * scale), 3)


def test_no_denoising_is_the_upscaler_alone(engine: Engine, picture: Picture) -> None:
    expected = np.array(Image.fromarray(picture).resize((384, 384), Image.Resampling.LANCZOS))
    assert np.array_equal(run(engine, sd_upscale(picture, denoising_strength=0.0, scale=1.5)), expected)


def test_without_an_upscaler_the_picture_keeps_its_size(engine: Engine, picture: Picture) -> None:
    result = run(engine, sd_upscale(picture, upscaler="None", scale=4.0))
    assert result.shape == picture.shape and not np.array_equal(result, picture)


def test_seams_show_where_tiles_do_not_overlap_and_nowhere_else(engine: Engine, textured: Picture) -> None:
    found = {}
    for method, overlap in (("tiles", 0), ("tiles", 64), ("seamless", 64)):
        result = run(engine, sd_upscale(textured, method=method, overlap=overlap, scale=3.0, steps=4))
        found[method, overlap] = seam_index(result, plan_tiles(576, 576, 256, 256, overlap))
    assert found["tiles", 0] > 1.3
    assert found["tiles", 64] < 1.3
    assert found["seamless", 64] <= 1.1


@pytest.mark.parametrize("method", ["seamless", "tiles"])
def test_every_setting_changes_the_picture(engine: Engine, picture: Picture, method: str) -> None:
    source = picture[40:136, 80:176]
    common = {"method": method, "width": 96, "height": 96, "overlap": 32, "steps": 2}
    before = run(engine, sd_upscale(source, **common))
    assert np.array_equal(before, run(engine, sd_upscale(source, **common)))
    for change in (
        {"seed": 12},
        {"overlap": 0},
        {"denoising_strength": 0.9},
        {"upscaler": "Nearest"},
        {"width": 128},
        {"height": 128},
        {"prompt": "black ink line drawing of a man"},
        {"colour_correction": True},
        {"seamless_x": True},
    ):
        assert not np.array_equal(before, run(engine, sd_upscale(source, **{**common, **change}))), change
    other = "tiles" if method == "seamless" else "seamless"
    assert not np.array_equal(before, run(engine, sd_upscale(source, **{**common, "method": other})))


def test_more_denoising_leaves_the_enlarged_picture_farther(engine: Engine, picture: Picture) -> None:
    small = picture[64:192, 64:192]
    enlarged = run(engine, sd_upscale(small, denoising_strength=0.0))
    # Without guidance, whose overshoot is as long as the way that denoising goes.
    distances = [
        departure(run(engine, sd_upscale(small, denoising_strength=d, steps=10, cfg_scale=1.0)), enlarged)
        for d in (0.1, 0.4, 0.8)
    ]
    assert distances == sorted(distances) and len(set(distances)) == 3


def test_seeds_count_on_from_batch_to_batch_of_tiles(engine: Engine, picture: Picture) -> None:
    common = {"method": "tiles", "overlap": 0, "upscaler": "None", "width": 128, "height": 128, "sampler": "Euler"}
    single = run(engine, sd_upscale(picture, **common))
    for batch_size, seeds in ((1, (0, 1, 2, 3)), (2, (0, 1, 1, 2))):
        made = run(engine, sd_upscale(picture, **common, batch_size=batch_size))
        for index, offset in enumerate(seeds):
            y, x = divmod(index, 2)
            place = slice(y * 128, y * 128 + 128), slice(x * 128, x * 128 + 128)
            alone = sd_upscale(picture[place].copy(), **{**common, "seed": 11 + offset})
            assert np.abs(made[place].astype(int) - run(engine, alone)).mean() < 1.5, (batch_size, index)
        assert (batch_size == 1) == np.array_equal(made, single)


@pytest.mark.parametrize("method", ["seamless", "tiles"])
def test_each_picture_of_a_batch_can_be_made_alone(engine: Engine, picture: Picture, method: str) -> None:
    request = sd_upscale(picture[:160, :160], method=method, batch_count=2, batch_size=2)
    first, second = engine.run(request, lambda share, text: None, lambda: False).pictures
    assert not np.array_equal(first.pixels, second.pixels)
    assert second.seed == 12
    assert np.array_equal(run(engine, Request(second.settings, request.images)), second.pixels)


def test_transparency_is_enlarged_and_kept(engine: Engine, picture: Picture) -> None:
    alpha = np.zeros((256, 256), np.uint8)
    alpha[50:240, 100:156] = 255
    source = np.dstack([picture, alpha])
    result = run(engine, sd_upscale(source, scale=1.5))
    bare = run(engine, sd_upscale(source, scale=1.5, denoising_strength=0.0))
    assert result.shape == (384, 384, 4) and np.array_equal(result[..., 3], bare[..., 3])
    assert bare[100, 200, 3] == 255 and bare[10, 10, 3] == 0
    assert run(engine, sd_upscale(source, scale=1.5, keep_alpha=False)).shape == (384, 384, 3)


@pytest.mark.parametrize("method", ["seamless", "tiles"])
def test_opposite_edges_fit_where_the_picture_is_to_be_seamless(engine: Engine, method: str) -> None:
    def jump(picture: Picture) -> float:
        changes = np.abs(np.diff(np.roll(picture.astype(int), 16, axis=1)[:, :32], axis=1)).mean(axis=(0, 2))
        return float(changes[15] / changes.mean())

    columns = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    wave = np.repeat((np.cos(columns) * 110 + 128)[None, :, None], 128, axis=0).repeat(3, axis=2).astype(np.uint8)
    settings = {"method": method, "upscaler": "None", "width": 256, "height": 256, "denoising_strength": 0.6}
    assert jump(run(engine, sd_upscale(wave, **settings, seamless_x=True))) < 2
    assert jump(run(engine, sd_upscale(wave, **settings))) > 3


def test_what_is_wrong_is_said_before_anything_is_computed(engine: Engine, picture: Picture) -> None:
    told: list[str] = []
    large = np.zeros((2100, 2000, 3), np.uint8)
    for request in (
        sd_upscale(picture, overlap=256),
        sd_upscale(large, scale=4.0),
        sd_upscale(np.zeros((8, 5000, 3), np.uint8), scale=4.0),
    ):
        with pytest.raises(InvalidRequest):
            engine.run(request, lambda share, text: told.append(text), lambda: False)
    assert told == []


def test_progress_counts_every_tile_of_every_step_and_never_falls(engine: Engine, picture: Picture) -> None:
    told: list[tuple[float, str]] = []
    request = sd_upscale(picture, scale=1.5, steps=4, denoising_strength=0.9, batch_count=2)
    engine.run(request, lambda share, text: told.append((share, text)), lambda: False)
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] <= 1
    texts = [text for _, text in told if text.startswith("Picture 2 of 2: Step")]
    assert texts == [f"Picture 2 of 2: Step {s} of 4, tile {t} of 4" for s in range(1, 5) for t in range(1, 5)]


@pytest.mark.parametrize("method", ["seamless", "tiles"])
def test_cancel_stops_within_one_tile_of_a_step(engine: Engine, picture: Picture, method: str) -> None:
    told: list[str] = []
    with pytest.raises(Cancelled):
        engine.run(
            sd_upscale(picture, method=method, steps=20),
            lambda share, text: told.append(text),
            lambda: any("Step 2" in text for text in told),
        )
    assert "Step 2" in told[-1]


def test_tiles_that_are_not_the_ones_set_are_told_of(engine: Engine, picture: Picture) -> None:
    request = sd_upscale(picture, width=640, height=640, scale=1.0, steps=1)
    assert "320×320" in engine.run(request, lambda share, text: None, lambda: False).notice
    request = sd_upscale(picture, scale=1.0, steps=1)
    assert engine.run(request, lambda share, text: None, lambda: False).notice == ""


@pytest.mark.parametrize("source", ["picture", "textured"])
def test_a_large_picture_passes_the_vae_in_tiles_as_it_would_at_once(
    engine: Engine, source: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = engine.models.get("embedded")
    model.watch = lambda: None  # no run is watched: the last one may have been cancelled
    image = Image.fromarray(request.getfixturevalue(source))
    large = np.array(image.resize((704, 640), Image.Resampling.BICUBIC))
    whole = model.encode_anew(large)
    at_once = model.decode(whole)[0].astype(int)
    shares: list[float] = []
    monkeypatch.setattr(tiled_vae, "TILE", 256)
    monkeypatch.setattr(model.savings, "tiled", True)
    latents = model.encode_anew(large, shares.append)
    assert float((latents - whole).pow(2).mean().sqrt()) < 0.25 * float(whole.std())
    pixels = model.decode(whole, shares.append)[0]
    assert pixels.shape == large.shape
    assert np.abs(pixels - at_once).mean() < 6
    if source == "textured":
        assert seam_index(pixels, tiled_vae.enlarged_grid(plan_tiles(88, 80, 32, 32, 8), 8)) < 1.1
    assert len(shares) > 20 and shares.count(1.0) == 2
    assert not [part for part in model.pipe.vae.modules() if "forward" in vars(part)]
    monkeypatch.undo()
    assert torch.equal(model.encode_anew(large), whole)


@pytest.mark.parametrize("method", ["seamless", "tiles"])
def test_an_inpainting_model_sees_each_tile_hidden(inpainting_model: Path, picture: Picture, method: str) -> None:
    engine = Engine()
    result = run(
        engine,
        sd_upscale(
            picture[::4, ::4].copy(), method=method, model=str(inpainting_model), width=64, height=64, overlap=16
        ),
    )
    assert result.shape == (128, 128, 3)
    assert engine.models.get(str(inpainting_model)).extra_channels is None


@pytest.fixture(scope="module")
def inpainting_model(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with five more channels going into its UNet."""
    from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel

    pipe = engine.models.get("embedded").pipe
    config = {**pipe.unet.config, "in_channels": 9}
    unet = UNet2DConditionModel.from_config(config)
    parts = {"vae": pipe.vae, "text_encoder": pipe.text_encoder, "tokenizer": pipe.tokenizer}
    folder = tmp_path_factory.mktemp("nine")
    StableDiffusionInpaintPipeline(
        **parts,
        unet=unet,
        scheduler=EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config),  # the last run's may be ours
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder
