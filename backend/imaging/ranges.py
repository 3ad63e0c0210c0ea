"""The lists and ranges that an X/Y/Z plot takes as its values."""

from __future__ import annotations

import csv
import io
import math
import re

from ..errors import InvalidRequest

MAX_VALUES = 1000
"""Most values of one axis; a longer list is a slip of the pen."""

WHOLE = r"[+-]?\d+"
REAL = r"[+-]?(?:\d+\.?\d*|\.\d+)"
WHOLE_RANGE = re.compile(rf"({WHOLE})\s*-\s*({WHOLE})(?:\s*\(\s*({WHOLE})\s*\)|\s*\[\s*(\d+)\s*\])?")
REAL_RANGE = re.compile(rf"({REAL})\s*-\s*({REAL})(?:\s*\(\s*({REAL})\s*\)|\s*\[\s*(\d+)\s*\])?")
SIZE = re.compile(r"(\d+)\s*[xX]\s*(\d+)")


def values(text: str) -> list[str]:
    """The comma-separated values of a text, stripped, empty ones left out; "quoted, commas" belong to a value."""
    rows = csv.reader(io.StringIO(text.replace("\n", ",")), skipinitialspace=True)
    try:
        found = [value.strip() for row in rows for value in row if value.strip()]
    except csv.Error as error:
        raise InvalidRequest("The list of values can't be read.", "Write values with commas between them.") from error
    return _limited(found)


def _limited(found: list[str]) -> list[str]:
    if len(found) > MAX_VALUES:
        raise InvalidRequest(f"An axis of {len(found)} values is too long.", f"Give at most {MAX_VALUES}.")
    return found


def _steps(first: float, last: float, step: float, text: str) -> int:
    """How many values lie between, both ends included; a step of the wrong sign leads nowhere."""
    if step == 0 or (last - first) * step < 0:
        raise InvalidRequest(f"The range “{text}” has no values.", "Give a step that leads from its start to its end.")
    # A step such as 0.1 is not exact in binary; a thousandth of a step of grace keeps the end included.
    return math.floor((last - first) / step + 1e-3) + 1


def _spread(first: float, last: float, count: int, text: str) -> list[float]:
    if count < 1:
        raise InvalidRequest(f"The range “{text}” has no values.", "Ask for at least one value.")
    if count > MAX_VALUES:
        raise InvalidRequest(f"The range “{text}” is too long.", f"Ask for at most {MAX_VALUES} values.")
    if count == 1:
        return [first]
    return [first + (last - first) * i / (count - 1) for i in range(count)]


def _range(match: re.Match[str], text: str) -> list[float]:
    first, last = float(match[1]), float(match[2])
    if match[4] is not None:
        return _spread(first, last, int(match[4]), text)
    step = float(match[3]) if match[3] is not None else (1.0 if last >= first else -1.0)
    count = _steps(first, last, step, text)
    if count > MAX_VALUES:
        raise InvalidRequest(f"The range “{text}” is too long.", f"Ask for at most {MAX_VALUES} values.")
    return [first + step * i for i in range(count)]


def floats(text: str) -> list[float]:
    """Numbers from values and ranges: "a-b" (by 1), "a-b (+step)", "a-b [count]", both ends included.

    The web UI's syntax; but a range that runs down needs no step. Raises InvalidRequest for what is no number.
    """
    found: list[float] = []
    for value in values(text):
        match = REAL_RANGE.fullmatch(value)
        if match:
            # Rounded where binary fractions would show: 0.1 * 3 shall be 0.3.
            found.extend(round(number, 10) for number in _range(match, value))
        elif re.fullmatch(REAL, value):
            found.append(float(value))
        else:
            raise InvalidRequest(f"“{value}” is not a number or a range.", "Write 5, 1-10, 1-10 (+3) or 1-10 [4].")
    return found


def integers(text: str) -> list[int]:
    """Whole numbers from values and ranges, as in `floats`; a count's values are cut to whole numbers."""
    found: list[int] = []
    for value in values(text):
        match = WHOLE_RANGE.fullmatch(value)
        if match:
            found.extend(int(number + math.copysign(1e-9, number)) for number in _range(match, value))
        elif re.fullmatch(WHOLE, value):
            found.append(int(value))
        else:
            raise InvalidRequest(
                f"“{value}” is not a whole number or a range.", "Write 5, 1-10, 1-10 (+3) or 1-10 [4]."
            )
    return found


def sizes(text: str) -> list[tuple[int, int]]:
    """Widths and heights from values such as 512x768."""
    found: list[tuple[int, int]] = []
    for value in values(text):
        match = SIZE.fullmatch(value)
        if match is None or 0 in (int(match[1]), int(match[2])):
            raise InvalidRequest(f"“{value}” is not a size.", "Write it like 512x768.")
        found.append((int(match[1]), int(match[2])))
    return found
