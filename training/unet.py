"""Trains UNet and text encoder on latents: v-prediction, bridges from renders, captions as artists write them."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.utils.memory_format import convert_conv2d_weight_memory_format
from transformers import CLIPTokenizer

from training.bridge import LEVELS, SIGMA, Levels, aim, clean, shares
from training.checkpoints import Averaged, Log, Stretch, smoothed
from training.denoiser import Denoiser, build, grown
from training.encode import open_latents
from training.helpers import Helpers
from training.losses import Eye, disorder, look, misfit
from training.mixture import MIXTURES, Mixture
from training.optimiser import Optimisers
from training.pictures import KEPT_BACK, REGIONS_SIDE
from training.reading import Readers, teach_words, tokens
from training.samples import CROP, Batch, Samples

logger = logging.getLogger(__name__)

SEED = 9
WARM = 150  # steps
OWN_STEPS, OWN_GUIDANCE = 3, 10.0  # at most, where the model itself leads samples on
OWN_STEPS_ALONE = 5  # at most, where some of them begin as noise alone
OWN_PLAIN = 0.5  # share of those steps without guidance
OWN_KEPT = (0.5, 0.8)  # how much of sigma one of those steps leaves
VALIDATED = 24  # pictures of them
LOOKED_AT = 8  # pictures that show how errors of latents are seen
CROPPED_A_STEP, WHOLE_A_STEP = 8, 6  # pictures, in crops or whole
FINEST = ("unet.up_blocks.1.upsamplers.", "unet.up_blocks.2.", "unet.conv_norm_out.", "unet.conv_out.")
STRUCTURE = 20.0  # the weight of structural similarity; with 8 its gradients are about as long as the others


@dataclass
class Leading:
    """A model on its way down the levels by Euler's sampler, guided or not."""

    model: Denoiser
    words: Tensor  # N×77 without guidance, else 2N×77: those of no prompt behind
    guidance: Tensor | None  # N×1×1×1

    @staticmethod
    def drawn(model: Denoiser, tokenizer: CLIPTokenizer, batch: Batch, rng: np.random.Generator) -> Leading:
        """Draw whether it is guided, and how much."""
        if rng.random() < OWN_PLAIN:
            return Leading(model, batch.told.tokens, None)
        words = tokens(tokenizer, batch.captions + [""] * len(batch.captions))
        guidance = torch.from_numpy(OWN_GUIDANCE ** rng.random(len(batch.target))).float()
        return Leading(model, words, guidance.view(-1, 1, 1, 1))

    @torch.no_grad()
    def step(self, point: Tensor, level: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return where one step of drawn length leads, as a sample divided by its signal's share, and its levels."""
        now = point * shares(level)[0]
        if self.guidance is None:
            end = clean(now, self.model(now, level, self.words), level)
        else:
            twice, both = now.repeat(2, 1, 1, 1), level.repeat(2)
            said, silent = clean(twice, self.model(twice, both, self.words), both).chunk(2)
            end = silent + self.guidance * (said - silent)
        sigma, kept = SIGMA[level], torch.from_numpy(rng.uniform(*OWN_KEPT, len(point))).float()
        then = torch.searchsorted(SIGMA, sigma * kept)
        return end + (SIGMA[then] / sigma).view(-1, 1, 1, 1) * (point - end), then


def led_on(
    model: Denoiser, tokenizer: CLIPTokenizer, batch: Batch, noise: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Levels]:
    """Return the samples that some steps of Euler's sampler lead to, guided or not, and where those are.

    Without a source they begin as noise alone: under a picture that has been led to limbs are blurred, and a model that
    has seen but true ones there takes them away.
    """
    alone = ~batch.levels.bridged
    level = torch.where(alone, LEVELS - 1, batch.levels.level)
    begun = replace(batch, levels=replace(batch.levels, level=level, blind=alone))
    leading, point = Leading.drawn(model, tokenizer, batch, rng), begun.sample(noise) / shares(level)[0]
    for _ in range(int(rng.integers(1, 1 + (OWN_STEPS_ALONE if alone.any() else OWN_STEPS)))):
        point, level = leading.step(point, level, rng)
    way, come = batch.target - batch.source, point - SIGMA[level].view(-1, 1, 1, 1) * noise - batch.source
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
    samples: Samples | None = None

    def opened(self, step: int) -> Samples:
        """Return what samples are drawn from; now and then it looks whether there is more."""
        if self.samples is None:
            self.samples = Samples(self.tokenizer, open_latents(self.cache), self.mixture)
        elif step % 200 == 0:
            self.samples.draw_from(open_latents(self.cache))
        return self.samples

    def learn(self, step: int, process: int) -> Tensor:
        """Add to the gradients; return the loss, what the readers get wrong, and the samples."""
        samples = self.opened(step)
        drawn = np.random.default_rng((SEED, step)).random(2)  # the same in every process
        whole, own = drawn < (self.wholly, self.mixture.own)
        rng = np.random.default_rng((SEED, step, process))
        torch.manual_seed(int(rng.integers(2**62)))
        size, count = (REGIONS_SIDE, WHOLE_A_STEP) if whole else (CROP, CROPPED_A_STEP)
        records = range(KEPT_BACK, len(samples.latents))
        batch = samples.draw(rng, records, max(1, count // self.processes), size)
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
        rng = np.random.default_rng(0)
        batch = self.opened(step).draw(rng, range(KEPT_BACK), VALIDATED, CROP)
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
    parser.add_argument("--own", type=float, help="another share of steps on samples that the model itself has led on")
    parser.add_argument("--finest", action="store_true", help="teach the last scale alone, behind a layout")
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
    mixture = MIXTURES[options.mixture]
    asked = {name: getattr(options, name) for name in ("recoloured", "alone", "own")}
    mixture = replace(mixture, **{name: share for name, share in asked.items() if share is not None})
    lessons = Lessons(model, average.module, readers, tokenizer, cache, threads, eye, options.whole, mixture)
    if options.finest:
        readers.requires_grad_(False)
        for name, part in model.named_parameters():
            part.requires_grad_(name.startswith(FINEST))
    learnt = [part for part in (*model.parameters(), *readers.parameters()) if part.requires_grad]
    helpers = Helpers(lessons.learn, learnt, threads)
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
