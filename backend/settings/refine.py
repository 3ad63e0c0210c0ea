"""The settings of SD upscale: a picture enlarged, and its details drawn anew by the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .declare import setting
from .diffusion import MAXIMUM_SIDE, SIDE_STEP, Denoising, denoising
from .upscale import UPSCALERS_FIRST

LARGEST_OVERLAP = 256  # pixels

METHODS = {
    "seamless": ("Seamless", "All tiles at once, agreeing where they overlap at every step: no borders form"),
    "tiles": ("Tiles", "One tile after the other, faded into each other where they overlap, as in the web UI"),
}


@dataclass(frozen=True)
class SDUpscale(Denoising):
    """A picture enlarged, and its details drawn anew, tile by tile."""

    operation: ClassVar[str] = "sd_upscale"
    label: ClassVar[str] = "SD Upscale"

    width: int = setting(
        512,
        "Tile Width",
        "Width in pixels of what the model sees at a time",
        minimum=64,
        maximum=MAXIMUM_SIDE,
        step=SIDE_STEP,
    )
    height: int = setting(
        512,
        "Tile Height",
        "Height in pixels of what the model sees at a time",
        minimum=64,
        maximum=MAXIMUM_SIDE,
        step=SIDE_STEP,
    )
    batch_count: int = setting(1, "Batch Count", "How many pictures are made one after another", minimum=1, maximum=100)
    batch_size: int = setting(
        1,
        "Batch Size",
        "How many tiles the method Tiles makes at once; takes more memory",
        minimum=1,
        maximum=8,
    )
    denoising_strength: float = denoising(
        0.2, "How far details may leave the enlarged picture: 0.1 to 0.3 sharpens, more invents; 0 only enlarges"
    )
    upscaler: str = setting(
        "R-ESRGAN 4x+ Anime6B", "Upscaler", "What enlarges the picture first", choices=UPSCALERS_FIRST
    )
    upscaler_file: str = setting(
        "", "Upscaler File", "A .safetensors or .pth file of weights, read when the upscaler is File", is_path=True
    )
    scale: float = setting(
        2.0, "Scale Factor", "How many times larger each side becomes", minimum=1.0, maximum=4.0, step=0.05
    )
    overlap: int = setting(
        64,
        "Tile Overlap",
        "How many pixels neighbouring tiles share: more hides their borders better, and takes longer",
        minimum=0,
        maximum=LARGEST_OVERLAP,
        step=16,
    )
    method: str = setting("seamless", "Method", "How the tiles are made to fit together", choices=METHODS)
    keep_alpha: bool = setting(True, "Keep Transparency", "Put the transparency of the input back on the result")
    background_colour: str = setting(
        "#ffffff", "Background Colour", "What transparent parts of the input are laid on, as #rrggbb"
    )
