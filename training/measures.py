"""How near two pictures are, and whose colours they wear; pictures are H×W×3 bytes, sRGB."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

SCALES = 3  # of the structural similarity, each half as large as the one before
STABLE = (0.01**2, 0.03**2)
ENOUGH = 60  # pixels a region must have to be measured


def distance(first: Bytes, second: Bytes) -> float:
    """Return the mean absolute difference, 0-1."""
    return float(cv2.absdiff(first, second).mean() / 255)


def _similarity(first: Floats, second: Floats) -> float:
    def blurred(values: Floats) -> Floats:
        smooth: Floats = cv2.GaussianBlur(values, (11, 11), 1.5)
        return smooth

    mean_a, mean_b = blurred(first), blurred(second)
    variance_a = blurred(first * first) - mean_a**2
    variance_b = blurred(second * second) - mean_b**2
    shared = blurred(first * second) - mean_a * mean_b
    near = (2 * mean_a * mean_b + STABLE[0]) / (mean_a**2 + mean_b**2 + STABLE[0])
    alike = (2 * shared + STABLE[1]) / (variance_a + variance_b + STABLE[1])
    return float((near * alike).mean())


def similarity(first: Bytes, second: Bytes) -> float:
    """Return structural similarity (at most 1), the mean over scales (Wang and others 2003, equal weights)."""
    a, b = first.astype(np.float32) / 255, second.astype(np.float32) / 255
    values = []
    for _ in range(SCALES):
        values.append(_similarity(a, b))
        a, b = (cv2.resize(x, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for x in (a, b))
    return float(np.mean(values))


def edges(picture: Bytes) -> NDArray[np.bool_]:
    """Return a mask of edges (H×W), three pixels wide."""
    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), 1.2)
    found: NDArray[np.bool_] = cv2.dilate(cv2.Canny(grey, 40, 100), np.ones((3, 3), np.uint8)) > 0
    return found


def edge_overlap(first: Bytes, second: Bytes) -> float:
    """Return the intersection of both pictures' edges over their union."""
    a, b = edges(first), edges(second)
    return float((a & b).sum() / max(1, (a | b).sum()))


def region_mask(ids: Bytes, regions: Sequence[int], size: int) -> NDArray[np.bool_]:
    """Return where a picture of `size` pixels shows the regions, two pixels inside their borders."""
    mask = np.isin(ids, regions).astype(np.uint8)
    mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST)
    inner: NDArray[np.bool_] = cv2.erode(mask, np.ones((5, 5), np.uint8)) > 0
    return inner


def mean_colour(picture: Bytes, mask: NDArray[np.bool_]) -> Floats | None:
    """Return the mean colour (3, 0-255) under a mask, or None where it is too small."""
    return picture[mask].mean(0).astype(np.float32) if mask.sum() >= ENOUGH else None


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation."""
    a, b = (np.argsort(np.argsort(values)) for values in (first, second))
    return float(np.corrcoef(a, b)[0, 1])
