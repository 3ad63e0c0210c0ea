"""What transformers that flow from noise to a picture share: latents in patches, and how pipelines count steps."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from ..conditioning import Conditioning
from . import stacked

LESS = 1 - 2e-6  # of a StepPlan's strength, whose surplus of 1e-6 steps such a pipeline would round up to a whole one


def padded(sample: torch.Tensor, patch: int) -> torch.Tensor:
    """Return latents (B×C×h×w) that go on beyond their right and lower edges to whole patches of that side."""
    height, width = sample.shape[2:]
    return functional.pad(sample, (0, -width % patch, 0, -height % patch), mode="replicate")


def asked_size(latents: torch.Tensor, patch: int, side_step: int) -> dict[str, int]:
    """Return height and width in pixels for latents (B×C×h×w), of whole patches, each of side_step pixels a side."""
    height, width = (-(-side // patch) * side_step for side in latents.shape[2:])
    return {"height": height, "width": width}


def embeds_and_pooled(conditionings: list[Conditioning], count: int) -> dict[str, Any]:
    """Return what Flux and Stable Diffusion 3 take of conditionings, each for `count` samples."""
    return {
        "encoder_hidden_states": stacked([c.embeds for c in conditionings], count),
        "pooled_projections": stacked([c.pooled for c in conditionings if c.pooled is not None], count),
    }
