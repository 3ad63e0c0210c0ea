"""Draws a scene in eight styles, from its guide: colours, light and lines as the render shows them.

No mark is laid by chance or by its place in the picture, for a small model answers what it can't foresee with its mean,
a blur: every stroke follows from regions, normals, depth and light. What varies, line weight and palette, is a `Hand`,
and captions name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from training.buffers import SIZE, middles
from training.guide import LUMINANCE, Bytes, Floats, Guide
from training.regions import SCENERY, Region

PICTURE = 256  # pixels a side
# Half-tone, in G-buffer pixels from dot to dot: 4 of the picture's, one latent, so that latents of a shade are as even
# as those of a tint. With dots two latents apart a UNet, whose layers answer even areas evenly, hardly began them.
SCREEN = 6
DOT, DOT_DARK = 0.36, 0.6  # a dot's radius as a share of SCREEN, and how much darker it is
BLOCK = 4  # the picture's pixels along a latent, and along a square of pixel art
_rows, _columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


@dataclass(frozen=True)
class Hand:
    """How a style is drawn: line weight and strength of colours, each -1, 0 (the plain form) or 1."""

    line: int = 0
    colour: int = 0

    def weight(self, thin: float, plain: float, bold: float) -> float:
        """Return the width of a line in G-buffer pixels."""
        return (thin, plain, bold)[self.line + 1]

    def strength(self, muted: float, plain: float, vivid: float) -> float:
        """Return how saturated colours are."""
        return (muted, plain, vivid)[self.colour + 1]


PLAIN = Hand()


def _thick(mask: Floats, width: float) -> Floats:
    """Return the mask widened to about `width` pixels, with soft edges."""
    size = max(1, round(width))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    wide: Floats = cv2.GaussianBlur(cv2.dilate(mask, kernel), (0, 0), 0.7)
    return wide


def _saturated(colour: Floats, amount: float) -> Floats:
    grey = colour @ LUMINANCE
    mixed: Floats = np.clip(grey[..., None] + (colour - grey[..., None]) * amount, 0, 1)
    return mixed


def _lines(guide: Guide, width: float, creases: float = 0.8) -> Floats:
    """Return line strength (H×W): outlines heavier than region borders, creases lightest."""
    outer = _thick(np.maximum(guide.outline, guide.border * _at_figure(guide)), width)
    inner = _thick(np.maximum(guide.border, np.clip(guide.crease * 1.3 - 0.3, 0, 1) * creases), max(1.0, width - 1.3))
    return np.maximum(outer, inner * 0.9)


def _at_figure(guide: Guide) -> Floats:
    near: Floats = cv2.dilate(guide.figure.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    return near


def _ink_over(colour: Floats, lines: Floats, ink: tuple[float, float, float]) -> Floats:
    over: Floats = colour * (1 - lines[..., None]) + lines[..., None] * np.array(ink, np.float32)
    return over


def _simple_colours(guide: Guide) -> Floats:
    """Return base colours with the jagged edges of regions rounded."""
    rounded: Floats = cv2.medianBlur((guide.base * 255).astype(np.uint8), 5).astype(np.float32) / 255
    detail = cv2.dilate(np.isin(guide.ids, FACE_DETAIL).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.where(detail[..., None], guide.base, rounded)


FACE_DETAIL = (Region.EYE_WHITE, Region.IRIS, Region.PUPIL, Region.BROW, Region.LIPS, Region.LASH, Region.EYE_SHINE)
OVERLAY = (Region.EYE_WHITE, Region.IRIS, Region.PUPIL, Region.LASH, Region.EYE_SHINE)


def anime(guide: Guide, hand: Hand) -> Floats:
    """Cel shading: two tones with a hard edge, glossy hair, thin dark lines."""
    colour = np.clip(_saturated(_simple_colours(guide), hand.strength(0.75, 1.2, 1.55)) * 1.04 + 0.015, 0, 1)
    shaded = 1 - np.clip((guide.light - 0.22) / 0.05, 0, 1)
    shaded[np.isin(guide.ids, OVERLAY)] = 0
    shade = np.array([0.66, 0.58, 0.82], np.float32)
    colour = colour * (1 - shaded[..., None] * (1 - shade))
    hair = guide.ids == Region.HAIR
    band = np.exp(-(((guide.normal[..., 1] - 0.55) / 0.10) ** 2)) * hair * (guide.light > 0)
    colour = colour + (1 - colour) * (band[..., None] > 0.45) * 0.38
    blush = (guide.ids == Region.SKIN) * np.clip((guide.light - 0.93) / 0.05, 0, 1) * 0.25
    colour = colour + (1 - colour) * blush[..., None]
    return _ink_over(colour, _lines(guide, hand.weight(1.4, 2.4, 3.8)), (0.12, 0.07, 0.13))


def ink(guide: Guide, hand: Hand) -> Floats:
    """Black ink on white: lines that swell on the side of the shade, black shadows, dark colours filled in."""
    width = hand.weight(1.4, 2.4, 3.6)
    heavy = _thick(guide.outline * (guide.light < 0.35), width + 3) * guide.solid
    lines = np.maximum(_lines(guide, width), heavy)
    dark = guide.base @ LUMINANCE
    figure = ~np.isin(guide.ids, SCENERY)
    spot = ((dark < 0.24) & figure).astype(np.float32)
    spot *= 1 - np.clip((guide.light - 0.80) / 0.05, 0, 1) * (guide.ids == Region.HAIR)
    shadow = np.clip((0.02 - guide.light) / 0.06, 0, 1) * figure * (guide.ids != Region.SKIN)
    features = np.isin(guide.ids, (Region.BROW, Region.LASH, Region.PUPIL)).astype(np.float32)
    iris = (guide.ids == Region.IRIS) * np.float32(0.6)
    black = np.maximum.reduce([lines, spot, shadow, features, iris, _thick(guide.pattern, 1.0) * 0.8])
    black = cv2.GaussianBlur(black, (0, 0), 0.5)
    black[guide.ids == Region.EYE_SHINE] = 0
    return np.repeat((1 - 0.95 * np.clip(black, 0, 1))[..., None], 3, 2)


def watercolor(guide: Guide, hand: Hand) -> Floats:
    """Transparent washes on paper: pale where the light falls, dark rims where pigment gathers, soft shade."""
    wash = cv2.GaussianBlur(_saturated(_simple_colours(guide), hand.strength(0.8, 1.25, 1.7)), (0, 0), 1.0)
    light = cv2.GaussianBlur(guide.light, (0, 0), 3.0)
    border = np.maximum(guide.border, (guide.outline > 0.5).astype(np.float32))
    away = cv2.distanceTransform((border < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    rim = np.exp(-np.square((away - 2.0) / 1.8)) * 0.34
    gap = np.exp(-np.square(away / 1.3)) * 0.5
    density = 0.42 + 0.5 * np.clip(0.8 - light, 0, 1.2) + rim - gap
    density = np.where(np.isin(guide.ids, SCENERY), 0.36 + rim * 0.8 - gap * 0.6, density)
    detail = cv2.dilate(np.isin(guide.ids, FACE_DETAIL).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    density[detail] = 0.62
    density[np.isin(guide.ids, (Region.LASH, Region.PUPIL, Region.BROW))] = 1.0
    density = cv2.GaussianBlur(density.astype(np.float32), (0, 0), 0.8)
    absorbed = -np.log(np.clip(wash, 0.03, 1))
    colour = np.exp(-absorbed * np.clip(density, 0.05, 1.4)[..., None] * 1.1)
    pencil = _lines(guide, 1.0) * hand.weight(0.0, 0.16, 0.5)
    return colour * (1 - pencil[..., None] * 0.8) * np.array([0.985, 0.97, 0.935], np.float32)


def pencil(guide: Guide, hand: Hand) -> Floats:
    """Graphite on paper: soft tone laid where the shade is, outlines drawn twice, the second a little beside."""
    grey = guide.base @ LUMINANCE
    tone = 0.62 * (1 - grey) + 0.55 * np.clip(0.62 - guide.light, 0, 1.2)
    tone = np.where(np.isin(guide.ids, SCENERY), (1 - grey) * 0.22, tone)
    tone = cv2.GaussianBlur(tone.astype(np.float32), (0, 0), 1.6)
    sharp = _lines(guide, hand.weight(1.0, 1.7, 2.8), 1.0)
    beside = cv2.warpAffine(sharp, np.array([[1, 0, 2.5], [0, 1, -2.5]], np.float32), (SIZE, SIZE))
    line = np.maximum(sharp * 0.82, beside * 0.4)
    features = np.isin(guide.ids, (Region.LASH, Region.PUPIL, Region.BROW)) * 0.7 + (guide.ids == Region.IRIS) * 0.45
    features = features + (guide.ids == Region.LIPS) * 0.22 + _thick(guide.pattern, 1.0) * 0.2
    graphite = np.clip(np.maximum.reduce([np.clip(tone, 0, 0.72), line, features.astype(np.float32)]), 0, 0.88)
    paper = np.array([0.972, 0.965, 0.945], np.float32)
    return (1 - graphite)[..., None] * paper


def flat(guide: Guide, hand: Hand) -> Floats:
    """Flat vector shapes: no lines, soft tints, one plain shadow, and a white edge around the figure."""
    colour = cv2.medianBlur((guide.base * 255).astype(np.uint8), 7).astype(np.float32) / 255
    detail = np.isin(guide.ids, FACE_DETAIL)
    colour = np.where(detail[..., None], guide.base, colour)
    colour = _saturated(colour, hand.strength(0.7, 1.15, 1.5)) * 0.76 + 0.23
    wide = cv2.GaussianBlur(guide.light, (0, 0), 4)
    shaded = (1 - np.clip((wide - 0.3) / 0.04, 0, 1)) * guide.solid * ~detail
    colour = colour * (1 - 0.24 * shaded[..., None] * np.array([1.0, 1.0, 0.7], np.float32))
    around = _thick(guide.figure.astype(np.float32), hand.weight(5, 8, 12))
    edge = np.clip(around - cv2.GaussianBlur(guide.figure.astype(np.float32), (0, 0), 0.7), 0, 1) * ~guide.figure
    return colour + (0.98 - colour) * edge[..., None]


_from_dot = np.hypot((_columns + 0.5) / SCREEN % 1 - 0.5, (_rows + 0.5) / SCREEN % 1 - 0.5)
_DOTS: Floats = np.clip((DOT - _from_dot) * SCREEN + 0.5, 0, 1)


def _shade_and_ink(guide: Guide, hand: Hand) -> tuple[Floats, Floats]:
    """Return where a comic has shade, and where ink lies over it (H×W each)."""
    shaded: Floats = np.clip((0.38 - guide.light) / 0.05, 0, 1) * ~np.isin(guide.ids, OVERLAY)
    deep = np.clip((-0.22 - guide.light) * 12, 0, 1) * guide.figure * (guide.ids != Region.SKIN)
    return shaded, np.maximum(_lines(guide, hand.weight(2.6, 4.4, 6.0)), deep)


def _printed(guide: Guide, hand: Hand, screen: Floats | np.float32) -> Floats:
    """Return a comic's picture, its shade as dark as a screen (H×W, or the same everywhere) makes it."""
    shaded, ink = _shade_and_ink(guide, hand)
    colour = np.clip(_saturated(_simple_colours(guide), hand.strength(1.0, 1.6, 2.1)) * 1.05 + 0.02, 0, 1)
    colour = colour * (1 - DOT_DARK * (screen * shaded)[..., None])
    paper = np.array([1.0, 0.98, 0.90], np.float32)
    return _ink_over(colour, ink, (0.05, 0.04, 0.06)) * paper


def comic(guide: Guide, hand: Hand) -> Floats:
    """A printed comic: heavy lines, strong colours, half-tone dots in the shade, black in the deepest."""
    return _printed(guide, hand, _DOTS)


def tinted_comic(guide: Guide, hand: Hand) -> Bytes:
    """Return a comic's picture (256×256×3) without dots: its shade is the tint that they make."""
    return finish(_printed(guide, hand, _DOTS.mean()))


def dotted(guide: Guide, hand: Hand) -> Floats:
    """Return how much of each latent a comic's dots cover (64×64); colours have no part in it."""
    shaded, ink = _shade_and_ink(guide, hand)
    side = PICTURE // BLOCK
    share: Floats = cv2.resize((shaded * (1 - ink)).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return share


def _facets(picture: Floats, reach: int) -> Floats:
    """Return the picture in facets of paint: each pixel takes the calmest of four squares beside it (Kuwahara 1976)."""
    size = (reach + 1, reach + 1)
    grey = picture @ LUMINANCE
    best, spread = np.zeros_like(picture), np.full(grey.shape, np.inf, np.float32)
    for anchor in ((0, 0), (reach, 0), (0, reach), (reach, reach)):
        mean, square = (cv2.boxFilter(x, -1, size, anchor=anchor) for x in (grey, grey * grey))
        variance = square - mean * mean
        calmer = variance < spread
        spread = np.where(calmer, variance, spread)
        best = np.where(calmer[..., None], cv2.boxFilter(picture, -1, size, anchor=anchor), best)
    facets: Floats = best
    return facets


PLANES = 3  # tones that a brush lays side by side from the middle light to the brightest


def oil(guide: Guide, hand: Hand) -> Floats:
    """Thick paint under varnish: planes that follow the form, warm light and cool shade, ridges that catch light."""
    light = cv2.GaussianBlur(guide.light, (0, 0), 3)
    light = cv2.GaussianBlur(np.round(light * PLANES) / PLANES, (0, 0), 0.8)
    tone = np.clip(0.60 + 0.44 * light, 0.18, 1.05)[..., None]
    warm, cool = np.array([1.06, 1.0, 0.86], np.float32), np.array([0.80, 0.90, 1.10], np.float32)
    mix = np.clip(light * 0.8 + 0.35, 0, 1)[..., None]
    colours = _saturated(guide.base, hand.strength(0.7, 1.15, 1.6))
    model = np.clip(colours * tone * (warm * mix + cool * (1 - mix)), 0, 1).astype(np.float32)
    detail = cv2.dilate(np.isin(guide.ids, FACE_DETAIL).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    painted = np.where(detail[..., None], _facets(model, 2), _facets(model, 7))
    height = cv2.GaussianBlur(painted @ LUMINANCE, (0, 0), 1.2)
    ridge = cv2.Sobel(height, cv2.CV_32F, 1, 0) + cv2.Sobel(height, cv2.CV_32F, 0, 1)
    painted = painted + np.clip(ridge * hand.weight(0.2, 0.42, 0.7), -0.16, 0.16)[..., None]
    varnish = np.array([0.97, 0.92, 0.80], np.float32)
    return np.clip(painted * 0.92 + 0.03, 0, 1) * varnish


def pixel(guide: Guide, hand: Hand) -> Floats:
    """Pixel art: square pixels, three tones a colour, dark outlines one pixel wide."""
    side = PICTURE // BLOCK
    lines = np.maximum(guide.outline, guide.border)
    edge = cv2.resize(np.ascontiguousarray(lines), (side, side), interpolation=cv2.INTER_AREA)
    edge = edge > (0.34, 0.2, 0.1)[hand.line + 1]
    grid = middles(side)
    colour = cv2.resize(_simple_colours(guide), (side, side), interpolation=cv2.INTER_AREA)
    light = cv2.resize(guide.light, (side, side), interpolation=cv2.INTER_AREA)
    features = np.isin(guide.ids[grid], FACE_DETAIL)
    step = 1.0 - 0.22 * (light < 0.35) - 0.20 * (light < -0.15) + 0.10 * (light > 0.88) * guide.solid[grid]
    colour = np.where(features[..., None], guide.base[grid], colour * np.where(features, 1, step)[..., None])
    colour = np.clip(_saturated(colour, hand.strength(0.8, 1.3, 1.8)), 0, 1)
    solid = cv2.resize(guide.solid.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) > 0
    dark = edge & ~features & solid
    colour = np.where(dark[..., None], colour * 0.22 + np.array([0.02, 0.01, 0.05]), colour).astype(np.float32)
    return cv2.resize(colour, (PICTURE, PICTURE), interpolation=cv2.INTER_NEAREST)


STYLES: dict[str, Callable[[Guide, Hand], Floats]] = {
    "anime": anime,
    "ink": ink,
    "watercolor": watercolor,
    "pencil": pencil,
    "flat": flat,
    "comic": comic,
    "oil": oil,
    "pixel": pixel,
}


def finish(picture: Floats) -> Bytes:
    """Return the picture at 256 px as bytes."""
    values = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
    if values.shape[0] == PICTURE:
        return values
    small: Bytes = cv2.resize(values, (PICTURE, PICTURE), interpolation=cv2.INTER_AREA)
    return small


def stylise(guide: Guide, style: str, hand: Hand = PLAIN) -> Bytes:
    """Return one style's picture (256×256×3 bytes, sRGB)."""
    return finish(STYLES[style](guide, hand))
