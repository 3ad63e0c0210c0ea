"""What the half-tone's lessons are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")

from tests.training.drawn import scene  # noqa: E402
from training.autoencoder import build  # noqa: E402
from training.buffers import SIZE, save_scene, scene_path  # noqa: E402
from training.halftone import SIDE, Lessons  # noqa: E402
from training.stylist import BLOCK  # noqa: E402


def lessons(cache: Path) -> Lessons:
    """Return the lessons of one scene: a ball that lies in the dark below."""
    drawn = scene()
    drawn.shade[SIZE // 2 :] *= 0.2
    path = scene_path(cache / "scenes", 0)
    path.parent.mkdir(parents=True)
    save_scene(path, drawn)
    torch.manual_seed(0)
    mark = torch.tensor([0.0, 0.0, 0.0, 1.0])
    return Lessons(build(), build().requires_grad_(False), mark, cache, 1)


def test_only_the_comic_is_marked_and_only_where_it_has_dots(tmp_path: Path) -> None:
    given, even, marked = lessons(tmp_path).drawn(np.random.default_rng(3), 0)
    assert given.shape == even.shape == (3, 3, BLOCK * SIDE, BLOCK * SIDE)
    assert marked.shape == (3, 1, SIDE, SIDE)
    assert marked[1:].max() == 0 and marked[0].max() > 0.9
    assert torch.equal(given[1:], even[1:])
    changed = (given[0] - even[0]).abs().amax(0).reshape(SIDE, BLOCK, SIDE, BLOCK).amax((1, 3))
    assert changed[marked[0, 0] > 0.5].min() > 0.1
    assert changed[marked[0, 0] == 0].max() < 0.02


def test_a_step_teaches_both_halves(tmp_path: Path) -> None:
    taught = lessons(tmp_path)
    figures = taught.learn(1, 0)
    assert figures.shape == (2,) and torch.isfinite(figures).all()
    for half in (taught.model.encoder, taught.model.decoder):
        assert any(part.grad is not None and part.grad.abs().max() > 0 for part in half.parameters())
