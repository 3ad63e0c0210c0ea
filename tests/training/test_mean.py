"""The mean of two checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from training import checkpoints, mean  # noqa: E402


def test_the_mean_of_two_checkpoints_lies_between_and_keeps_the_one_before(tmp_path: Path) -> None:
    def state(value: float, step: int) -> dict[str, Any]:
        weights = {"weight": torch.full((2, 3), value, dtype=torch.float16)}
        return {"model": weights, "average": weights, "optimiser": {"of": value}, "step": step}

    checkpoints.save(tmp_path / "unet.pt", state(1.0, 70))
    checkpoints.save(tmp_path / "other.pt", state(3.0, 50))
    mean.run(tmp_path, 1, argparse.Namespace(other=tmp_path / "other.pt", share=0.25))
    mixed = checkpoints.trained(tmp_path, "unet")
    assert mixed["average"]["weight"].unique().tolist() == [1.5]
    assert mixed["optimiser"] == {"of": 1.0} and mixed["step"] == 70
    assert checkpoints.load(tmp_path / "unet_70.pt") is not None
    checkpoints.save(tmp_path / "other.pt", {"model": {}, "average": {}})
    with pytest.raises(ValueError, match="came from one start"):
        mean.run(tmp_path, 1, argparse.Namespace(other=tmp_path / "other.pt", share=0.25))
