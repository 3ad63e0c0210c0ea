"""Renders and stylises scenes: each in two colourings that differ in a few named parts, as bytes in one growing file.

A record of `pictures.u8` is 2 colourings × (the render, then STYLES_EACH styles) × 256 × 256 × 3, one of `regions.u8`
the region of every latent, one of `dots.u8` how much of it (of 255) a comic prints in half-tone; the same line of
`pictures.jsonl` says what they show. Readers take as many records as the last file has lines.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from figure.poses import POSES
from training.buffers import Scene, load_scene, middles, scene_path, scene_paths
from training.captions import recolourable
from training.guide import make_guide, render
from training.regions import Palette, choose_palette, recoloured
from training.stylist import PICTURE, PLAIN, STYLES, Hand, dotted, finish, stylise

Bytes = NDArray[np.uint8]
logger = logging.getLogger(__name__)

COLOURINGS = 2
KEPT_BACK = 12  # first records, for the validation losses
STYLES_EACH = 4
RECORD = (COLOURINGS, 1 + STYLES_EACH, PICTURE, PICTURE, 3)
REGIONS_SIDE = 64
PALETTE_SEED = 31
# Poses whose portraits are learnt without a source: a face in the middle, whatever the arms do.
PORTRAITS = ("standing", "hands on hips", "thinking", "arms raised", "waving", "praying")
TOGETHER = 16  # records that are awaited and drawn at once
OTHER_HAND = 0.3  # share of pictures whose line or colours are not the plain ones


def palettes(scene_facts: dict[str, Any], number: int, held_out: bool) -> tuple[Palette, Palette, tuple[str, ...]]:
    """Return a scene's two palettes and the parts in which they differ; the same number gives the same colours."""
    rng = np.random.default_rng((PALETTE_SEED, int(held_out), number))
    first = choose_palette(rng, scene_facts["skin"], scene_facts["old"])
    second, changed = recoloured(first, rng, recolourable(scene_facts))
    return first, second, changed


def choose_hand(rng: np.random.Generator) -> Hand:
    """Draw how a picture is drawn: mostly plain."""
    if rng.random() > OTHER_HAND:
        return PLAIN
    return Hand(*map(int, rng.integers(-1, 2, 2)))


def draw(
    scene: Scene, number: int, styles: list[str], held_out: bool = False, hands: list[Hand] | None = None
) -> tuple[Bytes, dict[str, Any]]:
    """Return the pictures of one scene (2 × (1 + styles) × 256 × 256 × 3) and its facts with the names of colours.

    Each style is drawn by the hand of its place in `hands`, or plainly.
    """
    first, second, changed = palettes(scene.facts, number, held_out)
    hands = hands or [PLAIN] * len(styles)
    pictures = np.empty((COLOURINGS, 1 + len(styles), PICTURE, PICTURE, 3), np.uint8)
    for i, palette in enumerate((first, second)):
        pictures[i, 0] = finish(render(scene, palette))
        guide = make_guide(scene, palette)
        for j, (style, hand) in enumerate(zip(styles, hands, strict=True), 1):
            pictures[i, j] = stylise(guide, style, hand)
    facts = scene.facts | {
        "styles": styles,
        "hands": [asdict(hand) for hand in hands],
        "colours": [first.names, second.names],
        "changed": list(changed),
    }
    return pictures, facts


def regions_of(scene: Scene) -> Bytes:
    """Return the region at the middle of every latent (64×64)."""
    ids: Bytes = scene.ids[middles(REGIONS_SIDE)]
    return ids


def layouts(facts: Iterable[dict[str, Any]]) -> list[int]:
    """Return the numbers of the scenes that are learnt without a source as well, of those with such facts.

    One of each named pose and framing, seen most from the front, without props. From all scenes, a dozen views each,
    came one heap at the figure's place, the mean of all poses. With one layout for what a caption says, the first step
    of text-to-image, which sees noise alone, has one answer.
    """
    chosen: dict[tuple[str, str], dict[str, Any]] = {}
    for its in facts:
        key = its["pose"], its["framing"]
        wanted = its["pose"] in (PORTRAITS if its["framing"] == "portrait" else POSES) and not its["props"]
        if wanted and (key not in chosen or abs(its["azimuth"]) < abs(chosen[key]["azimuth"])):
            chosen[key] = its
    return [its["seed"] for its in chosen.values()]


@dataclass
class Whose:
    """Which picture of which record; style 0 is the render."""

    record: int
    colouring: int
    style: int


@dataclass
class Pictures:
    """The records drawn so far."""

    records: Bytes  # records × RECORD
    facts: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.facts)


def open_pictures(cache: Path) -> Pictures:
    """Map the finished records; call again to see more of a growing file."""
    lines = (cache / "pictures.jsonl").read_text().splitlines(keepends=True)
    facts = [json.loads(line) for line in lines if line.endswith("\n")]
    records = np.memmap(cache / "pictures.u8", np.uint8, "r", shape=(len(facts), *RECORD))
    return Pictures(records, facts)


def open_maps(cache: Path, name: str, count: int) -> Bytes:
    """Map what a file tells of every latent of the first records (count × 64 × 64)."""
    return np.memmap(cache / f"{name}.u8", np.uint8, "r", shape=(count, REGIONS_SIDE, REGIONS_SIDE))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--count", type=int, default=4000, help="how many scenes")
    parser.add_argument(
        "--again", type=int, default=6, help="how often those of `layouts` follow in other colours and styles"
    )
    parser.add_argument("--wait", type=float, default=120, help="seconds to wait for a scene that is being drawn")


def dots_of(scene: Scene, palette: Palette) -> Bytes:
    """Return how much of every latent a comic prints in half-tone (64×64, of 255)."""
    dots: Bytes = (dotted(make_guide(scene, palette), PLAIN) * 255 + 0.5).astype(np.uint8)
    return dots


def record(cache: Path, number: int, scene_number: int) -> tuple[bytes, bytes, bytes, str]:
    """Return a record's pictures, regions and dots, and the line that says what they show."""
    cv2.setNumThreads(1)  # the other cores draw other scenes
    rng = np.random.default_rng((PALETTE_SEED, number))
    styles = [str(name) for name in rng.permutation(list(STYLES))[:STYLES_EACH]]
    scene = load_scene(scene_path(cache / "scenes", scene_number))
    pictures, facts = draw(scene, number, styles, hands=[choose_hand(rng) for _ in styles])
    dots = dots_of(scene, palettes(scene.facts, number, False)[0])
    return pictures.tobytes(), regions_of(scene).tobytes(), dots.tobytes(), json.dumps(facts) + "\n"


def _awaited(cache: Path, number: int, seconds: float) -> bool:
    waited = time.monotonic()
    while not scene_path(cache / "scenes", number).exists():
        if time.monotonic() - waited > seconds:
            logger.info("no scene %d: %d in all", number, len(scene_paths(cache / "scenes")))
            return False
        time.sleep(1)
    return True


def _append(
    workers: Executor, cache: Path, files: Sequence[IO[Any]], numbers: range, scenes: Sequence[int], seconds: float
) -> bool:
    """Draw records of those numbers from scenes and append their parts to files; say whether all scenes were there."""
    for first in range(0, len(numbers), TOGETHER):
        some = scenes[first : first + TOGETHER]
        there = list(takewhile(lambda scene: _awaited(cache, scene, seconds), some))
        for parts in workers.map(record, [cache] * len(there), numbers[first:], there):
            for file, part in zip(files, parts, strict=True):
                file.write(part)
                file.flush()
        if len(there) < len(some):
            return False
        if first // 100 != (first + TOGETHER) // 100:
            logger.info("record %d", numbers[first] + len(there))
    return True


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Append records for the scenes that have none, following a run of the stage before, then those drawn again."""
    index = cache / "pictures.jsonl"
    done = len(index.read_text().splitlines()) if index.exists() else 0
    size = int(np.prod(RECORD))
    with (
        ProcessPoolExecutor(threads, multiprocessing.get_context("spawn")) as workers,
        (cache / "pictures.u8").open("ab") as data,
        (cache / "regions.u8").open("ab") as regions,
        (cache / "dots.u8").open("ab") as dots,
        index.open("a") as lines,
    ):
        data.truncate(done * size)  # a record cut short by a stop is drawn again
        for maps in (regions, dots):
            maps.truncate(done * REGIONS_SIDE**2)
        append = partial(_append, workers, cache, (data, regions, dots, lines))
        if not append(range(done, options.count), range(done, options.count), options.wait):
            return
        again = layouts(open_pictures(cache).facts[KEPT_BACK : options.count]) * options.again
        left = max(0, done - options.count)
        append(range(options.count + left, options.count + len(again)), again[left:], options.wait)
