"""A small network that names the style of a picture, trained on the training pictures, to judge the model's results."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.autoencoder import to_tensor
from training.pictures import COLOURINGS, open_pictures
from training.stylist import PICTURE, STYLES

logger = logging.getLogger(__name__)

NAMES = ("render", *STYLES)
CROP, BATCH = 128, 24
SEED = 17
RATE = 2e-3  # at first; it falls to nothing


def build() -> nn.Sequential:
    """Return a fresh network: pictures (N×3×H×W, -1 to 1) to scores (N×9)."""

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(4, outputs), nn.ReLU()]

    body = [*block(3, 16, 2), *block(16, 32, 1), *block(32, 48, 2), *block(48, 64, 2), *block(64, 64, 2)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(NAMES)))


def style_classifier(cache: Path, steps: int) -> nn.Module:
    """Return the classifier, trained the first time."""
    path = cache / "classifier.pt"
    model = build()
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        train(model, cache, steps)
        torch.save(model.state_dict(), path)
    return model.eval()


def train(model: nn.Module, cache: Path, steps: int) -> None:
    """Train on crops of training pictures with a little noise and blur, as generated pictures have."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    pictures = open_pictures(cache)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        crops, labels = np.empty((BATCH, CROP, CROP, 3), np.uint8), []
        for i in range(BATCH):
            number = int(rng.integers(len(pictures)))
            style = int(rng.integers(5)) if rng.random() < 0.6 else int(rng.integers(1, 5))
            row, column = rng.integers(0, PICTURE - CROP + 1, 2)
            picture = pictures.records[number][int(rng.integers(COLOURINGS)), style]
            crops[i] = picture[row : row + CROP, column : column + CROP]
            labels.append(NAMES.index("render" if style == 0 else pictures.facts[number]["styles"][style - 1]))
        batch = to_tensor(crops)
        batch = batch + torch.randn_like(batch) * 0.03
        loss = nn.functional.cross_entropy(model(batch), torch.tensor(labels))
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
