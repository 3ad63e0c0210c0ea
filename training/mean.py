"""Puts the UNet between two checkpoints that came from one start, so that it keeps most of what either learnt last.

`unet.pt` is replaced, the one before stays beside it as `unet_STEP.pt`; training goes on from the mean.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.checkpoints import load, replace_trained, trained

logger = logging.getLogger(__name__)


def between(one: dict[str, Tensor], other: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return the weights that lie `share` of the way from one state to another."""
    if {name: part.shape for name, part in one.items()} != {name: part.shape for name, part in other.items()}:
        raise ValueError("The two checkpoints are of different networks; give two that came from one start.")
    return {name: torch.lerp(part.float(), other[name].float(), share).to(part.dtype) for name, part in one.items()}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("other", type=Path, help="the other checkpoint, a copy of an earlier or later unet.pt")
    parser.add_argument("--share", type=float, default=0.4, help="its share of the mean")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Write the mean."""
    stored, other = trained(cache, "unet"), load(options.other)
    if other is None:
        raise FileNotFoundError(f"There is no checkpoint {options.other}.")
    mixed: dict[str, Any] = {part: between(stored[part], other[part], options.share) for part in ("model", "average")}
    kept = replace_trained(cache, "unet", stored, mixed)
    logger.info("unet.pt is %g of %s and the rest of %s", options.share, options.other, kept)
