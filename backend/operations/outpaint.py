"""A picture continued beyond its borders: the web UI's mk2 (matched noise) and its poor man's way."""

from __future__ import annotations

from ..imaging import masks
from ..imaging.composite import composite_whole_picture
from ..imaging.outpaint import outpaint_geometry, poor_mans_canvas
from ..imaging.outpaint_mk2 import directions, expand
from ..imaging.pictures import flatten
from ..request import Array, Outpaint, Request
from .inpaint import repaint_masked
from .run import Picture, Run


def outpaint(request: Request, run: Run) -> list[Picture]:
    """Return the picture grown by the pixels asked for; its old part stays byte-equal but for the seam."""
    settings = request.settings
    assert isinstance(settings, Outpaint)
    source = flatten(request.images["init"])
    paint = outpaint_mk2 if settings.method == "mk2" else outpaint_poor_mans
    return [Picture(paint(source, settings, run), run.seed)]


def outpaint_mk2(picture: Array, settings: Outpaint, run: Run) -> Array:
    """Return the picture grown in each direction after the other, each starting from noise like what is known."""
    wanted = directions(
        left=settings.pixels_left, right=settings.pixels_right, up=settings.pixels_up, down=settings.pixels_down
    )
    for index, (direction, pixels) in enumerate(wanted):
        run.part(index, len(wanted))
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
        painted = repaint_masked(
            expansion.strip, mask, settings, run, content="original", latent_mask=expansion.strip_latent_mask
        )
        painted = composite_whole_picture(painted, expansion.strip, masks.overlay_mask(mask))
        picture = expansion.finish(painted)
    return picture


def outpaint_poor_mans(picture: Array, settings: Outpaint, run: Run) -> Array:
    """Return the picture grown in all directions at once, the border filled as the masked content says."""
    geometry = outpaint_geometry(
        picture.shape[1],
        picture.shape[0],
        left=settings.pixels_left,
        right=settings.pixels_right,
        up=settings.pixels_up,
        down=settings.pixels_down,
    )
    canvas = poor_mans_canvas(picture, geometry, settings.mask_blur)
    mask = masks.blur(canvas.mask, canvas.mask_blur)
    painted = repaint_masked(
        canvas.picture, mask, settings, run, content=settings.masked_content, latent_mask=canvas.latent_mask
    )
    return canvas.finish(composite_whole_picture(painted, canvas.picture, masks.overlay_mask(mask)))
