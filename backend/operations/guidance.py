"""What is asked of the denoiser at each step: the prompts of that step, guided by CFG, tile by tile where need be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..imaging.regions import Region
from ..models.tiled_vae import window_weight

if TYPE_CHECKING:
    from ..models.conditioning import Conditioning, Prompts
    from ..models.model import Predict


def guided(predict: Predict, sample: torch.Tensor, prompts: Prompts, step: int, cfg_scale: float) -> torch.Tensor:
    """Return the guided prediction for a sample (B×C×h×w) at a step, counted from the first that runs.

    uncond + Σᵢ wᵢ·scale·(condᵢ − uncond) over the parts of a prompt that are joined by AND (Liu et al. 2022), each
    part as it is at that step.
    """
    negative, positives = prompts.at(step)
    if cfg_scale == 1 and len(positives) == 1 and positives[0][0] == 1:
        return predict(sample, [positives[0][1]])[0]
    uncond, *conds = predict(sample, [negative, *(conditioning for _, conditioning in positives)])
    result = uncond
    for (weight, _), cond in zip(positives, conds, strict=True):
        result = result + weight * cfg_scale * (cond - uncond)
    return result


def in_tiles(predict: Predict, regions: Sequence[Region]) -> Predict:
    """Return a prediction made of overlapping windows of the sample, blended where they meet.

    Each latent is the mean of the windows that hold it, weighed to fade towards their edges (MultiDiffusion, Bar-Tal
    et al. 2023), at every step: neighbours agree before there is anything to see of a border.
    """

    def predict_tiles(
        sample: torch.Tensor, conditionings: list[Conditioning], window: Region | None = None
    ) -> list[torch.Tensor]:
        total = [torch.zeros_like(sample) for _ in conditionings]
        weights = torch.zeros_like(sample[:1, :1])
        for region in regions:
            weight = window_weight(region.width, region.height).to(sample)
            part = sample[:, :, region.y1 : region.y2, region.x1 : region.x2]
            for sums, prediction in zip(total, predict(part, conditionings, region), strict=True):
                sums[:, :, region.y1 : region.y2, region.x1 : region.x2] += prediction * weight
            weights[:, :, region.y1 : region.y2, region.x1 : region.x2] += weight
        return [sums / weights for sums in total]

    return predict_tiles
