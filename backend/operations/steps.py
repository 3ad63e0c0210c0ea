"""How many steps a denoising strength runs: the web UI's rule, and what diffusers must be told for it."""

from __future__ import annotations

import math
from typing import NamedTuple

GREATEST_STRENGTH = 0.999  # the web UI's cap on the strength that the steps are counted from
LONGEST_SCHEDULE = 1000  # steps; a model has no more noise levels than this


class StepPlan(NamedTuple):
    """A schedule's length and how many of its last steps run."""

    schedule: int
    executed: int

    @property
    def strength(self) -> float:
        """What makes a diffusers pipeline, which floors schedule × strength, run exactly the executed steps."""
        return min(1.0, (self.executed + 1e-6) / self.schedule)


def plan_steps(steps: int, denoising_strength: float, exactly: bool = False) -> StepPlan:
    """Return the schedule and the steps run for a denoising strength in 0–1, as the web UI counts them.

    Normally floor(d′·S) + 1 of S steps run, with d′ = min(d, 0.999); exactly: S steps of a schedule of floor(S/d′).
    A strength too low for its steps lengthens the schedule to at most 1000 and runs at least one step.
    """
    strength = min(denoising_strength, GREATEST_STRENGTH)
    if not exactly:
        return StepPlan(steps, min(steps, math.floor(strength * steps) + 1))
    schedule = LONGEST_SCHEDULE if strength * LONGEST_SCHEDULE <= steps else math.floor(steps / strength)
    return StepPlan(schedule, min(steps, schedule))
