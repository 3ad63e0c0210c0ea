"""A large picture cut into overlapping tiles, and put together again through linear ramps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest
from .pictures import Picture, require_picture, require_size, size_of
from .regions import Region


@dataclass(frozen=True)
class TileGrid:
    """Where the tiles of a picture lie: left edges of the columns, top edges of the rows, and the asked overlap."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    overlap: int
    columns: tuple[int, ...]
    rows: tuple[int, ...]

    @property
    def regions(self) -> tuple[Region, ...]:
        """Every tile's region, row by row."""
        return tuple(Region(x, y, x + self.tile_width, y + self.tile_height) for y in self.rows for x in self.columns)


def _edges(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    """Near edges of the tiles along one axis: evenly spread, the first at 0 and the last at the far end."""
    count = -(-(length - overlap) // (tile - overlap)) if length > tile else 1
    if count == 1:
        return (0,)
    # Whole-number form of int(i * (length - tile) / (count - 1)).
    return tuple(i * (length - tile) // (count - 1) for i in range(count))


def plan_tiles(width: int, height: int, tile_width: int, tile_height: int, overlap: int) -> TileGrid:
    """The grid of tiles that covers width x height pixels, neighbours sharing at least `overlap` pixels.

    The web UI's rule, measured; but a tile larger than the picture is cut to it. Raises InvalidRequest for an overlap
    below 0 or not below the tile.
    """
    require_size(width, height)
    require_size(tile_width, tile_height, "tile")
    if overlap < 0:
        raise InvalidRequest(f"A tile overlap of {overlap} pixels is below zero.", "Choose an overlap from 0 to 256.")
    if overlap >= min(tile_width, tile_height):
        raise InvalidRequest(
            f"A tile overlap of {overlap} pixels leaves nothing of a tile of {tile_width}x{tile_height}.",
            "Choose a smaller overlap or larger tiles.",
        )
    tile_width, tile_height = min(tile_width, width), min(tile_height, height)
    return TileGrid(
        width,
        height,
        tile_width,
        tile_height,
        overlap,
        _edges(width, tile_width, overlap),
        _edges(height, tile_height, overlap),
    )


def split(picture: Picture, grid: TileGrid) -> list[Picture]:
    """Copies of the grid's tiles of a uint8 picture, row by row."""
    require_picture(picture)
    if size_of(picture) != (grid.width, grid.height):
        raise InvalidRequest("The picture is not the size that its tiles were planned for.", "Plan the tiles again.")
    return [picture[region.slices].copy() for region in grid.regions]


def _paste(below: NDArray[np.uint8], tile: NDArray[np.uint8], start: int, overlap: int) -> None:
    """Lay a tile into rows of `below` from `start` on (first axis), its first `overlap` rows through a ramp."""
    length = tile.shape[0]
    ramp = min(overlap, length) if start > 0 else 0
    if ramp:
        weight = (np.arange(ramp, dtype=np.uint32) * 255 // overlap)[:, None, None]
        old = below[start : start + ramp].astype(np.uint32)
        below[start : start + ramp] = (tile[:ramp] * weight + old * (255 - weight) + 127) // 255
    below[start + ramp : start + length] = tile[ramp:]


def combine(tiles: Sequence[Picture | None], grid: TileGrid, fallback: Picture | None = None) -> Picture:
    """The picture from its tiles (uint8, row by row), each row and then the rows joined through linear ramps.

    The ramp is int(k * 255 / overlap) of 255 over the first `overlap` pixels of a tile, the web UI's. A missing tile
    (None, after a stop) is taken from `fallback`, a picture of the grid's size, where the web UI leaves black; without
    one it raises InvalidRequest, as does a tile of another size. Identical tiles come back exactly.
    """
    regions = grid.regions
    if len(tiles) != len(regions):
        raise InvalidRequest(f"There are {len(tiles)} tiles where {len(regions)} belong.", "Make every tile.")
    whole: list[Picture] = []
    for tile, region in zip(tiles, regions, strict=True):
        if tile is None:
            if fallback is None or size_of(fallback) != (grid.width, grid.height):
                raise InvalidRequest("A tile of the picture is missing.", "Make every tile, or give a fallback.")
            tile = fallback[region.slices]
        require_picture(tile, "tile")
        if size_of(tile) != (grid.tile_width, grid.tile_height) or tile.shape[2] != (whole or [tile])[0].shape[2]:
            raise InvalidRequest("A tile is not the size that was planned.", "Make every tile at its planned size.")
        whole.append(tile)
    channels = whole[0].shape[2]
    picture = np.zeros((grid.height, grid.width, channels), dtype=np.uint8)
    for row, y in enumerate(grid.rows):
        band = np.zeros((grid.width, grid.tile_height, channels), dtype=np.uint8)
        for column, x in enumerate(grid.columns):
            _paste(band, whole[row * len(grid.columns) + column].swapaxes(0, 1), x, grid.overlap)
        _paste(picture, band.swapaxes(0, 1), y, grid.overlap)
    return picture
