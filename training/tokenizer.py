"""Learns the captions' vocabulary: byte pairs in the form of CLIP, for 77 tokens."""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
from transformers import CLIPTokenizer

from training.captions import JUNK, STYLE_WORDS, caption
from training.pictures import open_pictures
from training.regions import BACKDROP, CLOTH, GROUND, HAIR

logger = logging.getLogger(__name__)

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = 1200
LENGTH = 77
SEED = 3
WORD = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")


def byte_letters() -> dict[int, str]:
    """Return the printable letter that stands for each byte, as GPT-2 and CLIP have it."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + i) for i, byte in enumerate(others)}


def learn_merges(words: Counter[str], count: int) -> list[tuple[str, str]]:
    """Return the pairs that byte-pair encoding joins, most frequent first."""
    letters = byte_letters()
    split: dict[tuple[str, ...], int] = {}
    for word, times in words.items():
        symbols = [letters[byte] for byte in word.encode()]
        split[(*symbols[:-1], symbols[-1] + "</w>")] = times
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, times in split.items():
            for pair in pairwise(symbols):
                pairs[pair] += times
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        joined: dict[tuple[str, ...], int] = {}
        for symbols, times in split.items():
            out: list[str] = []
            for symbol in symbols:
                if out and (out[-1], symbol) == best:
                    out[-1] += symbol
                else:
                    out.append(symbol)
            joined[tuple(out)] = times
        split = joined
    return merges


def write(folder: Path, merges: list[tuple[str, str]]) -> CLIPTokenizer:
    """Write a CLIPTokenizer's files and return it."""
    letters = list(byte_letters().values())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    vocabulary = [*dict.fromkeys(vocabulary), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(special | settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--records", type=int, default=1000, help="how many scenes to caption")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Caption the first records in every style and learn the vocabulary from that."""
    rng = np.random.default_rng(SEED)
    words: Counter[str] = Counter()
    for facts in open_pictures(cache).facts[: options.records]:
        for style in STYLE_WORDS:
            words.update(WORD.findall(caption(facts, facts["colours"][0], style, rng).lower()))
    words = Counter({word: times for word, times in words.items() if times >= 6})  # drops the letters at random
    rare = " ".join([*JUNK, *CLOTH, *HAIR, *GROUND, *BACKDROP, *(w for ws in STYLE_WORDS.values() for w in ws)])
    for word in WORD.findall(rare):
        words[word] += 20
    tokenizer = write(cache / "tokenizer", learn_merges(words, MERGES))
    logger.info("%d tokens", len(tokenizer))
