"""Prompts from text: one picture for each line, which is its prompt, or flags that set more than the prompt."""

from __future__ import annotations

import argparse
import dataclasses
import random
import shlex
from typing import NoReturn

from ..errors import InvalidRequest
from ..flags import add_setting_flags, given_settings
from ..models.samplers import AUTOMATIC, split_sampler
from ..request import Request
from ..settings import Img2Img, PromptLines
from .cells import Cell, make_cells, plain_settings, settle_seeds
from .noise import SEEDS
from .run import Output, Run

# What the web UI calls a flag → what it is called here. Its underscores are taken as hyphens.
ALIASES = {
    "--styles": "--style",
    "--sampler-name": "--sampler",
    "--scheduler": "--schedule",
    "--sd-model": "--model",
    "--subseed": "--variation-seed",
    "--subseed-strength": "--variation-strength",
    "--seed-resize-from-w": "--seed-resize-width",
    "--seed-resize-from-h": "--seed-resize-height",
    "--n-iter": "--batch-count",
}
EXAMPLE = 'Write a prompt alone, or flags such as: --prompt "a cat" --steps 10 --cfg-scale 5.'


def prompt_lines(request: Request, run: Run) -> Output:
    """Return the pictures of all lines, line by line; a line that fails is told in the notice.

    Raises InvalidRequest, naming the line, for one that can't be read, before the first picture.
    """
    settings = request.settings
    assert isinstance(settings, PromptLines)
    base = plain_settings(settings, request.images)
    draw = random.Random(settings.seed)
    cells: list[Cell] = []
    for number, line in enumerate(settings.lines.splitlines(), 1):
        if line.strip():
            chosen = settle_seeds(read_line(line.strip(), number, base), draw)
            cells.append(Cell(chosen, f"line {number}"))
            if settings.iterate_seed:
                pictures = chosen.batch_count * chosen.batch_size
                base = dataclasses.replace(base, seed=(base.seed + pictures) % SEEDS)
    if not cells:
        raise InvalidRequest("There is no line to make a picture of.", EXAMPLE)
    made = make_cells(cells, request.images, run)
    return Output(made.all, notice=made.notice)


def read_line(line: str, number: int, base: Img2Img) -> Img2Img:
    """Return the settings of a line over others: flags where it starts with --, else a prompt.

    Raises InvalidRequest that names the line.
    """
    if not line.startswith("--"):
        return dataclasses.replace(base, prompt=line)
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InvalidRequest(f"Line {number} can't be read: {error}.", "Close every \" and '.") from error
    parser = _Parser(prog=f"line {number}", allow_abbrev=False, add_help=False)
    add_setting_flags(parser, type(base))
    try:
        given = given_settings(parser.parse_args([_flag(word) for word in words]), type(base))
        for item in dataclasses.fields(base):
            if item.name in given and item.name != "model" and item.metadata["is_path"]:
                raise InvalidRequest(f"{item.metadata['label']} can't be set by a line.", "Set it for all of them.")
        if "sampler" in given:
            sampler, schedule = split_sampler(given["sampler"], given.get("schedule", AUTOMATIC))
            given |= {"sampler": sampler} if schedule == AUTOMATIC else {"sampler": sampler, "schedule": schedule}
        chosen = dataclasses.replace(base, **given)
        chosen.check()
    except InvalidRequest as error:
        raise InvalidRequest(f"Line {number}: {error.sentence}", error.remedy or EXAMPLE) from error
    return chosen


def _flag(word: str) -> str:
    """Return a word of a line with the flag that it is, if it is one, by our own name."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    name = name.replace("_", "-")
    return f"{ALIASES.get(name, name)}{equals}{value}"


class _Parser(argparse.ArgumentParser):
    """A parser that raises the artist's error where others leave the program."""

    def error(self, message: str) -> NoReturn:
        """Raise InvalidRequest with what argparse found."""
        raise InvalidRequest(f"{message[:1].upper()}{message[1:]}.", EXAMPLE)
