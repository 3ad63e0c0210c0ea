"""Readers of what pictures show and captions say, which learn beside the denoiser and are thrown away.

One tells every latent's region from the UNet's features, one the colour that it was told to have, one the style,
colours and forms from the whole prompt as the UNet takes it in, and of every token which part it speaks of; and every
place is asked to heed the words that speak of its part. What is a shirt, and which colour it was told to have, is so
learnt in thousands of samples, where the pictures alone had not taught it in hundreds of thousands.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTokenizer

from figure.poses import POSES
from training.captions import caption, forms, phrases
from training.checkpoints import paced, smoothed
from training.denoiser import CHANNELS, HEADS, TEXT_WIDTH, TIME_WIDTH, Denoiser, in_turn
from training.pictures import COLOURINGS, STYLES_EACH
from training.regions import BACKDROP, CLOTH, GROUND, HAIR, REGION_COUNT, Region
from training.stylist import PLAIN, STYLES, Hand
from training.tokenizer import LENGTH
from training.wardrobe import HAIR_STYLES

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
# And these forms, which a render shows anyway: after 700,000 samples, most of them from renders, a reader told 13 % of
# poses from prompts as the UNet took them in, and text-to-image drew heaps without limbs.
FORMS = {
    "pose": (*POSES, "dynamic pose"),
    "framing": ("full body", "upper body", "portrait"),
    "view": ("from the side", "from behind"),
    "hair": HAIR_STYLES,
    "bottom": ("trousers", "shorts", "leggings", "skirt", "dress", "jumpsuit"),
}
DRAWN_AS = ("render", *STYLES)
ANSWERS = (DRAWN_AS, *NAMED.values(), *FORMS.values())  # what `Told.whole` counts in
COLOURS = tuple(dict.fromkeys(name for names in NAMED.values() for name in names))
UNSAID = -100
PAINTED_WIDTHS = CHANNELS[2], CHANNELS[1]  # of the UNet's last scales but one, from which told colours are read
# The number of the part that each region shows, as `Told.words` counts them: from 1, 0 of none.
PART_SHOWN = torch.zeros(REGION_COUNT, dtype=torch.int64)
PART_SHOWN[[Region[part.upper()] for part in PARTS]] = 1 + torch.arange(len(PARTS))
# What counts in the loss: words that are misread, regions not seen, places where another colour is read than was told
# and those that don't heed the word for their part.
MISREAD, MISSEEN, MISPAINTED, MISHEEDED = 0.3, 1.0, 2.0, 2.0
RATE, WARM, CAPTIONS_A_STEP = 1.5e-3, 150, 64  # of the words alone; WARM in steps
HELD = 5.0  # what counts how far words move that a UNet heeds already, as a share of their variance


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
    whole: Tensor  # N×(1 + PARTS + FORMS): the style, the colour of each part and all forms, or UNSAID
    words: Tensor  # N×77×2: which part a token speaks of and in which colour, from 1; 0 of none, UNSAID behind the end
    painted: Tensor  # N×(1 + PARTS): the colour of each part, in COLOURS, or UNSAID; the first stands for no part


def tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return captions as the networks read them (N×77)."""
    found = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    ids: Tensor = found.input_ids
    return ids


def told_by(tokenizer: CLIPTokenizer, captions: list[str], pictures: list[Pictured | None]) -> Told:
    """Return what captions say of their pictures; nothing where there is no picture that they speak of."""
    found = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_offsets_mapping=True)
    whole, words, painted = [], [], []
    for said, picture, spans in zip(captions, pictures, found.offset_mapping, strict=True):
        places, colours = np.array(spans), [UNSAID] * (1 + len(PARTS))
        line = [UNSAID] * (1 + len(PARTS) + len(FORMS))
        of_token = np.zeros((LENGTH, 2), np.int64)
        of_token[places[:, 1] == 0] = UNSAID
        if picture is not None:
            line[0] = DRAWN_AS.index(picture.drawn_as)
            for part, (begin, end) in phrases(picture.facts, picture.colours, said).items():
                number, colour = PARTS.index(part), picture.colours[part]
                line[1 + number] = NAMED[part].index(colour)
                colours[1 + number] = COLOURS.index(colour)
                of_token[(places[:, 0] < end) & (places[:, 1] > begin)] = 1 + number, 1 + COLOURS.index(colour)
            for form, value in forms(picture.facts, said).items():
                line[1 + len(PARTS) + list(FORMS).index(form)] = FORMS[form].index(value)
        whole.append(line)
        words.append(of_token)
        painted.append(colours)
    return Told(
        torch.tensor(found.input_ids), torch.tensor(whole), torch.from_numpy(np.stack(words)), torch.tensor(painted)
    )


def sampled(regions: Tensor, side: int) -> Tensor:
    """Return the regions (N×H×H) in the middle of each of side × side squares."""
    step = regions.shape[-1] // side
    return regions[:, step // 2 :: step, step // 2 :: step]


def mistold(scores: Tensor, said: Tensor) -> Tensor:
    """Return the cross-entropy of scores (N×classes×...) with what was said (N×...); nothing where all is UNSAID."""
    if (said == UNSAID).all():
        return scores.new_zeros(())
    wrong: Tensor = cross_entropy(scores, said, ignore_index=UNSAID)
    return wrong


class Watched:
    """Cross-attention that keeps how much each place heeded each token (N·heads × places × tokens)."""

    heeded: Tensor

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """Return what the places (N×places×channels) take from the words (N×tokens×width)."""
        words = encoder_hidden_states
        projected = attn.to_q(hidden_states), attn.to_k(words), attn.to_v(words)
        asked, keys, values = map(attn.head_to_batch_dim, projected)
        self.heeded = attn.get_attention_scores(asked, keys)
        taken: Tensor = attn.to_out[0](attn.batch_to_head_dim(self.heeded @ values))
        return taken


class Readers(nn.Module):
    """Tells regions and colours from the UNet's features, and from the prompt what it says; learns beside."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        unet = model.unet
        answers = sum(map(len, ANSWERS))
        self.regions = nn.Sequential(nn.GroupNorm(1, CHANNELS[2]), nn.Conv2d(CHANNELS[2], REGION_COUNT, 1))
        self.painted = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, width), nn.Conv2d(width, len(COLOURS), 1)) for width in PAINTED_WIDTHS
        )
        self.said = nn.Sequential(nn.LayerNorm(TIME_WIDTH), nn.Linear(TIME_WIDTH, answers))
        self.parts = nn.Linear(TEXT_WIDTH, 1 + len(PARTS))
        self.colours = nn.Linear(TEXT_WIDTH, 1 + len(COLOURS))
        layers = [*unet.up_blocks[0].attentions, *unet.up_blocks[1].attentions]
        self.watched = [Watched() for _ in layers]
        for layer, watch in zip(layers, self.watched, strict=True):
            layer.transformer_blocks[0].attn2.set_processor(watch)
        self.seen: dict[str, Tensor] = {}  # of the last call
        hooked = {f"features {i}": unet.up_blocks[i] for i in range(len(self.painted))}
        for name, part in (hooked | {"prompts": unet.add_embedding, "words": model.text}).items():
            part.register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self.seen[name] = output if isinstance(output, Tensor) else output[0]

    def mistaken(self, regions: Tensor, told: Told) -> Tensor:
        """Return all that the last call's readers and attention get wrong, weighed; regions: N×H×W."""
        wrong = MISREAD * self.misread(told) + MISSEEN * self.misseen(regions)
        return wrong + MISPAINTED * self.mispainted(regions, told) + MISHEEDED * self.misheeded(regions, told)

    def misseen(self, regions: Tensor) -> Tensor:
        """Return the cross-entropy of the regions (N×H×W) read from the last call's features."""
        read = self.regions(self.seen["features 0"].float())
        wrong: Tensor = cross_entropy(read, sampled(regions, read.shape[-1]))
        return wrong

    def mispainted(self, regions: Tensor, told: Told) -> Tensor:
        """Return the cross-entropy of the colours told for places (N×H×W regions), summed over the scales."""
        wrong = torch.zeros(())
        for i, painted in enumerate(self.painted):
            read = painted(self.seen[f"features {i}"].float())
            parts = PART_SHOWN[sampled(regions, read.shape[-1])]
            colours = in_turn(told.painted, len(parts)).gather(1, parts.flatten(1))
            wrong = wrong + mistold(read, colours.view_as(parts))
        return wrong

    def misheeded(self, regions: Tensor, told: Told) -> Tensor:
        """Return the cross-entropy of the last call's places (N×H×W regions) heeding the words for their parts.

        It is summed over the scales. One of two heads is asked to. Places whose parts the caption doesn't name are left
        out.
        """
        wrong = torch.zeros(())
        for places in sorted({watch.heeded.shape[1] for watch in self.watched}):
            heeded = torch.stack([watch.heeded for watch in self.watched if watch.heeded.shape[1] == places]).float()
            heeded = heeded.unflatten(1, (len(regions), HEADS))[:, :, ::2].mean(2)  # layers×N×places×tokens
            shown = PART_SHOWN[sampled(regions, round(places**0.5))].flatten(1)[..., None]
            meant = (shown == in_turn(told.words[..., 0], len(regions))[:, None]) & (shown > 0)
            shares = (heeded * meant).sum(-1)[:, meant.any(-1)]
            wrong = wrong + (-shares.clamp(min=1e-4).log().mean() if shares.numel() else 0.0)
        return wrong

    def misread(self, told: Told) -> Tensor:
        """Return the cross-entropy of what is read from the last words and whole prompts, summed over the parts."""
        words, prompts = self.seen["words"].float(), self.said(self.seen["prompts"].float())
        wrong = prompts.new_zeros(())
        for read, said in zip((self.parts(words), self.colours(words)), told.words.unbind(-1), strict=True):
            wrong = wrong + mistold(read.transpose(1, 2), said)
        whole = in_turn(told.whole, len(prompts))
        begin = 0
        for part, names in enumerate(ANSWERS):
            wrong = wrong + mistold(prompts[:, begin : begin + len(names)], whole[:, part])
            begin += len(names)
        return wrong


def moved(now: Tensor, before: Tensor) -> Tensor:
    """Return how far vectors (...×width) have moved, as a share of how they differ among each other."""
    return (now - before).square().mean() / before.flatten(0, -2).var(0).mean()


def teach_words(
    model: Denoiser,
    readers: Readers,
    tokenizer: CLIPTokenizer,
    known: list[dict[str, Any]],
    rng: np.random.Generator,
    seconds: float,
    held: bool,
) -> None:
    """Train what reads prompts on captions alone: the readers and the text encoder.

    Held, the words and prompts that the UNet takes in stay near to what they are, for one that heeds them already.
    """
    prompted = [model.text, model.unet.add_embedding]
    taught = [readers.said, readers.parts, readers.colours, *prompted]
    optimiser = torch.optim.AdamW([p for part in taught for p in part.parameters()], lr=RATE, weight_decay=1e-3)
    text, embedding = copy.deepcopy(prompted)
    running = 0.0
    for step, pace in paced(seconds, WARM):
        some = rng.integers(len(known), size=CAPTIONS_A_STEP)
        pictures: list[Pictured | None] = [
            Pictured(known[i], int(rng.integers(COLOURINGS)), int(rng.integers(1 + STYLES_EACH))) for i in some
        ]
        captions = [picture.caption(rng, True) for picture in pictures if picture]
        told = told_by(tokenizer, captions, pictures)
        longest = int((told.words[..., 0] != UNSAID).sum(1).max()) + 2  # with the marks of beginning and end
        told.words = told.words[:, :longest]
        words = model.text(told.tokens[:, :longest]).last_hidden_state
        prompts = model.unet.add_embedding(words)
        wrong = loss = readers.misread(told)
        if held:
            with torch.no_grad():
                words_before = text(told.tokens[:, :longest]).last_hidden_state
                prompts_before = embedding(words_before)
            loss = wrong + HELD * (moved(words, words_before) + moved(prompts, prompts_before))
        optimiser.param_groups[0]["lr"] = RATE * pace
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
        optimiser.step()
        running = smoothed(running, wrong, 0.05)
        if step % 50 == 0:
            logger.info("words: step %d, misread %.3f, held by %.3f", step, running, float((loss - wrong).detach()))
    readers.seen.clear()  # what belongs to a past step can't go to another process
