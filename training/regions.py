"""The regions that an id map tells apart, and the colours that they are given."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]  # sRGB, 0-1


class Region(IntEnum):
    """What a pixel of the id map shows; the second of a pair is the other colour of a pattern."""

    SKY = 0
    CLOUD = 1
    GROUND = 2
    GROUND_SECOND = 3
    WALL = 4
    SIDE_WALL = 5
    SKIN = 6
    EYE_WHITE = 7
    IRIS = 8
    PUPIL = 9
    BROW = 10
    LIPS = 11
    LASH = 12
    HAIR = 13
    TOP = 14
    TOP_SECOND = 15
    BOTTOM = 16
    BOTTOM_SECOND = 17
    JACKET = 18
    SHOES = 19
    SOCKS = 20
    GLOVES = 21
    BELT = 22
    EYE_SHINE = 23
    PROP = 24  # the first of eight: two colours for each of four props


PROP_COUNT = 4
REGION_COUNT = Region.PROP + 2 * PROP_COUNT
BACKGROUND = (Region.SKY, Region.CLOUD)
SCENERY = (*BACKGROUND, Region.GROUND, Region.GROUND_SECOND, Region.WALL, Region.SIDE_WALL)
FACE = (Region.EYE_WHITE, Region.IRIS, Region.PUPIL, Region.BROW, Region.LIPS, Region.LASH, Region.EYE_SHINE)
GARMENTS = (Region.TOP, Region.BOTTOM, Region.JACKET, Region.SHOES)

CLOTH: dict[str, Colour] = {
    "red": (0.80, 0.13, 0.13),
    "blue": (0.15, 0.32, 0.78),
    "green": (0.16, 0.55, 0.24),
    "yellow": (0.94, 0.82, 0.20),
    "orange": (0.94, 0.50, 0.12),
    "purple": (0.50, 0.22, 0.64),
    "pink": (0.95, 0.55, 0.69),
    "white": (0.94, 0.94, 0.93),
    "black": (0.10, 0.10, 0.11),
    "gray": (0.50, 0.50, 0.52),
    "brown": (0.43, 0.26, 0.15),
    "teal": (0.10, 0.56, 0.57),
    "navy": (0.10, 0.14, 0.36),
    "beige": (0.86, 0.76, 0.60),
    "light blue": (0.55, 0.76, 0.94),
}
HAIR: dict[str, Colour] = {
    "black": (0.09, 0.08, 0.08),
    "brown": (0.34, 0.19, 0.10),
    "blonde": (0.90, 0.74, 0.38),
    "red": (0.66, 0.22, 0.08),
    "white": (0.90, 0.90, 0.90),
    "gray": (0.55, 0.55, 0.56),
    "blue": (0.20, 0.36, 0.80),
    "pink": (0.93, 0.47, 0.65),
    "green": (0.22, 0.56, 0.33),
    "purple": (0.48, 0.26, 0.66),
}
EYES: dict[str, Colour] = {
    "brown": (0.36, 0.19, 0.08),
    "blue": (0.15, 0.42, 0.80),
    "green": (0.16, 0.52, 0.28),
    "gray": (0.42, 0.46, 0.50),
    "red": (0.75, 0.12, 0.12),
    "purple": (0.50, 0.25, 0.70),
}
BACKDROP: dict[str, Colour] = {
    "white": (0.96, 0.96, 0.96),
    "gray": (0.60, 0.60, 0.62),
    "light blue": (0.60, 0.80, 0.95),
    "beige": (0.90, 0.83, 0.69),
    "dark blue": (0.12, 0.16, 0.33),
    "pale green": (0.72, 0.87, 0.70),
    "lavender": (0.78, 0.72, 0.91),
    "peach": (0.97, 0.80, 0.68),
    "black": (0.07, 0.07, 0.08),
    "yellow": (0.96, 0.87, 0.50),
    "teal": (0.20, 0.52, 0.54),
    "pink": (0.95, 0.72, 0.80),
}
GROUND: dict[str, Colour] = {
    "green": (0.36, 0.57, 0.27),
    "gray": (0.52, 0.52, 0.53),
    "brown": (0.50, 0.37, 0.25),
    "beige": (0.86, 0.78, 0.60),
    "white": (0.91, 0.91, 0.92),
    "blue": (0.28, 0.46, 0.66),
}
SKIN: dict[str, Colour] = {
    "pale": (0.97, 0.82, 0.73),
    "light": (0.92, 0.73, 0.60),
    "tan": (0.79, 0.58, 0.43),
    "brown": (0.58, 0.39, 0.27),
    "dark": (0.37, 0.24, 0.17),
}


@dataclass
class Palette:
    """The colour of every region (REGION_COUNT×3, sRGB 0-1) and the names that captions use."""

    colours: Floats
    names: dict[str, str]


def _pick(rng: np.random.Generator, table: dict[str, Colour], avoid: str = "") -> str:
    names = [name for name in table if name != avoid]
    return names[int(rng.integers(len(names)))]


def _jittered(rng: np.random.Generator, colour: Colour, amount: float = 0.025) -> Floats:
    moved = np.array(colour) * (1 + rng.normal(0, 0.06)) + rng.normal(0, amount, 3)
    return np.clip(moved, 0.02, 0.98).astype(np.float32)


def choose_palette(rng: np.random.Generator, skin: str, old: bool) -> Palette:
    """Draw colours for every region of one scene."""
    colours = np.zeros((REGION_COUNT, 3), np.float32)
    names = {"skin": skin}

    def give(key: str, region: int, table: dict[str, Colour], avoid: str = "", name: str = "") -> None:
        names[key] = name or _pick(rng, table, avoid)
        colours[region] = _jittered(rng, table[names[key]])

    give("sky", Region.SKY, BACKDROP)
    colours[Region.CLOUD] = np.clip(colours[Region.SKY] * 0.35 + 0.64, 0, 1)
    give("ground", Region.GROUND, GROUND)
    shade = -0.12 if rng.random() < 0.5 else 0.12
    colours[Region.GROUND_SECOND] = np.clip(colours[Region.GROUND] + shade, 0.03, 0.97)
    give("wall", Region.WALL, BACKDROP)
    colours[Region.SIDE_WALL] = np.clip(colours[Region.WALL] * 0.9, 0, 1)
    colours[Region.SKIN] = _jittered(rng, SKIN[skin], 0.012)
    give("eyes", Region.IRIS, EYES, name="" if rng.random() < 0.5 else "brown")
    likely = ("white", "gray") if old else ("black", "brown", "blonde", "red")
    give("hair", Region.HAIR, HAIR, name=str(rng.choice(likely)) if rng.random() < 0.6 else "")
    give("top", Region.TOP, CLOTH)
    give("bottom", Region.BOTTOM, CLOTH, avoid=names["top"] if rng.random() < 0.8 else "")
    for key, region, partner in (
        ("top second", Region.TOP_SECOND, "top"),
        ("bottom second", Region.BOTTOM_SECOND, "bottom"),
    ):
        plain = "white" if names[partner] not in ("white", "beige", "yellow", "light blue") else "black"
        give(key, region, CLOTH, avoid=names[partner], name=plain if rng.random() < 0.6 else "")
    give("jacket", Region.JACKET, CLOTH, avoid=names["top"])
    give("shoes", Region.SHOES, CLOTH, name=str(rng.choice(("black", "brown", "white", "red", "gray", "blue"))))
    give("socks", Region.SOCKS, CLOTH, name="white" if rng.random() < 0.5 else "")
    give("gloves", Region.GLOVES, CLOTH, name="black" if rng.random() < 0.4 else "")
    give("belt", Region.BELT, CLOTH, name="brown" if rng.random() < 0.5 else "")
    for i in range(PROP_COUNT):
        give(f"prop {i}", Region.PROP + 2 * i, CLOTH)
        give(f"prop {i} second", Region.PROP + 2 * i + 1, CLOTH)
    return finish_palette(Palette(colours, names))


def finish_palette(palette: Palette) -> Palette:
    """Set the colours that follow from others: lips from skin, brows from hair, and the eye's black and white."""
    colours = palette.colours
    skin, hair = colours[Region.SKIN], colours[Region.HAIR]
    colours[Region.LIPS] = np.clip(skin * (0.88, 0.56, 0.56) + (0.06, 0, 0), 0, 1)
    colours[Region.BROW] = hair * 0.62
    colours[Region.LASH] = (0.09, 0.06, 0.07)
    colours[Region.EYE_WHITE] = colours[Region.EYE_SHINE] = (0.97, 0.97, 0.97)
    colours[Region.PUPIL] = (0.05, 0.04, 0.05)
    return palette


def recoloured(palette: Palette, rng: np.random.Generator, worn: tuple[str, ...]) -> tuple[Palette, tuple[str, ...]]:
    """Give one to three of the parts named in `worn` (such as "top" or "hair") another colour; return which."""
    count = min(len(worn), int(rng.choice((1, 2, 3), p=(0.5, 0.35, 0.15))))
    changed = tuple(str(name) for name in rng.choice(worn, count, replace=False))
    colours, names = palette.colours.copy(), dict(palette.names)
    for name in changed:
        table = (
            HAIR if name == "hair" else GROUND if name == "ground" else BACKDROP if name in ("sky", "wall") else CLOTH
        )
        region = Region[name.upper()]
        names[name] = _pick(rng, table, avoid=names[name])
        colours[region] = _jittered(rng, table[names[name]])
    return finish_palette(Palette(colours, names)), changed
