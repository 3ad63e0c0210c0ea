"""The only place where work happens: a request goes in, pictures come out, whatever transport carries them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

from .errors import InvalidRequest
from .models.load import Models, Options
from .operations.run import Picture, Run
from .request import RANDOM_SEED, Request

NO_SEED = -1
RANDOM_SEEDS = 2**31 - 1  # random seeds stay below this, so that Blender's integers can show and reuse them


class Engine:
    """Holds the models and runs requests, one at a time."""

    def __init__(self, options: Options | None = None) -> None:
        self.models = Models(options or Options())

    def run(
        self, request: Request, emit: Callable[[float, str], None], is_cancelled: Callable[[], bool]
    ) -> list[Picture]:
        """Return the pictures of a request; the same request with the same seed gives the same pixels.

        emit(progress, message): called as the work goes on, progress in 0–1. Raises DiffusionError with a sentence for
        the artist, or Cancelled soon after is_cancelled() turns true.
        """
        request.check()
        run = Run(self.models, choose_seed(request), emit, is_cancelled)
        return _operation(request.operation)(request, run)


def choose_seed(request: Request) -> int:
    """Return the request's seed, a random one where it asks for that, or -1 where its operation has none."""
    if not hasattr(request.settings, "seed"):
        return NO_SEED
    seed: int = request.settings.seed
    return random.randrange(RANDOM_SEEDS) if seed == RANDOM_SEED else seed


def with_seed(request: Request, seed: int) -> Request:
    """Return the request with its seed settled, so that it can be replayed."""
    if not hasattr(request.settings, "seed"):
        return request
    values: dict[str, Any] = {"seed": seed}
    return Request(dataclasses.replace(request.settings, **values), request.images)


def _operation(name: str) -> Callable[[Request, Run], list[Picture]]:
    from .operations.img2img import img2img
    from .operations.inpaint import inpaint
    from .operations.outpaint import outpaint
    from .operations.upscale import upscale_picture

    operations = {"img2img": img2img, "inpaint": inpaint, "outpaint": outpaint, "upscale": upscale_picture}
    if name not in operations:
        raise InvalidRequest(f"There is no operation called {name!r}.", f"Known ones: {', '.join(operations)}.")
    return operations[name]
