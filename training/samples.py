"""Draws the training samples of the UNet: a picture, where it comes from, and what a caption says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from training.bridge import Levels, ahead, along, draw_levels, lag, noised
from training.captions import junk
from training.encode import Latents
from training.mixture import Mixture
from training.pictures import COLOURINGS, KEPT_BACK, STYLES_EACH, layouts
from training.reading import Pictured, Told, told_by
from training.regions import Region

LOOKED_AT_WAYS = 200  # records that show how far styles are from renders
CROP = 32  # latents a side
CROPS_A_PICTURE = 2  # with one caption, whose reading costs a sixth of a crop's
# How often pictures of a style are drawn for a step, of once: those that were recognised least in what models drew.
OFTEN = {"watercolor": 3.0, "comic": 3.0, "anime": 2.0, "oil": 1.5}
BACKDROPS = ("sky", "wall", "ground")
RENAMED = 6.0  # what an error counts on what the caption gives another colour than the source has, but on backdrops
# Below that share of what is shown a renamed part counts more, up to so many times, as the root of its area: or else
# small garments learn last.
LARGE, SMALLEST = 0.06, 3.0
DOTTED = 20.0  # what errors count more where a comic prints dots, which is half a hundredth of all that pictures show
# What errors count more where a style leaves marks, as a share of how far it goes from the render there, of its mean
# over what is shown: where lines and eyes are told by little, squares alone answer with their mean, which is a haze.
MARKED, MOST_MARKED = 0.5, 10.0


@dataclass
class Batch:
    """Training samples: latents (N×4×H×W), levels, a caption for one or several."""

    target: Tensor
    source: Tensor
    levels: Levels
    regions: Tensor  # N×H×W int64
    told: Told
    silent: Tensor  # N bool: told nothing of the picture
    captions: list[str]  # what could have been said
    importance: Tensor  # N×1×H×W: what their errors count

    def sample(self, noise: Tensor) -> Tensor:
        """Return what the sampler would see."""
        return noised(along(self.source, self.target, self.levels.progress), self.levels, noise)

    def end(self, levels: Levels) -> Tensor:
        """Return the latents that the model shall lead to from there."""
        return along(self.source, self.target, ahead(levels.level, levels.progress, ~self.silent))


def ways_from_render(latents: Latents) -> dict[str, float]:
    """Return how far each style's pictures are from renders (mean square of latents), as a share of their mean.

    An error counts as a share of what its style changes, or else two fifths of what can be learnt would be ink's, whose
    paper is white, and a twentieth anime's.
    """
    found: dict[str, list[float]] = {}
    for record, facts in zip(latents.records[:LOOKED_AT_WAYS, 0].astype(np.float32), latents.facts, strict=False):
        for style, way in zip(facts["styles"], np.square(record[1:] - record[0]).mean((1, 2, 3)), strict=True):
            found.setdefault(style, []).append(float(way))
    means = {style: float(np.mean(some)) for style, some in found.items()}
    typical = float(np.mean(list(means.values())))
    return {"render": 1.0} | {style: mean / typical for style, mean in means.items()}


def weights_of_places(
    shown: NDArray[np.uint8], renamed: Sequence[str], dots: NDArray[np.uint8] | None = None
) -> NDArray[np.float32]:
    """Return what errors count where regions are shown (H×W), if the source has other colours in the renamed parts.

    dots: how much of each latent is half-tone (H×W, of 255), where the picture has any.
    """
    weights = np.ones(shown.shape, np.float32)
    for part in renamed:
        there = shown == Region[part.upper()]
        if part not in BACKDROPS and there.any():
            weights[there] = RENAMED * np.clip((LARGE / there.mean()) ** 0.5, 1, SMALLEST)
    if dots is not None:
        weights *= 1 + DOTTED * dots.astype(np.float32) / 255
    return weights


def weights_of_marks(goal: NDArray[np.float16], render: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return what errors count for the marks that a style leaves (H×W), from its latents and the render's (4×H×W)."""
    ways = np.square(goal.astype(np.float32) - render).mean(0)
    return 1 + MARKED * np.minimum(ways / max(float(ways.mean()), 1e-3), MOST_MARKED)


def known_alone(facts: Sequence[dict[str, Any]]) -> list[int]:
    """Return the numbers of the records that are learnt without a source as well."""
    scenes = set(layouts(facts[KEPT_BACK:]))
    return [number for number, its in enumerate(facts) if its["seed"] in scenes]


def drawn_style(rng: np.random.Generator, styles: Sequence[str], mixture: Mixture) -> int:
    """Draw the style of a record whose styles these are; 0 is the render."""
    if rng.random() < mixture.render_as_target:
        return 0
    often = np.array([OFTEN.get(style, 1.0) for style in styles])
    return 1 + int(rng.choice(len(styles), p=often / often.sum()))


def unspoken(rng: np.random.Generator, mixture: Mixture) -> str:
    """Return a prompt that says nothing of a picture."""
    if rng.random() < mixture.empty / (mixture.empty + mixture.junk_only):
        return ""
    return ", ".join(junk(rng, int(rng.integers(1, 6))))


class Samples:
    """What samples are drawn from, in the shares of a mixture."""

    def __init__(self, tokenizer: CLIPTokenizer, latents: Latents, mixture: Mixture) -> None:
        self.tokenizer, self.mixture, self._ways = tokenizer, mixture, ways_from_render(latents)
        self.draw_from(latents)

    def draw_from(self, latents: Latents) -> None:
        """Draw from these from now on, which are the same and more."""
        self.latents, self._known = latents, known_alone(latents.facts)

    def draw(self, rng: np.random.Generator, records: range, count: int, size: int) -> Batch:
        """Draw samples of `count` pictures; a source in other colours makes the caption say the target's."""
        each = CROPS_A_PICTURE if size == CROP else 1
        count *= each
        # Of a part that begins as noise nobody could tell which part it is: figures came in several pieces.
        mixture = replace(self.mixture, alone=0.0) if size == CROP else self.mixture
        levels, recoloured = draw_levels(rng, count, mixture)
        targets, sources, captions, heard, regions, pictures, importance = [], [], [], [], [], [], []
        for first in range(0, count, each):
            among = records if levels.bridged[first] else self._known or records
            number = among[int(rng.integers(len(among)))]
            record, facts = self.latents.records[number], self.latents.facts[number]
            colouring, others = int(rng.integers(COLOURINGS)), recoloured[first : first + each]
            style = drawn_style(rng, facts["styles"], self.mixture)
            picture = Pictured(facts, colouring, style)
            captions.append(picture.caption(rng, bool(others.any())))
            silent = rng.random() < self.mixture.empty + self.mixture.junk_only
            heard.append(unspoken(rng, self.mixture) if silent else captions[-1])
            pictures.append(None if silent else picture)
            for place, other in enumerate(others, first):
                source_style = 0
                if rng.random() < (self.mixture.recoloured_other if other else self.mixture.other_source):
                    source_style = style if rng.random() < 0.5 else int(rng.integers(1, 1 + STYLES_EACH))
                row, column = rng.integers(0, record.shape[-1] - size + 1, 2)
                window = (slice(row, row + size), slice(column, column + size))
                goal, as_before = (record[(c, style, slice(None), *window)] for c in (colouring, 1 - colouring))
                source = record[(1 - colouring if other else colouring, source_style, slice(None), *window)]
                if other and not silent:
                    source = source + lag(rng, float(levels.progress[place])) * (as_before - goal)
                shown = self.latents.regions[number][window]
                renamed = facts["changed"] if other and not silent else ()
                dots = self.latents.dots[number][window] if picture.drawn_as == "comic" else None
                marks = weights_of_marks(goal, record[(colouring, 0, slice(None), *window)])
                importance.append(weights_of_places(shown, renamed, dots) * marks / self._ways[picture.drawn_as])
                targets.append(goal)
                sources.append(source)
                regions.append(shown)
        target, source = (torch.from_numpy(np.stack(parts)).float() for parts in (targets, sources))
        maps = torch.from_numpy(np.stack(regions).astype(np.int64))
        told = told_by(self.tokenizer, heard, pictures)
        unheard = torch.tensor([picture is None for picture in pictures]).repeat_interleave(each)
        weights = torch.from_numpy(np.stack(importance))[:, None]
        return Batch(target, source, levels, maps, told, unheard, captions, weights)
