"""How samplers add noise of their own, and noise as NVIDIA's cards draw it, by value against formulas."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from backend.engine import Engine
from backend.models.load import Options
from backend.models.samplers import PLAIN, SAMPLERS, Stochastic, build_scheduler
from backend.models.schedules import levels_at
from backend.models.solvers import ancestral
from backend.operations.noise import Seed, draw_noise
from backend.operations.philox import AsOnNvidia, PhiloxGenerator, philox
from tests.backend.helpers import Picture, img2img, run
from tests.backend.test_samplers import CONFIG, SPREAD, TABLE, VELOCITY, denoise, knows_the_distribution

# Of the paper's own test vectors: counter, key, result.
VECTORS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]
# torch.randn(4, device="cuda") after torch.manual_seed(0), as it is known from any NVIDIA card.
SEED_0 = [-0.9247, -0.4253, -2.6438, 0.1452]


def made(sampler: str, stochastic: Stochastic = PLAIN, config: Any = CONFIG, **options: Any) -> torch.Tensor:
    """Return what a sampler makes of the distribution, from noise."""
    scheduler = build_scheduler(sampler, "Karras", config, (1,), stochastic=stochastic)
    return denoise(scheduler, knows_the_distribution, options.pop("steps", 8), **options)[0]


def test_ancestral_levels_by_value() -> None:
    assert ancestral(2, 1, 1.0) == pytest.approx((0.5, 0.75**0.5))
    assert ancestral(2, 1, 0.5) == pytest.approx((0.8125**0.5, 0.1875**0.5))
    assert ancestral(2, 1, 0.0) == (1, 0) and ancestral(2, 0, 1.0) == (0, 0)


@pytest.mark.parametrize("config", [CONFIG, VELOCITY], ids=["epsilon", "velocity"])
def test_eulers_ancestral_sampler_is_diffusers_own_until_eta_is_set(config: dict[str, Any]) -> None:
    own = diffusers.EulerAncestralDiscreteScheduler.from_config(config, timestep_spacing="linspace")
    ours = build_scheduler("Euler a", "Normal", config)
    expected, found = (denoise(scheduler, knows_the_distribution, 10, 2)[0] for scheduler in (own, ours))
    assert torch.allclose(expected, found, atol=1e-5)


@pytest.mark.parametrize(("ancestral_one", "plain"), [("Euler a", "Euler"), ("DPM2 a", "DPM2")])
def test_without_eta_an_ancestral_sampler_is_the_plain_one(ancestral_one: str, plain: str) -> None:
    assert torch.allclose(made(ancestral_one, Stochastic(eta=0.0)), made(plain), atol=1e-4)
    assert not torch.allclose(made(ancestral_one, Stochastic(eta=0.5)), made(plain), atol=1e-2)


@pytest.mark.parametrize("sampler", ["Euler a", "DPM2 a", "DPM++ 2S a"])
def test_eta_1_is_what_an_ancestral_sampler_has_by_itself(sampler: str) -> None:
    assert torch.equal(made(sampler, Stochastic(eta=1.0)), made(sampler))


def test_eta_of_ddim_is_diffusers_own() -> None:
    own = diffusers.DDIMScheduler.from_config(CONFIG, clip_sample=False, set_alpha_to_one=True)
    step = own.step
    own.step = lambda *arguments, generator=None, **options: step(*arguments, eta=0.7, generator=generator, **options)
    ours = build_scheduler("DDIM", "Automatic", CONFIG, stochastic=Stochastic(eta=0.7))
    expected, found = (denoise(scheduler, knows_the_distribution, 20)[0] for scheduler in (own, ours))
    assert torch.allclose(expected, found, atol=1e-5)


def test_churn_is_that_of_the_paper() -> None:
    knobs = Stochastic(s_churn=3.0, s_tmin=0.5, s_tmax=10.0, s_noise=0.9, executed=6)
    scheduler = build_scheduler("Euler", "Karras", CONFIG, stochastic=knobs)
    found = denoise(scheduler, knows_the_distribution, 6, seeds=(5,))[0]
    plain = build_scheduler("Euler", "Karras", CONFIG)
    plain.set_timesteps(6)
    levels = plain.sigmas.tolist()
    gamma = min(3.0 / 6, 2**0.5 - 1)
    raised = [level * (1 + gamma) if 0.5 <= level <= 10 else level for level in levels]
    generator = torch.Generator().manual_seed(5)
    sample = 0.3 + raised[0] * torch.randn(1, 4, 8, 8, generator=generator)
    for index in range(6):
        sigma = raised[index]
        seen = min(sigma, float(levels_at(999.0, TABLE)))
        slope = (sample - knows_the_distribution(sample, seen)) / sigma
        sample = sample + slope * (levels[index + 1] - sigma)
        up = (raised[index + 1] ** 2 - levels[index + 1] ** 2) ** 0.5
        if up > 0:
            sample = sample + up * 0.9 * torch.randn(1, 4, 8, 8, generator=generator)
    assert torch.allclose(found, sample, atol=1e-3)
    unchurned = made("Euler", Stochastic(s_churn=3.0, s_tmin=10.0, s_tmax=5.0))
    assert torch.allclose(unchurned, made("Euler"), atol=1e-3)


@pytest.mark.parametrize(
    ("sampler", "stochastic"),
    [
        ("Euler a", Stochastic(eta=0.6)),
        ("DPM2 a", Stochastic(eta=0.6)),
        ("DPM++ 2S a", Stochastic(eta=0.6)),
        ("DDIM", Stochastic(eta=0.6)),
        ("Euler", Stochastic(s_churn=10.0)),
    ],
)
def test_the_noise_added_leaves_the_distribution_what_it_is(sampler: str, stochastic: Stochastic) -> None:
    result = made(sampler, stochastic, steps=60, side=48, picture=0.0)
    assert abs(float(result.std()) / SPREAD - 1) < 0.08


@pytest.mark.parametrize("sampler", [name for name, entry in SAMPLERS.items() if "s_noise" in entry.takes])
def test_less_of_the_noise_makes_less_spread(sampler: str) -> None:
    churn = 0.0 if sampler != "Euler" else 20.0
    spreads = [
        float(made(sampler, Stochastic(s_churn=churn, s_noise=share), steps=30, side=32, picture=0.0).std())
        for share in (0.5, 0.9, 1.0)
    ]
    assert spreads == sorted(spreads) and spreads[0] < spreads[2] * 0.95


@pytest.mark.parametrize("sampler", [name for name, entry in SAMPLERS.items() if not entry.takes and name != "PLMS"])
def test_others_take_no_notice(sampler: str) -> None:
    everything = Stochastic(0.5, 10.0, 0.1, 5.0, 0.5, 4)
    assert torch.equal(made(sampler, everything), made(sampler))


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_philox_by_the_papers_vectors(counter: list[int], key: list[int], expected: list[int]) -> None:
    words = philox([np.array([word], np.uint64) for word in counter], [np.uint64(word) for word in key])
    assert [int(word[0]) for word in words] == expected


def test_noise_of_nvidia_cards_by_value() -> None:
    generator = PhiloxGenerator(0)
    with AsOnNvidia():
        first = torch.randn(4, generator=generator)
        second = torch.randn((1, 2, 2), generator=generator)
    assert np.allclose(first.numpy(), SEED_0, atol=5e-5)
    assert not np.allclose(second.numpy().ravel(), SEED_0, atol=0.1)  # it goes on
    again = draw_noise([Seed(0, rng="NV")], 4, 8, 8)
    assert torch.equal(again.ravel()[:4], first)
    large = draw_noise([Seed(2**32 - 1, rng="NV")], 4, 64, 64)
    assert abs(float(large.std()) - 1) < 0.02 and abs(float(large.mean())) < 0.02


def test_a_picture_grows_from_the_noise_that_is_set(picture: Picture) -> None:
    engine = Engine(Options(precision="float32"))  # in bfloat16 some processors round a batch as they round no picture
    common: dict[str, Any] = {"sampler": "Euler a", "denoising_strength": 1.0, "variation_strength": 0.3}
    processor, card = (run(engine, img2img(picture, rng=rng, **common)) for rng in ("CPU", "NV"))
    assert not np.array_equal(processor, card)
    request = img2img(picture, rng="NV", batch_size=2, **{**common, "variation_strength": 0.0})
    both = engine.run(request, lambda share, text: None, lambda: False).pictures
    for one in both:
        assert one.settings.rng == "NV"  # type: ignore[attr-defined]
        alone = run(engine, img2img(picture, rng="NV", **{**common, "variation_strength": 0.0, "seed": one.seed}))
        assert np.abs(alone.astype(int) - one.pixels).max() <= 1


@pytest.mark.parametrize("change", [{"eta": 0.3}, {"s_noise": 0.8}, {"sampler": "Euler", "s_churn": 5.0}])
def test_the_settings_reach_the_sampler(engine: Engine, picture: Picture, change: dict[str, Any]) -> None:
    plain = {key: value for key, value in change.items() if key == "sampler"}
    before = run(engine, img2img(picture, **{"sampler": "Euler a", **plain}))
    assert not np.array_equal(before, run(engine, img2img(picture, **{"sampler": "Euler a", **change})))
