"""Trains UNet and text encoder on latents: v-prediction, bridges from renders, captions as artists write them.

Two readers learn beside them and are thrown away: one tells every latent's region from the UNet's features, one the
style and colours from the whole prompt as the UNet takes it in. What is a shirt, and which colour it was told to have,
is so learnt in thousands of samples, where the pictures alone had not taught it in hundreds of thousands.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.bridge import SCALE, Levels, at_start, clean, draw_levels, noised, recolour_chance
from training.captions import caption, junk, phrases
from training.checkpoints import QUICK_BFLOAT16, Averaged, Log, Stretch
from training.encode import Latents, open_latents
from training.pictures import COLOURINGS, STYLES_EACH
from training.regions import BACKDROP, CLOTH, GROUND, HAIR, REGION_COUNT
from training.stylist import PLAIN, STYLES, Hand
from training.tokenizer import LENGTH

logger = logging.getLogger(__name__)

CHANNELS = (32, 64, 144, 208)
SIDE = 80  # latents a side that the pipeline is told; 256 to 512 px are as good, faces need the larger
TEXT_WIDTH, TEXT_LAYERS, HEADS = 192, 3, 4
TIME_WIDTH = 256
SEED = 9
RATE = 8e-4
WARM = 150  # steps
BRIDGED = 0.85  # share of samples that come from a source picture
OWN = 0.1  # share of steps whose bridges lead to what the model itself draws, blots and all, not to the target
EMPTY, JUNK_ONLY = 0.08, 0.02  # shares of captions
KEPT_BACK = 12  # last records, for the validation loss
VALIDATED = 48  # samples of them
# Latents a side; crops and whole pictures cost the same a step. One core takes 2.3 times as long for 24 crops as for 8.
CROP, CROPS_A_STEP, WHOLES_A_STEP = 32, 24, 6
CROPS_A_PICTURE = 2  # with one caption, whose reading costs a sixth of a crop's
ALIGNED = 8  # crops begin at multiples, the UNet's strides together, so that it learns where dots and squares lie
BROAD, BROADLY = 4, 4.0  # latents a side of the areas whose mean error is punished as well, and its weight
# At a bridge's start an empty caption stands for the render and every style but these: guidance goes away from their
# mean, which has the scene's colours and half a line. White paper among them makes high CFG scales blacken colours,
# flat pictures alone bleach them to lines. Further on the sample itself tells the style.
PALE = ("ink", "pencil")
RENDER_AS_TARGET = 0.04  # so that "3d render" is a style too
OTHER_SOURCE = 0.2  # sources that are a style's picture rather than the render
# What the prompt's reader tells: the style, and the colours of these parts; a weight of both readers in the loss.
NAMED = {
    "top": tuple(CLOTH),
    "bottom": tuple(CLOTH),
    "jacket": tuple(CLOTH),
    "hair": tuple(HAIR),
    "sky": tuple(BACKDROP),
    "wall": tuple(BACKDROP),
    "ground": tuple(GROUND),
}
DRAWN_AS = ("render", *STYLES)
COLOURS = tuple(dict.fromkeys(name for names in NAMED.values() for name in names))
READING = 0.3
UNSAID = -100
WORDS_RATE, WORDS_A_STEP = 1.5e-3, 64


class Denoiser(nn.Module):
    """UNet and text encoder together, as they are trained and averaged."""

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text = unet, text

    def forward(self, sample: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """Return the velocity (N×4×H×W float32) for samples, levels (N) and tokens (N×77 or fewer, in turn)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
            words = self.text(tokens).last_hidden_state
            words = words.repeat_interleave(len(sample) // len(words), 0)
            velocity: Tensor = self.unet(sample, level, words).sample
        return velocity.float()


def build(tokenizer: CLIPTokenizer) -> Denoiser:
    """Return fresh networks; the UNet's output starts at zero but for the noise highway."""
    end = tokenizer.eos_token_id
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=LENGTH,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=4,
        out_channels=4,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,
        # The whole prompt also scales and shifts every block, beside the step's level: styles are told apart far sooner
        # than by cross-attention alone. Plain pipelines feed it, as they do for DeepFloyd IF.
        addition_embed_type="text",
        addition_embed_type_num_heads=HEADS,
        time_embedding_dim=TIME_WIDTH,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=4,  # groups of two channels would lose the colour of broad areas; one group is the highway
    )
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)
    lay_noise_highway(unet)
    return Denoiser(unet, text)


@torch.no_grad()
def lay_noise_highway(unet: UNet2DConditionModel, gain: float = 0.6) -> None:
    """Let the UNet begin by taking the finest grain of its input for noise, which is nearly right at every level.

    The last block sees the first convolution's output, a set of linear 3×3 filters of the sample; a combination of
    them makes the sample less its blur. One normalisation group carries that (of either sign, which SiLU passes) to
    the output. As the group's deviation becomes 1, fine noise arrives at its own size, whatever the level. Untrained,
    that gives the validation loss (2.88) that 285 steps of 8 crops gave from zero (2.79).
    """
    latent = unet.config.in_channels
    block, first, last = unet.up_blocks[-1].resnets[-1], unet.conv_in, unet.conv_out
    width = first.out_channels
    blur = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25]))
    wanted = torch.zeros(latent, latent, 3, 3)
    for channel in range(latent):
        wanted[channel, channel] = -blur
        wanted[channel, channel, 1, 1] += 1
    filters = first.weight.reshape(width, -1)
    mixed = torch.linalg.lstsq(filters.T, wanted.reshape(latent, -1).T).solution.T
    taken = 2 * latent
    shortcut = block.conv_shortcut
    shortcut.weight[:taken] = 0
    shortcut.weight[:latent, -width:, 0, 0], shortcut.weight[latent:taken, -width:, 0, 0] = mixed, -mixed
    offset = mixed @ first.bias
    shortcut.bias[:latent], shortcut.bias[latent:taken] = -offset, offset
    block.conv2.weight[:taken], block.conv2.bias[:taken] = 0, 0
    unet.conv_norm_out.weight[:taken], unet.conv_norm_out.bias[:taken] = 1, 0
    last.weight[:, :taken] = 0
    for channel in range(latent):
        last.weight[channel, channel, 1, 1], last.weight[channel, latent + channel, 1, 1] = gain, -gain


@dataclass
class Told:
    """What captions (N) say, as numbers."""

    whole: Tensor  # N×(1 + NAMED): the style, and the colour of each part, or UNSAID
    words: Tensor  # N×77×2: which part a token speaks of and in which colour, from 1; 0 of none, UNSAID behind the end


class Readers(nn.Module):
    """Tells regions from the UNet's features, and from the prompt what it says; learns beside, isn't shipped."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        unet = model.unet
        answers = len(DRAWN_AS) + sum(map(len, NAMED.values()))
        self.regions = nn.Sequential(nn.GroupNorm(1, CHANNELS[2]), nn.Conv2d(CHANNELS[2], REGION_COUNT, 1))
        self.said = nn.Sequential(nn.LayerNorm(TIME_WIDTH), nn.Linear(TIME_WIDTH, answers))
        self.parts = nn.Linear(TEXT_WIDTH, 1 + len(NAMED))
        self.colours = nn.Linear(TEXT_WIDTH, 1 + len(COLOURS))
        self.seen: dict[str, Tensor] = {}  # of the last call
        for name, part in (("features", unet.up_blocks[1]), ("prompts", unet.add_embedding), ("words", model.text)):
            part.register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self.seen[name] = output.last_hidden_state if name == "words" else output

    def misseen(self, regions: Tensor) -> Tensor:
        """Return the cross-entropy of the regions (N×H×W) read from the last call's features."""
        read = self.regions(self.seen["features"].float())
        step = regions.shape[-1] // read.shape[-1]
        wrong: Tensor = cross_entropy(read, regions[:, step // 2 :: step, step // 2 :: step])
        return wrong

    def misread(self, told: Told) -> Tensor:
        """Return the cross-entropy of what is read from the last words and whole prompts, summed over the parts."""
        words, prompts = self.seen["words"].float(), self.said(self.seen["prompts"].float())
        wrong = cross_entropy(self.parts(words).transpose(1, 2), told.words[..., 0], ignore_index=UNSAID)
        wrong = wrong + cross_entropy(self.colours(words).transpose(1, 2), told.words[..., 1], ignore_index=UNSAID)
        whole = told.whole.repeat_interleave(len(prompts) // len(told.whole), 0)
        begin = 0
        for part, names in enumerate((DRAWN_AS, *NAMED.values())):
            if (whole[:, part] != UNSAID).any():
                scores = prompts[:, begin : begin + len(names)]
                wrong = wrong + cross_entropy(scores, whole[:, part], ignore_index=UNSAID)
            begin += len(names)
        return wrong


@dataclass
class Batch:
    """Training samples: latents times SCALE (N×4×H×W), levels, a caption for one or several."""

    target: Tensor
    source: Tensor
    mean: Tensor  # of the pictures that an empty prompt stands for, in the source's colours
    levels: Levels
    captions: list[str]
    regions: Tensor  # N×H×W int64
    told: Told
    tokens: Tensor


@dataclass
class Pictured:
    """One picture of a record: its scene's facts, which colouring, and which style (0 is the render)."""

    facts: dict[str, Any]
    colouring: int
    style: int

    @property
    def colours(self) -> dict[str, str]:
        """The names of its colours."""
        names: dict[str, str] = self.facts["colours"][self.colouring]
        return names

    @property
    def drawn_as(self) -> str:
        """The name of its style."""
        return "render" if self.style == 0 else str(self.facts["styles"][self.style - 1])

    def caption(self, rng: np.random.Generator, recoloured: bool) -> str:
        """Draw a caption; of a recoloured picture it names what has changed."""
        hand = PLAIN if self.style == 0 else Hand(**self.facts["hands"][self.style - 1])
        must = tuple(self.facts["changed"]) if recoloured else ()
        return caption(self.facts, self.colours, self.drawn_as, rng, must, hand)


def draw_batch(
    latents: Latents, tokenizer: CLIPTokenizer, rng: np.random.Generator, records: range, count: int, size: int
) -> Batch:
    """Draw samples; a source in other colours makes the caption say the target's."""
    levels = draw_levels(rng, count, BRIDGED)
    recoloured = (rng.random(count) < recolour_chance(levels.start)) & (levels.lam > 0).numpy()
    each = CROPS_A_PICTURE if size == CROP else 1
    targets, sources, means, captions, regions, pictures = [], [], [], [], [], []
    for first in range(0, count, each):
        number = int(rng.integers(records.start, records.stop))
        record, facts = latents.records[number], latents.facts[number]
        colouring, others = int(rng.integers(COLOURINGS)), recoloured[first : first + each]
        dice = 1.0 if others.any() else rng.random()  # which stands for the caption
        meant = [0, *(1 + k for k, name in enumerate(facts["styles"]) if name not in PALE)]
        if dice < EMPTY + JUNK_ONLY and (levels.lam[first : first + each] == 1).any():
            style = int(rng.choice(meant))
        else:
            style = 0 if rng.random() < RENDER_AS_TARGET else int(rng.integers(1, 1 + STYLES_EACH))
        if dice < EMPTY:
            captions.append("")
        elif dice < EMPTY + JUNK_ONLY:
            captions.append(", ".join(junk(rng, int(rng.integers(1, 6)))))
        else:
            captions.append(Pictured(facts, colouring, style).caption(rng, others.any()))
        silent = dice < EMPTY + JUNK_ONLY
        levels.vague[first : first + each] |= silent
        pictures.append(None if silent else Pictured(facts, colouring, style))
        for other in others:
            source_style = 0
            if rng.random() < OTHER_SOURCE:
                source_style = style if rng.random() < 0.5 else int(rng.integers(1, 1 + STYLES_EACH))
            row, column = ALIGNED * rng.integers(0, (record.shape[-1] - size) // ALIGNED + 1, 2)
            window = (slice(row, row + size), slice(column, column + size))
            targets.append(record[(colouring, style, slice(None), *window)])
            worn = 1 - colouring if other else colouring
            sources.append(record[(worn, source_style, slice(None), *window)])
            means.append(record[(worn, meant, slice(None), *window)].astype(np.float32).mean(0))
            regions.append(latents.regions[number][window])
    target, source, mean = (SCALE * torch.from_numpy(np.stack(parts)).float() for parts in (targets, sources, means))
    maps = torch.from_numpy(np.stack(regions).astype(np.int64))
    told = told_by(tokenizer, captions, pictures)
    return Batch(target, source, mean, levels, captions, maps, told, tokens_of(tokenizer, captions))


def told_by(tokenizer: CLIPTokenizer, captions: list[str], pictures: list[Pictured | None]) -> Told:
    """Return what captions say of their pictures; nothing where there is no picture that they speak of."""
    found = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_offsets_mapping=True)
    whole, words = [], []
    for said, picture, spans in zip(captions, pictures, found.offset_mapping, strict=True):
        places, line = np.array(spans), [UNSAID] * (1 + len(NAMED))
        of_token = np.zeros((LENGTH, 2), np.int64)
        of_token[places[:, 1] == 0] = UNSAID
        if picture is not None:
            line[0] = DRAWN_AS.index(picture.drawn_as)
            for part, (begin, end) in phrases(picture.facts, picture.colours, said).items():
                number, colour = list(NAMED).index(part), picture.colours[part]
                line[1 + number] = NAMED[part].index(colour)
                of_token[(places[:, 0] < end) & (places[:, 1] > begin)] = 1 + number, 1 + COLOURS.index(colour)
        whole.append(line)
        words.append(of_token)
    return Told(torch.tensor(whole), torch.from_numpy(np.stack(words)))


def teach_words(model: Denoiser, readers: Readers, tokenizer: CLIPTokenizer, latents: Latents, seconds: float) -> None:
    """Train the text encoder, and the way of the whole prompt into the UNet, on captions alone."""
    taught = [model.text, model.unet.add_embedding, readers.said, readers.parts, readers.colours]
    optimiser = torch.optim.AdamW([p for part in taught for p in part.parameters()], lr=WORDS_RATE, weight_decay=1e-3)
    rng, began, running, step = np.random.default_rng(SEED), time.monotonic(), 0.0, 0
    while (spent := time.monotonic() - began) < seconds:
        some = rng.integers(len(latents) - KEPT_BACK, size=WORDS_A_STEP)
        pictures: list[Pictured | None] = [
            Pictured(latents.facts[i], int(rng.integers(COLOURINGS)), int(rng.integers(1 + STYLES_EACH))) for i in some
        ]
        captions = [picture.caption(rng, True) for picture in pictures if picture]
        told = told_by(tokenizer, captions, pictures)
        longest = int((told.words[..., 0] != UNSAID).sum(1).max()) + 2  # with the marks of beginning and end
        told.words = told.words[:, :longest]
        model.unet.add_embedding(model.text(tokens_of(tokenizer, captions)[:, :longest]).last_hidden_state)
        wrong = readers.misread(told)
        optimiser.param_groups[0]["lr"] = WORDS_RATE * min(1.0, (step + 1) / WARM, 3 * (1 - spent / seconds))
        optimiser.zero_grad(set_to_none=True)
        wrong.backward()
        torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
        optimiser.step()
        step += 1
        running = float(wrong.detach()) if not running else 0.95 * running + 0.05 * float(wrong.detach())
        if step % 50 == 0:
            logger.info("words: step %d, misread %.3f", step, running)


@torch.no_grad()
def drawn_by(model: Denoiser, batch: Batch) -> Tensor:
    """Return the clean latents that the model makes of the sources in one call; targets where there is no bridge."""
    start = at_start(batch.levels)
    sample, _, _ = noised(batch.target, batch.source, batch.mean, start, torch.randn_like(batch.target))
    pictures = clean(sample, model(sample, start.level, batch.tokens), start.level)
    return torch.where((batch.levels.lam > 0).view(-1, 1, 1, 1), pictures, batch.target)


def tokens_of(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return token ids (N×77)."""
    return torch.tensor(tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True).input_ids)


@torch.no_grad()
def validate(model: Denoiser, tokenizer: CLIPTokenizer, latents: Latents) -> dict[str, float]:
    """Return the weighted loss on records kept back, and the clean latent's error by quarter of the levels."""
    rng = np.random.default_rng(0)
    kept = range(len(latents) - KEPT_BACK, len(latents))
    batch = draw_batch(latents, tokenizer, rng, kept, VALIDATED, CROP)
    noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(0))
    level = batch.levels.level
    sample, velocity, weight = noised(batch.target, batch.source, batch.mean, batch.levels, noise)
    predicted = model(sample, level, batch.tokens)
    end = clean(sample, velocity, level)
    error = (clean(sample, predicted, level) - end).square().mean((1, 2, 3)) / SCALE**2
    error = error[level.argsort()][~batch.levels.vague[level.argsort()]]
    quarters = {f"clean_{i}": float(part.mean()) for i, part in enumerate(error.chunk(4))}
    return {"validation": float((weight * (predicted - velocity).square()).mean())} | quarters


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--seconds", type=float, default=3600, help="how long this stretch lasts")
    parser.add_argument(
        "--cooldown", type=float, default=0, help="seconds at its end in which the rate falls to nothing"
    )
    parser.add_argument("--init", type=Path, help="diffusers folder to start from where there is no checkpoint")
    parser.add_argument("--words", type=float, default=0, help="seconds before it to learn to read captions alone")
    parser.add_argument("--whole", type=float, default=0.3, help="share of steps on whole pictures, not crops")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Train for a stretch; the checkpoint is `unet.pt`, the log `unet.csv`."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    tokenizer = CLIPTokenizer.from_pretrained(cache / "tokenizer")
    model = build(tokenizer)
    if options.init:
        model.unet = UNet2DConditionModel.from_pretrained(options.init, subfolder="unet")
        model.text = CLIPTextModel.from_pretrained(options.init, subfolder="text_encoder")
        model.float()  # the folder is fp16
    model.to(memory_format=torch.channels_last)  # a twentieth faster on processors
    average = Averaged(model, 0.997)
    readers = Readers(model)
    trained = [*model.parameters(), *readers.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    stretch = Stretch(cache / "unet.pt", model, average, optimiser, options.seconds, beside=readers)
    log = Log(cache / "logs" / "unet.csv")
    latents = open_latents(cache)
    logger.info("%.1f M parameters", sum(p.numel() for p in model.parameters()) / 1e6)
    model.train()
    if options.words:
        teach_words(model, readers, tokenizer, latents, options.words)
        average.module.load_state_dict(model.state_dict())
    running = misread = 0.0
    for due in stretch.steps():
        rng = stretch.rng(SEED)
        if stretch.step % 200 == 0:
            latents = open_latents(cache)
        rate = RATE * min(1.0, (stretch.step + 1) / WARM) / max(1.0, stretch.step / 4000) ** 0.5
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, stretch.left / options.cooldown) if options.cooldown else rate
        whole = rng.random() < options.whole
        size, count = (latents.records.shape[-1], WHOLES_A_STEP) if whole else (CROP, CROPS_A_STEP)
        batch = draw_batch(latents, tokenizer, rng, range(len(latents) - KEPT_BACK), count, size)
        drawn = drawn_by(average.module, batch) if rng.random() < OWN else None
        noise = torch.randn_like(batch.target)
        sample, velocity, weight = noised(batch.target, batch.source, batch.mean, batch.levels, noise, drawn)
        wrong = model(sample, batch.levels.level, batch.tokens) - velocity
        loss = (weight * wrong.square()).mean() + BROADLY * (weight * avg_pool2d(wrong, BROAD).square()).mean()
        reading = readers.misseen(batch.regions) + readers.misread(batch.told)
        optimiser.zero_grad(set_to_none=True)
        (loss + READING * reading).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model, stretch.step)
        stretch.samples += count
        running, misread = (
            float(new.detach()) if not old else 0.98 * old + 0.02 * float(new.detach())
            for old, new in ((running, loss), (misread, reading))
        )
        if due or stretch.step in (60, 300):
            row = {"seconds": stretch.elapsed, "step": stretch.step, "samples": stretch.samples}
            row |= {"loss": running, "misread": misread}
            row |= validate(average.module, tokenizer, latents)
            log.write(row)
            logger.info(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
