"""The settings of outpainting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .declare import setting
from .diffusion import MASKED_CONTENTS, SIDE_STEP, Denoising, denoising

METHODS = {
    "mk2": ("Outpainting mk2", "One direction after the other, from noise with the picture's own texture and colours"),
    "poor_mans": ("Poor Man's Outpainting", "All directions at once, from the masked content"),
    "scene": ("From the Scene", "From what a wider camera sees of the scene beyond the picture"),
}
LARGEST_BORDER = 1024  # pixels


def _pixels(default: int, label: str, where: str) -> Any:
    return setting(default, label, f"Pixels added {where}", minimum=0, maximum=LARGEST_BORDER, step=SIDE_STEP)


@dataclass(frozen=True)
class Outpaint(Denoising):
    """A picture continued beyond its borders."""

    operation: ClassVar[str] = "outpaint"
    label: ClassVar[str] = "Outpaint"
    optional_images: ClassVar[tuple[str, ...]] = ("surroundings", "reference")

    denoising_strength: float = denoising(0.8, "How freely the new border is invented")
    method: str = setting("mk2", "Method", "How the border is started", choices=METHODS)
    masked_content: str = setting(
        "fill", "Masked Content", "What the border starts from in the poor man's way", choices=MASKED_CONTENTS
    )
    pixels_left: int = _pixels(0, "Left", "on the left")
    pixels_right: int = _pixels(128, "Right", "on the right")
    pixels_up: int = _pixels(0, "Up", "above")
    pixels_down: int = _pixels(0, "Down", "below")
    mask_blur: int = setting(
        8, "Mask Blur", "Softness of the seam in pixels; the old picture changes this far inside", minimum=0, maximum=64
    )
    fall_off: float = setting(
        1.0,
        "Fall-off Exponent",
        "Detail of the noise that the border starts from: low is rough, high is smooth",
        minimum=0.0,
        maximum=4.0,
        step=0.01,
    )
    colour_variation: float = setting(
        0.05, "Colour Variation", "How colourful the noise of the border is", minimum=0.0, maximum=1.0, step=0.01
    )
