"""Quick requests for the real engine on the embedded model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from backend.engine import Engine
from backend.request import Request
from backend.settings import Img2Img

Picture = NDArray[np.uint8]
FEW: dict[str, Any] = {
    "prompt": "anime illustration of a woman",
    "width": 256,
    "height": 256,
    "steps": 3,
    "seed": 11,
    "cfg_scale": 3.0,
}


def img2img(picture: Picture, **settings: Any) -> Request:
    """Return a quick img2img request."""
    return Request(Img2Img(**{**FEW, **settings}), {"init": picture})


def run(engine: Engine, request: Request) -> Picture:
    """Return the picture of a request."""
    pixels: Picture = engine.run(request, lambda share, text: None, lambda: False).pictures[0].pixels
    return pixels


def departure(picture: Picture, source: Picture) -> float:
    """Return how far a picture's lines and textures are from its source's (mean absolute difference, 0-255).

    By how much a whole area's tint has changed counts for nothing: a style lightens a sky at low strengths already, and
    out of much noise it may come back as it was.
    """
    fine = [pixels - _softened(pixels) for pixels in (picture, source)]
    return float(np.abs(fine[0] - fine[1]).mean())


def _softened(picture: Picture) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(8)), np.float32)
