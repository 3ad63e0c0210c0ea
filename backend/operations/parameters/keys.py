"""What settings are called in an infotext, and which of them stand there: the same for writing and for reading."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...settings import Inpaint, SDUpscale, Settings, Upscale

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


def is_apart(cls: type[Settings], item: dataclasses.Field[Any]) -> bool:
    if issubclass(cls, SDUpscale) and item.name == "batch_size":
        return False  # the seeds of its tiles hang on it
    return item.name in APART or item.name.endswith("_file") or bool(item.metadata["is_path"])


def key_of(cls: type[Settings], item: dataclasses.Field[Any]) -> str:
    """Return the key of a setting: the web UI's, else its own label, after the operation's where only that has it."""
    known = UPSCALE_KEYS if issubclass(cls, Upscale) else {**KEYS, **OWN_KEYS}
    if item.name in known:
        return known[item.name]
    label: str = item.metadata["label"]
    if item.name in SHARED and item.name not in APART:
        return label.capitalize()
    first, *rest = f"{cls.label} {label}".split(" ")
    return " ".join([first, *(word.lower() for word in rest)])
