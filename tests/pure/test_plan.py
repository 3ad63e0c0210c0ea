"""How many steps a denoising strength runs, by the web UI's values, and at which size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.operations.plan import plan_canvas, plan_size, plan_steps


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


@pytest.mark.parametrize(
    ("canvas", "native", "large_canvas", "made", "tiles", "words"),
    [
        ((1920, 1080), 768, "refine", (1024, 576), 6, "1024×576 → 1920×1080 in 6 tiles"),
        ((1920, 1080), 768, "enlarge", (1024, 576), 0, "1024×576 → 1920×1080"),
        ((1920, 1080), 768, "as_is", (1920, 1080), 0, "1920×1080"),
        ((1000, 700), 512, "as_is", (1000, 704), 0, "1000×704 → 1000×700"),
        ((1024, 1024), 256, "refine", (256, 256), 25, "256×256 → 1024×1024 in 25 tiles"),
        ((4096, 512), 512, "refine", (1448, 184), 9, "1448×184 → 4096×512 in 9 tiles"),
        ((640, 512), 512, "refine", (640, 512), 0, "640×512"),
        ((128, 64), 512, "refine", (728, 360), 0, "728×360 → 128×64"),
        ((128, 64), 512, "as_is", (728, 360), 0, "728×360 → 128×64"),
    ],
)
def test_any_canvas_is_planned_on_any_model(
    canvas: tuple[int, int], native: int, large_canvas: str, made: tuple[int, int], tiles: int, words: str
) -> None:
    plan = plan_canvas(*canvas, native, large_canvas=large_canvas)
    assert (plan.made, plan.canvas, plan.tiles, str(plan)) == (made, canvas, tiles, words)


@given(
    st.integers(8, 4096),
    st.integers(8, 4096),
    st.sampled_from([256, 512, 768, 1024, 1328]),
    st.sampled_from([8, 16, 64]),
)
def test_no_plan_asks_the_model_for_more_than_it_knows(width: int, height: int, native: int, multiple: int) -> None:
    for choice in ("enlarge", "refine"):
        plan = plan_canvas(width, height, native, multiple, choice)
        assert plan.made.width % multiple == plan.made.height % multiple == 0
        assert plan.made.width * plan.made.height <= (1.7 * native) ** 2 + 2 * multiple * max(plan.made)
        assert max(plan.tile) <= native or not plan.tiles
        assert bool(plan.tiles) <= (choice == "refine")
