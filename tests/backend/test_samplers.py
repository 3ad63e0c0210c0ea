"""Samplers on problems whose answer is known: a model that knows the picture, and one that knows its distribution."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from backend.errors import InvalidRequest
from backend.models.samplers import ABSENT, FLOW_SAMPLERS, FLOW_SCHEDULES, SAMPLERS, build_scheduler, split_sampler
from backend.models.schedules import SCHEDULES, levels_at, sigma_table, sigmas_of, timesteps_at
from backend.models.solvers import DPM3MSDE

CONFIG: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
VELOCITY = {**CONFIG, "prediction_type": "v_prediction"}
ZERO_SIGNAL = {**VELOCITY, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
TABLE = sigma_table(diffusers.EulerDiscreteScheduler.from_config(CONFIG).alphas_cumprod.numpy())
PICTURE = torch.linspace(-1, 1, 4 * 8 * 8).reshape(1, 4, 8, 8)
SPREAD = 0.5  # standard deviation of the pictures of the model that knows a distribution

# Samplers whose last step adds noise of its own or ends at the model's first timestep instead of at no noise.
ROUGH = {"LCM": 0.003, "TCD": 0.2}
STOCHASTIC = {"DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "DPM2 a"}
STOCHASTIC |= {"DDPM"}
DISTILLED = {"LCM", "TCD"}  # meant for models that jump to the picture in one step

Denoise = Callable[[torch.Tensor, float], torch.Tensor]


def knows_the_picture(sample: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return x0 of a sample x0 + σ·noise where there is but one picture."""
    return PICTURE.expand_as(sample)


def knows_the_distribution(sample: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return the mean of all x0 that can lie under a sample x0 + σ·noise where x0 is normal with SPREAD."""
    return sample * SPREAD**2 / (SPREAD**2 + sigma**2)


def denoise(
    scheduler: Any,
    model: Denoise,
    steps: int,
    start: int = 0,
    seeds: Sequence[int] = (1,),
    side: int = 8,
    picture: torch.Tensor | float = 0.3,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Run a scheduler as diffusers' image-to-image pipelines do.

    Returns the result, what it started from as x0 + σ·noise, and the number of model calls.
    """
    scheduler.set_timesteps(steps, device="cpu")
    timesteps = scheduler.timesteps[start * scheduler.order :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start * scheduler.order)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.cat([torch.randn(1, 4, side, side, generator=generator) for generator in generators])
    sample = scheduler.add_noise(torch.zeros_like(noise) + picture, noise, timesteps[:1].repeat(len(seeds)))
    first = picture + noise * float(levels_at(float(timesteps[0]), TABLE))
    extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for timestep in timesteps:
        sigma = float(levels_at(float(timestep), TABLE))
        alpha = (1 + sigma**2) ** -0.5
        seen = scheduler.scale_model_input(sample, timestep)  # α·x0 + α·σ·noise
        x0 = model(seen / alpha, sigma)
        noise = (seen / alpha - x0) / sigma
        velocity = scheduler.config.prediction_type == "v_prediction"
        output = alpha * (noise - sigma * x0) if velocity else noise
        sample = scheduler.step(output, timestep, sample, **extra, return_dict=False)[0]
    return sample, first, len(timesteps)


# --- Every sampler, every schedule ---


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("config", [CONFIG, VELOCITY], ids=["epsilon", "velocity"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_finds_the_picture_by_every_schedule(sampler: str, config: dict[str, Any], start: int) -> None:
    for schedule in SAMPLERS[sampler].follows:
        runs = [denoise(build_scheduler(sampler, schedule, config, [1]), knows_the_picture, 6, start) for _ in range(2)]
        result, _, calls = runs[0]
        assert torch.equal(result, runs[1][0]), schedule
        assert (result - PICTURE).abs().max() < ROUGH.get(sampler, 1e-4), schedule
        assert calls == (6 - start) * SAMPLERS[sampler].calls - (SAMPLERS[sampler].calls - 1), schedule


@pytest.mark.parametrize("start", [0, 11])
@pytest.mark.parametrize("schedule", ["Automatic", "Karras", "Align Your Steps", "KL Optimal"])
@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - DISTILLED))
def test_samplers_turn_noise_into_the_distribution(sampler: str, schedule: str, start: int) -> None:
    if schedule not in SAMPLERS[sampler].follows:
        pytest.skip("tested elsewhere: an error")
    scheduler = build_scheduler(sampler, schedule, CONFIG, [5])
    picture = torch.randn(1, 4, 48, 48, generator=torch.Generator().manual_seed(9)) * SPREAD
    result, first, _ = denoise(scheduler, knows_the_distribution, 30, start, [5], 48, picture)
    assert result.std() == pytest.approx(SPREAD, rel=0.16)
    if sampler not in STOCHASTIC:  # the flow's own end, in closed form
        sigma = float(levels_at(float(scheduler.timesteps[start * scheduler.order]), TABLE))
        wanted = first * SPREAD / (SPREAD**2 + sigma**2) ** 0.5
        assert (result - wanted).std() < 0.09 * SPREAD


@pytest.mark.parametrize("schedule", [schedule for schedule in SCHEDULES if schedule != "Automatic"])
def test_schedulers_are_given_the_levels_of_the_schedule(schedule: str) -> None:
    wanted = sigmas_of(schedule, TABLE, 7)
    for sampler, entry in SAMPLERS.items():
        if schedule not in entry.follows:
            continue
        scheduler = build_scheduler(sampler, schedule, CONFIG)
        scheduler.set_timesteps(7)
        levels = wanted if not entry.drop_penultimate else sigmas_of(schedule, TABLE, 7, drop_penultimate=True)
        if entry.whole:
            apart = np.abs(scheduler.timesteps.numpy() - timesteps_at(levels[:-1], TABLE))
            assert apart.max() <= 0.5 + entry.least, sampler
        else:
            kept = list(scheduler.sigmas.numpy()[:: entry.calls][:7])
            assert kept == pytest.approx(levels[:-1], rel=1e-5), sampler
            assert float(scheduler.sigmas[-1]) == pytest.approx(0, abs=1e-5), sampler
            timesteps = scheduler.timesteps.numpy()[:: entry.calls]
            assert levels_at(timesteps, TABLE) == pytest.approx(levels[:-1], rel=1e-4), sampler


def test_automatic_is_the_samplers_own() -> None:
    own = {"DPM++ 2M": "Karras", "DPM++ SDE": "Karras", "DPM++ 2S a": "Karras", "DPM2": "Karras", "DPM2 a": "Karras"}
    own |= dict.fromkeys(("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"), "Exponential")
    own |= dict.fromkeys(("Euler", "Euler a", "LMS", "Heun"), "Normal")
    for sampler, schedule in own.items():
        made = [build_scheduler(sampler, each, CONFIG) for each in ("Automatic", schedule)]
        for scheduler in made:
            scheduler.set_timesteps(20)
        assert torch.equal(made[0].sigmas, made[1].sigmas), sampler
    for sampler in ("DDIM", "PLMS"):
        scheduler = build_scheduler(sampler, "Automatic", CONFIG)
        scheduler.set_timesteps(20)
        assert list(scheduler.timesteps) == list(range(951, 0, -50))


def test_align_your_steps_knows_models_of_sdxls_kind() -> None:
    made = [build_scheduler("Euler", "Align Your Steps", CONFIG, native=native) for native in (512, 1024)]
    for scheduler in made:
        scheduler.set_timesteps(10)
    assert [float(scheduler.sigmas[3]) for scheduler in made] == pytest.approx([2.697, 2.181])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_long_schedule_can_be_built(sampler: str) -> None:
    for schedule in SAMPLERS[sampler].follows:
        scheduler = build_scheduler(sampler, schedule, CONFIG, [1])
        longest = SAMPLERS[sampler].longest
        steps = 2 if schedule == "Automatic" else 3
        result = denoise(scheduler, knows_the_picture, longest, longest - steps, picture=PICTURE)[0]
        assert (result - PICTURE).abs().max() < ROUGH.get(sampler, 2e-3), schedule  # rounding, in float32


# --- Noise of their own ---


@pytest.mark.parametrize("sampler", sorted(STOCHASTIC | DISTILLED))
def test_a_batch_equals_its_singles(sampler: str) -> None:
    def run(seeds: list[int]) -> torch.Tensor:
        return denoise(build_scheduler(sampler, "Automatic", CONFIG, seeds), knows_the_distribution, 6, 1, seeds)[0]

    batch = run([7, 2**32 - 1])
    for index, seed in enumerate([7, 2**32 - 1]):
        assert torch.allclose(batch[index], run([seed])[0], atol=1e-5)
    assert not torch.allclose(batch[0], batch[1], atol=1e-2)


def test_brownian_noise_comes_from_the_seeds_alone(recwarn: pytest.WarningsRecorder) -> None:
    def run(seed: int) -> torch.Tensor:
        start = [3]  # the noise to start from, which is the same in all
        return denoise(build_scheduler("DPM++ SDE", "Karras", CONFIG, [seed]), knows_the_distribution, 6, 0, start)[0]

    first = run(1)
    torch.manual_seed(5)
    assert torch.equal(first, run(1)) and not torch.allclose(first, run(2), atol=1e-2)
    assert not recwarn.list


# --- What is ours ---


def test_ddim_without_noise_is_euler() -> None:
    for schedule in ("DDIM", "Simple"):
        results = [
            denoise(build_scheduler(sampler, schedule, CONFIG), knows_the_distribution, 10, 2)[0]
            for sampler in ("DDIM", "Euler")
        ]
        assert torch.allclose(results[0], results[1], atol=1e-5)


def test_ddim_equals_diffusers_own_where_that_is_exact() -> None:
    own = diffusers.DDIMScheduler.from_config(CONFIG, clip_sample=False, set_alpha_to_one=True)
    ours = build_scheduler("DDIM", "Automatic", CONFIG)
    assert torch.allclose(
        denoise(own, knows_the_distribution, 20)[0], denoise(ours, knows_the_distribution, 20)[0], atol=1e-6
    )


def test_third_order_sde_integrates_a_curve_by_its_three_predictions() -> None:
    scheduler = DPM3MSDE.from_config(CONFIG, algorithm_type="sde-dpmsolver++", solver_order=3)
    scheduler.set_timesteps(20)
    scheduler._step_index = 10
    sigmas = scheduler.sigmas[8:12].double()
    m2, m1, m0 = (torch.full((1,), value) for value in (0.2, 0.5, 1.0))
    lambdas = -sigmas.log()
    h = lambdas[3] - lambdas[2]
    slope0 = (m0 - m1) / (lambdas[2] - lambdas[1])
    slope1 = (m1 - m2) / (lambdas[1] - lambdas[0])
    bend = (slope0 - slope1) / (lambdas[2] - lambdas[0])  # of Newton's polynomial through the three
    slope = slope0 + bend * (lambdas[2] - lambdas[1])
    decay = torch.exp(-2 * h)
    first = h - (1 - decay) / 2  # ∫ 2·e^(−2(h − u))·u du over the step; k-diffusion gives u² half its weight
    second = (h**2 - first) / 2
    alphas = (1 + sigmas**2) ** -0.5
    wanted = sigmas[3] * alphas[3] / (sigmas[2] * alphas[2]) * torch.exp(-h) * 0.7
    wanted = wanted + alphas[3] * ((1 - decay) * m0 + first * slope + second * bend)
    got = scheduler.multistep_dpm_solver_third_order_update(
        [m2, m1, m0], sample=torch.full((1,), 0.7), noise=torch.zeros(1)
    )
    assert float(got) == pytest.approx(float(wanted), rel=1e-4)


def test_lms_begins_at_first_order_in_the_middle_of_a_schedule() -> None:
    scheduler = build_scheduler("LMS", "Karras", CONFIG)
    euler = build_scheduler("Euler", "Karras", CONFIG)
    steps = []
    for each in (scheduler, euler):
        each.set_timesteps(10)
        each.set_begin_index(5)
        sample, timestep = torch.ones(1, 1, 2, 2), each.timesteps[5]
        each.scale_model_input(sample, timestep)
        steps.append(each.step(torch.full_like(sample, 0.5), timestep, sample, return_dict=False)[0])
    assert torch.allclose(steps[0], steps[1], atol=1e-4)


def test_samplers_of_two_calls_tell_that_their_samples_are_scaled_for_the_model() -> None:
    for sampler, entry in SAMPLERS.items():
        if entry.calls == 2:
            assert hasattr(build_scheduler(sampler, "Automatic", CONFIG), "is_scale_input_called")


# --- Models of other kinds ---


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_model_trained_to_zero_signal_keeps_its_own_spacing(sampler: str) -> None:
    scheduler = build_scheduler(sampler, "Automatic", ZERO_SIGNAL, [1])
    scheduler.set_timesteps(20)
    assert scheduler.config.prediction_type == "v_prediction"
    if "timestep_spacing" in scheduler.config:
        assert scheduler.config.timestep_spacing == "trailing"
        assert float(scheduler.timesteps[0]) == 999
    if sampler in ("Euler", "Euler a", "DPM++ 2M", "UniPC"):
        assert float(scheduler.sigmas[0]) == pytest.approx(4096, rel=1e-3)


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DDIM", "DPM++ 2M SDE"])
def test_a_model_trained_to_zero_signal_follows_a_schedule_that_is_asked_for(sampler: str) -> None:
    scheduler = build_scheduler(sampler, "Karras", ZERO_SIGNAL, [1])
    scheduler.set_timesteps(6)
    sample = torch.zeros(1, 4, 8, 8)
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(torch.zeros_like(seen), timestep, sample, return_dict=False)[0]
    assert bool(sample.isfinite().all())


FLOW: dict[str, Any] = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": False,
}
FLUX = {**FLOW, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
FLOW_UNIPC = {
    "_class_name": "UniPCMultistepScheduler",
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
}


def solve_flow(scheduler: Any, start: int, **how: Any) -> torch.Tensor:
    """Run a scheduler on a flow-matching model that knows the picture, as Flux's image-to-image pipeline does."""
    scheduler.set_timesteps(device="cpu", **how)
    scheduler.set_begin_index(start)
    timesteps = scheduler.timesteps[start:]
    noise = torch.randn(PICTURE.shape, generator=torch.Generator().manual_seed(1))
    sample: torch.Tensor = scheduler.scale_noise(torch.full_like(PICTURE, 0.3), timesteps[:1], noise)
    for timestep in timesteps:
        sigma = min(float(timestep) / 1000, 1 - 1e-6)
        sample = scheduler.step((sample - PICTURE) / sigma, timestep, sample, return_dict=False)[0]
    return sample


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("schedule", FLOW_SCHEDULES)
@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
def test_flow_models_find_the_picture_by_their_own_levels(sampler: str, schedule: str, start: int) -> None:
    for config in (FLOW, FLOW_UNIPC):
        scheduler = build_scheduler(sampler, schedule, config, [1])
        assert (solve_flow(scheduler, start, num_inference_steps=8) - PICTURE).abs().max() < 1e-3
        if schedule == "Automatic":  # shift 3 of an even fall from 1 to 1/1000
            even = np.linspace(1, 1 / 1000, 8) if config is FLOW_UNIPC else None
            levels = scheduler.sigmas.numpy()
            assert levels[0] == pytest.approx(1, abs=1e-5) and levels[-1] == 0
            if even is not None and sampler == "Euler":
                assert np.all(np.diff(levels) < 0) and levels[1] > even[1]
    flux = build_scheduler(sampler, schedule, FLUX, [1])
    assert (solve_flow(flux, start, sigmas=np.linspace(1, 1 / 8, 8), mu=0.8) - PICTURE).abs().max() < 1e-3


def test_euler_keeps_a_flow_models_own_scheduler() -> None:
    scheduler = build_scheduler("Euler", "Automatic", FLOW)
    assert type(scheduler) is diffusers.FlowMatchEulerDiscreteScheduler and scheduler.config.shift == 3.0


def test_flow_solvers_follow_the_levels_of_the_models_own_scheduler() -> None:
    own = diffusers.FlowMatchEulerDiscreteScheduler.from_config(FLUX)
    solver = build_scheduler("DPM++ 2M", "Automatic", FLUX)
    for scheduler in (own, solver):
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8), mu=0.8)
    assert torch.allclose(solver.sigmas, own.sigmas, atol=1e-5) and torch.equal(solver.timesteps, own.timesteps)


# --- Errors ---


def test_a_sampler_that_needs_even_steps_lists_what_it_can_follow() -> None:
    with pytest.raises(InvalidRequest, match=r"PLMS can't follow the Karras schedule.*It can follow: .*SGM Uniform"):
        build_scheduler("PLMS", "Karras", CONFIG)


def test_flow_models_list_what_can_solve_them() -> None:
    with pytest.raises(InvalidRequest, match=r"Heun can't solve a flow-matching model.*Euler, DPM\+\+ 2M"):
        build_scheduler("Heun", "Automatic", FLOW)
    with pytest.raises(InvalidRequest, match=r"can't follow the KL Optimal schedule.*Karras"):
        build_scheduler("Euler", "KL Optimal", FLOW_UNIPC)


@pytest.mark.parametrize("name", ABSENT)
def test_samplers_that_are_not_built_in_say_so_and_list_the_known(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"not among those built in.*Euler a"):
        build_scheduler(name, "Automatic", CONFIG)


def test_names_are_read_in_either_case_and_near_ones_are_suggested() -> None:
    assert split_sampler("euler A", "karras") == ("Euler a", "Karras")
    assert split_sampler("dpm++ 2m Karras", "automatic") == ("DPM++ 2M", "Karras")
    with pytest.raises(InvalidRequest, match="Did you mean “DPM\\+\\+ 2M SDE”"):
        split_sampler("DPM++ 2M SDEE")
    with pytest.raises(InvalidRequest, match="no sampler called “DPM\\+\\+ 2M Karras”"):
        split_sampler("DPM++ 2M Karras", "Exponential")
