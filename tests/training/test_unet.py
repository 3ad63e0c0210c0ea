"""Where a model's own steps lead samples from which it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from transformers import CLIPTokenizer  # noqa: E402

from training.bridge import LEVELS, SIGMA, Levels, aim, shares  # noqa: E402
from training.reading import told_by  # noqa: E402
from training.samples import Batch  # noqa: E402
from training.unet import OWN_KEPT, OWN_STEPS_ALONE, led_on  # noqa: E402

COUNT, SIDE, START = 16, 8, 800


@pytest.mark.parametrize("seed", range(6))
def test_how_far_own_steps_have_led_from_the_source_is_told(seed: int) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(Path("backend/models/embedded/tokenizer"))
    target, source, noise = torch.randn(3, COUNT, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    alone = torch.arange(COUNT) < 3  # of which nothing is to be seen at first
    level = torch.full((COUNT,), START)
    levels = Levels(level, torch.where(alone, 1.0, 0.0), ~alone, torch.zeros_like(alone))
    captions = ["ink drawing of a girl"] * COUNT
    ones = torch.ones(COUNT, 1, SIDE, SIDE)
    told = told_by(tokenizer, captions, [None] * COUNT)
    batch = Batch(target, source, levels, ones[:, 0].long(), told, alone, captions, ones)

    def knows(sample: Tensor, level: Tensor, words: Tensor) -> Tensor:
        times = len(sample) // COUNT  # twice as many where it is guided
        everywhere = Levels(level, torch.ones(len(level)), alone.repeat(times), alone.repeat(times))
        return aim(sample, target.repeat(times, 1, 1, 1), everywhere)[0]

    sample, found = led_on(knows, tokenizer, batch, noise, np.random.default_rng(seed))  # type: ignore[arg-type]
    left = SIGMA[found.level] / SIGMA[torch.where(alone, LEVELS - 1, START)]
    assert OWN_KEPT[0] ** OWN_STEPS_ALONE * 0.98 < left.min() and left.max() < OWN_KEPT[1] * 1.02
    torch.testing.assert_close(found.progress[~alone], 1 - left[~alone], atol=2e-3, rtol=0)
    assert (found.progress[alone] == 1).all()
    seen = sample / shares(found.level)[0] - SIGMA[found.level].view(-1, 1, 1, 1) * noise
    come = torch.where(alone, 1 - left, found.progress).view(-1, 1, 1, 1)
    begun = torch.where(alone.view(-1, 1, 1, 1), 0, source)
    torch.testing.assert_close(seen, begun + come * (target - begun), atol=2e-2, rtol=0)
