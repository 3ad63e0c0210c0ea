"""A picture continued beyond its borders: by matched noise (mk2), in the poor man's way, or from the scene itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..errors import InvalidRequest
from ..imaging import masks
from ..imaging.composite import composite_whole_picture
from ..imaging.outpaint import OutpaintCanvas, outpaint_geometry, poor_mans_canvas, scene_canvas
from ..imaging.outpaint_mk2 import directions, expand, require_strips
from ..imaging.pictures import flatten, size_of
from ..imaging.tiles import combine, plan_tiles, split
from ..request import Array, Request
from ..settings import Outpaint
from .noise import SEEDS, single
from .painting import Canvas, paint
from .run import Output, Picture, Run

NO_SURROUNDINGS = (
    "Outpainting from the scene needs the picture of the scene's surroundings.",
    "Use it in Blender, or give --surroundings: the wider view at the size of the result.",
)


def outpaint(request: Request, run: Run) -> Output:
    """Return the picture grown by the pixels asked for; its old part stays byte-equal but for the seam."""
    settings = request.settings
    assert isinstance(settings, Outpaint)
    source = flatten(request.images["init"])
    pictures = []
    count = settings.batch_count * settings.batch_size
    for index in range(count):
        alone = dataclasses.replace(settings, **single(settings, index))
        with run.part(index, count, f"Picture {index + 1} of {count}"):
            pixels = _METHODS[settings.method](source, request.images.get("surroundings"), alone, run)
        pictures.append(run.keep(Picture(pixels, alone)))
    return Output(pictures)


def _mk2(picture: Array, _surroundings: Array | None, settings: Outpaint, run: Run) -> Array:
    """Return the picture grown in each direction after the other, each starting from noise like what is known."""
    wanted = directions(
        left=settings.pixels_left, right=settings.pixels_right, up=settings.pixels_up, down=settings.pixels_down
    )
    require_strips(size_of(picture), wanted, settings.width, settings.height, settings.mask_blur)
    for index, (direction, pixels) in enumerate(wanted):
        expansion = expand(
            picture,
            direction,
            pixels,
            settings.width,
            settings.height,
            mask_blur=settings.mask_blur,
            falloff=settings.fall_off,
            colour_variation=settings.colour_variation,
        )
        mask = masks.blur(expansion.strip_mask, expansion.blur_x, expansion.blur_y)
        with run.part(index, len(wanted), direction.title()):
            canvas = Canvas(expansion.strip, mask, latent_mask=expansion.strip_latent_mask)
            painted = paint(canvas, settings, run, lambda one: one.pixels)[0]
        picture = expansion.finish(composite_whole_picture(painted, expansion.strip, masks.overlay_mask(mask)))
    return picture


def _poor_mans(picture: Array, _surroundings: Array | None, settings: Outpaint, run: Run) -> Array:
    """Return the picture grown in all directions at once, the border filled as the masked content says."""
    geometry = outpaint_geometry(*size_of(picture), **_pixels(settings))
    return _in_tiles(poor_mans_canvas(picture, geometry, settings.mask_blur), settings.masked_content, settings, run)


def _scene(picture: Array, surroundings: Array | None, settings: Outpaint, run: Run) -> Array:
    """Return the picture grown over what a wider camera sees of the scene, in the picture's own colours."""
    if surroundings is None:
        raise InvalidRequest(*NO_SURROUNDINGS)
    canvas = scene_canvas(picture, flatten(surroundings), settings.mask_blur, **_pixels(settings))
    return _in_tiles(canvas, "original", settings, run)


_METHODS: dict[str, Callable[[Array, Array | None, Outpaint, Run], Array]] = {
    "mk2": _mk2,
    "poor_mans": _poor_mans,
    "scene": _scene,
}


def _pixels(settings: Outpaint) -> dict[str, int]:
    return {name: getattr(settings, f"pixels_{name}") for name in ("left", "right", "up", "down")}


def _in_tiles(canvas: OutpaintCanvas, content: str, settings: Outpaint, run: Run) -> Array:
    """Return the finished canvas, painted in overlapping tiles of width×height; those without border are left alone."""
    mask = masks.blur(canvas.mask, canvas.mask_blur)
    width, height = min(settings.width, canvas.geometry.width), min(settings.height, canvas.geometry.height)
    overlap = min(max(_pixels(settings).values()), width // 2, height // 2)
    grid = plan_tiles(*size_of(canvas.picture), width, height, overlap)
    tiles = split(canvas.picture, grid)
    bordering = [index for index, region in enumerate(grid.regions) if not masks.is_blank(mask[region.slices])]
    for done, index in enumerate(bordering):
        place = grid.regions[index].slices
        tile = Canvas(tiles[index], mask[place], content, latent_mask=canvas.latent_mask[place])
        chosen = dataclasses.replace(settings, seed=(settings.seed + done) % SEEDS)
        with run.part(done, len(bordering), f"Tile {done + 1} of {len(bordering)}"):
            tiles[index] = paint(tile, chosen, run, lambda one: one.pixels)[0]
    painted = combine(tiles, grid)
    return canvas.finish(composite_whole_picture(painted, canvas.picture, masks.overlay_mask(mask)))
