"""Infotext: the web UI's text of a picture's settings, written and read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

PROMPT = "Prompt"
NEGATIVE_PROMPT = "Negative prompt"

KEYS_BEFORE_EXTRAS = (
    "Steps",
    "Sampler",
    "Schedule type",
    "CFG scale",
    "Image CFG scale",
    "Seed",
    "Face restoration",
    "Size",
    "Model hash",
    "Model",
    "FP8 weight",
    "Cache FP16 weight for LoRA",
    "VAE hash",
    "VAE",
    "Variation seed",
    "Variation seed strength",
    "Seed resize from",
    "Denoising strength",
    "Conditional mask weight",
    "Clip skip",
    "ENSD",
    "Token merging ratio",
    "Token merging ratio hr",
    "Init image hash",
    "RNG",
    "Tiling",
)
"""Order of the keys in the web UI; every other key follows in the order given, then KEYS_AFTER_EXTRAS."""

KEYS_AFTER_EXTRAS = ("Version", "User")

UNWRITTEN_DEFAULTS = {
    "Clip skip": "1",
    "RNG": "GPU",
    "Mask mode": "Inpaint masked",
    "Inpaint area": "Whole picture",
    "Masked content": "original",
}
"""Values that the web UI leaves out when it writes, because they are the defaults."""

PARSED_DEFAULTS = {
    "Clip skip": "1",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": "32",
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "Hires checkpoint": "Use same checkpoint",
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires resize-1": "0",
    "Hires resize-2": "0",
    "Refiner switch by sampling steps": "False",
}
"""Values that the web UI fills in for keys that a text leaves out."""

SCHEDULES_IN_OLD_NAMES = ("Karras", "Exponential", "Polyexponential", "SGM Uniform")
"""Schedules that were once the last words of a sampler's name, as in "DPM++ 2M Karras"."""

PAIR = re.compile(r'(?P<key>\w[\w /-]{1,80}):\s*(?P<value>"(?:[^"\\]|\\.)+"|[^,]*)(?:,|$)')
PADDED_PAIR = re.compile(rf"\s*{PAIR.pattern}")
SIZE = re.compile(r"(\d+)x(\d+)")
WEIGHTS = re.compile(r"(?<!\\)[(\[]")
MINIMUM_PAIRS = 3


def quote(value: object) -> str:
    """The value as text, a JSON string (no ASCII escapes) only where it holds a comma, a colon or a line break."""
    text = str(value)
    if not any(mark in text for mark in ",:\n"):
        return text
    return json.dumps(text, ensure_ascii=False)


def unquote(text: str) -> str:
    """The value that `quote` wrote; what is not a JSON string comes back as it is."""
    if len(text) < 2 or not (text.startswith('"') and text.endswith('"')):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return str(value)


def split_sampler(name: str) -> tuple[str, str | None]:
    """Sampler and schedule of an old combined name: "DPM++ 2M Karras" gives ("DPM++ 2M", "Karras"), others None."""
    for schedule in SCHEDULES_IN_OLD_NAMES:
        if name.endswith(f" {schedule}"):
            return name.removesuffix(f" {schedule}"), schedule
    return name, None


def _ordered(parameters: Mapping[str, object]) -> list[str]:
    known = {*KEYS_BEFORE_EXTRAS, *KEYS_AFTER_EXTRAS}
    extras = [key for key in parameters if key not in known]
    return [key for key in (*KEYS_BEFORE_EXTRAS, *extras, *KEYS_AFTER_EXTRAS) if key in parameters]


def write(prompt: str, negative_prompt: str, parameters: Mapping[str, object]) -> str:
    """The infotext of a picture: the prompt, a line "Negative prompt: …" unless empty, a line of "Key: value" pairs.

    Pairs come in the web UI's order; None and its unwritten defaults are left out; a value equal to its key prints the
    key alone, as there.
    """
    negative_line = f"\nNegative prompt: {negative_prompt}" if negative_prompt else ""
    return f"{prompt}{negative_line}\n{_line(parameters)}".strip()


def append(text: str, parameters: Mapping[str, object], replaced: str = "") -> str:
    """An infotext with more pairs at its end, and without the earlier ones whose keys start with `replaced`."""
    *lines, last = text.strip().split("\n")
    if len(PAIR.findall(last)) < MINIMUM_PAIRS:
        lines, last = [*lines, last], ""
    elif replaced:
        last = PADDED_PAIR.sub(lambda pair: "" if pair["key"].startswith(replaced) else pair[0], last).strip(", ")
    return "\n".join([*lines, ", ".join(part for part in (last, _line(parameters)) if part)]).strip()


def _line(parameters: Mapping[str, object]) -> str:
    pairs = []
    for key in _ordered(parameters):
        value = parameters[key]
        if value is None or UNWRITTEN_DEFAULTS.get(key) == str(value):
            continue
        pairs.append(key if str(value) == key else f"{key}: {quote(value)}")
    return ", ".join(pairs)


def _split_prompts(lines: list[str]) -> tuple[str, str]:
    prompt: list[str] = []
    negative: list[str] = []
    current = prompt
    for raw in lines:
        line = raw.strip()
        if line.startswith("Negative prompt:"):
            current = negative
            line = line.removeprefix("Negative prompt:").strip()
        current.append(line)
    return "\n".join(prompt), "\n".join(negative)


def parse(text: str, *, fill_defaults: bool = True) -> dict[str, str]:
    """The settings in an infotext: "Prompt", "Negative prompt" and every key of its last line, all as text.

    The last line counts as settings only with at least three pairs. A value like 512x768 becomes the keys "Size-1" and
    "Size-2". An old combined sampler name is split into "Sampler" and "Schedule type". With `fill_defaults`, keys that
    the web UI writes only when changed get its defaults. The web UI's rules, measured; no text raises an error.
    """
    *lines, last = text.strip().split("\n")
    pairs = list(PAIR.finditer(last))
    if len(pairs) < MINIMUM_PAIRS:
        lines.append(last)
        pairs = []
    prompt, negative_prompt = _split_prompts(lines)
    settings = {PROMPT: prompt, NEGATIVE_PROMPT: negative_prompt}
    for pair in pairs:
        key, value = pair["key"].strip(), unquote(pair["value"].strip())
        size = SIZE.fullmatch(value)
        if size:
            settings[f"{key}-1"], settings[f"{key}-2"] = size[1], size[2]
        else:
            settings[key] = value
    _split_old_sampler(settings)
    if fill_defaults:
        for key, value in PARSED_DEFAULTS.items():
            settings.setdefault(key, value)
        if WEIGHTS.search(prompt) or WEIGHTS.search(negative_prompt):
            settings.setdefault("Emphasis", "Original")
    return settings


def _split_old_sampler(settings: dict[str, str]) -> None:
    if settings.get("Schedule type", "Automatic") != "Automatic" or "Sampler" not in settings:
        return
    sampler, schedule = split_sampler(settings["Sampler"])
    if schedule is not None:
        settings["Sampler"], settings["Schedule type"] = sampler, schedule


NOVELAI_SAMPLERS = {
    "k_euler": "Euler",
    "k_euler_ancestral": "Euler a",
    "k_lms": "LMS",
    "k_dpm_2": "DPM2",
    "k_dpm_2_ancestral": "DPM2 a",
    "k_dpmpp_2m": "DPM++ 2M",
    "k_dpmpp_2m_sde": "DPM++ 2M SDE",
    "k_dpmpp_2s_ancestral": "DPM++ 2S a",
    "k_dpmpp_sde": "DPM++ SDE",
    "ddim": "DDIM",
    "plms": "PLMS",
}
"""NovelAI's names of samplers, and the web UI's names of the same."""


def from_novelai(comment: str, description: str = "") -> str | None:
    """The infotext of a picture by NovelAI from its "Comment" (JSON) and "Description"; None for other comments."""
    try:
        values = json.loads(comment)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or "steps" not in values:
        return None
    size = f"{values['width']}x{values['height']}" if "width" in values and "height" in values else None
    names = {
        "steps": "Steps",
        "sampler": "Sampler",
        "scale": "CFG scale",
        "seed": "Seed",
        "strength": "Denoising strength",
    }
    parameters: dict[str, object] = {name: values[key] for key, name in names.items() if key in values}
    if "Sampler" in parameters:
        parameters["Sampler"] = NOVELAI_SAMPLERS.get(str(parameters["Sampler"]), parameters["Sampler"])
    prompt = description or str(values.get("prompt", ""))
    return write(prompt, str(values.get("uc", "")), {**parameters, "Size": size})
