"""The canvas is the artist's, the native size is ours: at which size a picture is made, and how it gets back."""

from __future__ import annotations

from typing import NamedTuple

from ..imaging.resize import resize
from ..models.upscalers import upscale
from ..request import SIDE_STEP, Array
from .run import Run

# A model trained at one size draws doubled limbs far above it and blurs far below it; inside this range of linear
# scale it is asked for the canvas as it is.
SMALLEST_SCALE, GREATEST_SCALE = 0.75, 1.6
FAST_UPSCALER = "R-ESRGAN AnimeVideo x2"


class Size(NamedTuple):
    """A size in pixels that a model works at."""

    width: int
    height: int


def plan_size(width: int, height: int, native: int, multiple: int = SIDE_STEP) -> Size:
    """Return the size to generate a canvas at: its own where the model can, else native² pixels of its proportions.

    native: side in pixels of the square pictures that the model was trained on. Sides come out as multiples of
    `multiple` (at least 8), the nearest ones.
    """
    multiple = max(multiple, SIDE_STEP)
    scale = (width * height) ** 0.5 / native
    factor = 1.0 if SMALLEST_SCALE <= scale <= GREATEST_SCALE else 1 / scale
    return Size(
        max(multiple, round(width * factor / multiple) * multiple),
        max(multiple, round(height * factor / multiple) * multiple),
    )


def describe_size(width: int, height: int, native: int) -> str:
    """Return in one line what will be done for a canvas, such as "256×144 → 1024×576"."""
    size = plan_size(width, height, native)
    return f"{width}×{height}" if size == (width, height) else f"{size.width}×{size.height} → {width}×{height}"


def fit_result(picture: Array, width: int, height: int, run: Run) -> Array:
    """Return a generated picture (uint8 H×W×3) at the canvas's size: enlarged by a model, or reduced by Lanczos."""
    if picture.shape[:2] == (height, width):
        return picture
    factor = max(width / picture.shape[1], height / picture.shape[0])
    if factor > 1:
        run.say("Enlarging")
        picture = upscale(picture, factor, FAST_UPSCALER, should_stop=run.is_cancelled)
    return resize(picture, width, height, "just_resize")
