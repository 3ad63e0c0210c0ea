"""Readers of what pictures show and captions say, which learn beside the denoiser and are thrown away.

One tells every latent's region from the UNet's features, one the style and colours from the whole prompt as the UNet
takes it in, and of every token which part it speaks of. What is a shirt, and which colour it was told to have, is so
learnt in thousands of samples, where the pictures alone had not taught it in hundreds of thousands.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTokenizer

from training.captions import caption, phrases
from training.checkpoints import smoothed
from training.denoiser import CHANNELS, TEXT_WIDTH, TIME_WIDTH, Denoiser
from training.pictures import COLOURINGS, STYLES_EACH
from training.regions import BACKDROP, CLOTH, GROUND, HAIR, REGION_COUNT
from training.stylist import PLAIN, STYLES, Hand
from training.tokenizer import LENGTH

logger = logging.getLogger(__name__)

# What the reader of prompts tells: the style, and the colours of these parts.
NAMED = {
    "top": tuple(CLOTH),
    "bottom": tuple(CLOTH),
    "jacket": tuple(CLOTH),
    "hair": tuple(HAIR),
    "sky": tuple(BACKDROP),
    "wall": tuple(BACKDROP),
    "ground": tuple(GROUND),
}
PARTS = tuple(NAMED)
DRAWN_AS = ("render", *STYLES)
COLOURS = tuple(dict.fromkeys(name for names in NAMED.values() for name in names))
UNSAID = -100
RATE, WARM, CAPTIONS_A_STEP = 1.5e-3, 150, 64  # of the words alone; WARM in steps


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


@dataclass
class Told:
    """What captions (N) say, as numbers."""

    tokens: Tensor  # N×77
    whole: Tensor  # N×(1 + PARTS): the style, and the colour of each part, or UNSAID
    words: Tensor  # N×77×2: which part a token speaks of and in which colour, from 1; 0 of none, UNSAID behind the end


def tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return captions as the networks read them (N×77)."""
    found = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    ids: Tensor = found.input_ids
    return ids


def told_by(tokenizer: CLIPTokenizer, captions: list[str], pictures: list[Pictured | None]) -> Told:
    """Return what captions say of their pictures; nothing where there is no picture that they speak of."""
    found = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_offsets_mapping=True)
    whole, words = [], []
    for said, picture, spans in zip(captions, pictures, found.offset_mapping, strict=True):
        places, line = np.array(spans), [UNSAID] * (1 + len(PARTS))
        of_token = np.zeros((LENGTH, 2), np.int64)
        of_token[places[:, 1] == 0] = UNSAID
        if picture is not None:
            line[0] = DRAWN_AS.index(picture.drawn_as)
            for part, (begin, end) in phrases(picture.facts, picture.colours, said).items():
                number, colour = PARTS.index(part), picture.colours[part]
                line[1 + number] = NAMED[part].index(colour)
                of_token[(places[:, 0] < end) & (places[:, 1] > begin)] = 1 + number, 1 + COLOURS.index(colour)
        whole.append(line)
        words.append(of_token)
    return Told(torch.tensor(found.input_ids), torch.tensor(whole), torch.from_numpy(np.stack(words)))


class Readers(nn.Module):
    """Tells regions from the UNet's features, and from the prompt what it says; learns beside, isn't shipped."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        unet = model.unet
        answers = len(DRAWN_AS) + sum(map(len, NAMED.values()))
        self.regions = nn.Sequential(nn.GroupNorm(1, CHANNELS[2]), nn.Conv2d(CHANNELS[2], REGION_COUNT, 1))
        self.said = nn.Sequential(nn.LayerNorm(TIME_WIDTH), nn.Linear(TIME_WIDTH, answers))
        self.parts = nn.Linear(TEXT_WIDTH, 1 + len(PARTS))
        self.colours = nn.Linear(TEXT_WIDTH, 1 + len(COLOURS))
        self.seen: dict[str, Tensor] = {}  # of the last call
        for name, part in (("features", unet.up_blocks[0]), ("prompts", unet.add_embedding), ("words", model.text)):
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
        wrong = prompts.new_zeros(())
        if (told.words != UNSAID).any():  # not all captions are empty
            for read, said in zip((self.parts(words), self.colours(words)), told.words.unbind(-1), strict=True):
                wrong = wrong + cross_entropy(read.transpose(1, 2), said, ignore_index=UNSAID)
        whole = told.whole.repeat_interleave(len(prompts) // len(told.whole), 0)
        begin = 0
        for part, names in enumerate((DRAWN_AS, *NAMED.values())):
            if (whole[:, part] != UNSAID).any():
                scores = prompts[:, begin : begin + len(names)]
                wrong = wrong + cross_entropy(scores, whole[:, part], ignore_index=UNSAID)
            begin += len(names)
        return wrong


def teach_words(
    model: Denoiser,
    readers: Readers,
    tokenizer: CLIPTokenizer,
    known: list[dict[str, Any]],
    rng: np.random.Generator,
    seconds: float,
    alone: bool,
) -> None:
    """Train what reads prompts on captions alone: the readers and, unless those alone, the text encoder with them."""
    taught = [readers.said, readers.parts, readers.colours]
    taught += [] if alone else [model.text, model.unet.add_embedding]
    optimiser = torch.optim.AdamW([p for part in taught for p in part.parameters()], lr=RATE, weight_decay=1e-3)
    began, running, step = time.monotonic(), 0.0, 0
    while (spent := time.monotonic() - began) < seconds:
        some = rng.integers(len(known), size=CAPTIONS_A_STEP)
        pictures: list[Pictured | None] = [
            Pictured(known[i], int(rng.integers(COLOURINGS)), int(rng.integers(1 + STYLES_EACH))) for i in some
        ]
        captions = [picture.caption(rng, True) for picture in pictures if picture]
        told = told_by(tokenizer, captions, pictures)
        longest = int((told.words[..., 0] != UNSAID).sum(1).max()) + 2  # with the marks of beginning and end
        told.words = told.words[:, :longest]
        with torch.set_grad_enabled(not alone):
            model.unet.add_embedding(model.text(told.tokens[:, :longest]).last_hidden_state)
        wrong = readers.misread(told)
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / WARM, 3 * (1 - spent / seconds))
        optimiser.zero_grad(set_to_none=True)
        wrong.backward()
        torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
        optimiser.step()
        step += 1
        running = smoothed(running, wrong, 0.05)
        if step % 50 == 0:
            logger.info("words: step %d, misread %.3f", step, running)
    readers.seen.clear()  # what belongs to a past step can't go to another process
