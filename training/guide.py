"""What every style draws from: a scene's colours, light and lines, derived from its G-buffers; and its shaded render.

Light and colours are those that the render shows, so that a model can learn to keep them: while targets were drawn in
the colours beneath the light, brightness and hue of a broad area had to be guessed, and the guesses were blots.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.buffers import Scene
from training.regions import BACKGROUND, PROP_COUNT, SCENERY, Palette, Region

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

DARKEST, LIT = -0.31, 1.13  # the cosine that stands for no light, and what a region's usual light adds to it
LIFT = 0.8  # exponent that brightens the render's colours to a drawing's
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
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
    light: Floats  # `shown_light`
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


def _different(values: Bytes) -> Floats:
    edge = np.zeros(values.shape, np.float32)
    across, down = values[:, 1:] != values[:, :-1], values[1:] != values[:-1]
    edge[:, 1:] = across
    edge[1:] = np.maximum(edge[1:], down)
    return edge


def usual_light(scene: Scene) -> Floats:
    """Return the mean light (256×3, linear) on the lighter half of each group of regions; 1 where none is shown."""
    groups, light = _LIT_AS[scene.ids], np.ones((256, 3), np.float32)
    for group in np.unique(groups[~np.isin(scene.ids, BACKGROUND)]):
        falling = scene.shade[groups == group]
        bright = falling @ LUMINANCE
        light[group] = falling[bright >= np.median(bright)].mean(0)
    return light


def shown_colours(scene: Scene, palette: Palette, usual: Floats) -> Floats:
    """Return each region in one colour: as the render shows its lighter half, lifted (H×W×3, sRGB in 0-1).

    usual: `usual_light` of the scene.
    """
    colours: Floats = srgb(linear(palette.colours)[scene.ids] * usual[_LIT_AS[scene.ids]]) ** LIFT
    return colours


def shown_light(scene: Scene, usual: Floats) -> Floats:
    """Return how lit the render shows each pixel beside the lighter half of its region, in the measure of a cosine.

    H×W in -0.31 to 1; 1 on scenery, which styles don't shade. usual: `usual_light` of the scene. While it was the
    cosine of normals to one light that explained the render best, a quarter of scenes showed another light
    (correlations below 0.85), and where a shade ended could not be seen.
    """
    share = scene.shade @ LUMINANCE / np.maximum((usual @ LUMINANCE)[_LIT_AS[scene.ids]], 1e-3)
    shaded = (~np.isin(scene.ids, SCENERY)).astype(np.float32)
    spread, weight = (cv2.GaussianBlur(x.astype(np.float32), (0, 0), 1.5) for x in (share * shaded, shaded))
    light = np.clip(DARKEST + LIT * spread / np.maximum(weight, 1e-3), DARKEST, 1)
    return np.where(shaded > 0, light, 1).astype(np.float32)


def make_guide(scene: Scene, palette: Palette) -> Guide:
    """Derive colours, light and lines from one scene."""
    usual = usual_light(scene)
    solid, scenery = ~np.isin(scene.ids, BACKGROUND), np.isin(scene.ids, SCENERY)
    nearness = 1 / np.maximum(scene.depth, 0.05)
    step = np.abs(cv2.Laplacian(nearness, cv2.CV_32F, ksize=1)) / np.maximum(nearness, 1e-3)
    outline = np.clip((step - 0.012) / 0.03, 0, 1)
    smooth = cv2.GaussianBlur(scene.normal, (0, 0), 1.2)
    bend = sum(np.square(cv2.Sobel(smooth[..., c], cv2.CV_32F, *way)) for c in range(3) for way in ((1, 0), (0, 1)))
    crease = np.clip((np.sqrt(bend) - 1.0) / 1.2, 0, 1) * solid
    return Guide(
        base=shown_colours(scene, palette, usual),
        ids=scene.ids,
        normal=scene.normal,
        solid=solid,
        figure=~scenery & (scene.ids < Region.PROP),
        light=shown_light(scene, usual),
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


assert PROP_COUNT * 2 + Region.PROP < 256
