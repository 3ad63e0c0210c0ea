"""Everything that one picture needs, said once: settings and images, and how they travel as a folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .disk import write_atomically
from .errors import InvalidRequest
from .settings import MAXIMUM_SIDE, OPERATIONS, SIDE_STEP, Settings, make_settings

Array = NDArray[Any]

FORMAT = 2  # of request.json


@dataclass(frozen=True, eq=False)
class Request:
    """One picture to make: the settings of one operation and its images.

    images: "init" is uint8 H×W×3 sRGB or H×W×4 with straight alpha; "mask" is float32 H×W in 0–1, 1 repainted.
    All have their top row first. infotext: the parameters that "init" carries, for an operation that keeps them.
    """

    settings: Settings
    images: Mapping[str, Array]
    infotext: str = ""

    @property
    def operation(self) -> str:
        """The operation's name, such as "img2img"."""
        return self.settings.operation

    def check(self) -> None:
        """Raise InvalidRequest for the first thing wrong with the settings or the images."""
        self.settings.check()
        for name in self.settings.images:
            if name not in self.images:
                raise InvalidRequest(f"{self.settings.label} needs an image called {name}.")
        for name, array in self.images.items():
            if name not in self.settings.images + self.settings.optional_images:
                raise InvalidRequest(f"{self.settings.label} takes no image called {name}.")
            _check_image(name, array)
        init, mask = self.images.get("init"), self.images.get("mask")
        if init is not None and mask is not None and init.shape[:2] != mask.shape:
            raise InvalidRequest(
                f"The mask is {mask.shape[1]}×{mask.shape[0]} and the picture {init.shape[1]}×{init.shape[0]}.",
                "Make them the same size.",
            )

    def save(self, folder: Path) -> None:
        """Write one .npy an image and request.json into an existing folder, the latter last and whole."""
        for name, array in self.images.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        document = {
            "format": FORMAT,
            "operation": self.operation,
            "settings": dataclasses.asdict(self.settings),
            "images": sorted(self.images),
            "infotext": self.infotext,
        }
        write_atomically(
            folder / "request.json", json.dumps(document, indent=1, ensure_ascii=False).encode(), flush=False
        )

    @classmethod
    def load(cls, folder: Path) -> Request:
        """Read a request that save() wrote; raises InvalidRequest for a folder that holds anything else."""
        path = folder / "request.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InvalidRequest(f"There is no request in {folder}.") from error
        except (ValueError, RecursionError) as error:  # not text, no JSON, or a number without end
            raise InvalidRequest(f"{path} is not a request: {error}.") from error
        settings = settings_from_document(document)
        names = document.get("images", [])
        if not isinstance(names, list) or not set(map(str, names)) <= {*settings.images, *settings.optional_images}:
            raise InvalidRequest(f"{path} names images that {settings.label} doesn't take.")
        infotext = document.get("infotext", "")
        if not isinstance(infotext, str):
            raise InvalidRequest(f"{path} holds an infotext that is no text.")
        return cls(settings, {name: _load_array(folder / f"{name}.npy") for name in names}, infotext)


def settings_from_document(document: Any) -> Settings:
    """Return checked settings from the parsed request.json; raises InvalidRequest with what is wrong."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InvalidRequest(f"The request is not of format {FORMAT}.", "Use the same version on both sides.")
    operation, values = document.get("operation"), document.get("settings")
    if not isinstance(operation, str) or operation not in OPERATIONS or not isinstance(values, dict):
        raise InvalidRequest(f"There is no operation {operation!r}.", f"Known ones: {', '.join(OPERATIONS)}.")
    return make_settings(OPERATIONS[operation], values)


def whole_side(pixels: float) -> int:
    """Return the side nearest to that many pixels which a diffusion model takes: a multiple of 8 in 64–4096."""
    return int(min(max(int(pixels / SIDE_STEP + 0.5) * SIDE_STEP, 64), MAXIMUM_SIDE))


def whole_size(width: float, height: float) -> tuple[int, int]:
    """Return the width and height nearest to a size that a model takes; a larger one is made smaller as a whole."""
    share = min(1.0, MAXIMUM_SIDE / max(width, height))
    return whole_side(width * share), whole_side(height * share)


def _check_image(name: str, array: Array) -> None:
    if name == "mask":
        if array.dtype != np.float32 or array.ndim != 2:
            raise InvalidRequest(f"The mask must be float32 H×W, not {array.dtype} of shape {array.shape}.")
        if not np.isfinite(array).all() or (array.size and (array.min() < 0 or array.max() > 1)):
            raise InvalidRequest("The mask holds values outside 0–1.")
    elif array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4):
        raise InvalidRequest(f"The image {name} must be uint8 H×W×3 or H×W×4, not {array.dtype} of {array.shape}.")
    height, width = array.shape[:2]
    if not (0 < width <= 4 * MAXIMUM_SIDE and 0 < height <= 4 * MAXIMUM_SIDE):
        raise InvalidRequest(f"The image {name} is {width}×{height}; sides go from 1 to {4 * MAXIMUM_SIDE} pixels.")


def _load_array(path: Path) -> Array:
    try:
        # Mapped, which looks whether the file is as long as it says, and knows neither pickles nor archives.
        array: Array = np.array(np.lib.format.open_memmap(path, mode="r"))  # type: ignore[no-untyped-call]
    except FileNotFoundError as error:
        raise InvalidRequest(f"{path} is missing.") from error
    except (ValueError, TypeError, OverflowError, EOFError, OSError, SyntaxError, TokenError) as error:
        raise InvalidRequest(f"{path} is not an array: {error}.") from error
    return array
