"""Turns G-buffers into pictures: the shaded render, and eight drawn styles made from regions, normals and depth.

Every style takes its light and its colours from the render as it shows them, so that a model can learn to keep them:
while targets were drawn in the colours beneath the light, brightness and hue of a broad area had to be guessed, and
the guesses were blots. For the same reason nothing depends on the place in the picture but by PERIOD, which a network
of strides of two can count. `variety` scales what is drawn by chance (line weight, palette): 1 to train, 0 for the
plain form that evaluation compares with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.buffers import SIZE, Scene
from training.regions import BACKGROUND, PROP_COUNT, SCENERY, Palette, Region

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

PICTURE = 256  # pixels a side
PERIOD = 12  # of hatching and half-tone across, in G-buffer pixels: 8 of the picture's, two latents
BLOCK = 4  # the picture's pixels along a square of pixel art: one latent
LIFT = 0.8  # exponent that brightens the render's colours to a drawing's
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_rows, _columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
_texture_rng = np.random.default_rng(11)


def _noise_sheet(spread: float, size: int = 768) -> Floats:
    noise = cv2.GaussianBlur(_texture_rng.normal(size=(size, size)).astype(np.float32), (0, 0), spread)
    sheet: Floats = noise / noise.std()
    return sheet


GRAIN, FINE, BROAD, WIDE = (_noise_sheet(spread) for spread in (1.1, 4.0, 15.0, 38.0))

# Regions that no line separates: a pattern's two colours, what is painted on a face, and the tiles of a floor.
_GROUP = np.arange(256, dtype=np.uint8)
for _second, _first in (
    (Region.TOP_SECOND, Region.TOP),
    (Region.BOTTOM_SECOND, Region.BOTTOM),
    (Region.GROUND_SECOND, Region.GROUND),
    (Region.CLOUD, Region.SKY),
    (Region.BROW, Region.SKIN),
    (Region.LIPS, Region.SKIN),
    (Region.LASH, Region.SKIN),
    (Region.PUPIL, Region.EYE_WHITE),
    (Region.IRIS, Region.EYE_WHITE),
    (Region.EYE_SHINE, Region.EYE_WHITE),
):
    _GROUP[_second] = _first

_LIT_AS = np.where(_GROUP == Region.EYE_WHITE, Region.SKIN, _GROUP).astype(np.uint8)  # eyes are too small to measure


@dataclass
class Guide:
    """What every style draws from; all H×W or H×W×3 float32 in 0-1 unless said otherwise."""

    base: Floats  # each region in one colour, as the render shows its lighter half
    ids: Bytes
    normal: Floats  # -1 to 1
    solid: NDArray[np.bool_]  # not sky
    figure: NDArray[np.bool_]
    light: Floats  # cosine to the render's main light, -1 to 1; 1 on scenery, which styles don't shade
    outline: Floats  # between things at different depths
    border: Floats  # between regions
    crease: Floats  # folds and features
    pattern: Floats  # between any two colours


def linear(srgb: Floats) -> Floats:
    """Return linear light from sRGB values."""
    value: Floats = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return value


def srgb(light: Floats) -> Floats:
    """Return sRGB values (0-1) from linear light, clipped."""
    light = np.clip(light, 0, 1)
    value: Floats = np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-8) ** (1 / 2.4) - 0.055)
    return value.astype(np.float32)


def main_light(scene: Scene) -> Floats:
    """Return the unit direction (3, view space) of the light that best explains the render's shading."""
    figure = ~np.isin(scene.ids, SCENERY)
    mask = figure if figure.sum() > 500 else scene.normal.any(2)
    normal = scene.normal[mask][::7]
    bright = scene.shade[mask][::7] @ LUMINANCE
    matrix = np.column_stack([normal, np.ones(len(normal))])
    slope = np.linalg.lstsq(matrix, bright, rcond=None)[0][:3]
    slope = slope + np.array([-0.02, 0.03, 0.04])  # leans to a studio's habit where the light is flat
    slope[2] = max(slope[2], 0.15 * np.linalg.norm(slope))
    unit: Floats = (slope / np.linalg.norm(slope)).astype(np.float32)
    return unit


def _different(values: Bytes) -> Floats:
    edge = np.zeros(values.shape, np.float32)
    across, down = values[:, 1:] != values[:, :-1], values[1:] != values[:-1]
    edge[:, 1:] = across
    edge[1:] = np.maximum(edge[1:], down)
    return edge


def shown_colours(scene: Scene, palette: Palette) -> Floats:
    """Return each region in one colour: as the render shows its lighter half, lifted (H×W×3, sRGB in 0-1)."""
    light = np.ones((256, 3), np.float32)
    groups = _LIT_AS[scene.ids]
    for group in np.unique(groups[~np.isin(scene.ids, BACKGROUND)]):
        falling = scene.shade[groups == group]
        bright = falling @ LUMINANCE
        light[group] = falling[bright >= np.median(bright)].mean(0)
    colours: Floats = srgb(linear(palette.colours)[scene.ids] * light[groups]) ** LIFT
    return colours


def make_guide(scene: Scene, palette: Palette) -> Guide:
    """Derive colours, light and lines from one scene."""
    base = shown_colours(scene, palette)
    solid, scenery = ~np.isin(scene.ids, BACKGROUND), np.isin(scene.ids, SCENERY)
    light = cv2.GaussianBlur(scene.normal @ main_light(scene), (0, 0), 1.5)
    light = np.where(scenery, 1, light).astype(np.float32)
    nearness = 1 / np.maximum(scene.depth, 0.05)
    step = np.abs(cv2.Laplacian(nearness, cv2.CV_32F, ksize=1)) / np.maximum(nearness, 1e-3)
    outline = np.clip((step - 0.012) / 0.03, 0, 1)
    smooth = cv2.GaussianBlur(scene.normal, (0, 0), 1.2)
    bend = sum(np.square(cv2.Sobel(smooth[..., c], cv2.CV_32F, *way)) for c in range(3) for way in ((1, 0), (0, 1)))
    crease = np.clip((np.sqrt(bend) - 1.0) / 1.2, 0, 1) * solid
    return Guide(
        base=base,
        ids=scene.ids,
        normal=scene.normal,
        solid=solid,
        figure=~scenery & (scene.ids < Region.PROP),
        light=light,
        outline=outline.astype(np.float32),
        border=_different(_GROUP[scene.ids]),
        crease=crease.astype(np.float32),
        pattern=_different(scene.ids),
    )


def render(scene: Scene, palette: Palette) -> Floats:
    """Return the viewport's picture: base colours under the drawn light (H×W×3, 0-1)."""
    base = linear(palette.colours)[scene.ids]
    lit = np.where(np.isin(scene.ids, BACKGROUND)[..., None], base, base * scene.shade)
    return srgb(lit)


def _crop(sheet: Floats, rng: np.random.Generator) -> Floats:
    row, column = rng.integers(0, sheet.shape[0] - SIZE, 2)
    return sheet[row : row + SIZE, column : column + SIZE]


def _between(rng: np.random.Generator, variety: float, low: float, high: float) -> float:
    """Draw from low to high about the middle, narrowed by variety."""
    return (low + high) / 2 + (high - low) * (float(rng.random()) - 0.5) * variety


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


def anime(guide: Guide, rng: np.random.Generator, variety: float) -> Floats:
    """Cel shading: two tones with a hard edge, glossy hair, thin dark lines."""
    colour = _saturated(np.clip(_simple_colours(guide) * 1.03 + 0.01, 0, 1), _between(rng, variety, 1.1, 1.35))
    edge = _between(rng, variety, 0.12, 0.32)
    shaded = 1 - np.clip((guide.light - edge) / 0.05, 0, 1)
    shaded[np.isin(guide.ids, OVERLAY)] = 0
    shade = np.array([0.68, 0.60, 0.82], np.float32)
    colour = colour * (1 - shaded[..., None] * (1 - shade))
    hair = guide.ids == Region.HAIR
    band = np.exp(-(((guide.normal[..., 1] - 0.55) / 0.10) ** 2)) * hair * (guide.light > 0)
    colour = colour + (1 - colour) * (band[..., None] > 0.45) * 0.38
    blush = (guide.ids == Region.SKIN) * np.clip((guide.light - 0.93) / 0.05, 0, 1) * 0.25
    colour = colour + (1 - colour) * blush[..., None]
    return _ink_over(colour, _lines(guide, _between(rng, variety, 1.6, 3.4)), (0.12, 0.07, 0.13))


def ink(guide: Guide, rng: np.random.Generator, variety: float) -> Floats:
    """Black ink on white: lines that swell, hatching in the shade, dark colours filled in."""
    swell = _crop(BROAD, rng)
    width = _between(rng, variety, 1.8, 3.2)
    lines = np.maximum(_lines(guide, width), _thick(guide.outline, width + 2.2) * np.clip(swell * 0.7 + 0.35, 0, 1))
    dark = guide.base @ LUMINANCE
    spot = ((dark < 0.20) & guide.solid & ~np.isin(guide.ids, SCENERY)).astype(np.float32)
    spot *= 1 - np.clip((guide.light - 0.80) / 0.05, 0, 1) * (guide.ids == Region.HAIR)
    phase = (_columns + _rows) * (2 * np.pi / PERIOD) + swell * 0.25
    shade = np.clip((0.22 - guide.light) * 5, 0, 1)
    second = np.isin(guide.ids, (Region.TOP_SECOND, Region.BOTTOM_SECOND)) & (np.abs(dark) < 0.55)
    middle = np.clip((0.5 - dark) * 4, 0, 1) * (guide.light < 0.75) * (guide.ids >= Region.HAIR)
    hatch = np.clip((np.sin(phase) - 0.25) * 3, 0, 1) * np.maximum(shade, 0.8 * middle)
    features = np.isin(guide.ids, (Region.BROW, Region.LASH, Region.PUPIL)).astype(np.float32)
    iris = (guide.ids == Region.IRIS) * np.float32(0.6)
    thin = _thick(guide.pattern, 1.0) * 0.8
    black = np.maximum.reduce([lines, spot, hatch, features, iris, thin, second * 0.85])
    black[guide.ids == Region.EYE_SHINE] = 0
    return np.repeat((1 - 0.95 * np.clip(black, 0, 1))[..., None], 3, 2)


def watercolor(guide: Guide, rng: np.random.Generator, variety: float) -> Floats:
    """Transparent washes on paper: wobbling edges where pigment gathers, granulation."""
    shift_x = _crop(BROAD, rng) * 1.5 + _crop(FINE, rng) * 0.6
    shift_y = _crop(BROAD, rng) * 1.5 + _crop(FINE, rng) * 0.6
    calm = 1 - 0.75 * cv2.GaussianBlur(np.isin(guide.ids, FACE_DETAIL).astype(np.float32), (0, 0), 6).clip(0, 0.4) / 0.4
    where = (_columns + shift_x * calm, _rows + shift_y * calm)

    def wobble(image: Floats) -> Floats:
        moved: Floats = cv2.remap(image, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return moved

    wash = wobble(cv2.GaussianBlur(_simple_colours(guide), (0, 0), 1.0))
    light = wobble(cv2.GaussianBlur(guide.light, (0, 0), 3.0))
    rim = sum(
        np.abs(cv2.Sobel(cv2.GaussianBlur(wash, (0, 0), 1.3)[..., c], cv2.CV_32F, *way))
        for c in range(3)
        for way in ((1, 0), (0, 1))
    )
    density = 0.58 + 0.42 * np.clip(0.75 - light, 0, 1.2) + 0.05 * _crop(WIDE, rng) + 0.04 * _crop(BROAD, rng)
    density += np.clip(rim * 0.16, 0, 0.35) + 0.025 * _crop(GRAIN, rng)
    density = np.where(wobble(guide.solid.astype(np.float32)) > 0.5, density, density * 0.75)
    density[np.isin(guide.ids, (Region.LASH, Region.PUPIL, Region.BROW))] += 0.3
    absorbed = -np.log(np.clip(_saturated(wash, 1.12), 0.03, 1))
    colour = np.exp(-absorbed * np.clip(density, 0.1, 1.4)[..., None] * 1.05)
    pencil = _lines(guide, 1.2) * _between(rng, variety, 0.0, 0.36)
    return colour * (1 - pencil[..., None] * 0.8) * np.array([0.985, 0.972, 0.945], np.float32)


def pencil(guide: Guide, rng: np.random.Generator, variety: float) -> Floats:
    """Graphite on paper: strokes laid over one another for tone, soft repeated outlines, the paper's tooth."""
    grey = guide.base @ LUMINANCE
    tone = 1 - (grey * 0.55 + 0.45 * np.clip(guide.light * 0.65 + 0.35, 0, 1))
    tone = np.where(guide.solid, np.where(np.isin(guide.ids, SCENERY), tone * 0.5, tone), tone * 0.25)
    tone = cv2.GaussianBlur(tone.astype(np.float32), (0, 0), 1.2)
    bent = _crop(BROAD, rng) * 1.3
    strokes = 0.5 + 0.5 * np.sin((_columns + _rows * 0.5 + bent) * (2 * np.pi / PERIOD))
    crossed = 0.5 + 0.5 * np.sin((_columns * 0.5 - _rows + bent) * (2 * np.pi / PERIOD))
    strokes = strokes * 0.6 + 0.4 * (0.5 + 0.5 * np.clip(_crop(FINE, rng) * 0.6, -1, 1))
    laid = np.clip(tone * 1.5 - strokes * 0.62, 0, 1) * 0.75 + np.clip(tone * 1.7 - 0.65 - crossed * 0.45, 0, 1) * 0.55
    sharp = _lines(guide, _between(rng, variety, 1.2, 2.2), 1.0)
    loose = cv2.warpAffine(
        sharp, np.array([[1, 0, rng.normal(0, 1.2)], [0, 1, rng.normal(0, 1.2)]], np.float32), (SIZE, SIZE)
    )
    line = np.maximum(sharp * 0.82, loose * 0.35) * (0.85 + 0.15 * np.clip(_crop(FINE, rng), -1, 1))
    features = np.isin(guide.ids, (Region.LASH, Region.PUPIL, Region.BROW)) * 0.7 + (guide.ids == Region.IRIS) * 0.45
    features = features + (guide.ids == Region.LIPS) * 0.22 + _thick(guide.pattern, 1.0) * 0.2
    graphite = np.clip(np.maximum.reduce([laid, line, features.astype(np.float32)]), 0, 0.88)
    graphite *= 0.93 + 0.10 * np.clip(_crop(GRAIN, rng), -1.5, 1.5)
    paper = np.array([0.972, 0.965, 0.945], np.float32)
    return (1 - np.clip(graphite, 0, 1))[..., None] * paper


def flat(guide: Guide, rng: np.random.Generator, variety: float) -> Floats:
    """Flat vector shapes: no lines, soft tints, one plain shadow."""
    colour = cv2.medianBlur((guide.base * 255).astype(np.uint8), 7).astype(np.float32) / 255
    detail = np.isin(guide.ids, FACE_DETAIL)
    colour = np.where(detail[..., None], guide.base, colour)
    colour = _saturated(colour, _between(rng, variety, 0.85, 1.05)) * 0.84 + 0.13
    wide = cv2.GaussianBlur(guide.light, (0, 0), 4)
    shaded = (1 - np.clip((wide - 0.15) / 0.04, 0, 1)) * guide.solid * ~detail
    return colour * (1 - 0.15 * shaded[..., None] * np.array([1.0, 1.0, 0.75], np.float32))


def comic(guide: Guide, rng: np.random.Generator, variety: float) -> Floats:
    """A printed comic: heavy lines, strong colours, half-tone dots for shade and sky, black in the deepest shade."""
    colour = np.clip(_saturated(_simple_colours(guide), 1.4) * 1.03 + 0.02, 0, 1)
    across, down = (_columns + _rows) / PERIOD, (_columns - _rows) / PERIOD
    cell = np.hypot(across % 1 - 0.5, down % 1 - 0.5)
    depth = np.where(guide.solid, np.clip((0.45 - guide.light) * 1.3, 0, 0.8), 0.3)
    dots = np.clip((np.sqrt(depth / np.pi) - cell) * PERIOD * 0.6364 + 0.5, 0, 1)
    dots = dots * (depth > 0.04) * ~np.isin(guide.ids, OVERLAY)
    ink_of_dots = np.where(guide.solid[..., None], colour * 0.55, colour * 0.80)
    colour = colour * (1 - dots[..., None]) + ink_of_dots * dots[..., None]
    deep = np.clip((-0.5 - guide.light) * 12, 0, 1) * guide.figure
    lines = np.maximum(_lines(guide, _between(rng, variety, 3.0, 4.6)), deep)
    paper = np.array([1.0, 0.985, 0.945], np.float32)
    return _ink_over(colour, lines, (0.05, 0.04, 0.06)) * paper


def oil(guide: Guide, rng: np.random.Generator, variety: float) -> Floats:
    """Thick paint: strokes of three brushes that follow the form, broken colour, warm light and cool shade."""
    tone = np.clip(0.62 + 0.42 * guide.light, 0.25, 1.05)[..., None]
    warm = np.array([1.03, 1.0, 0.93], np.float32) * tone
    cool = np.array([0.86, 0.92, 1.08], np.float32) * tone
    mix = np.clip(guide.light * 0.8 + 0.3, 0, 1)[..., None]
    model = np.clip(_simple_colours(guide) * (warm * mix + cool * (1 - mix)), 0, 1)
    model = np.where(np.isin(guide.ids, OVERLAY)[..., None], guide.base, model)
    canvas = cv2.GaussianBlur(model, (0, 0), 6) * 0.85 + 0.10 * np.array([0.75, 0.6, 0.45], np.float32)
    angle = np.arctan2(guide.normal[..., 0], -guide.normal[..., 1] + 1e-3) + _crop(BROAD, rng) * 0.35
    angle = np.where(
        guide.solid & (np.hypot(guide.normal[..., 0], guide.normal[..., 1]) > 0.25), angle, _crop(WIDE, rng)
    )
    near_edge = cv2.dilate(np.maximum(guide.border, guide.outline), np.ones((9, 9), np.uint8)) > 0.3
    face = cv2.dilate(np.isin(guide.ids, FACE_DETAIL).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    layers = (
        (9.0, 8, 15, np.ones_like(near_edge), 0.010),
        (5.0, 4, 9, guide.solid, 0.010),
        (2.6, 2, 4, near_edge & guide.solid, 0.008),
        (1.5, 1, 1, face, 0.0),
    )
    for spacing, width, length, mask, jitter in layers:
        grid = np.mgrid[0 : SIZE : float(spacing), 0 : SIZE : float(spacing)].reshape(2, -1).T
        points = np.clip(grid + rng.normal(0, spacing * 0.35, grid.shape), 0, SIZE - 1).astype(np.int64)
        points = points[mask[points[:, 0], points[:, 1]]]
        if jitter:
            rng.shuffle(points)
        turns = angle[points[:, 0], points[:, 1]]
        colours = model[points[:, 0], points[:, 1]]
        colours = colours * (1 + rng.normal(0, jitter * 1.5, (len(points), 1))) + rng.normal(0, jitter, colours.shape)
        reach = length * rng.uniform(0.6, 1.2, len(points)) / 2
        ends = np.stack([np.cos(turns) * reach, np.sin(turns) * reach], 1)
        starts = (np.round((points[:, ::-1] - ends) * 8)).astype(int).tolist()
        stops = (np.round((points[:, ::-1] + ends) * 8)).astype(int).tolist()
        for start, stop, paint in zip(starts, stops, colours.tolist(), strict=True):
            cv2.line(canvas, start, stop, paint, width, cv2.LINE_AA if width < 3 else cv2.LINE_8, 3)
    canvas = canvas.astype(np.float32)
    ridge = cv2.Sobel(canvas @ LUMINANCE, cv2.CV_32F, 1, 1) + 0.06 * cv2.Sobel(_crop(FINE, rng), cv2.CV_32F, 1, 1)
    return np.clip(canvas + np.clip(ridge * 0.25, -0.045, 0.045)[..., None], 0, 1)


def pixel(guide: Guide, rng: np.random.Generator, variety: float) -> Floats:
    """Pixel art: square pixels of few colours, dark outlines one pixel wide, dithered shade."""
    side = PICTURE // BLOCK
    lines = np.maximum(guide.outline, guide.border)
    edge = cv2.resize(np.ascontiguousarray(lines), (side, side), interpolation=cv2.INTER_AREA) > 0.2
    at = ((np.arange(side) + 0.5) * SIZE / side).astype(int)
    grid = np.ix_(at, at)
    rounded = _simple_colours(guide)
    colour = cv2.resize(rounded, (side, side), interpolation=cv2.INTER_AREA) * 0.35 + rounded[grid] * 0.65
    light = cv2.resize(guide.light, (side, side), interpolation=cv2.INTER_AREA)
    checker = (np.add.outer(np.arange(side), np.arange(side)) % 2 - 0.5) * 0.22
    features = np.isin(guide.ids[grid], FACE_DETAIL)
    step = 1.0 - 0.22 * (light + checker < 0.35) - 0.20 * (light < -0.15) + 0.10 * (light > 0.88) * guide.solid[grid]
    colour = np.where(features[..., None], guide.base[grid], colour * np.where(features, 1, step)[..., None])
    colour = np.round(np.clip(_saturated(colour, 1.2), 0, 1) * 11) / 11
    dark = (
        edge
        & ~features
        & cv2.resize(guide.solid.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA).astype(bool)
    )
    colour = np.where(dark[..., None], colour * 0.25 + np.array([0.02, 0.01, 0.05]), colour).astype(np.float32)
    return cv2.resize(colour, (PICTURE, PICTURE), interpolation=cv2.INTER_NEAREST)


STYLES: dict[str, Callable[[Guide, np.random.Generator, float], Floats]] = {
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


def stylise(guide: Guide, style: str, rng: np.random.Generator, variety: float = 1.0) -> Bytes:
    """Return one style's picture (256×256×3 bytes, sRGB)."""
    return finish(STYLES[style](guide, rng, variety))


assert PROP_COUNT * 2 + Region.PROP < 256
