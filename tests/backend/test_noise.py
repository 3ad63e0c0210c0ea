"""The noise of seeds, variations and resized seeds, by the web UI's rules."""

from __future__ import annotations

import torch

from backend.operations.noise import Seed, draw_noise, interpolate, paste_centred, single
from backend.settings import Img2Img

SHAPE = (4, 32, 48)


def test_variation_noise_stays_noise_at_every_strength() -> None:
    for strength in (0.1, 0.5, 0.9):
        noise = draw_noise([Seed(seed, seed + 1000, strength) for seed in range(20)], *SHAPE)
        assert abs(float(noise.std()) - 1) < 0.02 and float(noise.abs().max()) < 6


def test_a_variation_goes_from_one_seed_to_the_other() -> None:
    first, second = draw_noise([Seed(1)], *SHAPE), draw_noise([Seed(2)], *SHAPE)
    assert torch.equal(draw_noise([Seed(1, 2, 0.0)], *SHAPE), first)
    assert torch.allclose(draw_noise([Seed(1, 2, 1.0)], *SHAPE), second, atol=1e-4)
    middle = draw_noise([Seed(1, 2, 0.5)], *SHAPE)
    assert torch.allclose(middle, interpolate(0.5, first, second))
    near, far = ((noise - middle).square().mean() for noise in (first, draw_noise([Seed(3)], *SHAPE)))
    assert near < far / 2


def test_interpolation_is_along_the_height() -> None:
    first, second = torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1)
    first[0, 0, :, 0] = torch.tensor([1.0, 0.0])
    second[0, 0, :, 0] = torch.tensor([0.0, 1.0])
    middle = interpolate(0.5, first, second)[0, 0, :, 0]
    assert torch.allclose(middle, torch.full((2,), 0.5**0.5))


def test_parallel_noise_is_interpolated_in_a_straight_line() -> None:
    noise = draw_noise([Seed(5)], *SHAPE)
    assert torch.allclose(interpolate(0.3, noise, 2 * noise), 1.3 * noise, atol=1e-5)


def test_a_batch_is_its_singles() -> None:
    seeds = [Seed(7), Seed(8, 9, 0.4), Seed(10, size=(20, 20))]
    batch = draw_noise(seeds, *SHAPE)
    assert all(torch.equal(batch[i : i + 1], draw_noise([seed], *SHAPE)) for i, seed in enumerate(seeds))


def test_a_resized_seed_keeps_its_noise_in_the_middle() -> None:
    small = draw_noise([Seed(3)], 4, 16, 24)
    assert torch.equal(draw_noise([Seed(3, size=(24, 16))], *SHAPE)[:, :, 8:24, 12:36], small)
    large, cropped = torch.arange(36.0).reshape(1, 1, 6, 6), torch.zeros(1, 1, 2, 2)
    assert paste_centred(large, cropped).flatten().tolist() == [14, 15, 20, 21]


def test_seeds_count_on_or_the_variations_do() -> None:
    assert single(Img2Img(seed=2**32 - 1), 1)["seed"] == 0
    changes = single(Img2Img(seed=5, variation_seed=7, variation_strength=0.1), 2)
    assert changes == {"variation_seed": 9, "batch_count": 1, "batch_size": 1}
