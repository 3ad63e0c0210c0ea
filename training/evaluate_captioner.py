"""Measures the small captioner on held-out scenes, read as the product reads pictures, and prints what it says."""

from __future__ import annotations

import argparse
import json
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np

from backend.models.interrogators import Captioner
from backend.models.load import Options
from backend.settings.interrogate import Interrogate
from training.captions import STYLE_WORDS, WITHOUT_COLOUR, article, full_caption, phrases, view
from training.evaluate import Case, held_out
from training.reading import DRAWN_AS

logger = logging.getLogger(__name__)

VIEWS = ("from the side", "from behind")  # from the front nothing is said
SHOWN = 4  # scenes whose captions are printed


def marks(case: Case, style: str, said: str) -> dict[str, bool]:
    """Return which facts of a picture a caption tells rightly, by what they are of.

    A colour counts with the word for its part: "red" and "shirt" in one phrase.
    """
    facts, colours, told = case.facts, case.facts["colours"][0], said.split(", ")
    true = full_caption(facts, colours, style)
    found = {
        "style": said.startswith(f"{STYLE_WORDS[style][0]} of "),
        "subject": told[0].endswith(f" of {article(facts['subject'])}"),
        "pose": facts["pose"] in told,
        "framing": facts["framing"] in told,
        "view": [name for name in VIEWS if name in told] == [name for name in VIEWS if name == view(facts)],
    }
    given = phrases(facts, colours, said)
    return found | {f"colour of {part}": part in given for part in phrases(facts, colours, true)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("folder", type=Path, help="the captioner's folder to measure")
    parser.add_argument("--cases", type=int, default=50, help="held-out scenes, each as the render and in every style")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Caption every picture, count what is right, and print shares by what it is of."""
    reader, defaults = Captioner(options.folder, Options(device="cpu")), Interrogate()
    right: dict[str, list[bool]] = defaultdict(list)
    for number, case in enumerate(held_out(cache, options.cases)):
        for place, style in enumerate(DRAWN_AS):
            said = reader.caption(
                case.pictures[0, place], defaults.beams, defaults.minimum_length, defaults.maximum_length
            )
            for of, taken in marks(case, style, said).items():
                if not (of.startswith("colour") and style in WITHOUT_COLOUR):
                    right[of].append(taken)
            if number < SHOWN and place == number:
                logger.info("true: %s", full_caption(case.facts, case.facts["colours"][0], style))
                logger.info("said: %s", said)
    print(json.dumps({of: [round(float(np.mean(taken)), 3), len(taken)] for of, taken in right.items()}, indent=1))
