"""The picture so far: how it is wished for, who it is shown to, and the file of a job's folder that holds it."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from .disk import write_atomically
from .request import Array

# From what is predicted of the pictures of a batch (uint8 h×w×3 each) to what is shown.
Frame = Callable[[Sequence[Array]], Array]

FILE = "preview.rgb"
HEADER = struct.Struct("<II")  # height and width, before the pixels
LEAST, LONGEST = 256, 512  # pixels of the longer side: enough for a panel, and no more than a window shows of a draft
CHEAP, SHARP = "cheap", "sharp"
METHODS = {
    CHEAP: ("Approx Cheap", "Colours straight from the latents: coarse, and at next to no cost"),
    SHARP: ("TAESD", "A tiny autoencoder where there is one, for at most a tenth of the time; else Approx Cheap"),
}


@dataclass(frozen=True)
class Previews:
    """How the picture is to be seen while it is made.

    every: steps from one preview to the next, 0 for none. autoencoder: a folder of a tiny autoencoder, or of several
    under their own names such as taesd; it is also looked for in the model's folder, beside it, and in the hub's cache.
    """

    every: int = 0
    method: str = CHEAP
    autoencoder: str = ""

    def to_wire(self) -> dict[str, Any]:
        """Return them as an object of JSON."""
        return asdict(self)

    @classmethod
    def from_wire(cls, message: object) -> Previews:
        """Return what to_wire() wrote; anything else means no previews."""
        if not isinstance(message, Mapping) or set(message) != {item.name for item in fields(cls)}:
            return cls()
        made = cls(**message)
        texts = isinstance(made.method, str) and isinstance(made.autoencoder, str)
        return made if texts and made.method in METHODS and type(made.every) is int and made.every > 0 else cls()


class Viewer:
    """Is shown the picture so far; this one wants to see nothing."""

    wanted = Previews()

    def show(self, picture: Array) -> None:
        """Take a picture (uint8 h×w×3, LEAST to LONGEST pixels on the longer side) in the place of the last."""


class FileViewer(Viewer):
    """Keeps the newest preview in a job's folder, where any process can look at it, and nobody has to.

    count: how many there have been.
    """

    def __init__(self, folder: Path, wanted: Previews) -> None:
        self.wanted = wanted
        self.count = 0
        self._path = folder / FILE

    def show(self, picture: Array) -> None:
        """Write the picture whole; where the disk refuses, there is one preview less."""
        with contextlib.suppress(OSError):
            write_atomically(self._path, HEADER.pack(*picture.shape[:2]) + picture.tobytes(), flush=False)
            self.count += 1

    def remove(self) -> None:
        """Take the file away: the picture itself is there, or never will be."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_preview(folder: Path) -> Array | None:
    """Return the newest preview of a job's folder (uint8 h×w×3), None where there is none."""
    try:
        content = (folder / FILE).read_bytes()
        height, width = HEADER.unpack_from(content)
    except (OSError, struct.error):
        return None
    if not (0 < height <= LONGEST and 0 < width <= LONGEST and len(content) == HEADER.size + 3 * height * width):
        return None
    return np.frombuffer(content, np.uint8, offset=HEADER.size).reshape(height, width, 3)
