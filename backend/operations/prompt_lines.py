"""Prompts from text: one picture for each line, which is its prompt, or flags that set more than the prompt."""

from __future__ import annotations

import dataclasses
import difflib
import random
import shlex
from collections.abc import Iterator
from typing import Any

from ..errors import InvalidRequest
from ..models.samplers import AUTOMATIC, split_sampler
from ..request import Request
from ..settings import Img2Img, PromptLines, make_settings
from .cells import Cell, make_cells, plain_settings, settle_seeds
from .noise import SEEDS
from .run import Output, Run

# What the web UI calls a flag → the setting that it is here; others are called as the settings are.
ALIASES = {
    "styles": "style",
    "sampler_name": "sampler",
    "scheduler": "schedule",
    "sd_model": "model",
    "subseed": "variation_seed",
    "subseed_strength": "variation_strength",
    "seed_resize_from_w": "seed_resize_width",
    "seed_resize_from_h": "seed_resize_height",
    "n_iter": "batch_count",
}
TILING = "tiling"  # both ways
# Flags of the web UI's that there is nothing to do for here → whether they take a value that is more than on or off.
UNUSED = {
    "outpath_samples": True,
    "outpath_grids": True,
    "prompt_for_display": True,
    "sampler_index": True,
    "restore_faces": False,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
}
TRUTHS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "1": True, "0": False}
EXAMPLE = 'Write a prompt alone, or flags such as: --prompt "a cat" --steps 10 --cfg-scale 5.'


def prompt_lines(request: Request, run: Run) -> Output:
    """Return the pictures of all lines, line by line; the notice tells of a line that fails, and of flags not used.

    Raises InvalidRequest, naming the line, for one that can't be read, before the first picture.
    """
    settings = request.settings
    assert isinstance(settings, PromptLines)
    base = plain_settings(settings, request.images)
    draw = random.Random(settings.seed)
    cells: list[Cell] = []
    unused: dict[str, None] = {}
    for number, line in enumerate(settings.lines.splitlines(), 1):
        if line.strip():
            read, ignored = read_line(line.strip(), number, base)
            unused |= dict.fromkeys(ignored)
            chosen = settle_seeds(read, draw)
            cells.append(Cell(chosen, f"line {number}"))
            if settings.iterate_seed:
                pictures = chosen.batch_count * chosen.batch_size
                base = dataclasses.replace(base, seed=(base.seed + pictures) % SEEDS)
    if not cells:
        raise InvalidRequest("There is no line to make a picture of.", EXAMPLE)
    made = make_cells(cells, request.images, run)
    notice = f"Flags that are not used here: {', '.join(unused)}." if unused else ""
    return Output(made.all, notice=f"{made.notice} {notice}".strip())


def read_line(line: str, number: int, base: Img2Img) -> tuple[Img2Img, list[str]]:
    """Return the settings of a line over others, flags where it starts with --, else a prompt; and the unused flags.

    Raises InvalidRequest that names the line.
    """
    if not line.startswith("--"):
        return dataclasses.replace(base, prompt=line), []
    unused: list[str] = []
    given: dict[str, Any] = {}
    items = {item.name: item for item in dataclasses.fields(base)}
    try:
        for flag, name, value in _flags(line, items):
            if name in UNUSED:
                unused.append(flag)
            elif name == TILING:
                given |= {"seamless_x": value, "seamless_y": value}
            elif items[name].metadata["is_path"] and name not in ("model", "vae"):
                raise InvalidRequest(f"{items[name].metadata['label']} can't be set by a line.", "Set it for all.")
            else:
                given[name] = _value(flag, value, items[name])
        if "sampler" in given:
            sampler, schedule = split_sampler(given["sampler"], given.get("schedule", AUTOMATIC))
            given |= {"sampler": sampler} if schedule == AUTOMATIC else {"sampler": sampler, "schedule": schedule}
        return make_settings(type(base), {**_values(base), **given}), unused
    except InvalidRequest as error:
        raise InvalidRequest(f"Line {number}: {error.sentence}", error.remedy or EXAMPLE) from error


def _values(settings: Img2Img) -> dict[str, Any]:
    return {item.name: getattr(settings, item.name) for item in dataclasses.fields(settings)}


def _flags(line: str, items: dict[str, dataclasses.Field[Any]]) -> Iterator[tuple[str, str, Any]]:
    """Return each flag of a line as it is written, the name of what it sets, and its value: a text, or on or off.

    A value may begin with a hyphen. A switch may do without: --exact-steps and --no-exact-steps are on and off.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InvalidRequest(f"It can't be read: {error}.", "Close every \" and '.") from error
    while words:
        flag, equals, value = words.pop(0).partition("=")
        if not flag.startswith("--"):
            raise InvalidRequest(f"“{flag}” belongs to no flag.", 'Put a text of several words in "".')
        name, is_on = _name(flag, items), True
        if name is None and flag.startswith("--no"):
            name, is_on = _name(f"--{flag[4:].lstrip('-_')}", items), False
        if name is None:
            near = difflib.get_close_matches(flag[2:].replace("-", "_"), [*items, *ALIASES, *UNUSED, TILING], 1)
            guess = f"Did you mean --{near[0]}? " if near else ""
            raise InvalidRequest(f"There is no flag {flag}.", f"{guess}{EXAMPLE}")
        if _is_switch(name, items):
            if not equals and words and words[0].casefold() in TRUTHS:
                value = words.pop(0)
            if value.casefold() not in (*TRUTHS, ""):
                raise InvalidRequest(f"{flag} can't be “{value}”.", "Write True or False.")
            yield flag, name, TRUTHS.get(value.casefold(), True) == is_on
            continue
        if not is_on or (not equals and (not words or _is_flag(words[0], items))):
            raise InvalidRequest(f"{flag} needs a value." if is_on else f"There is no flag {flag}.", EXAMPLE)
        yield flag, name, value if equals else words.pop(0)


def _name(flag: str, items: dict[str, dataclasses.Field[Any]]) -> str | None:
    """Return the setting that a flag sets, or the flag of the web UI's that it is; None for an unknown one."""
    name = flag[2:].replace("-", "_")
    name = ALIASES.get(name, name)
    return name if name in items or name in UNUSED or name == TILING else None


def _is_flag(word: str, items: dict[str, dataclasses.Field[Any]]) -> bool:
    return word.startswith("--") and _name(word.partition("=")[0], items) is not None


def _is_switch(name: str, items: dict[str, dataclasses.Field[Any]]) -> bool:
    return name == TILING or (isinstance(items[name].default, bool) if name in items else not UNUSED[name])


def _value(flag: str, value: Any, item: dataclasses.Field[Any]) -> Any:
    """Return a flag's value as its setting wants it; raises InvalidRequest for what is no number."""
    kind: type = type(item.default)
    try:
        return kind(value)
    except ValueError as error:
        raise InvalidRequest(f"{flag} can't be “{value}”.", "Write a number.") from error
