"""A picture enlarged."""

from __future__ import annotations

from ..models.upscalers import upscale
from ..request import Request, Upscale
from .run import Picture, Run


def upscale_picture(request: Request, run: Run) -> list[Picture]:
    """Return the picture enlarged by the chosen upscaler, transparency included."""
    settings = request.settings
    assert isinstance(settings, Upscale)
    run.say(f"Enlarging with {settings.upscaler}")
    pixels = upscale(
        request.images["init"],
        settings.scale,
        settings.upscaler,
        should_stop=run.is_cancelled,
        progress=run.share,
    )
    run.check()
    return [Picture(pixels, run.seed)]
