"""Teaches the UNet's coarser scales to lay out a figure from its prompt, where a sample is noise alone.

Learnt whole, text-to-image answered every pose with one blurred figure after 34,000 samples. Here one scale learns
alone, from features that the others have made once: of the noise it shall make what it makes of the picture itself,
which a UNet that redraws renders has learnt to read already. What it makes of noised renders stays as it is. The
coarsest scale comes first; it is also asked for its places, which in noise can be known from the borders alone. The
finer one follows, which then sees its layout.

`unet.pt` is replaced, the one before stays beside it as `unet_STEP.pt`. The `unet` stage then learns to draw from it.
"""

from __future__ import annotations

import argparse
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.memory_format import convert_conv2d_weight_memory_format
from transformers import CLIPTokenizer

from training.bridge import LEVELS, SIGMA, shares
from training.checkpoints import QUICK_BFLOAT16, Averaged, paced, replace_trained, smoothed, trained
from training.denoiser import CHANNELS, Denoiser, build, in_turn
from training.encode import open_latents
from training.mixture import FINISH, Mixture
from training.optimiser import Optimisers
from training.pictures import KEPT_BACK, REGIONS_SIDE
from training.reading import Readers
from training.samples import Batch, Samples
from training.unet import Leading

logger = logging.getLogger(__name__)

SEED = 21
NOISY = 850  # the level from which on samples without a source are learnt from: below it their picture is to be seen
# What shall be laid out, and what shall stay. With true pictures under the noise alone, the steps after the first lost
# limbs that it had laid out: blurred ones were then not believed.
ALONE = replace(FINISH, alone=1.0, empty=0.0, junk_only=0.0, own=0.5, lowest_alone=NOISY)
BRIDGED = replace(FINISH, alone=0.0, own=0.0, recoloured=0.4)  # beside a tenth inpainted colours fell behind
SEEN = 550  # the level at which the picture itself is shown
A_BATCH, MADE_AT_ONCE = 32, 16
LED = 3  # steps that the model itself leads on from noise alone; all of them are learnt from
SHARE_ALONE = 0.85  # of a batch
STAYS = 0.6  # the weight of what shall stay, beside SHARE_ALONE of what shall be laid out
RATE, WARM = 5e-4, 100  # WARM in steps; the rate falls to nothing in the last third
WAVES, HIGHEST, PLACED = 5, 5, 0.3  # cosines a side that tell a place, the sum of their numbers, and what they count


def heard(model: Denoiser, tokens: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Return the words (N×tokens×width) of prompts, in turn, and the embedding (N×width) of both prompt and level."""
    words = in_turn(model.text(tokens).last_hidden_state, len(level))
    unet = model.unet
    return words, unet.time_embedding(unet.time_proj(level).float()) + unet.add_embedding(words)


def way_down(model: Denoiser, sample: Tensor, embedding: Tensor) -> tuple[Tensor, ...]:
    """Return the features of a sample (N×4×H×W) on its way down to the coarsest scale, which gets the last of them."""
    found: list[Tensor] = [model.unet.conv_in(sample)]
    for block in model.unet.down_blocks[:-1]:
        found += block(hidden_states=found[-1], temb=embedding)[1]
    return tuple(found)


def way_up(block: Any, here: Tensor, skipped: Sequence[Tensor], embedding: Tensor, words: Tensor) -> Tensor:
    """Return what a block makes of features and of those that skipped the scales below, before it enlarges them."""
    for resnet, attention, beside in zip(block.resnets, block.attentions, reversed(skipped), strict=True):
        here = resnet(torch.cat([here, beside], 1), embedding)
        here = attention(here, encoder_hidden_states=words, return_dict=False)[0]
    return here


class Scale(nn.Module, ABC):
    """A UNet's layers at one scale, which learn apart from the others.

    Called with what they get from the others (N×C×h×w each), the embedding (N×width) of level and prompt and the words
    (N×tokens×width), they return features (N×C×h×w): first `asked` that are asked for their places, last the result.
    """

    asked = 0

    @abstractmethod
    def given(self, model: Denoiser, sample: Tensor, embedding: Tensor, words: Tensor) -> tuple[Tensor, ...]:
        """Return what these layers get from the others where those see a sample (N×4×H×W)."""


class Coarsest(Scale):
    """From what the finer scales hand down to what they get back, before it is enlarged."""

    asked = 2  # behind the way down and the middle

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        unet = model.unet
        self.down, self.middle, self.up = unet.down_blocks[-1], unet.mid_block, unet.up_blocks[0]

    def given(self, model: Denoiser, sample: Tensor, embedding: Tensor, words: Tensor) -> tuple[Tensor, ...]:
        return way_down(model, sample, embedding)[-1:]

    def forward(self, given: tuple[Tensor, ...], embedding: Tensor, words: Tensor) -> tuple[Tensor, ...]:
        skipped = [*given]
        for block, attention in zip(self.down.resnets, self.down.attentions, strict=True):
            here = attention(block(skipped[-1], embedding), encoder_hidden_states=words, return_dict=False)[0]
            skipped.append(here)
        middle = self.middle(skipped[-1], embedding, encoder_hidden_states=words)
        return skipped[-1], middle, way_up(self.up, middle, skipped, embedding, words)


class Finer(Scale):
    """The way up at the scale above the coarsest, whose features it enlarges, until its own are enlarged."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.enlarge, self.up = model.unet.up_blocks[0].upsamplers[0], model.unet.up_blocks[1]

    def given(self, model: Denoiser, sample: Tensor, embedding: Tensor, words: Tensor) -> tuple[Tensor, ...]:
        features = way_down(model, sample, embedding)
        return (Coarsest(model)(features[-1:], embedding, words)[-1], *features[-1 - len(self.up.resnets) : -1])

    def forward(self, given: tuple[Tensor, ...], embedding: Tensor, words: Tensor) -> tuple[Tensor, ...]:
        coarse, *skipped = given
        return (way_up(self.up, self.enlarge(coarse), skipped, embedding, words),)


SCALES: dict[str, Callable[[Denoiser], Scale]] = {"coarsest": Coarsest, "finer": Finer}


@dataclass
class Made:
    """What the other scales have made of samples, and what the one that learns shall make of that."""

    given: tuple[Tensor, ...]  # N×C×h×w bfloat16 each
    level: Tensor  # N
    tokens: Tensor  # N×77
    goal: Tensor  # N×C×h×w bfloat16

    def __len__(self) -> int:
        return len(self.level)

    def chosen(self, which: Tensor) -> Made:
        """Return some of them."""
        given = tuple(part[which] for part in self.given)
        return Made(given, self.level[which], self.tokens[which], self.goal[which])


def joined(parts: Sequence[Made]) -> Made:
    """Return several as one."""
    given = tuple(torch.cat(some) for some in zip(*(part.given for part in parts), strict=True))
    rest = (torch.cat([getattr(part, name) for part in parts]) for name in ("level", "tokens", "goal"))
    return Made(given, *rest)


@torch.no_grad()
def made_of(model: Denoiser, scale: Scale, batch: Batch, seen: Sequence[tuple[Tensor, Tensor]] = ()) -> Made:
    """Return what the model makes of a batch: its goal is what it is now, or of noise what it is of the picture.

    seen: samples (N×4×H×W) and their levels (N), by default the batch's own.
    """

    def made(sample: Tensor, level: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        words, embedding = heard(model, batch.told.tokens, level)
        given = scale.given(model, sample, embedding, words)
        return given, scale(given, embedding, words)[-1]

    with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
        seen = seen or [(batch.sample(torch.randn_like(batch.target)), batch.levels.level)]
        found = [(*made(sample, level), level) for sample, level in seen]
        if not batch.levels.bridged.all():
            shown = torch.full_like(batch.levels.level, SEEN)
            signal, noise = shares(shown)
            _, of_picture = made(signal * batch.target + noise * torch.randn_like(batch.target), shown)
            stays = batch.levels.bridged.view(-1, 1, 1, 1)
            found = [(given, torch.where(stays, goal, of_picture), level) for given, goal, level in found]
    return joined(
        [
            Made(tuple(part.bfloat16() for part in given), level, batch.told.tokens, goal.bfloat16())
            for given, goal, level in found
        ]
    )


def led_from_noise(
    model: Denoiser, tokenizer: CLIPTokenizer, batch: Batch, rng: np.random.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Return the samples to which steps of the model lead from noise alone, and their levels, for `made_of`."""
    leading, level = Leading.drawn(model, tokenizer, batch, rng), torch.full_like(batch.levels.level, LEVELS - 1)
    point, found = torch.randn_like(batch.target) * SIGMA[level].view(-1, 1, 1, 1), []
    with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
        for _ in range(LED):
            point, level = leading.step(point, level, rng)
            found.append((point * shares(level)[0], level))
    return found


def gather(model: Denoiser, scale: Scale, samples: Samples, count: int) -> Made:
    """Return what the model makes of `count` samples of whole pictures or some more."""
    parts: list[Made] = []
    records = range(KEPT_BACK, len(samples.latents))
    while (found := sum(map(len, parts))) < count:
        number = len(parts)
        torch.manual_seed(SEED * 1_000_003 + number)
        rng = np.random.default_rng((SEED, number))
        batch = samples.draw(rng, records, MADE_AT_ONCE, REGIONS_SIDE)
        led = rng.random() < samples.mixture.own
        parts.append(made_of(model, scale, batch, led_from_noise(model, samples.tokenizer, batch, rng) if led else ()))
        if number % 50 == 0:
            logger.info("features of sample %d of %d", found, count)
    return joined(parts)


def waves(side: int) -> Tensor:
    """Return cosines over a square's places (K×side×side, mean 0, deviation 1), from which a place can be told."""
    angle = (torch.arange(side) + 0.5) / side * math.pi
    lines = [torch.cos(number * angle) for number in range(WAVES)]
    pairs = [(row, column) for row in range(WAVES) for column in range(WAVES) if 0 < row + column <= HIGHEST]
    found = torch.stack([lines[row][:, None] * lines[column] for row, column in pairs])
    return (found - found.mean((1, 2), keepdim=True)) / found.std((1, 2), keepdim=True)


class Places(nn.Module):
    """Asks so many features of the coarsest scale for their places; thrown away afterwards."""

    def __init__(self, side: int, count: int) -> None:
        super().__init__()
        self.waves, width = waves(side), CHANNELS[-1]
        self.asked = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, width), nn.Conv2d(width, len(self.waves), 1)) for _ in range(count)
        )

    def mistaken(self, *features: Tensor) -> Tensor:
        """Return the squared error of the waves read from features (N×C×side×side each), summed."""
        wrong = torch.zeros(())
        for ask, of in zip(self.asked, features, strict=True):
            wrong = wrong + (ask(of.float()) - self.waves).square().mean()
        return wrong


class Lessons:
    """What shall be laid out and what shall stay, and how far a model is from it."""

    def __init__(self, model: Denoiser, scale: Scale, alone: Made, stays: Made) -> None:
        self.model, self.scale = model, scale
        self.alone, self.stays = alone, stays
        self.places = Places(alone.goal.shape[-1], scale.asked)
        self._scale = 1 / (alone.goal.float().std((0, 2, 3), keepdim=True) + 1e-3)

    def errors(self, made: Made) -> tuple[Tensor, Tensor]:
        """Return the squared errors (N) of what the scale makes, by the goal's variance, and of its places."""
        with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
            with torch.no_grad():
                words, embedding = heard(self.model, made.tokens, made.level)
            *asked, here = self.scale(tuple(part.float() for part in made.given), embedding, words)
        wrong = (here.float() - made.goal.float()) * self._scale
        return wrong.square().mean((1, 2, 3)), self.places.mistaken(*asked)

    def wrong(self, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch drawn by chance."""
        count = round(A_BATCH * SHARE_ALONE)
        parts = [
            made.chosen(torch.randint(len(made), (some,), generator=generator))
            for made, some in ((self.alone, count), (self.stays, A_BATCH - count))
        ]
        errors, misplaced = self.errors(joined(parts))
        return SHARE_ALONE * errors[:count].mean() + STAYS * errors[count:].mean() + PLACED * misplaced

    def learn(self, seconds: float) -> None:
        """Teach the scale for so long; it is left with the moving average of its weights."""
        learnt = list(self.scale.parameters())
        for part in self.model.parameters():
            part.requires_grad_(False)
        for part in learnt:
            part.requires_grad_(True)
        average = Averaged(self.scale, 0.995)
        optimiser = torch.optim.AdamW([*learnt, *self.places.parameters()], lr=RATE, betas=(0.9, 0.98), weight_decay=0)
        generator = torch.Generator().manual_seed(SEED)
        running = 0.0
        for step, pace in paced(seconds, WARM):
            loss = self.wrong(generator)
            for group in optimiser.param_groups:
                group["lr"] = RATE * pace
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimiser.step()
            average.update(self.scale, step - 1)
            running = smoothed(running, loss)
            if step % 50 == 0:
                logger.info("layout: step %d, loss %.3f", step, running)
        self.scale.load_state_dict(average.module.state_dict())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--scale", choices=SCALES, default="coarsest", help="which learns: the coarsest comes first")
    parser.add_argument("--seconds", type=float, default=1200, help="how long it learns")
    parser.add_argument("--alone", type=int, default=10_000, help="samples to be laid out")
    parser.add_argument("--stays", type=int, default=3_200, help="noised renders of which the same is made as before")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Gather features, learn from them, and replace the checkpoint."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    stored, tokenizer = trained(cache, "unet"), CLIPTokenizer.from_pretrained(cache / "tokenizer")
    model = build(tokenizer)
    model.load_state_dict(stored["average"])
    latents, scale = open_latents(cache), SCALES[options.scale](model.eval())

    def made(mixture: Mixture, count: int) -> Made:
        return gather(model, scale, Samples(tokenizer, latents, mixture), count)

    lessons = Lessons(model, scale, made(ALONE, options.alone), made(BRIDGED, options.stays))
    lessons.learn(options.seconds)
    # Filters keep the lengths that they have grown to here; they are counted as the unet stage lays them out. Learning
    # so, torch 2.13's gradients of group norms crashed.
    convert_conv2d_weight_memory_format(model, torch.channels_last)
    weights = model.state_dict()
    optimiser = stored["optimiser"] | {"lengths": Optimisers(model, Readers(model)).state_dict()["lengths"]}
    replace_trained(cache, "unet", stored, {"model": weights, "average": weights, "optimiser": optimiser})
