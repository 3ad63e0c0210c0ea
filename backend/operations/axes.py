"""The axes of an X/Y/Z plot: what their values change, all of them read before a picture is paid for."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, ModelError
from ..imaging import ranges
from ..models.load import HUB_NAME
from ..models.samplers import AUTOMATIC, split_sampler
from ..settings import EMBEDDED, RANDOM_SEED, Img2Img
from ..settings.diffusion import NV
from ..settings.scripts import AXES
from .cells import SEED_NAMES, draw_seed

NOTHING = "nothing"
OWN_VAES = ("none", "automatic")  # what the web UI calls the model's own
PROMPT_AXES = ("prompt_replace", "prompt_order")  # two of them can change one prompt after each other
PROMPTS = ("prompt", "negative_prompt", "style")  # where Prompt S/R looks

Change = Callable[[Img2Img], Img2Img]


@dataclass(frozen=True)
class Value:
    """One value of an axis: as it is written, its caption beside the grid, and what it does to the settings."""

    text: str
    caption: str
    change: Change


@dataclass(frozen=True)
class Axis:
    """One axis of a plot; Nothing is an axis of one value, which changes nothing."""

    kind: str
    values: tuple[Value, ...]

    @property
    def label(self) -> str:
        """What it is called in the panel and in infotext."""
        return AXES[self.kind][0]


def read_axis(letter: str, kind: str, text: str, settings: Img2Img, draw: random.Random | None) -> Axis:
    """Return an axis of that kind (a key of AXES) for a plot of these settings, from its values as a text.

    draw: what gives the seeds in place of -1; None leaves them. Raises InvalidRequest or ModelError with what is wrong.
    """
    if kind == NOTHING:
        return Axis(kind, (Value("", "", lambda known: known),))
    label = AXES[kind][0]
    if kind not in SPECIAL and not hasattr(settings, kind):
        raise InvalidRequest(f"{label} changes nothing without a mask.", f"Give one, or choose another {letter} Type.")
    values = SPECIAL[kind](text, settings) if kind in SPECIAL else _plain(kind, text, settings, draw)
    if not values:
        remedy = f"Write values for {label}, or set {letter} Type to Nothing."
        raise InvalidRequest(f"{letter} Values is empty.", remedy)
    return Axis(kind, tuple(values))


def require_different(axes: Sequence[Axis]) -> None:
    """Raise InvalidRequest where there is no axis, or two change the same setting."""
    kinds = [axis.kind for axis in axes if axis.kind != NOTHING]
    if not kinds:
        raise InvalidRequest("The plot has no axis.", "Set the X, Y or Z Type to what shall change.")
    for kind in kinds:
        if kinds.count(kind) > 1 and kind not in PROMPT_AXES:
            raise InvalidRequest(f"Two axes change {AXES[kind][0]}.", "Choose another type for one of them.")


def _to(**changes: Any) -> Change:
    return lambda settings: dataclasses.replace(settings, **changes)


def _plain(kind: str, text: str, settings: Img2Img, draw: random.Random | None) -> list[Value]:
    """Return the values of a setting that is a number, or else a text."""
    old = getattr(settings, kind)
    if isinstance(old, str):
        return [Value(value, value, _to(**{kind: value})) for value in ranges.values(text)]
    numbers: Sequence[float] = ranges.integers(text) if isinstance(old, int) else ranges.floats(text)
    if kind in SEED_NAMES and draw is not None:
        numbers = [draw_seed(draw) if number == RANDOM_SEED else number for number in numbers]
    label = AXES[kind][0]
    return [Value(f"{number:.10g}", f"{label}: {number:.10g}", _to(**{kind: number})) for number in numbers]


def _samplers(text: str, settings: Img2Img) -> list[Value]:
    values = []
    for name in ranges.values(text):
        sampler, schedule = split_sampler(name)  # "DPM++ 2M Karras" of old names both
        changes = {"sampler": sampler} if schedule == AUTOMATIC else {"sampler": sampler, "schedule": schedule}
        values.append(Value(name, name, _to(**changes)))
    return values


def _schedules(text: str, settings: Img2Img) -> list[Value]:
    names = [split_sampler(settings.sampler, name)[1] for name in ranges.values(text)]
    return [Value(name, name, _to(schedule=name)) for name in names]


def _models(text: str, settings: Img2Img) -> list[Value]:
    values = []
    for name in ranges.values(text):
        path = Path(name).expanduser()
        if name != EMBEDDED and not path.exists() and not HUB_NAME.fullmatch(name):
            raise ModelError(f"There is no model at {name}.", "Check the values of Checkpoint name.")
        values.append(Value(name, path.stem if path.is_file() else path.name, _to(model=name)))
    return values


def _vaes(text: str, settings: Img2Img) -> list[Value]:
    values = []
    for name in ranges.values(text):
        path = Path(name).expanduser()
        own = name.casefold() in OWN_VAES
        if not own and not path.exists():
            raise ModelError(f"There is no VAE at {name}.", "Check the values of VAE; None is the model's own.")
        values.append(Value(name, name if own else path.stem, _to(vae="" if own else name)))
    return values


def _generators(text: str, settings: Img2Img) -> list[Value]:
    values = []
    for name in ranges.values(text):
        known = NV if name.upper() == "GPU" else name.upper()  # whose noise NV is
        values.append(Value(name, name, _to(rng=known)))
    return values


def _sizes(text: str, settings: Img2Img) -> list[Value]:
    return [
        Value(f"{width}x{height}", f"{width}x{height}", _to(width=width, height=height, resize_by=0.0))
        for width, height in ranges.sizes(text)
    ]


def _replacements(text: str, settings: Img2Img) -> list[Value]:
    words = ranges.values(text)
    if words and not any(words[0] in getattr(settings, name) for name in PROMPTS):
        raise InvalidRequest(
            f"Prompt S/R did not find “{words[0]}” in the prompt or the negative prompt.",
            "Its first value is what is looked for; the others take its place.",
        )

    def replace(new: str) -> Change:
        return lambda known: dataclasses.replace(
            known, **{name: getattr(known, name).replace(words[0], new) for name in PROMPTS}
        )

    return [Value(word, word, replace(word)) for word in words]


def _orders(text: str, settings: Img2Img) -> list[Value]:
    words = ranges.values(text)
    for word in words:
        if word not in settings.prompt:
            raise InvalidRequest(f"Prompt order did not find “{word}” in the prompt.", "List words that are in it.")
    if len(set(words)) < len(words):
        raise InvalidRequest("Prompt order names a word twice.", "List each once.")
    if len(words) > 6:  # 7 have 5040 orders
        raise InvalidRequest(f"{len(words)} words have too many orders.", "List 6 at most.")

    def order(new: Sequence[str]) -> Change:
        return lambda known: dataclasses.replace(known, prompt=reorder(known.prompt, words, new))

    found = [] if not words else list(itertools.permutations(words))
    return [Value(", ".join(new), ", ".join(new), order(new)) for new in found]


def reorder(prompt: str, words: Sequence[str], new: Sequence[str]) -> str:
    """Return the prompt with its words, each at its first place there, in a new order: the nth place takes new[n]."""
    places: list[tuple[int, int]] = []
    for word in sorted(words, key=len, reverse=True):
        start = prompt.find(word)
        while start >= 0 and any(start < end and begin < start + len(word) for begin, end in places):
            start = prompt.find(word, start + 1)
        if start >= 0:
            places.append((start, start + len(word)))
    text, done = "", 0
    for (begin, end), word in zip(sorted(places), new, strict=False):
        text, done = text + prompt[done:begin] + word, end
    return text + prompt[done:]


SPECIAL: dict[str, Callable[[str, Img2Img], list[Value]]] = {
    "sampler": _samplers,
    "schedule": _schedules,
    "model": _models,
    "vae": _vaes,
    "rng": _generators,
    "size": _sizes,
    "prompt_replace": _replacements,
    "prompt_order": _orders,
}
# How dear it is to go from one value to the next; the dearest axis goes outermost. The others cost nothing.
COSTS = {"model": 1.0, "vae": 0.7}


def in_order(axes: Sequence[Axis]) -> list[tuple[int, ...]]:
    """Return the places of all cells, one index an axis, in the order to make them in: dear axes outermost.

    Axes that cost the same go as they are given, the last outermost.
    """
    outermost = sorted(range(len(axes)), key=lambda index: (-COSTS.get(axes[index].kind, 0.0), -index))
    counted = itertools.product(*(range(len(axes[index].values)) for index in outermost))
    return [tuple(found[outermost.index(index)] for index in range(len(axes))) for found in counted]
