"""Trains the tiny autoencoder that previews are decoded with, in a quarter of the decoder's time.

It learns as the decoder does, from the UNet's results and from true latents. Its encoder, which previews don't need,
learns the frozen encoder's latents, so that the folder is a whole AutoencoderTiny.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn.functional import mse_loss

from training import decoder
from training.autoencoder import build_tiny, to_tensor
from training.checkpoints import QUICK_BFLOAT16

SEED = 10
RATE, WARM = 1e-3, 100
ENCODED_SIDE, ENCODED = 32, 2  # latents a side of what the encoder learns from, and how many a process


class Lessons(decoder.Lessons):
    """The decoder's, and the encoder's beside them."""

    def learn(self, step: int, process: int) -> Tensor:
        """Add to the gradients; return the losses of decoder and encoder."""
        decoded = super().learn(step, process)
        rng = np.random.default_rng((SEED, step, process))
        latents, bytes_ = zip(*(self.crop(rng, ENCODED_SIDE, finished=0) for _ in range(ENCODED)), strict=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
            found = self.model.encode(to_tensor(np.stack(bytes_)), return_dict=False)[0]
        encoded = mse_loss(found.float(), torch.stack(latents))
        encoded.backward()
        return torch.cat([decoded, encoded.detach()[None]])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--seconds", type=float, default=600, help="how long this stretch lasts, its rate falling")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Train for a stretch; the checkpoint is `tiny.pt`, the log `tiny.csv`."""
    torch.manual_seed(SEED)
    lessons = Lessons(build_tiny(), cache)

    def unlike(average: AutoencoderTiny) -> dict[str, float]:
        return {"unlike": lessons.finished(average)}

    decoder.train(lessons, "tiny", ("decoded", "encoded"), RATE, WARM, options.seconds, threads, unlike)
