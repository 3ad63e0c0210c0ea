"""A picture's settings as infotext, in the web UI's words, and settings out of any infotext."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from ..imaging import infotext
from ..models.load import EMBEDDED_TITLE, HUB_NAME, SINGLE_FILES
from ..models.samplers import AUTOMATIC, settled_sampler
from ..models.traits import traits_of
from ..request import whole_size
from ..settings import (
    EMBEDDED,
    OPERATIONS,
    Diffusion,
    Img2Img,
    Inpaint,
    Outpaint,
    SDUpscale,
    Settings,
    Upscale,
    make_settings,
)
from ..settings.diffusion import CPU, MAXIMUM_SIDE, NV
from ..settings.upscale import NO_UPSCALER, OWN_UPSCALER

if TYPE_CHECKING:
    from .run import Picture

PROGRAM = "Viewport Diffusion"
SOURCE = "source"  # among a picture's extras, and no pair: the infotext of the picture that was enlarged
POSTPROCESS = "Postprocess"  # the first word of every key of an enlarged picture

# Setting → the web UI's key, in the web UI's order. The others come after these, by their own labels.
KEYS = {
    "steps": "Steps",
    "sampler": "Sampler",
    "schedule": "Schedule type",
    "cfg_scale": "CFG scale",
    "seed": "Seed",
    "width": "Size-1",
    "height": "Size-2",
    "variation_seed": "Variation seed",
    "variation_strength": "Variation seed strength",
    "seed_resize_width": "Seed resize from-1",
    "seed_resize_height": "Seed resize from-2",
    "denoising_strength": "Denoising strength",
    "conditioning_mask_strength": "Conditional mask weight",
    "clip_skip": "Clip skip",
    "rng": "RNG",
    "eta": "Eta",
    "s_churn": "Sigma churn",
    "s_tmin": "Sigma tmin",
    "s_tmax": "Sigma tmax",
    "s_noise": "Sigma noise",
    "token_merging_ratio": "Token merging ratio",
    "mask_mode": "Mask mode",
    "mask_blur": "Mask blur",
    "mask_blur_y": "Mask blur Y",
    "inpaint_area": "Inpaint area",
    "only_masked_padding": "Masked area padding",
    "masked_content": "Masked content",
    "initial_noise_multiplier": "Noise multiplier",
    "refiner_switch_at": "Refiner switch at",
    "ip_adapter_scale": "IP-Adapter scale",
    "extra_noise": "Extra noise",
    "soft_inpainting": "Soft inpainting enabled",
    "schedule_bias": "Soft inpainting schedule bias",
    "preservation_strength": "Soft inpainting preservation strength",
    "transition_contrast_boost": "Soft inpainting transition contrast boost",
    "mask_influence": "Soft inpainting mask influence",
    "difference_threshold": "Soft inpainting difference threshold",
    "difference_contrast": "Soft inpainting difference contrast",
}
UPSCALE_KEYS = {
    "scale": f"{POSTPROCESS} upscale by",
    "maximum_side": f"{POSTPROCESS} max side length",
    "width": f"{POSTPROCESS} upscale to-1",
    "height": f"{POSTPROCESS} upscale to-2",
    "crop_to_fit": f"{POSTPROCESS} crop to fit",
    "upscaler": f"{POSTPROCESS} upscaler",
    "upscaler_2": f"{POSTPROCESS} upscaler 2",
    "upscaler_2_visibility": f"{POSTPROCESS} upscaler 2 visibility",
}
# Of operations beyond img2img and inpaint; their other settings have the operation's name before their labels.
OWN_KEYS = {
    "upscaler": "SD upscale upscaler",
    "overlap": "SD upscale overlap",
    "x_type": "X Type",
    "x_values": "X Values",
    "y_type": "Y Type",
    "y_values": "Y Values",
    "z_type": "Z Type",
    "z_values": "Z Values",
}
GPU = "GPU"  # what the web UI calls the noise that NV draws on any machine
AXES = ("x_type", "y_type", "z_type")
SCRIPT, TILING, OUTPAINT = "Script", "Tiling", "Outpaint"
TILINGS = {"True": (True, True), "X": (True, False), "Y": (False, True)}
# Operation → a key that it always writes. Img2img has none, and is what has no other; the rest are named as scripts.
MARKS = {"outpaint": OUTPAINT, "sd_upscale": OWN_KEYS["upscaler"], "inpaint": "Mask blur"}

ALWAYS = {"steps", "sampler", "schedule", "cfg_scale", "seed", "width", "height", "denoising_strength", "mask_blur"}
ALWAYS |= {"upscaler", "overlap", "rng"}  # the web UI takes its own RNG where it is told none
# These are written exactly where another one has been changed from its default: alone they do nothing.
WRITTEN_WITH = {
    "variation_seed": "variation_strength",
    "only_masked_padding": "inpaint_area",
    "refiner_switch_at": "refiner",
    "ip_adapter_scale": "ip_adapter",
    "schedule_bias": "soft_inpainting",
    "preservation_strength": "soft_inpainting",
    "transition_contrast_boost": "soft_inpainting",
    "mask_influence": "soft_inpainting",
    "difference_threshold": "soft_inpainting",
    "difference_contrast": "soft_inpainting",
}
JOINED = ("width", "height", "seed_resize_width", "seed_resize_height")  # two in one value, such as 512x768
SIDES = ("pixels_left", "pixels_right", "pixels_up", "pixels_down")
SEAMLESS = ("seamless_x", "seamless_y")
# What is told otherwise, or not of this picture: a style is part of the prompt, and a batch is of many pictures.
APART = {"prompt", "style", "negative_prompt", "model", "vae", "refiner", "ip_adapter", "batch_count", "batch_size"}
APART |= {*SIDES, *SEAMLESS}
SHARED = {item.name for item in dataclasses.fields(Inpaint)}

# Keys that need no word where they are left out: they don't change the picture, or the model is told by itself.
SILENT = {"Model", "Model hash", "VAE", "VAE hash", "Refiner", "IP-Adapter", "Init image hash", "Version", "User"}
SILENT |= {SCRIPT, TILING, OUTPAINT}
SILENT |= {f"Fixed {axis} Values" for axis in "XYZ"}  # what a grid's values came to


@dataclass(frozen=True)
class ParsedParameters:
    """What an infotext says, in our own words.

    operation: what made the picture. settings: its settings by name; what the text leaves out, though it would say so
    if it were not the default, is there with its default. upscale: how the picture was enlarged afterwards, if it was.
    model, vae, refiner, ip_adapter: the names of what made it, "" where the text names none; they are no settings,
    since names don't tell where a model is. notices: sentences on what was not taken as it stands.
    """

    operation: str
    settings: Mapping[str, Any]
    upscale: Mapping[str, Any]
    model: str
    vae: str
    notices: tuple[str, ...]
    refiner: str
    ip_adapter: str


def describe(picture: Picture) -> str:
    """Return a picture's infotext: its prompt with the style in it, then "Key: value" pairs, extras among them.

    What has its default is left out as the web UI does. An enlarged picture tells the text of its SOURCE first.
    """
    settings = picture.settings
    extras = {key: value for key, value in picture.extras.items() if key != SOURCE}
    if isinstance(settings, Diffusion):
        pairs = {**_pairs(settings), **extras, "Version": PROGRAM}
        return infotext.write(settings.full_prompt, settings.negative_prompt, pairs)
    source = str(picture.extras.get(SOURCE, ""))
    version = {} if "Version" in infotext.parse(source) else {"Version": PROGRAM}
    return infotext.append(source, {**_pairs(settings), **extras, **version}, replaced=POSTPROCESS)


def settings_from_text(text: str) -> ParsedParameters:
    """Return what an infotext says, be it ours, the web UI's, or a prompt alone; no text raises an error.

    The settings returned can be made: what is out of range is clamped, what is unknown is left out, and notices say so.
    """
    written = infotext.parse(text.replace("\0", ""), fill_defaults=False)
    prompt, negative_prompt = written.pop(infotext.PROMPT), written.pop(infotext.NEGATIVE_PROMPT)
    prompts = {"prompt": prompt, "style": "", "negative_prompt": negative_prompt}
    if not written:
        if not negative_prompt:
            del prompts["negative_prompt"]
        return ParsedParameters(Img2Img.operation, prompts, {}, "", "", (), "", "")
    notices: list[str] = []
    found = {**infotext.PARSED_DEFAULTS, **written}
    ours = written.get("Version") == PROGRAM
    if "RNG" not in written and ours:
        found["RNG"] = CPU
    if found["RNG"] == GPU:
        found["RNG"] = NV
    enlarged = any(key.startswith(POSTPROCESS) for key in written)
    upscale = _read_upscale(found, notices) if enlarged else {}
    if enlarged and not prompt and "Steps" not in written:
        operation, settings = "upscale", upscale
    else:
        operation = _operation(written, notices)
        settings = {**prompts, **_read(OPERATIONS[operation], found, ours, notices)}
    known = {_key(OPERATIONS[operation], item) for item in dataclasses.fields(OPERATIONS[operation])}
    known |= {*SILENT, *UPSCALE_KEYS.values()}
    unknown = [key for key in written if key not in known and key.removesuffix("-1").removesuffix("-2") not in known]
    if unknown:
        notices.append(f"Not known here, and left out: {', '.join(unknown)}.")
    model, vae, refiner, ip_adapter = (written.get(key, "") for key in ("Model", "VAE", "Refiner", "IP-Adapter"))
    return ParsedParameters(operation, settings, upscale, model, vae, tuple(notices), refiner, ip_adapter)


def _operation(written: Mapping[str, str], notices: list[str]) -> str:
    """Return the name of the operation that wrote these pairs."""
    script = written.get(SCRIPT, "")
    for name, cls in OPERATIONS.items():
        if issubclass(cls, Diffusion) and cls.label.casefold() == script.casefold():
            return name
    if script:
        notices.append(f"The script “{script}” is not available here.")
    return next((name for name, key in MARKS.items() if key in written), Img2Img.operation)


def _pairs(settings: Settings) -> dict[str, object]:
    """Return the pairs of a picture's settings, in the web UI's order, without those that say nothing."""
    if isinstance(settings, Upscale):
        return _upscale_pairs(settings)
    cls = type(settings)
    pairs: dict[str, object] = {}
    if isinstance(settings, Diffusion):
        pairs["Size"] = f"{settings.width}x{settings.height}"
        pairs["Model"] = _model_name(settings.model)
        pairs["VAE"] = _model_name(settings.vae) or None
        pairs["IP-Adapter"] = _model_name(settings.ip_adapter) or None
        pairs["Refiner"] = _model_name(settings.refiner) or None
        if settings.seed_resize_width and settings.seed_resize_height:
            pairs["Seed resize from"] = f"{settings.seed_resize_width}x{settings.seed_resize_height}"
        seamless = settings.seamless_x, settings.seamless_y
        pairs[TILING] = next((text for text, both in TILINGS.items() if both == seamless), None)
    if isinstance(settings, Outpaint):
        pairs[OUTPAINT] = " ".join(str(getattr(settings, name)) for name in SIDES)
    if settings.operation not in (*MARKS, Img2Img.operation):
        pairs[SCRIPT] = settings.label
    order = {name: index for index, name in enumerate(KEYS)}
    for item in sorted(dataclasses.fields(cls), key=lambda item: order.get(item.name, len(order))):
        if not _is_apart(cls, item) and item.name not in JOINED and _is_told(settings, item):
            pairs[_key(cls, item)] = _text(settings, item)
    if isinstance(settings, Diffusion):
        pairs["Sampler"] = settled_sampler(settings.sampler, traits_of(settings.model).flow)
    return pairs


def _upscale_pairs(settings: Upscale) -> dict[str, object]:
    """Return the pairs that say how a picture was enlarged; none where it was not."""
    if settings.upscaler == NO_UPSCALER:
        return {}
    keys = UPSCALE_KEYS
    if settings.resize_mode == "scale_by":
        pairs: dict[str, object] = {keys["scale"]: settings.scale}
        pairs[keys["maximum_side"]] = settings.maximum_side or None
    else:
        pairs = {keys["width"].removesuffix("-1"): f"{settings.width}x{settings.height}"}
        pairs[keys["crop_to_fit"]] = settings.crop_to_fit or None
    pairs[keys["upscaler"]] = _upscaler_name(settings, "upscaler")
    if settings.upscaler_2 != NO_UPSCALER and settings.upscaler_2_visibility > 0:
        pairs[keys["upscaler_2"]] = _upscaler_name(settings, "upscaler_2")
        pairs[keys["upscaler_2_visibility"]] = settings.upscaler_2_visibility
    return pairs


def _upscaler_name(settings: Settings, item: str) -> str:
    """Return how an upscaler is told: a file by its own name, without its folders."""
    name: str = getattr(settings, item)
    return Path(getattr(settings, f"{item}_file")).stem if name == OWN_UPSCALER else name


def _is_apart(cls: type[Settings], item: dataclasses.Field[Any]) -> bool:
    if issubclass(cls, SDUpscale) and item.name == "batch_size":
        return False  # the seeds of its tiles hang on it
    return item.name in APART or item.name.endswith("_file") or bool(item.metadata["is_path"])


def _is_told(settings: Settings, item: dataclasses.Field[Any]) -> bool:
    if item.name in ALWAYS:
        return True
    name = WRITTEN_WITH.get(item.name, item.name)
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    # What the web UI leaves out is its own default, which Outpaint's masked content differs in.
    return item.name == "masked_content" or getattr(settings, name) != defaults[name]


def _key(cls: type[Settings], item: dataclasses.Field[Any]) -> str:
    """Return the key of a setting: the web UI's, else its own label, after the operation's where only that has it."""
    known = UPSCALE_KEYS if issubclass(cls, Upscale) else {**KEYS, **OWN_KEYS}
    if item.name in known:
        return known[item.name]
    label: str = item.metadata["label"]
    if item.name in SHARED and item.name not in APART:
        return label.capitalize()
    first, *rest = f"{cls.label} {label}".split(" ")
    return " ".join([first, *(word.lower() for word in rest)])


def _text(settings: Settings, item: dataclasses.Field[Any]) -> object:
    """Return a setting's value as it is written: choices by their labels, as a sentence has them."""
    value, choices = getattr(settings, item.name), item.metadata["choices"]
    if item.name in ("upscaler", "upscaler_for_img2img"):
        return _upscaler_name(settings, item.name)
    label = choices[value][0] if choices else value
    if label == value or item.name in AXES:
        return label
    return label.lower() if item.name == "masked_content" else label.capitalize()


def _model_name(model: str) -> str:
    """Return a model's name without its folders, which are nobody's business."""
    if model == EMBEDDED:
        return EMBEDDED_TITLE
    if model.endswith(SINGLE_FILES):
        return Path(model).stem
    return model if HUB_NAME.fullmatch(model) else Path(model).name


def _read(cls: type[Settings], found: Mapping[str, str], ours: bool, notices: list[str]) -> dict[str, Any]:
    """Return the settings of a class that a text's pairs name, and the defaults of those that it needn't name."""
    values: dict[str, Any] = {}
    found = {**found, **_possible_size(found, notices)}
    for item in dataclasses.fields(cls):
        key = _key(cls, item)
        text = _found(item, key, found)
        if _is_apart(cls, item):
            continue
        if text is not None:
            values |= _taken(cls, item, key, text, notices)
        elif item.name not in ALWAYS | WRITTEN_WITH.keys() and (ours or item.name in KEYS):
            values[item.name] = item.default
    fields = {item.name: item for item in dataclasses.fields(cls)}
    if issubclass(cls, Diffusion):
        tiling = found.get(TILING, "")
        values |= dict(zip(SEAMLESS, TILINGS.get(tiling, (False, False)), strict=True))
        if tiling and tiling not in (*TILINGS, "False"):
            notices.append(f"{TILING} “{tiling}” is not understood.")
    pixels = found.get(OUTPAINT, "").split()
    if issubclass(cls, Outpaint) and len(pixels) == len(SIDES):
        for name, number in zip(SIDES, pixels, strict=True):
            values |= _taken(cls, fields[name], OUTPAINT, number, notices)
    return values


def _possible_size(found: Mapping[str, str], notices: list[str]) -> dict[str, str]:
    """Return the size, of the same proportions, that can be made where a text's is too large; notices tell."""
    sides = [found.get(key, "") for key in ("Size-1", "Size-2")]
    if not all(re.fullmatch(r"[1-9][0-9]{0,8}", side) for side in sides) or max(map(int, sides)) <= MAXIMUM_SIDE:
        return {}
    width, height = whole_size(*map(int, sides))
    notices.append(f"Size {sides[0]}x{sides[1]} is out of range here; {width}x{height} is taken.")
    return {"Size-1": str(width), "Size-2": str(height)}


def _read_upscale(found: Mapping[str, str], notices: list[str]) -> dict[str, Any]:
    """Return how a picture was enlarged; what the text leaves out though it would say so is off."""
    values: dict[str, Any] = {"maximum_side": 0, "upscaler_2": NO_UPSCALER, "crop_to_fit": False}
    for item in dataclasses.fields(Upscale):
        key = _key(Upscale, item)
        if key in found and not _is_apart(Upscale, item):
            values |= _taken(Upscale, item, key, found[key], notices)
    if "width" in values or "scale" in values:
        values["resize_mode"] = "scale_to" if "width" in values else "scale_by"
    if "width" not in values:
        del values["crop_to_fit"]
    return values


def _found(item: dataclasses.Field[Any], key: str, found: Mapping[str, str]) -> str | None:
    """Return what a text says of a key, None where it says nothing; words that look like a size were split apart."""
    if isinstance(item.default, str) and f"{key}-1" in found and f"{key}-2" in found:
        return f"{found[f'{key}-1']}x{found[f'{key}-2']}"
    return found.get(key)


def _taken(
    cls: type[Settings], item: dataclasses.Field[Any], key: str, text: str, notices: list[str]
) -> dict[str, Any]:
    """Return a setting with the value that a text gives it, nothing where it can't be had; notices tell."""
    choices = item.metadata["choices"]
    key = key.removesuffix("-1").removesuffix("-2")
    if choices:
        for value, (label, _) in choices.items():
            if text.casefold() in (value.casefold(), label.casefold()):
                return {item.name: value}
        kept = f"{AUTOMATIC} is taken" if item.name == "schedule" else "the one set is kept"
        notices.append(f"{key} “{text}” is not available here; {kept}.")
        return {item.name: AUTOMATIC} if item.name == "schedule" else {}
    kind: type = type(item.default)
    try:
        value = text if kind is str else _number(text, kind)
        minimum, maximum = item.metadata["minimum"], item.metadata["maximum"]
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            value = kind(maximum if minimum is None or value > minimum else minimum)
            notices.append(f"{key} {text} is out of range here; {value} is taken.")
        make_settings(cls, {item.name: value})
    except (ValueError, InvalidRequest):
        notices.append(f"{key} “{text}” is not understood; the one set is kept.")
        return {}
    return {item.name: value}


def _number(text: str, kind: type) -> Any:
    """Return a number or a truth value of that kind; raises ValueError for any other text."""
    if kind is bool and text.casefold() in ("true", "false"):
        return text.casefold() == "true"
    number = float(text)
    if kind is bool or not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise ValueError(f"{text!r} is not of the kind {kind.__name__}")
    return number if kind is float else int(number)
