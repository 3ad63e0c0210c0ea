"""A picture's settings as infotext, in the web UI's words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...imaging import infotext
from ...models.load import EMBEDDED_TITLE, HUB_NAME, SINGLE_FILES
from ...models.samplers import settled_sampler
from ...models.traits import traits_of
from ...settings import EMBEDDED, Diffusion, Img2Img, Outpaint, Settings, Upscale
from ...settings.upscale import NO_UPSCALER, OWN_UPSCALER
from .keys import (
    ALWAYS,
    AXES,
    JOINED,
    KEYS,
    MARKS,
    OUTPAINT,
    POSTPROCESS,
    PROGRAM,
    SCRIPT,
    SIDES,
    SOURCE,
    TILING,
    TILINGS,
    UPSCALE_KEYS,
    WRITTEN_WITH,
    is_apart,
    key_of,
)

if TYPE_CHECKING:
    from ..run import Picture


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
        if not is_apart(cls, item) and item.name not in JOINED and _is_told(settings, item):
            pairs[key_of(cls, item)] = _text(settings, item)
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


def _is_told(settings: Settings, item: dataclasses.Field[Any]) -> bool:
    if item.name in ALWAYS:
        return True
    name = WRITTEN_WITH.get(item.name, item.name)
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    # What the web UI leaves out is its own default, which Outpaint's masked content differs in.
    return item.name == "masked_content" or getattr(settings, name) != defaults[name]


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
