"""Teaches the UNet's coarsest scale to lay out a figure from its prompt, where a sample is noise alone.

Learnt whole, text-to-image answered every pose with one blurred figure after 34,000 samples. Here the coarsest scale
learns alone, from features that the finer ones have made once: of the noise it shall make what it makes of the picture
itself, which a UNet that redraws renders has learnt to read already. What it makes of noised renders stays as it is.
And it is asked for its places, which in noise can be known from the borders alone.

`unet.pt` is replaced, the one before stays beside it as `unet_STEP.pt`. The `unet` stage then learns to draw from it.
"""

from __future__ import annotations

import argparse
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.memory_format import convert_conv2d_weight_memory_format
from transformers import CLIPTokenizer

from training.bridge import shares
from training.checkpoints import QUICK_BFLOAT16, Averaged, paced, replace_trained, smoothed, trained
from training.denoiser import CHANNELS, Denoiser, build, in_turn
from training.encode import open_latents
from training.mixture import FINISH, Mixture
from training.optimiser import Optimisers
from training.pictures import KEPT_BACK, REGIONS_SIDE
from training.reading import Readers
from training.samples import Batch, Samples

logger = logging.getLogger(__name__)

SEED = 21
ALONE = replace(FINISH, alone=1.0, empty=0.0, junk_only=0.0)  # what shall be laid out
BRIDGED = replace(FINISH, alone=0.0)  # what shall stay
NOISY = 900  # the level from which on samples without a source are learnt from: below it their picture is to be seen
SEEN = 550  # the level at which the picture itself is shown
A_BATCH, MADE_AT_ONCE = 32, 16
SHARE_ALONE = 0.85  # of a batch
STAYS = 0.6  # the weight of what shall stay, beside SHARE_ALONE of what shall be laid out
RATE, WARM = 5e-4, 100  # WARM in steps; the rate falls to nothing in the last third
WAVES, HIGHEST, PLACED = 5, 5, 0.3  # cosines a side that tell a place, the sum of their numbers, and what they count


class Coarsest(nn.Module):
    """A UNet's coarsest scale, its own layers: from what the finer scales hand down to what they get back."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        unet = model.unet
        self.down, self.middle, self.up = unet.down_blocks[-1], unet.mid_block, unet.up_blocks[0]

    def forward(self, features: Tensor, embedding: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features (N×C×h×w each) behind the way down, the middle and the way up, before they are enlarged.

        features: N×C'×h×w; embedding: N×width, of level and prompt; words: N×tokens×width.
        """
        here, skipped = features, [features]
        for block, attention in zip(self.down.resnets, self.down.attentions, strict=True):
            here = attention(block(here, embedding), encoder_hidden_states=words, return_dict=False)[0]
            skipped.append(here)
        low = here
        middle = here = self.middle(here, embedding, encoder_hidden_states=words)
        for block, attention in zip(self.up.resnets, self.up.attentions, strict=True):
            here = block(torch.cat([here, skipped.pop()], 1), embedding)
            here = attention(here, encoder_hidden_states=words, return_dict=False)[0]
        return low, middle, here


def heard(model: Denoiser, tokens: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Return the words (N×tokens×width) of prompts, in turn, and the embedding (N×width) of both prompt and level."""
    words = in_turn(model.text(tokens).last_hidden_state, len(level))
    unet = model.unet
    return words, unet.time_embedding(unet.time_proj(level).float()) + unet.add_embedding(words)


def handed_down(model: Denoiser, sample: Tensor, embedding: Tensor) -> Tensor:
    """Return the features that the finer scales make of a sample (N×4×H×W)."""
    features: Tensor = model.unet.conv_in(sample)
    for block in model.unet.down_blocks[:-1]:
        features, _ = block(hidden_states=features, temb=embedding)
    return features


@dataclass
class Made:
    """What the finer scales have made of samples, and what the coarsest one shall make of that."""

    features: Tensor  # N×C'×h×w float16
    level: Tensor  # N
    tokens: Tensor  # N×77
    goal: Tensor  # N×C×h×w float16

    def __len__(self) -> int:
        return len(self.level)

    def chosen(self, which: Tensor) -> Made:
        """Return some of them."""
        return Made(self.features[which], self.level[which], self.tokens[which], self.goal[which])


def joined(parts: list[Made]) -> Made:
    """Return several as one."""
    names = ("features", "level", "tokens", "goal")
    return Made(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@torch.no_grad()
def made_of(model: Denoiser, batch: Batch) -> Made:
    """Return what the model makes of a batch: its goal is what it is now, or of noise what it is of the picture."""
    coarsest, level = Coarsest(model), batch.levels.level
    with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
        words, embedding = heard(model, batch.told.tokens, level)
        features = handed_down(model, batch.sample(torch.randn_like(batch.target)), embedding)
        goal = coarsest(features, embedding, words)[-1]
        if not batch.levels.bridged.all():
            seen = torch.full_like(level, SEEN)
            signal, noise = shares(seen)
            words, embedding = heard(model, batch.told.tokens, seen)
            shown = signal * batch.target + noise * torch.randn_like(batch.target)
            of_picture = coarsest(handed_down(model, shown, embedding), embedding, words)[-1]
            goal = torch.where(batch.levels.bridged.view(-1, 1, 1, 1), goal, of_picture)
    return Made(features.half(), level, batch.told.tokens, goal.half())


def gather(model: Denoiser, samples: Samples, count: int) -> Made:
    """Return what the model makes of whole pictures."""
    parts: list[Made] = []
    records = range(KEPT_BACK, len(samples.latents))
    for number in range(-(-count // MADE_AT_ONCE)):
        torch.manual_seed(SEED * 1_000_003 + number)
        batch = samples.draw(np.random.default_rng((SEED, number)), records, MADE_AT_ONCE, REGIONS_SIDE)
        parts.append(made_of(model, batch))
        if number % 50 == 0:
            logger.info("features of picture %d of %d", number * MADE_AT_ONCE, count)
    return joined(parts)


def waves(side: int) -> Tensor:
    """Return cosines over a square's places (K×side×side, mean 0, deviation 1), from which a place can be told."""
    angle = (torch.arange(side) + 0.5) / side * math.pi
    lines = [torch.cos(number * angle) for number in range(WAVES)]
    pairs = [(row, column) for row in range(WAVES) for column in range(WAVES) if 0 < row + column <= HIGHEST]
    found = torch.stack([lines[row][:, None] * lines[column] for row, column in pairs])
    return (found - found.mean((1, 2), keepdim=True)) / found.std((1, 2), keepdim=True)


class Places(nn.Module):
    """Asks features on the way down and behind the middle for their places; thrown away afterwards."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.waves, width = waves(side), CHANNELS[-1]
        self.asked = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, width), nn.Conv2d(width, len(self.waves), 1)) for _ in range(2)
        )

    def mistaken(self, *features: Tensor) -> Tensor:
        """Return the squared error of the waves read from features (N×C×side×side each), summed."""
        errors = [(ask(of.float()) - self.waves).square().mean() for ask, of in zip(self.asked, features, strict=True)]
        return torch.stack(errors).sum()


class Lessons:
    """What shall be laid out and what shall stay, and how far a model is from it."""

    def __init__(self, model: Denoiser, alone: Made, stays: Made) -> None:
        self.model, self.coarsest = model, Coarsest(model)
        self.alone = alone.chosen(alone.level >= NOISY)
        self.stays = stays
        self.places = Places(alone.goal.shape[-1])
        self._scale = 1 / (alone.goal.float().std((0, 2, 3), keepdim=True) + 1e-3)

    def errors(self, made: Made) -> tuple[Tensor, Tensor]:
        """Return the squared errors (N) of what the coarsest scale makes, by the goal's variance, and of its places."""
        with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
            with torch.no_grad():
                words, embedding = heard(self.model, made.tokens, made.level)
            low, middle, here = self.coarsest(made.features.float(), embedding, words)
        wrong = (here.float() - made.goal.float()) * self._scale
        return wrong.square().mean((1, 2, 3)), self.places.mistaken(low, middle)

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
        """Teach the coarsest scale for so long; it is left with the moving average of its weights."""
        learnt = list(self.coarsest.parameters())
        for part in self.model.parameters():
            part.requires_grad_(False)
        for part in learnt:
            part.requires_grad_(True)
        average = Averaged(self.coarsest, 0.995)
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
            average.update(self.coarsest, step - 1)
            running = smoothed(running, loss)
            if step % 50 == 0:
                logger.info("layout: step %d, loss %.3f", step, running)
        self.coarsest.load_state_dict(average.module.state_dict())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--seconds", type=float, default=1200, help="how long it learns")
    parser.add_argument("--alone", type=int, default=10_000, help="pictures to be laid out")
    parser.add_argument("--stays", type=int, default=3_200, help="noised renders of which the same is made as before")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Gather features, learn from them, and replace the checkpoint."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    stored, tokenizer = trained(cache, "unet"), CLIPTokenizer.from_pretrained(cache / "tokenizer")
    model = build(tokenizer)
    model.load_state_dict(stored["average"])
    latents = open_latents(cache)

    def made(mixture: Mixture, count: int) -> Made:
        return gather(model, Samples(tokenizer, latents, mixture), count)

    lessons = Lessons(model.eval(), made(ALONE, options.alone), made(BRIDGED, options.stays))
    lessons.learn(options.seconds)
    # Filters keep the lengths that they have grown to here; they are counted as the unet stage lays them out. Learning
    # so, torch 2.13's gradients of group norms crashed.
    convert_conv2d_weight_memory_format(model, torch.channels_last)
    weights = model.state_dict()
    optimiser = stored["optimiser"] | {"lengths": Optimisers(model, Readers(model)).state_dict()["lengths"]}
    replace_trained(cache, "unet", stored, {"model": weights, "average": weights, "optimiser": optimiser})
