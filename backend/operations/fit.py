"""From the size that a model is best at back to the artist's canvas."""

from __future__ import annotations

from ..imaging.resize import resize
from ..models.upscalers import upscale
from ..request import Array
from .run import Run

FAST_UPSCALER = "R-ESRGAN AnimeVideo x2"


def fit_result(picture: Array, width: int, height: int, run: Run) -> Array:
    """Return a generated picture (uint8 H×W×3) at the canvas's size: enlarged by a model, or reduced by Lanczos."""
    if picture.shape[:2] == (height, width):
        return picture
    factor = max(width / picture.shape[1], height / picture.shape[0])
    if factor > 1:
        run.say("Enlarging")
        picture = upscale(picture, factor, FAST_UPSCALER, should_stop=run.is_cancelled)
    return resize(picture, width, height, "just_resize")
