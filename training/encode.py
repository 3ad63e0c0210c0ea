"""Turns pictures into latents, after setting the autoencoder's latents to mean 0, deviation 1 and no correlation.

The first run freezes the encoder: mean and covariance go into quant_conv and post_quant_conv (so that the scaling
factor is 1, and noise drowns hues no sooner than brightness), and the folder `vae` is written. From then on only the
decoder may be trained further, or every latent and every UNet would be worthless; delete `vae` and `latents.*` to
start over.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from training.autoencoder import Coder, build, to_tensor
from training.checkpoints import QUICK_BFLOAT16, trained
from training.pictures import COLOURINGS, REGIONS_SIDE, STYLES_EACH, open_maps, open_pictures

logger = logging.getLogger(__name__)

LATENT = (4, REGIONS_SIDE, REGIONS_SIDE)
RECORD = (COLOURINGS, 1 + STYLES_EACH, *LATENT)
MEASURED = 40  # records whose latents set mean and deviation
SILENT = -30.0  # log variance: the sampled latent equals its mean


@torch.no_grad()
def encode(model: AutoencoderKL, pictures: NDArray[np.uint8]) -> Tensor:
    """Return the latents (N×4×H/4×W/4) of pictures (N×H×W×3 bytes)."""
    with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
        parts = [model.encode(part).latent_dist.mean.float() for part in to_tensor(pictures).split(4)]
    return torch.cat(parts)


def whitening(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (4) of latents (N×4×H×W) and the symmetric matrix (4×4) that makes their covariance one."""
    values = latents.permute(1, 0, 2, 3).flatten(1)
    strengths, axes = torch.linalg.eigh(torch.cov(values))
    return values.mean(1), axes @ torch.diag(strengths.clamp(min=1e-4).rsqrt()) @ axes.T


@torch.no_grad()
def fold(model: AutoencoderKL, mean: Tensor, matrix: Tensor) -> None:
    """Make the model give matrix @ (latent - mean) (4×4 and 4), and decode such latents."""
    into, out = model.quant_conv, model.post_quant_conv
    count = len(mean)
    into.weight[:count, :, 0, 0] = matrix @ into.weight[:count, :, 0, 0]
    into.bias[:count] = matrix @ (into.bias[:count] - mean)
    into.weight[count:] = 0
    into.bias[count:] = SILENT
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight[:, :, 0, 0] = out.weight[:, :, 0, 0] @ torch.linalg.inv(matrix)


def frozen(cache: Path) -> AutoencoderKL:
    """Return the autoencoder whose latents are final, freezing the trained one where none is."""
    folder = cache / "vae"
    if folder.exists():
        return AutoencoderKL.from_pretrained(folder).eval()
    coder = Coder(build())
    stored = trained(cache, "autoencoder")
    coder.load_state_dict(stored["average"])
    model = coder.vae.eval()
    pictures = open_pictures(cache)
    some = np.random.default_rng(0).choice(len(pictures), min(MEASURED, len(pictures)), replace=False)
    latents = torch.cat(
        [encode(model, pictures.records[i].reshape(-1, *pictures.records.shape[3:])[::3]) for i in some]
    )
    fold(model, *whitening(latents))
    model.save_pretrained(folder)
    logger.info(
        "froze the encoder at step %d: latent deviation was %s", stored["step"], latents.std((0, 2, 3)).tolist()
    )
    return model


@dataclass
class Latents:
    """The records encoded so far."""

    records: NDArray[np.float16]  # records × RECORD
    regions: NDArray[np.uint8]  # records × 64 × 64
    dots: NDArray[np.uint8]  # records × 64 × 64, of 255
    facts: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.facts)


def open_latents(cache: Path) -> Latents:
    """Map the finished records; call again to see more of a growing file."""
    size = int(np.prod(RECORD)) * 2
    count = (cache / "latents.f16").stat().st_size // size
    facts = [json.loads(line) for line in (cache / "pictures.jsonl").read_text().splitlines()[:count]]
    records = np.memmap(cache / "latents.f16", np.float16, "r", shape=(count, *RECORD))
    return Latents(records, open_maps(cache, "regions", count), open_maps(cache, "dots", count), facts)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--count", type=int, default=100_000, help="how many records at most")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Append latents for the records that have none."""
    torch.set_num_threads(threads)
    model = frozen(cache).to(memory_format=torch.channels_last)  # a fifth faster on processors
    path, size = cache / "latents.f16", int(np.prod(RECORD)) * 2
    done = path.stat().st_size // size if path.exists() else 0
    pictures = open_pictures(cache)
    with path.open("ab") as data:
        data.truncate(done * size)
        for number in range(done, min(options.count, len(pictures))):
            record = pictures.records[number]
            latents = encode(model, record.reshape(-1, *record.shape[2:]))
            data.write(latents.half().numpy().reshape(RECORD).tobytes())
            data.flush()
            if number % 50 == 0:
                logger.info("record %d of %d", number, len(pictures))
