"""A picture enlarged by an upscaler, and its details drawn anew by the model, as much as fits it at a time."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import InvalidRequest
from ..imaging.colour import correct_colours
from ..imaging.framing import Surroundings
from ..imaging.pictures import MAX_SIDE, flatten, size_of
from ..imaging.regions import Region
from ..imaging.tiles import TileGrid, combine, plan_tiles, split
from ..models.families import Shown
from ..models.load import choose_device
from ..models.model import Model
from ..models.upscalers import require_possible, upscale_to
from ..request import Array, Request
from ..settings import SDUpscale
from ..settings.upscale import NO_UPSCALER
from .noise import seed_of, single
from .plan import Size, plan_of, plan_size
from .run import Output, Picture, Run
from .sampling import Start, sample

MOST_PIXELS = 64_000_000  # more takes gigabytes of memory, and hours
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


def sd_upscale(request: Request, run: Run) -> Output:
    """Return the picture enlarged, its details drawn anew; what can't be made is said before anything is computed.

    The result has int(side·scale) pixels a side. A denoising strength of 0 gives what the upscaler makes.
    """
    settings = request.settings
    assert isinstance(settings, SDUpscale)
    source = request.images["init"]
    size = enlarged_size(settings, *size_of(source))
    plan_tiles(*size, settings.width, settings.height, settings.overlap)  # raises what is wrong with them
    device = choose_device(run.models.options.device)
    require_possible(size_of(source), size, settings.upscaler, settings.upscaler_file, device)
    repainted = settings.denoising_strength > 0
    model = run.model(settings.model, settings.vae, settings.refiner) if repainted else None
    with run.part(0, 1 + repainted * settings.batch_count):
        run.say("Enlarging")
        enlarged = upscale_to(
            source,
            size,
            settings.upscaler,
            file=settings.upscaler_file,
            should_stop=run.is_cancelled,
            progress=run.share,
            device=device,
        )
    flat = flatten(enlarged, settings.background_colour)
    if model is None:
        return Output([_finish(flat, enlarged, settings)])
    tiling = plan_tiling(settings, model)
    at_once = settings.batch_size if settings.method == "tiles" else 1
    model.prepare(*size_of(flat), at_once, window=tiling.tile.width * tiling.tile.height)
    pictures = []
    for index in range(settings.batch_count):
        # The batch size stays: the tiles' seeds hang on it.
        alone = dataclasses.replace(settings, **{**single(settings, index), "batch_size": settings.batch_size})
        with run.part(index + 1, settings.batch_count + 1, f"Picture {index + 1} of {settings.batch_count}"):
            pixels = _refine(flat, alone, tiling, model, run)
        if settings.colour_correction:
            pixels = correct_colours(pixels, flat)
        pictures.append(run.keep(_finish(pixels, enlarged, alone)))
    return Output(pictures, notice=_notice(settings, tiling))


def enlarged_size(settings: SDUpscale, width: int, height: int) -> tuple[int, int]:
    """Return the size that a picture of width×height becomes; raises InvalidRequest for one that is too large."""
    if settings.upscaler != NO_UPSCALER:
        width, height = (max(1, int(side * settings.scale)) for side in (width, height))
    if max(width, height) > MAX_SIDE or width * height > MOST_PIXELS:
        raise InvalidRequest(
            f"SD Upscale would make {width}×{height} pixels; it makes at most {MAX_SIDE} a side and "
            f"{MOST_PIXELS // 1_000_000} million in all.",
            "Choose a smaller scale factor, or a smaller picture.",
        )
    return width, height


def plan_tiling(settings: SDUpscale, model: Model) -> Tiling:
    """Return the tiles set, or smaller ones where those are too large for the model to be at its best."""
    best = plan_size(settings.width, settings.height, model.native, model.family.side_step)
    if best.width * best.height < settings.width * settings.height:
        tile = best
    else:
        step = model.scale_factor
        tile = Size(settings.width // step * step, settings.height // step * step)
    return Tiling(tile, min(settings.overlap, tile.width // 2, tile.height // 2))


def _notice(settings: SDUpscale, tiling: Tiling) -> str:
    """Return the sentence that says that other tiles were used than those set, "" where they weren't."""
    width, height = tiling.tile
    if (width, height) == (settings.width, settings.height):
        return ""
    return f"Tiles of {width}×{height} pixels were used: the model is at its best there."


def _finish(pixels: Array, enlarged: Array, settings: SDUpscale) -> Picture:
    """Return a finished picture, with the transparency of the enlarged one where that is kept."""
    if settings.keep_alpha and enlarged.shape[2] == 4:
        pixels = np.dstack([pixels, enlarged[..., 3]])
    return Picture(pixels, settings)


def _refine(picture: Array, settings: SDUpscale, tiling: Tiling, model: Model, run: Run) -> Array:
    """Return an enlarged picture (uint8 H×W×3) with its details drawn anew, in the same size."""
    width, height = size_of(picture)
    wrap = max(tiling.overlap, LEAST_WRAP)
    beyond_x = min(wrap, width) if settings.seamless_x else 0
    beyond_y = min(wrap, height) if settings.seamless_y else 0
    wrapped = np.pad(picture, ((0, beyond_y), (0, beyond_x), (0, 0)), mode="wrap")
    whole_width, whole_height = (
        max(LEAST_SIDE, -(-side // model.scale_factor) * model.scale_factor) for side in size_of(wrapped)
    )
    margins = (0, whole_height - wrapped.shape[0]), (0, whole_width - wrapped.shape[1]), (0, 0)
    pixels = _METHODS[settings.method](np.pad(wrapped, margins, mode="symmetric"), settings, tiling, model, run)
    pixels = close(pixels, width, beyond_x, axis=1)[:, :width]
    return close(pixels, height, beyond_y, axis=0)[:height]


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


def _tile_by_tile(picture: Array, settings: SDUpscale, tiling: Tiling, model: Model, run: Run) -> Array:
    """Return the picture from tiles of it repainted in batches, the seed counting on from one batch to the next."""
    grid = tiling.grid(*size_of(picture))
    tiles = split(picture, grid)
    made: list[Array] = []
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
            with _hiding(model, some[0]):
                start = Start(latents, [seed_of(chosen, model.scale_factor) for chosen in alone])
                found = sample(model, settings, plan_of(settings), start, run.count, run.previewer(model))
            run.say("Painting the picture")
            made += [model.decode(latent[None])[0] for latent in found]
            whole.keep_parts(made[first:], regions)
    return combine(made, grid)


def _all_at_once(picture: Array, settings: SDUpscale, tiling: Tiling, model: Model, run: Run) -> Array:
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

    with _hiding(model, picture):
        start = Start(latents, [seed_of(settings, model.scale_factor)], windows=_Watched(windows, looking))
        tell, previewer = (lambda done, total: run.check()), run.previewer(model)
        found = sample(model, settings, plan_of(settings), start, tell, previewer)
    drawn: Array = model.decode(found, lambda share: run.share(PAINT + (1 - PAINT) * share, "Painting the picture"))[0]
    return drawn


_METHODS: dict[str, Callable[[Array, SDUpscale, Tiling, Model, Run], Array]] = {
    "seamless": _all_at_once,
    "tiles": _tile_by_tile,
}


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
def _hiding(model: Model, picture: Array) -> Iterator[None]:
    """Give an inpainting UNet its extra channels for a picture of this size that is repainted everywhere."""
    if not model.family.is_editing:  # which would be shown one tile for all; without any it draws by the prompt
        everything = np.ones(picture.shape[:2], np.float32)
        height, width = (side // model.scale_factor for side in picture.shape[:2])
        model.extra_channels = model.family.shown(
            Shown(picture, everything, torch.ones(1, 1, height, width), 1.0, model.encode_anew)
        )
    try:
        yield
    finally:
        model.extra_channels = None
