"""Schedules by value: the closed formulas, the published tables, and what every schedule has in common."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.models.schedules import (
    AUTOMATIC,
    SCHEDULES,
    levels_at,
    sigma_table,
    sigmas_of,
    timesteps_at,
    whole_timesteps,
)

# Stable Diffusion's own noise levels: betas even in their square roots from 0.00085 to 0.012.
BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ALPHAS = np.cumprod(1 - BETAS)
TABLE = sigma_table(ALPHAS)
LEAST, GREATEST = float(TABLE[0]), float(TABLE[-1])
NAMED = [schedule for schedule in SCHEDULES if schedule != AUTOMATIC]
FROM_THE_GREATEST = [schedule for schedule in NAMED if schedule != "DDIM"]
TO_THE_LEAST = ["Normal", "Uniform", "Karras", "Exponential", "Polyexponential", "KL Optimal", "Beta"]


def test_the_table_is_stable_diffusions() -> None:
    assert pytest.approx((0.029167, 14.614642), rel=1e-4) == (LEAST, GREATEST)
    assert np.all(np.diff(TABLE) > 0)


def test_a_model_trained_to_zero_signal_has_a_finite_table() -> None:
    assert sigma_table([0.5, 0.0])[-1] == pytest.approx(4096, rel=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 150, 999, 1000])
@pytest.mark.parametrize("schedule", NAMED)
def test_every_schedule_falls_to_zero_in_its_steps(schedule: str, steps: int) -> None:
    sigmas = sigmas_of(schedule, TABLE, steps)
    assert len(sigmas) == steps + 1 and sigmas[-1] == 0
    assert np.all(np.diff(sigmas) < 0)
    assert sigmas[0] <= GREATEST * (1 + 1e-9) and sigmas[-2] >= LEAST * (1 - 1e-9)


@pytest.mark.parametrize("schedule", FROM_THE_GREATEST)
def test_schedules_start_at_the_models_greatest_level(schedule: str) -> None:
    assert sigmas_of(schedule, TABLE, 20)[0] == pytest.approx(GREATEST, rel=1e-9)
    assert sigmas_of(schedule, TABLE, 1)[0] == pytest.approx(GREATEST, rel=1e-9)


@pytest.mark.parametrize("schedule", TO_THE_LEAST)
def test_schedules_over_the_whole_range_end_at_the_least_level(schedule: str) -> None:
    assert sigmas_of(schedule, TABLE, 20)[-2] == pytest.approx(LEAST, rel=1e-9)


def test_normal_is_even_in_timesteps() -> None:
    sigmas = sigmas_of("Normal", TABLE, 4)
    assert sigmas[:-1] == pytest.approx(TABLE[[999, 666, 333, 0]])
    assert np.array_equal(sigmas, sigmas_of("Uniform", TABLE, 4))


def test_sgm_uniform_leaves_the_first_timestep_out() -> None:
    assert sigmas_of("SGM Uniform", TABLE, 3)[:-1] == pytest.approx(TABLE[[999, 666, 333]])


def test_simple_counts_the_models_levels_down() -> None:
    assert sigmas_of("Simple", TABLE, 3)[:-1] == pytest.approx(TABLE[[999, 666, 333]])
    assert sigmas_of("Simple", TABLE, 1000)[:-1] == pytest.approx(TABLE[::-1])


def test_ddim_counts_up_from_timestep_one() -> None:
    assert sigmas_of("DDIM", TABLE, 20)[:-1] == pytest.approx(TABLE[np.arange(951, 0, -50)])
    assert sigmas_of("DDIM", TABLE, 3)[:-1] == pytest.approx(TABLE[[667, 334, 1]])
    assert sigmas_of("DDIM", TABLE, 1000)[:-1] == pytest.approx(TABLE[::-1])


def test_karras_is_even_in_the_seventh_root() -> None:
    for i, sigma in enumerate(sigmas_of("Karras", TABLE, 10)[:-1]):
        share = i / 9
        assert sigma == pytest.approx((GREATEST ** (1 / 7) + share * (LEAST ** (1 / 7) - GREATEST ** (1 / 7))) ** 7)


def test_exponential_and_polyexponential_fall_by_one_factor() -> None:
    sigmas = sigmas_of("Exponential", TABLE, 11)[:-1]
    assert sigmas[1:] / sigmas[:-1] == pytest.approx((LEAST / GREATEST) ** 0.1)
    assert sigmas_of("Polyexponential", TABLE, 11)[:-1] == pytest.approx(sigmas)


def test_kl_optimal_is_even_in_the_arctangent() -> None:
    sigmas = sigmas_of("KL Optimal", TABLE, 5)
    assert sigmas[2] == pytest.approx(math.tan((math.atan(LEAST) + math.atan(GREATEST)) / 2))
    assert np.diff(np.arctan(sigmas[:-1])) == pytest.approx((math.atan(LEAST) - math.atan(GREATEST)) / 4)


def test_beta_is_symmetrical_and_dense_at_both_ends() -> None:
    sigmas = sigmas_of("Beta", TABLE, 21)[:-1]
    assert sigmas + sigmas[::-1] == pytest.approx(LEAST + GREATEST)
    gaps = -np.diff(sigmas)
    assert gaps.argmax() in (9, 10) and gaps[0] < gaps[9] / 4
    # A quarter of Beta(0.6, 0.6) lies below 0.1816, by numerical integration of its density.
    assert (sigmas[15] - LEAST) / (GREATEST - LEAST) == pytest.approx(beta_quantile(0.25), abs=1e-4)


def beta_quantile(share: float) -> float:
    """Return the quantile of Beta(0.6, 0.6) by summing its density over u = x^0.6, which is smooth at 0."""
    u = (np.arange(400_000) + 0.5) / 400_000 * 0.5**0.6
    mass = np.cumsum((1 - u ** (1 / 0.6)) ** -0.4)
    return float(u[np.searchsorted(mass / mass[-1], share * 2)] ** (1 / 0.6))


def test_align_your_steps_is_the_published_table_at_ten_steps() -> None:
    sd1 = [14.6146, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0]
    sdxl = [14.6146, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0]
    assert sigmas_of("Align Your Steps", TABLE, 10, native=512) == pytest.approx(sd1, rel=1e-4)
    assert sigmas_of("Align Your Steps", TABLE, 10, native=1024) == pytest.approx(sdxl, rel=1e-4)


def test_align_your_steps_is_log_linear_between_published_levels() -> None:
    sigmas = sigmas_of("Align Your Steps", TABLE, 20)
    assert sigmas[2:-1:2] == pytest.approx([6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152])
    assert sigmas[3] == pytest.approx((6.475 * 3.861) ** 0.5)


def test_the_penultimate_level_is_dropped_from_a_longer_schedule() -> None:
    longer = sigmas_of("Karras", TABLE, 21)
    assert np.array_equal(sigmas_of("Karras", TABLE, 20, drop_penultimate=True), [*longer[:20], 0])


def test_timesteps_and_levels_are_each_others_inverse() -> None:
    timesteps = [0, 0.5, 17.25, 998.9, 999]
    assert timesteps_at(levels_at(timesteps, TABLE), TABLE) == pytest.approx(timesteps)
    assert levels_at([10.5], TABLE)[0] == pytest.approx((TABLE[10] * TABLE[11]) ** 0.5)
    assert list(timesteps_at([100.0, 1e-9], TABLE)) == [999, 0]


@pytest.mark.parametrize("least", [0, 1])
@pytest.mark.parametrize("schedule", NAMED)
def test_whole_timesteps_never_repeat(schedule: str, least: int) -> None:
    for steps in (1, 20, 300, 999):
        sigmas = sigmas_of(schedule, TABLE, steps)[:-1]
        timesteps = whole_timesteps(sigmas, TABLE, least)
        assert np.all(np.diff(timesteps) < 0) and timesteps[0] <= 999 and timesteps[-1] >= least
    few = sigmas_of(schedule, TABLE, 5)[:-1]
    assert np.abs(whole_timesteps(few, TABLE) - timesteps_at(few, TABLE)).max() <= 0.5
