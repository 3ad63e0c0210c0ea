"""Trains UNet and text encoder on latents: v-prediction, bridges from renders, captions as artists write them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.memory_format import convert_conv2d_weight_memory_format
from transformers import CLIPTokenizer

from training.bridge import (
    SIGMA,
    Levels,
    ahead,
    aim,
    along,
    clean,
    draw_levels,
    lag,
    noised,
    shares,
)
from training.captions import junk
from training.checkpoints import Averaged, Log, Stretch, smoothed
from training.denoiser import Denoiser, build, grown
from training.encode import Latents, open_latents
from training.helpers import Helpers
from training.losses import Eye, disorder, look, misfit
from training.mixture import MIXTURES, Mixture
from training.optimiser import Optimisers
from training.pictures import COLOURINGS, KEPT_BACK, STYLES_EACH, layouts
from training.reading import Pictured, Readers, Told, teach_words, tokens, told_by
from training.regions import Region

logger = logging.getLogger(__name__)

SEED = 9
WARM = 150  # steps
OWN_STEPS, OWN_GUIDANCE = 3, 10.0  # at most, where the model itself leads samples on
OWN_PLAIN = 0.5  # share of those steps without guidance
OWN_KEPT = (0.5, 0.8)  # how much of sigma one of those steps leaves
VALIDATED = 24  # pictures of them
LOOKED_AT = 8  # pictures that show how errors of latents are seen
LOOKED_AT_WAYS = 200  # records that show how far styles are from renders
CROP = 32  # latents a side
CROPS_A_PICTURE = 2  # with one caption, whose reading costs a sixth of a crop's
CROPPED_A_STEP, WHOLE_A_STEP = 8, 6  # pictures, in crops or whole
# How often pictures of a style are drawn for a step, of once: those that were recognised least in what models drew.
OFTEN = {"watercolor": 2.0, "comic": 2.0, "anime": 1.5}
BACKDROPS = ("sky", "wall", "ground")
RENAMED = 6.0  # what an error counts on what the caption gives another colour than the source has, but on backdrops
# Below that share of what is shown a renamed part counts more, up to so many times, as the root of its area: or else
# small garments learn last.
LARGE, SMALLEST = 0.06, 3.0
DOTTED = 20.0  # what errors count more where a comic prints dots, which is half a hundredth of all that pictures show
# What errors count more where a style leaves marks, as a share of how far it goes from the render there, of its mean
# over what is shown: where lines and eyes are told by little, squares alone answer with their mean, which is a haze.
MARKED, MOST_MARKED = 0.5, 10.0
STRUCTURE = 20.0  # the weight of structural similarity; with 8 its gradients are about as long as the others


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


@torch.no_grad()
def led_on(
    model: Denoiser, tokenizer: CLIPTokenizer, batch: Batch, noise: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Levels]:
    """Return the samples that some steps of Euler's sampler lead to, guided or not, and where those are."""
    sample, plain = batch.sample(noise), rng.random() < OWN_PLAIN
    words = batch.told.tokens if plain else tokens(tokenizer, batch.captions + [""] * len(batch.captions))
    guidance = torch.from_numpy(OWN_GUIDANCE ** rng.random(len(sample))).float().view(-1, 1, 1, 1)
    level, sigma = batch.levels.level, SIGMA[batch.levels.level].view(-1, 1, 1, 1)
    point = sample / shares(level)[0]
    for _ in range(int(rng.integers(1, 1 + OWN_STEPS))):
        now = point * shares(level)[0]
        if plain:
            end = clean(now, model(now, level, words), level)
        else:
            twice, both = now.repeat(2, 1, 1, 1), level.repeat(2)
            said, silent = clean(twice, model(twice, both, words), both).chunk(2)
            end = silent + guidance * (said - silent)
        kept = torch.from_numpy(rng.uniform(*OWN_KEPT, len(sample))).float()
        level = torch.searchsorted(SIGMA, sigma.flatten() * kept)
        then = SIGMA[level].view(-1, 1, 1, 1)
        point, sigma = end + then / sigma * (point - end), then
    way, come = batch.target - batch.source, point - sigma * noise - batch.source
    progress = (way * come).sum((1, 2, 3)) / way.square().sum((1, 2, 3)).clamp(min=1e-3)
    progress = torch.where(batch.levels.bridged, progress.clamp(min=0), 1.0)
    return point * shares(level)[0], replace(batch.levels, level=level, progress=progress)


@dataclass
class Lessons:
    """What a process needs to draw its share of a step's samples and learn from them."""

    model: Denoiser
    average: Denoiser
    readers: Readers
    tokenizer: CLIPTokenizer
    cache: Path
    processes: int
    eye: Eye
    wholly: float  # share of steps on whole pictures
    mixture: Mixture
    ways: dict[str, float]
    latents: Latents | None = None
    known: Sequence[int] = ()

    def opened(self, step: int) -> Latents:
        """Return the latents; now and then it looks whether there are more."""
        if self.latents is None or step % 200 == 0:
            self.latents = open_latents(self.cache)
            self.known = known_alone(self.latents.facts)
        return self.latents

    def draw(self, latents: Latents, rng: np.random.Generator, records: range, count: int, size: int) -> Batch:
        """Draw samples of `count` pictures; a source in other colours makes the caption say the target's."""
        each = CROPS_A_PICTURE if size == CROP else 1
        count *= each
        # Of a part that begins as noise nobody could tell which part it is: figures came in several pieces.
        mixture = replace(self.mixture, alone=0.0) if size == CROP else self.mixture
        levels, recoloured = draw_levels(rng, count, mixture)
        targets, sources, captions, heard, regions, pictures, importance = [], [], [], [], [], [], []
        for first in range(0, count, each):
            among = records if levels.bridged[first] else self.known or records
            number = among[int(rng.integers(len(among)))]
            record, facts = latents.records[number], latents.facts[number]
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
                shown = latents.regions[number][window]
                renamed = facts["changed"] if other and not silent else ()
                dots = latents.dots[number][window] if picture.drawn_as == "comic" else None
                marks = weights_of_marks(goal, record[(colouring, 0, slice(None), *window)])
                importance.append(weights_of_places(shown, renamed, dots) * marks / self.ways[picture.drawn_as])
                targets.append(goal)
                sources.append(source)
                regions.append(shown)
        target, source = (torch.from_numpy(np.stack(parts)).float() for parts in (targets, sources))
        maps = torch.from_numpy(np.stack(regions).astype(np.int64))
        told = told_by(self.tokenizer, heard, pictures)
        unheard = torch.tensor([picture is None for picture in pictures]).repeat_interleave(each)
        weights = torch.from_numpy(np.stack(importance))[:, None]
        return Batch(target, source, levels, maps, told, unheard, captions, weights)

    def learn(self, step: int, process: int) -> Tensor:
        """Add to the gradients; return the loss, what the readers get wrong, and the samples."""
        latents = self.opened(step)
        drawn = np.random.default_rng((SEED, step)).random(2)  # the same in every process
        whole, own = drawn < (self.wholly, self.mixture.own)
        rng = np.random.default_rng((SEED, step, process))
        torch.manual_seed(int(rng.integers(2**62)))
        size, count = (latents.records.shape[-1], WHOLE_A_STEP) if whole else (CROP, CROPPED_A_STEP)
        records, count = range(KEPT_BACK, len(latents)), max(1, count // self.processes)
        batch = self.draw(latents, rng, records, count, size)
        noise = torch.randn_like(batch.target)
        if own:
            sample, levels = led_on(self.average, self.tokenizer, batch, noise, rng)
        else:
            sample, levels = batch.sample(noise), batch.levels
        predicted = self.model(sample, levels.level, batch.told.tokens)
        loss, disordered = self.wrong(batch, sample, levels, predicted)
        loss = loss + STRUCTURE * levels.bridged.float().mean() * disordered
        reading = self.readers.mistaken(batch.regions, batch.told)
        (loss + reading).backward()
        return torch.stack([loss, reading, torch.tensor(float(len(sample)))]).detach()

    def wrong(self, batch: Batch, sample: Tensor, levels: Levels, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the `misfit` of velocities predicted for samples, and the `disorder` of those that have a source."""
        end, bridged = batch.end(levels), levels.bridged
        velocity, weight = aim(sample, end, levels)
        unfit = misfit(self.eye, predicted - velocity, batch.importance * weight)
        if not bridged.any():
            return unfit, torch.zeros(())
        return unfit, disorder(self.eye, clean(sample, predicted, levels.level)[bridged], end[bridged])

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, float]:
        """Return the average's loss on records kept back, and its clean latents' error by quarter of the levels."""
        latents = self.opened(step)
        rng = np.random.default_rng(0)
        batch = self.draw(latents, rng, range(KEPT_BACK), VALIDATED, CROP)
        level = batch.levels.level
        sample = batch.sample(torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(0)))
        predicted = self.average(sample, level, batch.told.tokens)
        error = (clean(sample, predicted, level) - batch.end(batch.levels)).square().mean((1, 2, 3))
        quarters = {f"clean_{i}": float(part.mean()) for i, part in enumerate(error[level.argsort()].chunk(4))}
        loss, disordered = self.wrong(batch, sample, batch.levels, predicted)
        return {"validation": float(loss)} | quarters | {"disorder": float(disordered)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--seconds", type=float, default=3600, help="how long this stretch lasts")
    parser.add_argument(
        "--cooldown", type=float, default=0, help="seconds at its end in which the rate falls to nothing"
    )
    parser.add_argument("--init", type=Path, help="diffusers folder to start from where there is no checkpoint")
    parser.add_argument("--words", type=float, default=0, help="seconds before it to learn to read captions alone")
    parser.add_argument(
        "--rate", type=float, default=1.0, help="share of the usual rates; a third to go on from a folder"
    )
    parser.add_argument("--mixture", choices=MIXTURES, default="full", help="what to learn: the plain task comes first")
    parser.add_argument("--recoloured", type=float, help="another share of sources in other colours than the mixture's")
    parser.add_argument("--alone", type=float, help="another share of whole pictures without a source")
    parser.add_argument("--whole", type=float, default=0.3, help="share of steps on whole pictures, not crops")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Train for a stretch; the checkpoint is `unet.pt`, the log `unet.csv`."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    tokenizer = CLIPTokenizer.from_pretrained(cache / "tokenizer")
    model = grown(options.init, tokenizer) if options.init else build(tokenizer)
    convert_conv2d_weight_memory_format(model, torch.channels_last)  # a twentieth faster on processors
    average = Averaged(model, 0.997)
    readers = Readers(model)
    optimiser = Optimisers(model, readers)
    stretch = Stretch(cache / "unet.pt", model, average, optimiser, options.seconds, beside=readers)
    log = Log(cache / "logs" / "unet.csv")
    latents = open_latents(cache)
    logger.info("%.1f M parameters", sum(p.numel() for p in model.parameters()) / 1e6)
    model.eval()  # nothing drops out, and in training mode diffusers' blocks copy what their shortcuts read
    if options.words:
        rng, held = np.random.default_rng(SEED), options.init is not None or stretch.step > 0
        teach_words(model, readers, tokenizer, latents.facts[KEPT_BACK:], rng, options.words, held)
        average.module.text.load_state_dict(model.text.state_dict())
        average.module.unet.add_embedding.load_state_dict(model.unet.add_embedding.state_dict())
    average.module.share_memory()
    some = torch.from_numpy(latents.records[:LOOKED_AT, 0, 1].astype(np.float32))
    eye = look(AutoencoderKL.from_pretrained(cache / "vae").eval(), some)
    mixture, ways = MIXTURES[options.mixture], ways_from_render(latents)
    asked = {"recoloured": options.recoloured, "alone": options.alone}
    mixture = replace(mixture, **{name: share for name, share in asked.items() if share is not None})
    lessons = Lessons(model, average.module, readers, tokenizer, cache, threads, eye, options.whole, mixture, ways)
    helpers = Helpers(lessons.learn, [*model.parameters(), *readers.parameters()], threads)
    running = misread = 0.0
    for due in stretch.steps():
        pace = min(1.0, (stretch.step + 1) / WARM) / max(1.0, stretch.step / 1500) ** 0.5
        pace *= min(1.0, stretch.left / options.cooldown) if options.cooldown else 1.0
        loss, reading, samples = helpers.step(stretch.step)
        torch.set_num_threads(threads)  # the others wait
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step(options.rate * pace, pace)
        average.update(model, stretch.step)
        torch.set_num_threads(1)
        stretch.samples += int(samples) * threads
        running, misread = smoothed(running, loss), smoothed(misread, reading)
        if due or stretch.step in (60, 300):
            row = {"seconds": stretch.elapsed, "step": stretch.step, "samples": stretch.samples}
            row |= {"loss": running, "misread": misread}
            row |= lessons.validate(stretch.step)
            log.write(row)
