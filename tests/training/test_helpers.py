"""Gradients by several processes: the mean of what each computes, on weights that all see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from training.helpers import Helpers  # noqa: E402


@dataclass
class Squares:
    """A loss whose gradient tells the process, the step and the weights that were seen."""

    layer: Any  # torch.nn.Linear

    def learn(self, step: int, process: int) -> Any:
        factor = 10.0**process + step
        loss = factor * self.layer.weight.square().sum()
        loss.backward()
        return torch.stack([loss.detach(), torch.tensor(float(process))])


def test_gradients_are_the_mean_over_processes_on_weights_as_they_are_now() -> None:
    layer = torch.nn.Linear(2, 2, bias=False)
    helpers = Helpers(Squares(layer).learn, list(layer.parameters()), 3)
    for step in (0, 1):  # gradients are not added up from step to step
        with torch.no_grad():
            layer.weight.fill_(1.0 + step)
        figures = helpers.step(step)
        factor = 111 / 3 + step
        assert torch.allclose(layer.weight.grad, torch.full((2, 2), 2 * factor * (1 + step)))
        assert figures.tolist() == pytest.approx([4 * factor * (1 + step) ** 2, 1.0])


def test_one_process_alone_works() -> None:
    layer = torch.nn.Linear(2, 2, bias=False)
    layer.weight.data.fill_(1.0)
    helpers = Helpers(Squares(layer).learn, list(layer.parameters()), 1)
    assert helpers.step(0).tolist() == [4.0, 0.0]
    assert torch.allclose(layer.weight.grad, torch.full((2, 2), 2.0))
