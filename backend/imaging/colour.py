"""A picture takes another's colours: by colour correction, which keeps its own light, or as two others show it."""

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


LUT_SIDE = 17
"""Cells along each side of the table from colours to colours."""
LUT_REACH, LUT_FALL = (1, 3, 11, 43), 1e-3
"""How far, in blurs by a cell, a colour looks for others like it, and what each reach counts beside the one before."""


def adopt_colours(picture: Picture, before: Picture, after: Picture) -> Picture:
    """The picture with its colours changed as they are, on average, between two others (all uint8 H x W x 3).

    Before and after show the same, pixel for pixel. A colour that isn't seen there follows those that are like it. All
    channels are taken together, unlike curves of each, which mix up a floor and a sky whose reds are the same.
    """
    from PIL import Image, ImageFilter

    seen = before.reshape(-1, 3)
    cells = np.rint(seen / 255 * (LUT_SIDE - 1)).astype(np.int64) @ (LUT_SIDE**2, LUT_SIDE, 1)
    moved = after.reshape(-1, 3) / 255 - seen / 255
    sums = [np.bincount(cells, weights, LUT_SIDE**3) for weights in (np.ones(len(seen)), *moved.T)]
    grid = np.stack(sums).astype(np.float64).reshape(4, LUT_SIDE, LUT_SIDE, LUT_SIDE)
    count, *changes = np.sum([LUT_FALL**i * _spread(grid, blurs) for i, blurs in enumerate(LUT_REACH)], axis=0)
    axis = np.linspace(0, 1, LUT_SIDE)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")  # Pillow's order: red changes fastest
    table = [here + (change / count).T for here, change in zip((red, green, blue), changes, strict=True)]
    lut = ImageFilter.Color3DLUT(LUT_SIDE, np.clip(np.stack(table, axis=-1), 0, 1).reshape(-1, 3).tolist())
    adopted: Picture = np.array(Image.fromarray(picture).filter(lut))
    return adopted


def _spread(grid: Levels, blurs: int) -> Levels:
    """N grids (N x L x L x L) blurred that many times, a cell by a half of itself and a quarter of each neighbour."""
    side = grid.shape[-1]
    once = (np.eye(side, k=-1) + 2 * np.eye(side) + np.eye(side, k=1)) / 4
    kernel = np.linalg.matrix_power(once, blurs)
    spread: Levels = np.einsum("ai,bj,ck,nijk->nabc", kernel, kernel, kernel, grid, optimize=True)
    return spread
