"""How previews are laid out: the pictures of a batch side by side, a part in the whole that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from ..previews import LEAST, LONGEST
from .grid import image_grid
from .pictures import Picture, size_of
from .regions import Region
from .resize import resize


def side_by_side(pictures: Sequence[Picture]) -> Picture:
    """Return the pictures of a batch (uint8 h×w×3 each) in one."""
    return pictures[0] if len(pictures) == 1 else image_grid(pictures)


def preview_size(picture: Picture) -> Picture:
    """Return a picture enlarged to LEAST pixels on its longer side, or reduced to LONGEST, in its proportions."""
    width, height = size_of(picture)
    longer = max(width, height)
    factor = min(max(longer, LEAST), LONGEST) / longer
    return resize(picture, max(1, round(width * factor)), max(1, round(height * factor)), "just_resize")


class Surroundings:
    """A picture (uint8 H×W×3) that previews are parts of, at their size."""

    def __init__(self, picture: Picture) -> None:
        self._picture = preview_size(picture)
        self._scale = self._picture.shape[1] / picture.shape[1], self._picture.shape[0] / picture.shape[0]

    def with_parts(self, parts: Sequence[Picture], regions: Sequence[Region]) -> Picture:
        """Return the picture with parts (uint8 h×w×3 of any size) laid into regions of it, in its own pixels."""
        whole = self._picture.copy()
        across, down = self._scale
        for part, region in zip(parts, regions, strict=True):
            left, right = round(region.x1 * across), round(region.x2 * across)
            top, bottom = round(region.y1 * down), round(region.y2 * down)
            if right > left and bottom > top:
                whole[top:bottom, left:right] = resize(part, right - left, bottom - top, "crop_and_resize")
        return whole

    def keep_parts(self, parts: Sequence[Picture], regions: Sequence[Region]) -> None:
        """Lay finished parts in for good."""
        self._picture = self.with_parts(parts, regions)
