"""Everything that can be set, declared once: panel, command-line flags, job files and tables are made from here."""

from __future__ import annotations

from .declare import AnySettings, Settings, as_settings, make_settings
from .diffusion import (
    EMBEDDED,
    FAST_MODES,
    INPAINT_AREAS,
    MASKED_CONTENTS,
    MAXIMUM_SIDE,
    RANDOM_SEED,
    SIDE_STEP,
    Denoising,
    Diffusion,
    Img2Img,
    Inpaint,
)
from .interrogate import Interrogate
from .outpaint import Outpaint
from .refine import SDUpscale
from .scripts import Alternative, Loopback, PromptLines, PromptMatrix, Script, XYZPlot
from .upscale import UPSCALER_NAMES, Upscale

# Operation → its settings. The function that does it has the operation's name, in the module of that name below
# operations/.
OPERATIONS: dict[str, type[Settings]] = {
    cls.operation: cls
    for cls in (
        Img2Img,
        Inpaint,
        Outpaint,
        Upscale,
        SDUpscale,
        Interrogate,
        Loopback,
        XYZPlot,
        PromptMatrix,
        PromptLines,
        Alternative,
    )
}

# What the panel offers to run over Generate and, but for the last, over Inpaint.
SCRIPTS: dict[str, type[Img2Img]] = {
    cls.operation: cls for cls in (Loopback, XYZPlot, PromptMatrix, PromptLines, Alternative)
}

__all__ = [
    "EMBEDDED",
    "FAST_MODES",
    "INPAINT_AREAS",
    "MASKED_CONTENTS",
    "MAXIMUM_SIDE",
    "OPERATIONS",
    "RANDOM_SEED",
    "SCRIPTS",
    "SIDE_STEP",
    "UPSCALER_NAMES",
    "Alternative",
    "AnySettings",
    "Denoising",
    "Diffusion",
    "Img2Img",
    "Inpaint",
    "Interrogate",
    "Loopback",
    "Outpaint",
    "PromptLines",
    "PromptMatrix",
    "SDUpscale",
    "Script",
    "Settings",
    "Upscale",
    "XYZPlot",
    "as_settings",
    "make_settings",
]
