"""Trains a small BLIP that reads a picture of this domain back into a prompt: style, figure, clothes, surroundings.

Every patch is also asked for its region and that region's colour, by readers that are thrown away: what is a shirt, and
which colour it has, is learnt from thousands of places a picture, where the words of its caption are a dozen.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BlipConfig, BlipForConditionalGeneration, PreTrainedTokenizerFast

from backend.models.interrogators import CAPTION_START, DEVIATION, MEAN
from training.captions import WITHOUT_COLOUR, colourless_caption, full_caption
from training.checkpoints import QUICK_BFLOAT16, Averaged, Log, Stretch, smoothed, trained
from training.helpers import Helpers
from training.optimiser import Together
from training.pictures import (
    COLOURINGS,
    KEPT_BACK,
    REGIONS_SIDE,
    STYLES_EACH,
    Pictures,
    Whose,
    open_maps,
    open_pictures,
)
from training.reading import COLOURS, PART_SHOWN, PARTS, UNSAID, Pictured, mistold, sampled
from training.regions import REGION_COUNT

logger = logging.getLogger(__name__)

SEED = 12
SIDE, PATCH = 128, 8  # pixels of the picture as the model sees it, and of a patch
WIDTH, HEADS, LOOKING, SAYING = 192, 6, 5, 3  # of both halves; layers that see, layers that speak
BATCH = 8  # of a process
MATRICES, REST, WARM = 1e-3, 1e-3, 150  # rates, and steps until they are reached
MISSEEN, MISPAINTED = 0.5, 0.5  # what the readers' errors count beside those of the words
START, END, PADDING, UNKNOWN = "[START]", "[END]", "[PAD]", "[UNK]"
LONGEST = 96  # tokens
LEAST_SEEN = 54  # latents a side of the part of a picture that is shown, of 64


def said_of(picture: Pictured) -> str:
    """Return what is to be said of a picture, from the words that the product starts a caption with."""
    if picture.drawn_as in WITHOUT_COLOUR:
        return f"{CAPTION_START} {colourless_caption(picture.facts, picture.drawn_as)}"
    return f"{CAPTION_START} {full_caption(picture.facts, picture.colours, picture.drawn_as)}"


def words_of(sentences: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the words in these sentences, whose tokens put together again are the sentence."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    special = [PADDING, START, END, UNKNOWN]
    tokenizer.train_from_iterator(sentences, trainers.WordLevelTrainer(special_tokens=special))
    ends = [(name, tokenizer.token_to_id(name)) for name in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(f"{START} $A {END}", special_tokens=ends)
    names = {"bos_token": START, "eos_token": END, "pad_token": PADDING, "unk_token": UNKNOWN}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LONGEST, **names)


def known_words(cache: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of all captions, made the first time: another one would number its words otherwise."""
    folder = cache / "captioner_words"
    if not folder.exists():
        facts = open_pictures(cache).facts
        pictured = (Pictured(f, c, s) for f in facts for c in range(COLOURINGS) for s in range(1 + STYLES_EACH))
        words_of(chain([CAPTION_START], map(said_of, pictured))).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def build(tokenizer: PreTrainedTokenizerFast) -> BlipForConditionalGeneration:
    """Return a fresh network; its words are the tokenizer's."""
    shape = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": HEADS}
    looking = shape | {"image_size": SIDE, "patch_size": PATCH, "num_hidden_layers": LOOKING, "initializer_range": 0.02}
    saying = shape | {
        "num_hidden_layers": SAYING,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": WIDTH,
        "projection_dim": WIDTH,
        "max_position_embeddings": LONGEST,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "sep_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = BlipConfig(text_config=saying, vision_config=looking, projection_dim=WIDTH, image_text_hidden_size=WIDTH)
    return BlipForConditionalGeneration(config)


class PatchReaders(nn.Module):
    """Tells every patch's region and the colour of what it shows from what the seeing half makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.regions = nn.Linear(WIDTH, REGION_COUNT)
        self.colours = nn.Linear(WIDTH, len(COLOURS))

    def mistaken(self, seen: Tensor, regions: Tensor, colours: Tensor) -> Tensor:
        """Return the cross-entropies of regions and colours, weighed.

        seen: N×patches×width; regions: N×H×H; colours: N×(1 + PARTS), of COLOURS or UNSAID, the first of no part.
        """
        shown = sampled(regions, SIDE // PATCH).flatten(1)
        painted = colours.gather(1, PART_SHOWN[shown])
        misseen = cross_entropy(self.regions(seen).transpose(1, 2), shown)
        return MISSEEN * misseen + MISPAINTED * mistold(self.colours(seen).transpose(1, 2), painted)


def shown_as(picture: NDArray[np.uint8]) -> Tensor:
    """Return a picture (uint8 H×W×3 sRGB) as the network takes it: 3×SIDE×SIDE."""
    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return torch.from_numpy((small - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)).permute(2, 0, 1)


@dataclass(frozen=True)
class View:
    """A part of a picture and of its regions, in latents of the whole, and whether it is mirrored."""

    row: int = 0
    column: int = 0
    side: int = REGIONS_SIDE
    mirrored: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator) -> View:
        """Draw one that shows nearly all."""
        side = int(rng.integers(LEAST_SEEN, REGIONS_SIDE + 1))
        row, column = rng.integers(0, REGIONS_SIDE - side + 1, 2).tolist()
        return cls(row, column, side, bool(rng.random() < 0.5))

    def of(self, whole: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return this part of a square picture or map."""
        scale = len(whole) // REGIONS_SIDE
        rows, columns = (slice(scale * start, scale * (start + self.side)) for start in (self.row, self.column))
        part = whole[rows, columns]
        return np.ascontiguousarray(part[:, ::-1] if self.mirrored else part)


@dataclass
class Lessons:
    """What a process needs to draw its share of a step's pictures and learn from them."""

    model: BlipForConditionalGeneration
    readers: PatchReaders
    tokenizer: PreTrainedTokenizerFast
    cache: Path
    opened: tuple[Pictures, NDArray[np.uint8]] | None = None

    def files(self) -> tuple[Pictures, NDArray[np.uint8]]:
        """Return the pictures and their regions, opened in this process."""
        if self.opened is None:
            pictures = open_pictures(self.cache)
            self.opened = pictures, open_maps(self.cache, "regions", len(pictures))
        return self.opened

    def wrong(self, whose: Iterable[Whose], views: Iterable[View]) -> tuple[Tensor, Tensor]:
        """Return how wrong the words for these pictures are, and the patches' readers."""
        pictures, regions = self.files()
        shown, maps, colours, said = [], [], [], []
        for one, view in zip(whose, views, strict=True):
            picture = Pictured(pictures.facts[one.record], one.colouring, one.style)
            shown.append(shown_as(view.of(pictures.records[one.record, one.colouring, one.style])))
            map_seen = cv2.resize(view.of(regions[one.record]), regions.shape[1:], interpolation=cv2.INTER_NEAREST)
            maps.append(map_seen.astype(np.int64))
            colourless = picture.drawn_as in WITHOUT_COLOUR
            colours.append([UNSAID, *(UNSAID if colourless else COLOURS.index(picture.colours[p]) for p in PARTS)])
            said.append(said_of(picture))
        given = self.tokenizer(said, padding=True, return_tensors="pt")
        labels = given.input_ids.masked_fill(given.attention_mask == 0, UNSAID)
        labels[:, : 1 + len(CAPTION_START.split())] = UNSAID  # what the product gives
        with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
            answer = self.model(torch.stack(shown), given.input_ids, given.attention_mask, labels=labels)
            patches = answer.image_embeds[:, 1:]
            misread = self.readers.mistaken(patches, torch.from_numpy(np.stack(maps)), torch.tensor(colours))
        return answer.loss.float(), misread.float()

    def learn(self, step: int, process: int) -> Tensor:
        """Add to the gradients; return the losses of words and of patches."""
        rng = np.random.default_rng((SEED, step, process))
        behind = (len(self.files()[0]), COLOURINGS, 1 + STYLES_EACH)
        places = rng.integers((KEPT_BACK, 0, 0), behind, size=(BATCH, 3)).tolist()
        words, patches = self.wrong([Whose(*place) for place in places], [View.draw(rng) for _ in places])
        (words + patches).backward()  # type: ignore[no-untyped-call]
        return torch.stack([words, patches]).detach()

    @torch.no_grad()
    def validate(self, model: BlipForConditionalGeneration) -> float:
        """Return how wrong the words of another state of the model are for pictures kept back."""
        kept = [Whose(i, i % COLOURINGS, i % (1 + STYLES_EACH)) for i in range(KEPT_BACK)]
        return float(replace(self, model=model).wrong(kept, [View()] * len(kept))[0])


class Optimisers(Together):
    """Muon for the matrices, AdamW for all else, as one."""

    def __init__(self, model: nn.Module, readers: nn.Module) -> None:
        named = dict(model.named_parameters())
        inner = {name: p for name, p in named.items() if p.dim() == 2 and "embedding" not in name}
        rest = [p for name, p in named.items() if name not in inner]
        super().__init__(
            torch.optim.Muon(inner.values(), weight_decay=0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW([*rest, *readers.parameters()], betas=(0.9, 0.98), weight_decay=1e-3, fused=True),
        )

    def step(self, pace: float) -> None:
        """Learn from the gradients, at a share of the usual rates."""
        for one, rate in zip(self._all, (MATRICES, REST), strict=True):
            for group in one.param_groups:
                group["lr"] = rate * pace
            one.step()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--seconds", type=float, default=1800, help="how long this stretch lasts, its rate falling")
    parser.add_argument("--export", type=Path, help="instead write what has been learnt as a folder")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Train for a stretch; the checkpoint is `captioner.pt`, the log `captioner.csv`."""
    torch.manual_seed(SEED)
    tokenizer = known_words(cache)
    model = build(tokenizer)
    if options.export:
        model.load_state_dict(trained(cache, "captioner")["average"])
        model.half().save_pretrained(options.export)
        tokenizer.save_pretrained(options.export)
        return
    logger.info("%.1f M parameters, %d words", sum(p.numel() for p in model.parameters()) / 1e6, len(tokenizer))
    readers, average = PatchReaders(), Averaged(model, 0.995)
    optimiser = Optimisers(model, readers)
    stretch = Stretch(cache / "captioner.pt", model, average, optimiser, options.seconds, beside=readers)
    log = Log(cache / "logs" / "captioner.csv")
    lessons = Lessons(model, readers, tokenizer, cache)
    taught = [*model.parameters(), *readers.parameters()]
    helpers = Helpers(lessons.learn, taught, threads)
    words = patches = 0.0
    for due in stretch.steps():
        figures = helpers.step(stretch.step)
        torch.nn.utils.clip_grad_norm_(taught, 1.0)
        optimiser.step(stretch.pace(WARM))
        average.update(model, stretch.step)
        stretch.samples += BATCH * threads
        words, patches = smoothed(words, figures[0]), smoothed(patches, figures[1])
        if due or stretch.step == stretch.begun + 50:
            torch.set_num_threads(threads)
            row = {"seconds": stretch.elapsed, "step": stretch.step, "samples": stretch.samples}
            log.write(row | {"words": words, "patches": patches, "validation": lessons.validate(average.module)})
            torch.set_num_threads(1)
