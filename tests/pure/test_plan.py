"""How many steps a denoising strength runs, by the web UI's values, and at which size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.operations.plan import plan_size, plan_steps


@pytest.mark.parametrize(
    ("strength", "executed"),
    [(0.05, 2), (0.1, 3), (0.3, 7), (0.5, 11), (0.75, 16), (0.9, 19), (0.95, 20), (1.0, 20)],
)
def test_executed_steps_of_twenty_are_the_web_uis(strength: float, executed: int) -> None:
    assert plan_steps(20, strength) == (20, executed)


@pytest.mark.parametrize(("strength", "schedule"), [(0.3, 66), (0.5, 40), (0.75, 26), (0.9, 22), (0.95, 21), (1.0, 20)])
def test_exactly_the_steps_lengthens_the_schedule(strength: float, schedule: int) -> None:
    assert plan_steps(20, strength, exactly=True) == (schedule, 20)


@given(st.integers(1, 150), st.floats(0, 1), st.booleans())
def test_diffusers_is_made_to_run_what_is_planned(steps: int, strength: float, exactly: bool) -> None:
    plan = plan_steps(steps, strength, exactly)
    assert 1 <= plan.executed <= plan.schedule <= 1000
    assert min(int(plan.schedule * plan.strength), plan.schedule) == plan.executed


def test_the_size_planner_asks_the_model_for_what_it_knows() -> None:
    assert plan_size(1024, 576, 256) == (344, 192)
    assert plan_size(64, 64, 512) == (512, 512)
    assert plan_size(640, 512, 512) == (640, 512)
