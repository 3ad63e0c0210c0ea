"""Details of a large picture drawn anew by the model, as much as fits it at a time."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ..imaging import masks
from ..imaging.framing import Surroundings
from ..imaging.pictures import Mask, size_of
from ..imaging.regions import Region
from ..imaging.tiles import TileGrid, combine, plan_tiles, split
from ..models.families import Shown
from ..models.model import Model
from ..request import Array
from ..settings import Denoising
from .noise import seed_of, single
from .plan import Size, plan_of
from .run import Run
from .sampling import Blend, Start, sample

LEAST_SIDE = 64  # pixels; a smaller picture is continued to it, since a model can make nothing of a few latents
LEAST_WRAP = 64  # pixels over which opposite edges are faded into each other where the picture is to be seamless
READ, PAINT = 0.05, 0.9  # of a picture's progress: where reading it ends, and where painting it begins


@dataclass(frozen=True)
class Tiling:
    """What the model sees at a time: a size in pixels, and by how much neighbours overlap."""

    tile: Size
    overlap: int

    def grid(self, width: int, height: int, step: int = 1) -> TileGrid:
        """Return the tiles of a picture of that many pixels, each side in units of `step` of them."""
        tile_width, tile_height = self.tile.width // step, self.tile.height // step
        return plan_tiles(width // step, height // step, tile_width, tile_height, -(-self.overlap // step))


def redraw(
    picture: Array,
    settings: Denoising,
    tiling: Tiling,
    method: str,
    model: Model,
    run: Run,
    mask: Mask | None = None,
    keep: Callable[[Array], object] | None = None,
) -> Array:
    """Return an enlarged picture (uint8 H×W×3) with its details drawn anew, in the same size.

    method: one of SDUpscale's. mask: float32 H×W, 1 redrawn, of which the method "seamless" alone takes notice.
    keep: takes the picture so far where the method "tiles" is stopped: not yet drawn tiles are what they were.
    """
    width, height = size_of(picture)
    wrap = max(tiling.overlap, LEAST_WRAP)
    beyond_x = min(wrap, width) if settings.seamless_x else 0
    beyond_y = min(wrap, height) if settings.seamless_y else 0
    wrapped = np.pad(picture, ((0, beyond_y), (0, beyond_x), (0, 0)), mode="wrap")
    whole_width, whole_height = (
        max(LEAST_SIDE, -(-side // model.scale_factor) * model.scale_factor) for side in size_of(wrapped)
    )
    margins = (0, whole_height - wrapped.shape[0]), (0, whole_width - wrapped.shape[1]), (0, 0)
    whole = np.pad(wrapped, margins, mode="symmetric")

    def cut(pixels: Array) -> Array:
        pixels = close(pixels, width, beyond_x, axis=1)[:, :width]
        return close(pixels, height, beyond_y, axis=0)[:height]

    if method == "tiles":
        pixels = _tile_by_tile(whole, settings, tiling, model, run, lambda pixels: keep and keep(cut(pixels)))
    else:
        if mask is not None:
            mask = np.pad(np.pad(mask, ((0, beyond_y), (0, beyond_x)), mode="wrap"), margins[:2], mode="symmetric")
        pixels = _all_at_once(whole, mask, settings, tiling, model, run)
    return cut(pixels)


def close(picture: Array, length: int, beyond: int, axis: int) -> Array:
    """Return a picture (uint8 H×W×3) that goes on for `beyond` pixels after `length`, faded from there into its start.

    The end then runs on into the start without a border. axis: 0 for rows, 1 for columns.
    """
    if beyond == 0:
        return picture
    lines = np.swapaxes(picture, 0, axis).astype(np.float32)
    share = ((np.arange(beyond, dtype=np.float32) + 0.5) / beyond)[:, None, None]
    start = lines[:beyond] * share + lines[length : length + beyond] * (1 - share)
    closed = picture.copy()
    np.swapaxes(closed, 0, axis)[:beyond] = np.rint(start)
    return closed


def _tile_by_tile(
    picture: Array, settings: Denoising, tiling: Tiling, model: Model, run: Run, keep: Callable[[Array], object]
) -> Array:
    """Return the picture from tiles of it repainted in batches, the seed counting on from one batch to the next.

    keep: takes the picture so far where it is stopped after a tile.
    """
    made: list[Array] = []
    with ExitStack() as stopped:
        stopped.callback(lambda: made and keep(_so_far(picture, made, tiling)))
        pixels = _all_tiles(picture, made, settings, tiling, model, run)
        stopped.pop_all()
    return pixels


def _so_far(picture: Array, made: list[Array], tiling: Tiling) -> Array:
    grid = tiling.grid(*size_of(picture))
    return combine([*made, *[None] * (len(grid.regions) - len(made))], grid, picture)


def _all_tiles(picture: Array, made: list[Array], settings: Denoising, tiling: Tiling, model: Model, run: Run) -> Array:
    """Return the picture of all its tiles repainted, which are appended to those made."""
    grid = tiling.grid(*size_of(picture))
    tiles = split(picture, grid)
    whole = Surroundings(picture)
    size = settings.batch_size
    for batch, first in enumerate(range(0, len(tiles), size)):
        some = tiles[first : first + size]
        alone = [dataclasses.replace(settings, **single(settings, batch + place)) for place in range(len(some))]
        regions = grid.regions[first : first + size]
        title = f"Tile {first + len(some)} of {len(tiles)}"
        frame = functools.partial(whole.with_parts, regions=regions)
        with run.part(batch, -(-len(tiles) // size), title), run.framed(frame):
            latents = torch.cat([model.encode(tile) for tile in some])
            with _hiding(model, some[0], picture):
                start = Start(latents, [seed_of(chosen, model.scale_factor) for chosen in alone])
                found = sample(model, settings, plan_of(settings), start, run.count, run.previewer(model))
            run.say("Painting the picture")
            made += [model.decode(latent[None])[0] for latent in found]
            whole.keep_parts(made[first:], regions)
    return combine(made, grid)


def _all_at_once(
    picture: Array, mask: Mask | None, settings: Denoising, tiling: Tiling, model: Model, run: Run
) -> Array:
    """Return the picture denoised as one, from one noise, its tiles' predictions blended at every step."""
    latents = model.encode_anew(picture, lambda share: run.share(share * READ, "Reading the picture"))
    windows = tiling.grid(*size_of(picture), model.scale_factor).regions
    calls = 0

    def looking() -> None:
        nonlocal calls
        steps = model.pipe.num_timesteps
        step, tile = divmod(calls, len(windows))
        message = f"Step {step + 1} of {steps}, tile {tile + 1} of {len(windows)}"
        run.share(READ + (PAINT - READ) * calls / (steps * len(windows)), message)
        calls += 1

    with _hiding(model, picture, picture):
        seeds = [seed_of(settings, model.scale_factor)]
        blend = None if mask is None else keep_outside(latents, latent_weights(mask, latents, rounded=True))
        start = Start(latents, seeds, blend=blend, windows=_Watched(windows, looking))
        tell, previewer = (lambda done, total: run.check()), run.previewer(model)
        found = sample(model, settings, plan_of(settings), start, tell, previewer)
    drawn: Array = model.decode(found, lambda share: run.share(PAINT + (1 - PAINT) * share, "Painting the picture"))[0]
    return drawn


class _Watched(Sequence[Region]):  # type: ignore[misc]
    """Regions that tell whenever one of them is about to be looked at."""

    def __init__(self, regions: Sequence[Region], tell: Callable[[], None]) -> None:
        self._regions = regions
        self._tell = tell

    def __len__(self) -> int:
        return len(self._regions)

    def __getitem__(self, index: int) -> Region:  # type: ignore[override]
        return self._regions[index]

    def __iter__(self) -> Iterator[Region]:
        for region in self._regions:
            self._tell()
            yield region


@contextmanager
def _hiding(model: Model, picture: Array, whole: Array) -> Iterator[None]:
    """Give an inpainting UNet its extra channels for a picture of this size that is repainted everywhere.

    An editing model would be shown one tile for all: its denoiser sees none, and its prompt is read beside the whole.
    """
    before = model.extra_channels, model.picture
    model.extra_channels, model.picture = None, whole
    if not model.family.is_editing:
        everything = np.ones(picture.shape[:2], np.float32)
        height, width = (side // model.scale_factor for side in picture.shape[:2])
        model.extra_channels = model.family.shown(
            Shown(picture, everything, torch.ones(1, 1, height, width), 1.0, model.encode_anew)
        )
    try:
        yield
    finally:
        model.extra_channels, model.picture = before


def latent_weights(mask: Mask | None, latents: torch.Tensor, rounded: bool) -> torch.Tensor:
    """Return 1×1×h×w of 0 and 1, or between them too unless rounded: how much latents are repainted."""
    if mask is None:
        return torch.ones_like(latents[:, :1])
    small = masks.latent_mask(mask, latents.shape[3], latents.shape[2], mask_round=rounded)
    return torch.from_numpy(small)[None, None].to(latents)


def keep_outside(latents: torch.Tensor, mask: torch.Tensor) -> Blend:
    """Return the blend that holds every prediction to the source's latents outside the mask: x0·m + init·(1 − m)."""
    return lambda x0, noise: x0 * mask + latents * (1 - mask)
