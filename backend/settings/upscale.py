"""The settings of enlarging a picture by an upscaler alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .declare import Settings, named, setting

UPSCALER_NAMES = (
    "Lanczos",
    "Nearest",
    "R-ESRGAN 4x+",
    "R-ESRGAN 4x+ Anime6B",
    "R-ESRGAN AnimeVideo x2",
    "R-ESRGAN AnimeVideo x3",
    "R-ESRGAN AnimeVideo x4",
)
NO_UPSCALER = "None"
OWN_UPSCALER = "File"
LARGEST_PICTURE = 16384  # pixels a side

UPSCALE_MODES = {
    "scale_by": ("Scale By", "A number of times larger, both sides rounded down to multiples of 8"),
    "scale_to": ("Scale To", "At least a width and a height, in the picture's own proportions or cropped to them"),
}
_ENLARGERS = {**named(UPSCALER_NAMES), OWN_UPSCALER: (OWN_UPSCALER, "The upscaler in a file of your own")}
UPSCALERS_FIRST = {NO_UPSCALER: (NO_UPSCALER, "Leave the picture at its size"), **_ENLARGERS}
UPSCALERS_INPUT = {NO_UPSCALER: (NO_UPSCALER, "Lanczos alone"), **_ENLARGERS}
UPSCALERS_SECOND = {NO_UPSCALER: (NO_UPSCALER, "No second upscaler"), **_ENLARGERS}
_FILE = "A .safetensors or .pth file of weights, read when the {}upscaler is File"


@dataclass(frozen=True)
class Upscale(Settings):
    """A picture enlarged by a model that knows what drawings look like."""

    operation: ClassVar[str] = "upscale"
    label: ClassVar[str] = "Upscale"

    upscaler: str = setting("R-ESRGAN 4x+ Anime6B", "Upscaler", "What enlarges the picture", choices=UPSCALERS_FIRST)
    upscaler_file: str = setting("", "Upscaler File", _FILE.format(""), is_path=True)
    resize_mode: str = setting("scale_by", "Resize Mode", "How the new size is given", choices=UPSCALE_MODES)
    scale: float = setting(
        2.0, "Scale By", "How many times larger each side becomes", minimum=1.0, maximum=8.0, step=0.05
    )
    maximum_side: int = setting(
        0,
        "Max Side Length",
        "Longest side in pixels that Scale By may give; 0 sets no limit",
        minimum=0,
        maximum=LARGEST_PICTURE,
        step=8,
    )
    width: int = setting(
        1024, "Width", "Width in pixels that Scale To reaches", minimum=1, maximum=LARGEST_PICTURE, step=8
    )
    height: int = setting(
        1024, "Height", "Height in pixels that Scale To reaches", minimum=1, maximum=LARGEST_PICTURE, step=8
    )
    crop_to_fit: bool = setting(
        True, "Crop to Fit", "Cut what lies beyond the width and height away, evenly from both sides"
    )
    upscaler_2: str = setting(
        NO_UPSCALER, "Upscaler 2", "What enlarges the picture again, to be blended over", choices=UPSCALERS_SECOND
    )
    upscaler_2_file: str = setting("", "Upscaler 2 File", _FILE.format("second "), is_path=True)
    upscaler_2_visibility: float = setting(
        0.5,
        "Upscaler 2 Visibility",
        "Share of the second upscaler's picture in the result",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
