"""Everything that one picture needs, said once: each setting is a field that panel, flags and tables come from."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from .disk import write_atomically
from .errors import InvalidRequest
from .models.samplers import AUTOMATIC, SAMPLERS, SCHEDULES

Array = NDArray[Any]

FORMAT = 1  # of request.json
EMBEDDED = "embedded"
RANDOM_SEED = -1
MAXIMUM_SEED = 2**32 - 1
SIDE_STEP = 8  # pixels; diffusion models take sides that are multiples of it
MAXIMUM_SIDE = 4096  # pixels

RESIZE_MODES = {
    "just_resize": ("Just Resize", "Stretch the picture to the size, whatever that does to its proportions"),
    "crop_and_resize": ("Crop and Resize", "Keep proportions, fill the whole size and crop what sticks out"),
    "resize_and_fill": ("Resize and Fill", "Keep proportions, show all of it and fill the bars from its edges"),
}
MASK_MODES = {
    "masked": ("Inpaint Masked", "Repaint what the mask covers"),
    "not_masked": ("Inpaint Not Masked", "Repaint everything but what the mask covers"),
}
MASKED_CONTENTS = {
    "fill": ("Fill", "Start from the blurred colours around the mask"),
    "original": ("Original", "Start from what is there: keeps shapes and colours"),
    "latent_noise": ("Latent Noise", "Start from noise: something unrelated; wants a high denoising strength"),
    "latent_nothing": ("Latent Nothing", "Start from emptiness; wants a high denoising strength"),
}
OUTPAINT_METHODS = {
    "mk2": ("Outpainting mk2", "One direction after the other, from noise with the picture's own texture and colours"),
    "poor_mans": ("Poor Man's Outpainting", "All directions at once, from the masked content"),
}
INPAINT_AREAS = {
    "whole_picture": ("Whole Picture", "Process the whole picture at the size set"),
    "only_masked": ("Only Masked", "Process the masked part alone, enlarged to the size set, and paste it back"),
}
UPSCALER_NAMES = (
    "Lanczos",
    "Nearest",
    "R-ESRGAN 4x+",
    "R-ESRGAN 4x+ Anime6B",
    "R-ESRGAN AnimeVideo x2",
    "R-ESRGAN AnimeVideo x3",
    "R-ESRGAN AnimeVideo x4",
)


def setting(
    default: Any,
    label: str,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
    choices: Mapping[str, tuple[str, str]] | None = None,
) -> Any:
    """Declare one setting: its default, label, one-sentence description, and range or choices."""
    metadata = {
        "label": label,
        "description": description,
        "minimum": minimum,
        "maximum": maximum,
        "step": step,
        "choices": choices,
    }
    return field(default=default, metadata=metadata)


def _named(names: Mapping[str, Any] | tuple[str, ...]) -> dict[str, tuple[str, str]]:
    return {name: (name, name) for name in names}


@dataclass(frozen=True)
class Settings:
    """What every operation shares: nothing but its name, and the checking of ranges."""

    operation: ClassVar[str] = ""
    label: ClassVar[str] = ""
    images: ClassVar[tuple[str, ...]] = ("init",)

    def check(self) -> None:
        """Raise InvalidRequest for the first setting that is of the wrong kind, out of range or not a choice."""
        for item in dataclasses.fields(self):
            _check_field(item, getattr(self, item.name))


def _check_field(item: dataclasses.Field[Any], value: Any) -> None:
    label, minimum, maximum = item.metadata["label"], item.metadata["minimum"], item.metadata["maximum"]
    choices = item.metadata["choices"]
    kind = type(item.default)
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) if kind is float else type(value) is kind
    if not fits:
        raise InvalidRequest(f"{label} must be {_KINDS[kind]}, not {value!r}.")
    if kind is float and not math.isfinite(value):
        raise InvalidRequest(f"{label} must be a finite number, not {value}.")
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        raise InvalidRequest(f"{label} is {value}; it must lie between {minimum} and {maximum}.")
    if choices and value not in choices:
        raise InvalidRequest(f"{label} can't be “{value}”.", f"Choose one of: {', '.join(choices)}.")
    if kind is str and "\0" in value:
        raise InvalidRequest(f"{label} holds a null character.", "Remove it.")


_KINDS = {bool: "on or off", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Diffusion(Settings):
    """What every operation that runs a diffusion model shares."""

    prompt: str = setting("", "Prompt", "What the picture should show, and in which style")
    style: str = setting(
        "", "Style", "Words for the style, put before the prompt; {prompt} in them marks the prompt's own place"
    )
    negative_prompt: str = setting("", "Negative Prompt", "What the picture should not show")
    model: str = setting(
        EMBEDDED,
        "Model",
        "The embedded model, a diffusers folder, a single file (.safetensors, .ckpt) or a hub name",
    )
    steps: int = setting(
        20, "Sampling Steps", "How many steps the denoising of a whole picture takes", minimum=1, maximum=150
    )
    sampler: str = setting("Euler a", "Sampling Method", "How noise is removed", choices=_named(SAMPLERS))
    schedule: str = setting(
        AUTOMATIC, "Schedule Type", "How the noise levels of the steps are spaced", choices=_named(SCHEDULES)
    )
    cfg_scale: float = setting(
        7.0,
        "CFG Scale",
        "How strongly the picture follows the prompt: low is loose and pale, high is literal and saturated",
        minimum=1.0,
        maximum=30.0,
        step=0.5,
    )
    seed: int = setting(
        RANDOM_SEED,
        "Seed",
        "The number the noise grows from; the same seed gives the same picture, -1 a new one each time",
        minimum=-1,
        maximum=MAXIMUM_SEED,
    )
    width: int = setting(
        512, "Width", "Width of the picture in pixels", minimum=64, maximum=MAXIMUM_SIDE, step=SIDE_STEP
    )
    height: int = setting(
        512, "Height", "Height of the picture in pixels", minimum=64, maximum=MAXIMUM_SIDE, step=SIDE_STEP
    )
    exact_steps: bool = setting(
        False, "Do Exactly the Steps", "Run all the steps whatever the denoising strength, instead of a share of them"
    )

    @property
    def full_prompt(self) -> str:
        """The prompt with its style; around no prompt a style closes its gap: "ink of {prompt}" is "ink" then."""
        if "{prompt}" in self.style and self.prompt.strip():
            return self.style.replace("{prompt}", self.prompt)
        if "{prompt}" in self.style:
            return re.sub(r"(\s+of)?\s*\{prompt\}", "", self.style).strip()
        return ", ".join(part for part in (self.style.strip(), self.prompt.strip()) if part)


def _denoising(default: float, description: str) -> Any:
    return setting(default, "Denoising Strength", description, minimum=0.0, maximum=1.0, step=0.01)


@dataclass(frozen=True)
class Img2Img(Diffusion):
    """A picture made from a picture and a prompt."""

    operation: ClassVar[str] = "img2img"
    label: ClassVar[str] = "Generate"

    denoising_strength: float = _denoising(
        0.75, "How far the result may leave the captured picture: 0 keeps it, 1 all but ignores it"
    )
    resize_mode: str = setting(
        "just_resize",
        "Resize Mode",
        "How a picture of other proportions is brought to the size",
        choices=RESIZE_MODES,
    )
    keep_alpha: bool = setting(True, "Keep Transparency", "Put the transparency of the input back on the result")


@dataclass(frozen=True)
class Inpaint(Img2Img):
    """A masked part of a picture painted anew."""

    operation: ClassVar[str] = "inpaint"
    label: ClassVar[str] = "Inpaint"
    images: ClassVar[tuple[str, ...]] = ("init", "mask")

    mask_blur: int = setting(4, "Mask Blur", "Softness of the mask's edge in pixels", minimum=0, maximum=64)
    mask_mode: str = setting("masked", "Mask Mode", "Which side of the mask is repainted", choices=MASK_MODES)
    masked_content: str = setting(
        "original", "Masked Content", "What the repainted part starts from", choices=MASKED_CONTENTS
    )
    inpaint_area: str = setting(
        "whole_picture", "Inpaint Area", "Which part of the picture is processed", choices=INPAINT_AREAS
    )
    only_masked_padding: int = setting(
        32,
        "Only Masked Padding",
        "How much around the mask the model sees when only the masked part is processed, in pixels",
        minimum=0,
        maximum=256,
        step=4,
    )


@dataclass(frozen=True)
class Outpaint(Diffusion):
    """A picture continued beyond its borders."""

    operation: ClassVar[str] = "outpaint"
    label: ClassVar[str] = "Outpaint"

    denoising_strength: float = _denoising(0.8, "How freely the new border is invented")
    method: str = setting("mk2", "Method", "How the border is started", choices=OUTPAINT_METHODS)
    masked_content: str = setting(
        "fill", "Masked Content", "What the border starts from in the poor man's way", choices=MASKED_CONTENTS
    )
    pixels_left: int = setting(0, "Left", "Pixels added on the left", minimum=0, maximum=1024, step=SIDE_STEP)
    pixels_right: int = setting(128, "Right", "Pixels added on the right", minimum=0, maximum=1024, step=SIDE_STEP)
    pixels_up: int = setting(0, "Up", "Pixels added above", minimum=0, maximum=1024, step=SIDE_STEP)
    pixels_down: int = setting(0, "Down", "Pixels added below", minimum=0, maximum=1024, step=SIDE_STEP)
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


@dataclass(frozen=True)
class Upscale(Settings):
    """A picture enlarged by a model that knows what drawings look like."""

    operation: ClassVar[str] = "upscale"
    label: ClassVar[str] = "Upscale"

    upscaler: str = setting(
        "R-ESRGAN 4x+ Anime6B", "Upscaler", "What enlarges the picture", choices=_named(UPSCALER_NAMES)
    )
    scale: float = setting(
        2.0, "Scale By", "How many times larger each side becomes", minimum=1.0, maximum=8.0, step=0.05
    )


OPERATIONS: dict[str, type[Settings]] = {cls.operation: cls for cls in (Img2Img, Inpaint, Outpaint, Upscale)}

AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass(frozen=True, eq=False)
class Request:
    """One picture to make: the settings of one operation and its images.

    images: "init" is uint8 H×W×3 sRGB or H×W×4 with straight alpha; "mask" is float32 H×W in 0–1, 1 repainted.
    All have their top row first.
    """

    settings: Settings
    images: Mapping[str, Array]

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
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise InvalidRequest(f"{path} is not a request: {error}.") from error
        settings = settings_from_document(document)
        names = document.get("images", [])
        if not isinstance(names, list) or not set(map(str, names)) <= set(settings.images):
            raise InvalidRequest(f"{path} names images that {settings.label} doesn't take.")
        return cls(settings, {name: _load_array(folder / f"{name}.npy") for name in names})


def settings_from_document(document: Any) -> Settings:
    """Return checked settings from the parsed request.json; raises InvalidRequest with what is wrong."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InvalidRequest(f"The request is not of format {FORMAT}.", "Use the same version on both sides.")
    operation, values = document.get("operation"), document.get("settings")
    if not isinstance(operation, str) or operation not in OPERATIONS or not isinstance(values, dict):
        raise InvalidRequest(f"There is no operation {operation!r}.", f"Known ones: {', '.join(OPERATIONS)}.")
    return make_settings(OPERATIONS[operation], values)


def make_settings(cls: type[AnySettings], values: Mapping[str, Any]) -> AnySettings:
    """Return checked settings of that class from names and values; an unknown name raises InvalidRequest."""
    known = {item.name: item for item in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            raise InvalidRequest(f"{cls.label} has no setting called {name!r}.", f"It has: {', '.join(known)}.")
    floats = {
        name: float(value)
        for name, value in values.items()
        if isinstance(known[name].default, float) and type(value) is int
    }
    settings = cls(**{**values, **floats})
    settings.check()
    return settings


def whole_side(pixels: float) -> int:
    """Return the side nearest to that many pixels which a diffusion model takes: a multiple of 8 in 64–4096."""
    return int(min(max(int(pixels / SIDE_STEP + 0.5) * SIDE_STEP, 64), MAXIMUM_SIDE))


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
        array: Array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InvalidRequest(f"{path} is missing.") from error
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise InvalidRequest(f"{path} is not an array: {error}.") from error
    if not isinstance(array, np.ndarray):
        raise InvalidRequest(f"{path} is not a single array.")
    return array
