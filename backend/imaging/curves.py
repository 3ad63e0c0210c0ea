"""The denoising strength of each loop of a loopback."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from ..errors import InvalidRequest

Curve: TypeAlias = Literal["linear", "aggressive", "lazy"]
CURVES: tuple[Curve, ...] = ("linear", "aggressive", "lazy")


def loopback_strengths(first: float, final: float, loops: int, curve: Curve = "linear") -> tuple[float, ...]:
    """Denoising strength (0-1) of every loop, from `first` to `final` along the curve; the web UI's formula.

    With p from 0 to 1 over the loops, the way there is p (linear), sin(p*pi/2) (aggressive) or 1 - cos(p*pi/2)
    (lazy). One loop uses `first`. Raises InvalidRequest for strengths outside 0-1, no loops or an unknown curve.
    """
    for strength in (first, final):
        if not 0 <= strength <= 1:
            raise InvalidRequest(f"A denoising strength of {strength} is impossible.", "Choose one from 0 to 1.")
    if loops < 1:
        raise InvalidRequest(f"{loops} loops make no picture.", "Choose from 1 to 32 loops.")
    if curve not in CURVES:
        raise InvalidRequest(f"“{curve}” is not a denoising curve.", f"Choose one of {', '.join(CURVES)}.")
    strengths = [first]
    for loop in range(1, loops):
        progress = loop / (loops - 1)
        if curve == "aggressive":
            progress = math.sin(progress * math.pi / 2)
        elif curve == "lazy":
            progress = 1 - math.cos(progress * math.pi / 2)
        strengths.append(first + (final - first) * progress)
    return tuple(strengths)
