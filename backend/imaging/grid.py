"""Several pictures in one: the grid of a batch or a plot with its captions, and a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import InvalidRequest
from .pictures import Picture, flatten, parse_colour, require_picture, size_of, to_pillow

MAX_PIXELS = 200_000_000
"""Largest grid, the web UI's value."""

BACKGROUND = "#ffffff"
INK = (0, 0, 0)
FAINT_INK = (110, 110, 110)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def grid_shape(count: int, rows: int | None = None) -> tuple[int, int]:
    """Rows and columns for so many pictures: round(sqrt(count)) rows unless given, then as many columns as needed."""
    if count < 1:
        raise InvalidRequest("A grid needs at least one picture.", "Make a picture first.")
    if rows is not None and rows < 1:
        raise InvalidRequest(f"A grid of {rows} rows is impossible.", "Choose at least one row.")
    rows = min(round(math.sqrt(count)) if rows is None else rows, count)
    return rows, -(-count // rows)


def _require_pixels(width: int, height: int) -> None:
    if width * height >= MAX_PIXELS:
        raise InvalidRequest(
            f"A grid of {width}x{height} pixels is too large.", "Plot fewer values, or make smaller pictures."
        )


def _cell_size(pictures: Sequence[Picture | None]) -> tuple[int, int]:
    sizes = []
    for picture in pictures:
        if picture is not None:
            require_picture(picture)
            sizes.append(size_of(picture))
    if not sizes:
        raise InvalidRequest("A grid needs at least one picture.", "Make a picture first.")
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _centred(canvas: Image.Image, picture: Picture, x: int, y: int, cell: tuple[int, int], background: str) -> None:
    width, height = size_of(picture)
    canvas.paste(to_pillow(flatten(picture, background)), (x + (cell[0] - width) // 2, y + (cell[1] - height) // 2))


def image_grid(pictures: Sequence[Picture | None], rows: int | None = None, *, background: str = BACKGROUND) -> Picture:
    """The pictures row by row, each centred in a cell of the largest width and height; uint8 H x W x 3.

    None leaves its cell blank. Raises InvalidRequest without a picture and from 200 million pixels on.
    """
    row_count, columns = grid_shape(len(pictures), rows)
    cell = _cell_size(pictures)
    _require_pixels(cell[0] * columns, cell[1] * row_count)
    canvas = Image.new("RGB", (cell[0] * columns, cell[1] * row_count), parse_colour(background))
    for index, picture in enumerate(pictures):
        if picture is not None:
            _centred(canvas, picture, index % columns * cell[0], index // columns * cell[1], cell, background)
    return np.array(canvas, dtype=np.uint8)


def caption_size(cell_width: int) -> int:
    """Height of a caption's letters in pixels that is easy to read beside pictures of this width."""
    return min(max(round(cell_width / 16), 12), 48)


def wrap(text: str, font: Font, width: int) -> list[str]:
    """The text in lines no wider than `width` pixels, broken between words, inside a word only where it must."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            candidate = f"{line} {word}".strip()
            if line and font.getlength(candidate) > width:
                lines.append(line)
                candidate = word
            while len(candidate) > 1 and font.getlength(candidate) > width:
                fits = next(
                    n for n in range(len(candidate) - 1, 0, -1) if n == 1 or font.getlength(candidate[:n]) <= width
                )
                lines.append(candidate[:fits])
                candidate = candidate[fits:]
            line = candidate
        lines.append(line)
    return lines


def _draw_lines(
    draw: ImageDraw.ImageDraw, lines: list[str], font: Font, size: int, centre: tuple[float, float]
) -> None:
    step = round(size * 1.3)
    top = centre[1] - step * len(lines) / 2
    for index, line in enumerate(lines):
        draw.text((centre[0] - font.getlength(line) / 2, top + index * step), line, fill=INK, font=font)


class _Layout(NamedTuple):
    """Where things are in a captioned grid, in pixels."""

    width: int
    height: int
    left: int
    top: int
    letters: int
    font: Font
    above: list[list[str]]
    beside: list[list[str]]


def _lay_out(
    cell: tuple[int, int], column_captions: Sequence[str], row_captions: Sequence[str], margin: int
) -> _Layout:
    letters = caption_size(cell[0])
    font = ImageFont.load_default(letters)
    above = [wrap(caption, font, cell[0] - letters) for caption in column_captions]
    beside = [wrap(caption, font, max(cell[0] // 2, letters * 6)) for caption in row_captions]
    top = round(max(map(len, above)) * letters * 1.3) + letters if any(column_captions) else 0
    longest = max((font.getlength(line) for lines in beside for line in lines), default=0)
    left = round(longest) + 2 * letters if any(row_captions) else 0
    columns, rows = len(column_captions), len(row_captions)
    width = left + columns * cell[0] + (columns - 1) * margin
    height = top + rows * cell[1] + (rows - 1) * margin
    _require_pixels(width, height)
    return _Layout(width, height, left, top, letters, font, above, beside)


def captioned_size(
    cell: tuple[int, int], column_captions: Sequence[str], row_captions: Sequence[str], *, margin: int = 0
) -> tuple[int, int]:
    """Width and height of the plot that `captioned_grid` makes of pictures no larger than the cell (width, height).

    Raises InvalidRequest from 200 million pixels on.
    """
    return _lay_out(cell, column_captions, row_captions, margin)[:2]


def captioned_grid(
    pictures: Sequence[Picture | None],
    column_captions: Sequence[str],
    row_captions: Sequence[str],
    *,
    margin: int = 0,
    background: str = BACKGROUND,
) -> Picture:
    """A plot: len(row_captions) x len(column_captions) pictures, captions above the columns and left of the rows.

    None leaves its cell blank with a faint cross, for a picture that failed. Empty captions take no room. Raises
    InvalidRequest where the numbers don't match and from 200 million pixels on.
    """
    columns, rows = len(column_captions), len(row_captions)
    if columns * rows != len(pictures) or not pictures:
        raise InvalidRequest(
            f"{len(pictures)} pictures don't fill a grid of {rows}x{columns}.",
            "Give one caption for each row and column.",
        )
    cell = _cell_size(pictures)
    width, height, left, top, letters, font, above, beside = _lay_out(cell, column_captions, row_captions, margin)
    canvas = Image.new("RGB", (width, height), parse_colour(background))
    draw = ImageDraw.Draw(canvas)
    for column, lines in enumerate(above):
        _draw_lines(draw, lines, font, letters, (left + column * (cell[0] + margin) + cell[0] / 2, top / 2))
    for row, lines in enumerate(beside):
        _draw_lines(draw, lines, font, letters, (left / 2, top + row * (cell[1] + margin) + cell[1] / 2))
    for index, picture in enumerate(pictures):
        x, y = left + index % columns * (cell[0] + margin), top + index // columns * (cell[1] + margin)
        if picture is None:
            draw.line((x, y, x + cell[0] - 1, y + cell[1] - 1), fill=FAINT_INK)
            draw.line((x, y + cell[1] - 1, x + cell[0] - 1, y), fill=FAINT_INK)
        else:
            _centred(canvas, picture, x, y, cell, background)
    return np.array(canvas, dtype=np.uint8)


def contact_sheet(
    pictures: Sequence[Picture],
    captions: Sequence[str],
    *,
    rows: int | None = None,
    margin: int = 12,
    background: str = BACKGROUND,
) -> Picture:
    """The pictures with a caption under each, spaced by a margin; uint8 H x W x 3.

    Raises InvalidRequest where captions and pictures differ in number, and from 200 million pixels on.
    """
    if len(captions) != len(pictures):
        raise InvalidRequest(
            "Every picture of a contact sheet needs its caption.", "Give as many captions as pictures."
        )
    row_count, columns = grid_shape(len(pictures), rows)
    cell = _cell_size(pictures)
    size = caption_size(cell[0])
    font = ImageFont.load_default(size)
    under = [wrap(caption, font, cell[0]) for caption in captions]
    room = round(max(map(len, under)) * size * 1.3) + size // 2
    width = columns * (cell[0] + margin) + margin
    height = row_count * (cell[1] + room + margin) + margin
    _require_pixels(width, height)
    canvas = Image.new("RGB", (width, height), parse_colour(background))
    draw = ImageDraw.Draw(canvas)
    for index, (picture, lines) in enumerate(zip(pictures, under, strict=True)):
        x = margin + index % columns * (cell[0] + margin)
        y = margin + index // columns * (cell[1] + room + margin)
        _centred(canvas, picture, x, y, cell, background)
        middle = y + cell[1] + size * 0.25 + round(size * 1.3) * len(lines) / 2
        _draw_lines(draw, lines, font, size, (x + cell[0] / 2, middle))
    return np.array(canvas, dtype=np.uint8)
