"""What the decoder learns from: pixels that belong to latents, and how unlike two pictures are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("pytorch_msssim")

from training import pictures, tiny  # noqa: E402
from training.autoencoder import LAYERS, build, build_tiny, deepened, to_tensor  # noqa: E402
from training.decoder import CHECKED, Lessons, unlike  # noqa: E402
from training.encode import RECORD, Latents  # noqa: E402
from training.measures import similarity  # noqa: E402
from training.results import Results  # noqa: E402
from training.stylist import BLOCK  # noqa: E402


def files() -> tuple[pictures.Pictures, Latents, Results]:
    """Return pictures and latents whose values say where they are, and results that are such latents."""
    records, count = pictures.KEPT_BACK + 2, CHECKED + 3
    places = np.arange(64 * 64, dtype=np.float16).reshape(64, 64) % 251
    latents = np.broadcast_to(places, (records, *RECORD)).copy()
    latents[..., 1, :, :] = np.arange(records)[:, None, None, None, None]
    bytes_ = np.broadcast_to(places.repeat(BLOCK, 0).repeat(BLOCK, 1)[..., None], (records, *pictures.RECORD)).astype(
        np.uint8
    )
    bytes_[..., 1] = np.arange(records)[:, None, None, None, None]
    whose = [pictures.Whose(pictures.KEPT_BACK + number % 2, 1, 2) for number in range(count)]
    drawn = np.stack([latents[one.record, one.colouring, one.style] for one in whose])
    nothing: list[dict[str, Any]] = [{}] * records
    maps = np.zeros((records, 64, 64), np.uint8)
    return pictures.Pictures(bytes_, nothing), Latents(latents, maps, maps, nothing), Results(drawn, whose)


def test_the_pixels_of_a_crop_are_those_of_its_latents() -> None:
    lessons, rng = Lessons(torch.nn.Identity(), Path(), files()), np.random.default_rng(0)
    for _ in range(40):
        given, pixels = lessons.crop(rng, 32)
        assert given.shape == (4, 32, 32)
        assert pixels.shape == (128, 128, 3)
        shown = torch.from_numpy(pixels[::BLOCK, ::BLOCK].astype(np.float32)).permute(2, 0, 1)
        apart = (given[:2] - shown[:2]).abs()  # noise on true latents
        assert float(apart.mean()) < 0.1


def test_how_unlike_pictures_are_is_what_the_evaluation_measures() -> None:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (16, 16, 3), np.uint8)
    first = coarse.repeat(8, 0).repeat(8, 1)
    second = np.clip(first.astype(np.int16) + rng.integers(-40, 41, first.shape), 0, 255).astype(np.uint8)
    assert float(unlike(to_tensor(first[None]), to_tensor(first[None]))) == pytest.approx(0, abs=1e-6)
    measured = float(unlike(to_tensor(first[None]), to_tensor(second[None])))
    assert measured == pytest.approx(1 - similarity(first, second), abs=0.03)  # which looks at the borders too
    assert measured > 0.1


def test_a_deepened_autoencoder_draws_as_before_until_it_learns() -> None:
    torch.manual_seed(4)
    model = build((4, 8, 8)).eval()
    deep = deepened(model, LAYERS + 2)
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = model.encode(picture).latent_dist.mean
        assert torch.equal(deep.encode(picture).latent_dist.mean, latents)
        assert torch.equal(deep.decode(latents).sample, model.decode(latents).sample)
    deep.decode(latents).sample.square().mean().backward()
    assert float(deep.decoder.up_blocks[0].resnets[-1].conv2.weight.grad.norm()) > 0
    assert deepened(deep, LAYERS + 2) is deep


def test_both_halves_of_the_tiny_autoencoder_learn_at_the_scale_of_the_latents() -> None:
    model = build_tiny()
    assert model.decode(torch.zeros(1, 4, 8, 8), return_dict=False)[0].shape == (1, 3, 32, 32)
    assert model.encode(torch.zeros(1, 3, 32, 32), return_dict=False)[0].shape == (1, 4, 8, 8)
    losses = tiny.Lessons(model, Path(), files()).learn(0, 0)
    assert losses.shape == (2,) and (losses > 0).all()
    for half in (model.encoder, model.decoder):
        assert all(float(part.grad.norm()) > 0 for part in half.parameters() if part.dim() == 4)
