"""How visible the borders of tiles are in a picture that was put together from them."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidRequest
from .pictures import Picture, require_picture, size_of
from .tiles import TileGrid

NEAREST = 3
"""Pixels that the lines compared with keep from every border: beyond a seam's own softness."""

FARTHEST = 24
"""Pixels at most from a border to the lines that it is compared with: near enough that a figure that stands at the
border isn't taken for a seam."""

PERIOD = 8
"""Pixels that a latent is wide: only lines whole latents away are compared with, since a decoded picture changes more
from latent to latent than within one. On the embedded model that alone would make an index of 1.05 to 1.15."""


def seam_index(picture: Picture, grid: TileGrid) -> float:
    """Return how much more a uint8 HxWx3 or 4 picture changes across its tiles' borders than beside them; 1 = no seams.

    The mean absolute difference between the pixels on both sides of every border (where a tile begins, and where the
    one before it ends), divided by that across the parallel lines 8, 16 and 24 pixels away. Alpha is left out; without
    any change it is 1. Raises InvalidRequest for a picture that is not of the grid's size, or a single tile.
    """
    require_picture(picture)
    if size_of(picture) != (grid.width, grid.height):
        raise InvalidRequest("The picture is not the size that its tiles were planned for.", "Plan the tiles again.")
    if len(grid.regions) == 1:
        raise InvalidRequest("A single tile has no borders to measure.", "Choose smaller tiles.")
    values = picture[:, :, :3].astype(np.float32)
    across, beside = 0.0, 0.0
    for axis, edges, tile in ((1, grid.columns, grid.tile_width), (0, grid.rows, grid.tile_height)):
        changes = np.abs(np.diff(values, axis=axis)).mean(axis=(1 - axis, 2))  # changes[i]: between i and i + 1
        borders = np.array(sorted({*edges[1:], *(edge + tile for edge in edges[:-1])}), dtype=int)
        if borders.size == 0:
            continue
        distances = np.abs(np.arange(1, changes.size + 1)[:, None] - borders)
        parallel = (distances.min(axis=1) >= NEAREST)[:, None] & (distances <= FARTHEST) & (distances % PERIOD == 0)
        usable = parallel.any(axis=0)
        across += float(changes[borders - 1][usable].sum())
        beside += sum(float(changes[lines].mean()) for lines in parallel.T[usable])
    return 1.0 if across == beside else across / max(beside, float(np.finfo(np.float32).tiny))
