"""Trains the decoder on behind the frozen encoder: to give pictures back, and to finish what the UNet draws.

A small UNet leaves plain areas mottled and lines soft. Its results are near the true picture, whose pixels are known,
so the decoder learns from them what a flat plane and a line of this domain look like.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from numpy.typing import NDArray
from pytorch_msssim import ssim
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from training.autoencoder import (
    DECODER_LAYERS,
    LATENT_NOISE,
    checked_pictures,
    deepened,
    loss_of,
    psnr_row,
    to_tensor,
)
from training.checkpoints import QUICK_BFLOAT16, Averaged, Log, Stretch, smoothed
from training.encode import Latents, frozen, open_latents
from training.helpers import Helpers
from training.measures import SCALES
from training.pictures import COLOURINGS, KEPT_BACK, STYLES_EACH, Pictures, Whose, open_pictures
from training.results import Results, open_results
from training.stylist import BLOCK

SEED = 6
RATE, WARM = 4e-4, 50
FINISHED = 0.6  # share of crops that are the UNet's results, the others true latents
CROPS = ((32, 4, 0.7), (64, 1, 0.3))  # latents a side, batch of a process, share of steps
STRUCTURE = 2.0  # the weight of structural similarity as a loss (Zhao and others, arXiv 1511.08861)
CHECKED = 16  # last results, kept back


def unlike(result: Tensor, truth: Tensor) -> Tensor:
    """Return 1 - structural similarity, the mean over scales; pictures N×3×H×W in -1 to 1, from 64 pixels a side."""
    alike = torch.zeros(())
    for _ in range(SCALES):
        alike = alike + ssim(result, truth, data_range=2) / SCALES
        result, truth = avg_pool2d(result, 2), avg_pool2d(truth, 2)
    return 1 - alike


@dataclass
class Lessons:
    """What a process needs to draw its share of a step's crops and learn from them."""

    model: AutoencoderKL | AutoencoderTiny
    cache: Path
    opened: tuple[Pictures, Latents, Results] | None = None

    def files(self) -> tuple[Pictures, Latents, Results]:
        """Return what there is to learn from, opened in this process."""
        if self.opened is None:
            self.opened = open_pictures(self.cache), open_latents(self.cache), open_results(self.cache)
        return self.opened

    def crop(self, rng: np.random.Generator, size: int, finished: float = FINISHED) -> tuple[Tensor, NDArray[np.uint8]]:
        """Draw latents (4×size×size float32) and the bytes that they shall become (4·size × 4·size × 3)."""
        pictures, latents, results = self.files()
        if rng.random() < finished:
            number = int(rng.integers(len(results.whose) - CHECKED))
            whose, whole, noise = results.whose[number], results.latents[number], 0.0
        else:
            first, behind = (KEPT_BACK, 0, 0), (len(latents), COLOURINGS, 1 + STYLES_EACH)
            whose = Whose(*rng.integers(first, behind).tolist())
            whole = latents.records[whose.record, whose.colouring, whose.style]
            noise = LATENT_NOISE * float(rng.random())
        truth = pictures.records[whose.record, whose.colouring, whose.style]
        row, column = rng.integers(0, whole.shape[-1] - size + 1, 2)
        given = torch.from_numpy(whole[:, row : row + size, column : column + size].astype(np.float32))
        pixels = truth[BLOCK * row : BLOCK * (row + size), BLOCK * column : BLOCK * (column + size)]
        return given + noise * torch.randn(given.shape), pixels

    def learn(self, step: int, process: int) -> Tensor:
        """Add to the gradients; return the loss."""
        odds = [share for *_, share in CROPS]
        size, count, _ = CROPS[int(np.random.default_rng((SEED, step)).choice(len(CROPS), p=odds))]  # in every process
        rng = np.random.default_rng((SEED, step, process))
        torch.manual_seed(int(rng.integers(2**62)))
        given, bytes_ = zip(*(self.crop(rng, size) for _ in range(count)), strict=True)
        truth = to_tensor(np.stack(bytes_))
        with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
            result = self.model.decode(torch.stack(given)).sample
        loss = loss_of(result.float(), truth) + STRUCTURE * unlike(result.float(), truth)
        loss.backward()
        return loss.detach()[None]

    @torch.no_grad()
    def finished(self, model: AutoencoderKL | AutoencoderTiny) -> float:
        """Return how unlike the true pictures the last results are, decoded."""
        pictures, _, results = self.files()
        last = range(len(results.whose) - CHECKED, len(results.whose))
        wrong = []
        for number in last:
            whose = results.whose[number]
            truth = to_tensor(pictures.records[whose.record, whose.colouring, whose.style][None])
            with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
                drawn = model.decode(torch.from_numpy(results.latents[number][None].astype(np.float32))).sample
            wrong.append(float(unlike(drawn.float().clamp(-1, 1), truth)))
        return float(np.mean(wrong))


class Teaches(Protocol):
    """What `train` trains: `learn` adds to the gradients of a model of this process and returns figures."""

    model: nn.Module
    cache: Path

    def learn(self, step: int, process: int) -> Tensor:
        """Do so."""


def train(
    lessons: Teaches,
    stage: str,
    figures: Sequence[str],
    rate: float,
    warm: int,
    seconds: float,
    threads: int,
    measure: Callable[[Any], dict[str, float]],
) -> None:
    """Train the lessons' model for a stretch, its rate falling; the checkpoint and the log are named after the stage.

    figures: what `learn` returns; measure: what else to log of the averaged model.
    """
    trained = [parameter for parameter in lessons.model.parameters() if parameter.requires_grad]
    average = Averaged(lessons.model, 0.995)
    optimiser = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    stretch = Stretch(lessons.cache / f"{stage}.pt", lessons.model, average, optimiser, seconds)
    log = Log(lessons.cache / "logs" / f"{stage}.csv")
    helpers = Helpers(lessons.learn, trained, threads)
    running = dict.fromkeys(figures, 0.0)
    for due in stretch.steps():
        for group in optimiser.param_groups:
            group["lr"] = rate * stretch.pace(warm)
        learnt = helpers.step(stretch.step)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        average.update(lessons.model, stretch.step)
        running = {name: smoothed(old, new) for (name, old), new in zip(running.items(), learnt, strict=True)}
        if due or stretch.step == stretch.begun + 20:
            torch.set_num_threads(threads)
            row = {"seconds": stretch.elapsed, "step": stretch.step} | running
            log.write(row | measure(average.module))
            torch.set_num_threads(1)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--seconds", type=float, default=1800, help="how long this stretch lasts, its rate falling")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Train for a stretch; the checkpoint is `decoder.pt`, the log `decoder.csv`."""
    torch.manual_seed(SEED)
    model = deepened(frozen(cache), DECODER_LAYERS)
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    checked, styles = checked_pictures(cache)

    def kept(average: AutoencoderKL) -> dict[str, float]:
        return {"unlike": lessons.finished(average)} | psnr_row(average, checked, styles)

    lessons = Lessons(model, cache)
    train(lessons, "decoder", ("loss",), RATE, WARM, options.seconds, threads, kept)
