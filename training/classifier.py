"""A small network that names the style of a picture, trained on the training pictures, to judge the model's results."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from training.autoencoder import to_tensor
from training.checkpoints import QUICK_BFLOAT16
from training.pictures import COLOURINGS, STYLES_EACH, open_pictures
from training.stylist import STYLES

logger = logging.getLogger(__name__)

NAMES = ("render", *STYLES)
BATCH = 16
SEED = 17
RATE = 2e-3  # at first; it falls to nothing
NOISE, BLUR = 0.03, 0.5  # the deviation of noise, and the share of pictures that lose their finest detail


class Judge(nn.Module):
    """Pictures (N×3×H×W, -1 to 1) to scores (N×9), from what is on average and from what is most there.

    The mean alone drowns lines and dots in plain backgrounds: with it, and trained on crops that often showed nothing
    else, the judge named 77 % of true pictures. Normalised by groups, each picture by itself, it could not tell pale
    paper and tints from others: 68 % of watercolors. It begins at the picture's own scale, where dots and lines are.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 32, 48, 64, 96)
        body: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 1, 1), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for inputs, outputs in pairwise(widths):
            body += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.body = nn.Sequential(*body)
        self.scores = nn.Linear(2 * widths[-1], len(NAMES))

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the scores."""
        seen = self.body(pictures)
        scores: Tensor = self.scores(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1))
        return scores


def style_classifier(cache: Path, steps: int) -> nn.Module:
    """Return the classifier, trained the first time."""
    path = cache / "classifier.pt"
    model = Judge()
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        train(model, cache, steps)
        torch.save(model.state_dict(), path)
    return model.eval()


def train(model: nn.Module, cache: Path, steps: int) -> None:
    """Train on training pictures with a little noise and blur, as generated pictures have."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    pictures = open_pictures(cache)
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        shown, labels = [], []
        for _ in range(BATCH):
            number, style = int(rng.integers(len(pictures))), int(rng.integers(1 + STYLES_EACH))
            picture = pictures.records[number][int(rng.integers(COLOURINGS)), style]
            if rng.random() < BLUR:
                picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 0.8))
            shown.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
            labels.append(NAMES.index("render" if style == 0 else pictures.facts[number]["styles"][style - 1]))
        batch = to_tensor(np.stack(shown))
        batch = batch + torch.randn_like(batch) * NOISE * float(rng.random())
        with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
            scores = model(batch.contiguous(memory_format=torch.channels_last))
        loss = nn.functional.cross_entropy(scores.float(), torch.tensor(labels))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
        if step % 100 == 0:
            logger.info("classifier step %d loss %.3f", step, float(loss.detach()))


@torch.no_grad()
def names(model: nn.Module, pictures: Tensor) -> list[str]:
    """Return the style that each picture (N×3×H×W, -1 to 1) is taken for."""
    return [NAMES[int(part)] for chunk in pictures.split(8) for part in model(chunk).argmax(1)]
