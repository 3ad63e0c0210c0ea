"""Quick requests for the real engine on the embedded model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
