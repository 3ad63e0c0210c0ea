"""The web UI's prompt syntax: attention, prompt editing, alternation, AND. Whatever is malformed is literal text."""

from __future__ import annotations

import re
from itertools import groupby
from typing import NamedTuple

UP = 1.1  # (x); [x] divides by as much
BREAK = ("BREAK", -1.0)  # in place of a piece of text: the next one starts a new chunk of tokens

_NUMBER = r"[0-9]+\.?[0-9]*|\.[0-9]+"
_OPENING = {")": "(", "]": "["}

_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_AND = re.compile(r"\bAND\b")
_PART_WEIGHT = re.compile(rf"\s*:\s*([+-]?(?:{_NUMBER}))\s*$")

# An escaped bracket or backslash; a weight that closes a round bracket; a bracket; anything else.
_ATTENTION = re.compile(rf"\\([()\[\]\\])|:\s*([+-]?(?:{_NUMBER}))\s*\)|([()\[\]])|([^\\:()\[\]]+|[\\:])", re.DOTALL)

# What schedule tells apart: anything escaped, a mark, a run of plain text.
_SCHEDULE = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\", re.DOTALL)
_WHEN = re.compile(rf"\s*({_NUMBER})\s*")


class Part(NamedTuple):
    """One of the prompts that AND joins: its weight, and its texts as schedule returns them."""

    weight: float
    texts: list[tuple[int, str]]


def plan(prompt: str, steps: int) -> list[Part]:
    """Return the parts of a prompt that AND joins, each with what it says at which of `steps` steps."""
    return [Part(weight, schedule(text, steps)) for weight, text in split_and(prompt)]


def split_and(text: str) -> list[tuple[float, str]]:
    """Return the prompts that AND joins, each with the weight that ends it (“cat :1.2 AND dog:0.5”), else 1.

    A prompt without AND is one of weight 1, whatever ends it.
    """
    prompts = _AND.split(text)
    if len(prompts) == 1:
        return [(1.0, text)]
    result = []
    for prompt in prompts:
        found = _PART_WEIGHT.search(prompt)
        weight, words = (float(found[1]), prompt[: found.start()]) if found else (1.0, prompt)
        result.append((weight, words.strip()))
    return result


# --- Attention ---


def weigh(text: str) -> list[tuple[str, float]]:
    r"""Return a text's pieces, each with its weight, and BREAK where a new chunk of tokens starts.

    (x) multiplies by 1.1, [x] divides by it, (x:1.5) multiplies by 1.5; nesting multiplies. Brackets that are never
    closed act to the end. Closing ones that were never opened are text, and so are \( \) \[ \] \\ without the first
    backslash. Neighbours of equal weight are one piece; an empty text is one empty piece.
    """
    pieces: list[tuple[str, float]] = []
    starts: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        pieces[start:] = [(words, weight * factor) for words, weight in pieces[start:]]

    for found in _ATTENTION.finditer(text):
        escaped, weight, bracket, plain = found.groups()
        if bracket and bracket in starts:
            starts[bracket].append(len(pieces))
        elif weight is not None and starts["("]:
            multiply(starts["("].pop(), float(weight))
        elif bracket and starts[_OPENING[bracket]]:
            multiply(starts[_OPENING[bracket]].pop(), UP if bracket == ")" else 1 / UP)
        else:
            pieces.append((escaped or plain or found[0], 1.0))
    for bracket, factor in (("(", UP), ("[", 1 / UP)):
        for start in starts[bracket]:
            multiply(start, factor)
    return _with_breaks(_merged(pieces)) or [("", 1.0)]


def plain(text: str) -> str:
    """Return a text without its marks of attention, for what can't weigh its words."""
    return "".join(" " if piece == BREAK else piece[0] for piece in weigh(text)).strip()


def _merged(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    groups = groupby(pieces, key=lambda piece: piece[1])
    return [("".join(words for words, _ in group), weight) for weight, group in groups]


def _with_breaks(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    result: list[tuple[str, float]] = []
    for words, weight in pieces:
        for number, rest in enumerate(_BREAK.split(words)):
            if number:
                result.append(BREAK)
            if rest:
                result.append((rest, weight))
    return result


# --- Prompt editing and alternation ---


class _Choice(NamedTuple):
    """A pair of square brackets that says something else by the step; all places are indices of tokens.

    when: the last step of the first text, or None where the texts take turns.
    """

    end: int
    separators: list[int]
    when: int | None


def schedule(text: str, steps: int) -> list[tuple[int, str]]:
    """Return (last step that it holds for, text) in order; steps count from 1, and the last is `steps`.

    [a:b:when] is a up to and with step `when`, then b; [b:when] adds b, [a::when] removes a. A number with a point is
    a fraction of the steps, others are steps. [a|b|c] is another text at each step. All of them nest. Marks of
    attention are kept for weigh. [a:1.2] could never add a, and so is text with a mark of attention.
    """
    tokens = _SCHEDULE.findall(text)
    choices = _find_choices(tokens, steps)
    texts = [(step, _at_step(tokens, choices, step)) for step in range(1, max(steps, 1) + 1 if choices else 2)]
    texts[-1] = (steps, texts[-1][1])
    return [list(group)[-1] for _, group in groupby(texts, key=lambda item: item[1])]


def _find_choices(tokens: list[str], steps: int) -> dict[int, _Choice]:
    """Return the choices by the token that opens them.

    A bracket that is never closed, or closed inside another, is text; what separates inside it separates around it.
    """
    choices: dict[int, _Choice] = {}
    opened: list[tuple[int, list[int]]] = []
    for index, token in enumerate(tokens):
        if token in ("(", "["):
            opened.append((index, []))
        elif token in (":", "|") and opened:
            opened[-1][1].append(index)
        elif token in _OPENING and any(tokens[start] == _OPENING[token] for start, _ in opened):
            start, separators = opened.pop()
            while tokens[start] != _OPENING[token]:
                start, outer = opened.pop()
                separators = outer + separators
            choice = _read_choice(tokens, index, separators, steps) if token == "]" else None
            if choice is not None:
                choices[start] = choice
    return choices


def _read_choice(tokens: list[str], end: int, separators: list[int], steps: int) -> _Choice | None:
    """Return what a pair of square brackets chooses, or None where it is a mark of attention."""
    bars = [index for index in separators if tokens[index] == "|"]
    if bars:
        return _Choice(end, bars, None)
    if len(separators) not in (1, 2) or separators[-1] != end - 2:
        return None
    found = _WHEN.fullmatch(tokens[end - 1])
    if found is None:
        return None
    number = float(found[1])
    is_fraction = "." in found[1]
    if is_fraction and number > 1 and len(separators) == 1:
        return None
    return _Choice(end, separators, int(min(number * steps if is_fraction else number, steps)))


def _at_step(tokens: list[str], choices: dict[int, _Choice], step: int) -> str:
    """Return the text at a step, from 1."""
    opened: list[_Choice] = []
    texts = [[""]]  # of the whole, and of each opened choice
    for index, token in enumerate(tokens):
        if index in choices:
            opened.append(choices[index])
            texts.append([""])
        elif opened and index == opened[-1].end:
            chosen = _choose(opened.pop(), texts.pop(), step)
            texts[-1][-1] += chosen
        elif opened and index in opened[-1].separators:
            texts[-1].append("")
        else:
            texts[-1][-1] += token
    return texts[0][0]


def _choose(choice: _Choice, texts: list[str], step: int) -> str:
    if choice.when is None:
        return texts[(step - 1) % len(texts)]
    before, after = texts[:2] if len(texts) == 3 else ("", texts[0])
    return before if step <= choice.when else after
