"""The only place where work happens: a request goes in, pictures come out, whatever transport carries them."""

from __future__ import annotations

import dataclasses
import importlib
import random
from collections.abc import Callable
from typing import Any

from .models.load import Models, Options
from .operations.run import Keeper, Output, Run
from .previews import Viewer
from .request import Request
from .settings import RANDOM_SEED

RANDOM_SEEDS = 2**31 - 1  # random seeds stay below this, so that Blender's integers can show and reuse them
SEEDS = ("seed", "variation_seed")  # settings where -1 asks for a random one


class Engine:
    """Holds the models and runs requests, one at a time."""

    def __init__(self, options: Options | None = None) -> None:
        self.models = Models(options or Options())

    def run(
        self,
        request: Request,
        emit: Callable[[float, str], None],
        is_cancelled: Callable[[], bool],
        keeper: Keeper | None = None,
        viewer: Viewer | None = None,
    ) -> Output:
        """Return the pictures of a request; the same request with the same seed gives the same pixels.

        emit(progress, message): called as the work goes on, progress in 0–1. keeper: is handed each picture as soon as
        it is finished. viewer: is shown the picture so far. Raises DiffusionError with a sentence for the artist, or
        Cancelled soon after is_cancelled() turns true.
        """
        request.check()
        request = with_seeds(request)
        name = request.operation
        operation: Callable[[Request, Run], Output] = getattr(
            importlib.import_module(f"{__package__}.operations.{name}"), name
        )
        run = Run(self.models, emit, is_cancelled, keeper, viewer, request.images.get("reference"))
        output = operation(request, run)
        return dataclasses.replace(output, notice=" ".join(filter(None, (output.notice, *run.notices))))


def with_seeds(request: Request) -> Request:
    """Return the request with random seeds in place of -1, so that it can be replayed."""
    names = [name for name in SEEDS if getattr(request.settings, name, 0) == RANDOM_SEED]
    values: dict[str, Any] = {name: random.randrange(RANDOM_SEEDS) for name in names}
    if getattr(request.settings, "keep_random_seeds", False):
        values["keep_random_seeds"] = "seed" in names  # a seed that is set is everybody's
    return dataclasses.replace(request, settings=dataclasses.replace(request.settings, **values))
