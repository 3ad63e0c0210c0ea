"""Colour correction: a generated picture takes the colours of a target and keeps its own light."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .pictures import Picture, require_picture

Levels: TypeAlias = NDArray[np.float64]

WHITE_D65 = np.array([0.95047, 1.0, 1.08883])
"""The white of sRGB in XYZ (CIE 1931, 2 degrees)."""

RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
"""Linear sRGB to XYZ (ITU-R BT.709 primaries, D65)."""

LUMINOSITY = np.array([0.3, 0.59, 0.11])
"""Weights of the blend mode "luminosity" (W3C Compositing and Blending, section 10)."""


def rgb_to_lab(picture: Picture) -> NDArray[np.uint8]:
    """sRGB bytes H x W x 3 to CIE L*a*b* in bytes: L * 255/100, a + 128, b + 128, rounded."""
    encoded = np.arange(256) / 255
    decode = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    xyz = decode[picture] @ RGB_TO_XYZ.T / WHITE_D65
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack(
        [
            (116 * f[..., 1] - 16) * 2.55,
            500 * (f[..., 0] - f[..., 1]) + 128,
            200 * (f[..., 1] - f[..., 2]) + 128,
        ],
        axis=-1,
    )
    rounded: NDArray[np.uint8] = np.clip(np.rint(lab), 0, 255).astype(np.uint8)
    return rounded


def lab_to_rgb(lab: Levels) -> Picture:
    """L*a*b* in the scale of `rgb_to_lab` (fractions allowed) to sRGB bytes H x W x 3, cut to the gamut."""
    fy = (lab[..., 0] / 2.55 + 16) / 116
    f = np.stack([fy + (lab[..., 1] - 128) / 500, fy, fy - (lab[..., 2] - 128) / 200], axis=-1)
    xyz = np.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787) * WHITE_D65
    linear = np.clip(xyz @ np.linalg.inv(RGB_TO_XYZ).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    picture: Picture = np.clip(np.rint(encoded * 255), 0, 255).astype(np.uint8)
    return picture


Values: TypeAlias = NDArray[np.uint8] | NDArray[np.float64]


def match_histogram(values: Values, reference: Values) -> Levels:
    """The values (any shape) moved to the reference's distribution: each to the same quantile of it, interpolated."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    levels, reference_counts = np.unique(reference, return_counts=True)
    quantiles = np.cumsum(counts) / values.size
    reference_quantiles = np.cumsum(reference_counts) / reference.size
    matched: Levels = np.interp(quantiles, reference_quantiles, levels.astype(np.float64))[places].reshape(values.shape)
    return matched


def with_luminosity(colours: Picture, light: Picture) -> Picture:
    """Hue and saturation of one uint8 H x W x 3 picture, luminosity of another (the blend mode "luminosity")."""
    backdrop, source = colours / 255.0, light / 255.0
    moved = backdrop + ((source - backdrop) @ LUMINOSITY)[:, :, None]
    middle = (moved @ LUMINOSITY)[:, :, None]
    low, high = moved.min(axis=2, keepdims=True), moved.max(axis=2, keepdims=True)
    # Colours that leave the gamut are drawn towards their own grey until they fit.
    below = np.divide(middle, middle - low, out=np.ones_like(low), where=low < 0)
    moved = middle + (moved - middle) * np.clip(below, 0, 1)
    high = moved.max(axis=2, keepdims=True)
    above = np.divide(1 - middle, high - middle, out=np.ones_like(high), where=high > 1)
    moved = middle + (moved - middle) * np.clip(above, 0, 1)
    blended: Picture = np.clip(np.rint(moved * 255), 0, 255).astype(np.uint8)
    return blended


def correct_colours(picture: Picture, target: Picture) -> Picture:
    """The generated picture in the colours of the target (both uint8 H x W x 3, of any sizes), keeping its luminosity.

    The web UI's rule: histograms are matched channel by channel in 8-bit L*a*b*, then hue and saturation come from the
    matched picture, luminosity from the generated one. Applied before the inpaint overlay.
    """
    require_picture(picture, channels=(3,))
    require_picture(target, "target", (3,))
    generated, wanted = rgb_to_lab(picture), rgb_to_lab(target)
    matched = np.stack([match_histogram(generated[..., c], wanted[..., c]) for c in range(3)], axis=-1)
    return with_luminosity(lab_to_rgb(matched), picture)
