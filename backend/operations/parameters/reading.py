"""Settings out of any infotext, be it ours or the web UI's."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidRequest
from ...imaging import infotext
from ...models.samplers import AUTOMATIC
from ...request import whole_size
from ...settings import OPERATIONS, Diffusion, Img2Img, Outpaint, Settings, Upscale, make_settings
from ...settings.diffusion import CPU, MAXIMUM_SIDE, NV
from ...settings.upscale import NO_UPSCALER
from .keys import (
    ALWAYS,
    GPU,
    KEYS,
    MARKS,
    OUTPAINT,
    POSTPROCESS,
    PROGRAM,
    SCRIPT,
    SEAMLESS,
    SIDES,
    TILING,
    TILINGS,
    UPSCALE_KEYS,
    WRITTEN_WITH,
    is_apart,
    key_of,
)

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
    known = {key_of(OPERATIONS[operation], item) for item in dataclasses.fields(OPERATIONS[operation])}
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


def _read(cls: type[Settings], found: Mapping[str, str], ours: bool, notices: list[str]) -> dict[str, Any]:
    """Return the settings of a class that a text's pairs name, and the defaults of those that it needn't name."""
    values: dict[str, Any] = {}
    found = {**found, **_possible_size(found, notices)}
    for item in dataclasses.fields(cls):
        key = key_of(cls, item)
        text = _found(item, key, found)
        if is_apart(cls, item):
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
        key = key_of(Upscale, item)
        if key in found and not is_apart(Upscale, item):
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
