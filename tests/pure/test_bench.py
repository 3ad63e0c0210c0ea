"""The benchmark's arithmetic: how long a cancel waits, and which goals are met."""

from __future__ import annotations

import pytest

from tools.bench import Costs
from tools.bench_job import gaps
from tools.bench_table import verdict


def test_a_cancel_waits_for_the_next_look() -> None:
    looks = [("Step", 0.0), ("Step", 1.0), ("Painting", 4.0)]
    # Within "Step" waits are of 1 and 3 seconds: a moment in the first waits 0.5 on average, one in the second 1.5.
    assert gaps(looks, 5.0) == {"Step": (3.0, (0.5 * 1 + 1.5 * 3) / 4), "Painting": (1.0, 0.5)}


def test_costs_are_medians_and_waits_are_told_in_steps() -> None:
    runs = [
        {"wall": [9.0, 2.0, 4.0], "step": [1.0, 2.0, 2.0], "memory": 1e9, "waits": {"Step": (1.0, 0.5)}},
        {"wall": [5.0, 3.0, 3.0], "step": [1.0, 2.0, 2.0], "memory": 3e9, "waits": {"Step": (0.5, 0.1)}},
    ]
    costs = Costs(runs)
    assert (costs.first("wall"), costs.later("wall"), costs.memory) == (7.0, 3.0, 3.0)
    assert costs.waits == {"Step": (0.5, 0.25)}


@pytest.mark.parametrize(
    ("found", "most", "said"), [(0.9, 1.02, "≤ 1.02 met"), (1.03, 1.02, "≤ 1.02 MISSED"), (5.0, 0.0, "")]
)
def test_a_missed_goal_is_said(found: float, most: float, said: str) -> None:
    assert verdict(found, most) == said
