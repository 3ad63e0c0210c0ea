"""The settings of everything that runs a diffusion model: img2img and inpaint, and what the other operations share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from ..models.samplers import AUTOMATIC, SAMPLER_NAMES, SCHEDULES
from .declare import Settings, named, setting
from .upscale import NO_UPSCALER, UPSCALERS_INPUT

EMBEDDED = "embedded"
RANDOM_SEED = -1
MAXIMUM_SEED = 2**32 - 1
SIDE_STEP = 8  # pixels; diffusion models take sides that are multiples of it
MAXIMUM_SIDE = 4096  # pixels

RESIZE_MODES = {
    "just_resize": ("Just Resize", "Stretch the picture to the size, whatever that does to its proportions"),
    "crop_and_resize": ("Crop and Resize", "Keep proportions, fill the whole size and crop what sticks out"),
    "resize_and_fill": ("Resize and Fill", "Keep proportions, show all of it and fill the bars from its edges"),
    "latent": ("Just Resize (Latent)", "Stretch the latents instead of the pixels; wants a denoising above 0.5"),
}
LARGE_CANVASES = {
    "enlarge": ("Enlarge", "Make it at the model's own size, then enlarge it"),
    "refine": ("Refine in Tiles", "Make it at the model's own size, enlarge it, and draw its details anew in tiles"),
    "as_is": ("As It Is", "Make it at its own size, as the web UI does: figures tend to be doubled"),
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
INPAINT_AREAS = {
    "whole_picture": ("Whole Picture", "Process the whole picture at the size set"),
    "only_masked": ("Only Masked", "Process the masked part alone, enlarged to the size set, and paste it back"),
}
# What each costs is from docs/bench.md: a job of Stable Diffusion 1's size, and the embedded model's pictures.
FAST_MODES = {
    "off": ("Off", "Every step in full"),
    "balanced": (
        "Balanced",
        "Deep layers run in every other step: about 1.6 times as fast, 31 to 39 dB to the full picture",
    ),
    "fastest": (
        "Fastest",
        "Deep layers in every third step, half of the tokens merged: about 2 times as fast, 26 to 33 dB",
    ),
}

MOST_MERGED = 0.75  # of the tokens: what is left is one in each square of 2×2, into which the others are merged

CPU, NV = "CPU", "NV"
RNGS = {
    CPU: (CPU, "Torch's generator for processors"),
    NV: (NV, "What an NVIDIA card would draw, on any machine: a seed of the web UI's gives the web UI's picture"),
}


def denoising(default: float, description: str) -> Any:
    """Declare a denoising strength."""
    return setting(default, "Denoising Strength", description, minimum=0.0, maximum=1.0, step=0.01)


@dataclass(frozen=True)
class Diffusion(Settings):
    """What every operation that runs a diffusion model shares."""

    optional_images: ClassVar[tuple[str, ...]] = ("reference",)

    prompt: str = setting("", "Prompt", "What the picture should show, and in which style")
    style: str = setting(
        "", "Style", "Words for the style, put before the prompt; {prompt} in them marks the prompt's own place"
    )
    negative_prompt: str = setting("", "Negative Prompt", "What the picture should not show")
    model: str = setting(
        EMBEDDED,
        "Model",
        "The embedded model, a diffusers folder, a single file (.safetensors, .ckpt) or a hub name",
        is_path=True,
    )
    vae: str = setting(
        "",
        "VAE",
        "What reads and draws the picture in place of the model's own: a .safetensors file or a diffusers folder",
        is_path=True,
    )
    refiner: str = setting(
        "",
        "Refiner",
        "A second model for the last steps, such as Stable Diffusion XL's refiner: a diffusers folder or hub name",
        is_path=True,
    )
    refiner_switch_at: float = setting(
        0.8,
        "Refiner Switch At",
        "Where in the schedule of noise levels the refiner takes over: 0 at its start, 1 never",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    ip_adapter: str = setting(
        "",
        "IP-Adapter",
        "A .safetensors file that lets the picture follow a reference image beside the prompt; its image encoder lies "
        "beside it",
        is_path=True,
    )
    ip_adapter_scale: float = setting(
        0.6,
        "IP-Adapter Scale",
        "How strongly the reference image acts; 0 leaves it out",
        minimum=0.0,
        maximum=1.5,
        step=0.05,
    )
    steps: int = setting(
        20, "Sampling Steps", "How many steps the denoising of a whole picture takes", minimum=1, maximum=150
    )
    sampler: str = setting(
        AUTOMATIC,
        "Sampling Method",
        "How noise is removed; Automatic is Euler a, or Euler for the models that it can't solve",
        choices=named(SAMPLER_NAMES),
    )
    schedule: str = setting(
        AUTOMATIC, "Schedule Type", "How the noise levels of the steps are spaced", choices=named(SCHEDULES)
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
    clip_skip: int = setting(
        1,
        "Clip Skip",
        "Which of the text encoder's layers the prompt is read at, counted from its end; for Stable Diffusion XL 1 and"
        " 2 are the same",
        minimum=1,
        maximum=12,
    )
    fast_mode: str = setting(
        "off", "Fast Mode", "What each step leaves out, to be done sooner and less exactly", choices=FAST_MODES
    )
    token_merging_ratio: float = setting(
        0.0,
        "Token Merging Ratio",
        "Share of the picture's tokens that count as one with others like them: faster, and details shift; the web UI's"
        " 0.9 does no more than 0.75",
        minimum=0.0,
        maximum=MOST_MERGED,
        step=0.05,
    )
    batch_count: int = setting(1, "Batch Count", "How many batches are made one after another", minimum=1, maximum=100)
    batch_size: int = setting(
        1, "Batch Size", "How many pictures are made at once; takes more memory", minimum=1, maximum=8
    )
    variation_seed: int = setting(
        RANDOM_SEED,
        "Variation Seed",
        "A second seed whose noise is mixed into the first one's",
        minimum=-1,
        maximum=MAXIMUM_SEED,
    )
    variation_strength: float = setting(
        0.0,
        "Variation Strength",
        "How far the picture goes from the seed's to the variation seed's; 0 leaves the latter out",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    seed_resize_width: int = setting(
        0,
        "Resize Seed from Width",
        "Draw the seed's noise at this width, so that the picture resembles the one made there; 0 is off",
        minimum=0,
        maximum=MAXIMUM_SIDE,
        step=SIDE_STEP,
    )
    seed_resize_height: int = setting(
        0,
        "Resize Seed from Height",
        "Draw the seed's noise at this height, so that the picture resembles the one made there; 0 is off",
        minimum=0,
        maximum=MAXIMUM_SIDE,
        step=SIDE_STEP,
    )
    initial_noise_multiplier: float = setting(
        1.0,
        "Initial Noise Multiplier",
        "How much noise is added before the first step: less keeps the picture smoother, more gives more detail",
        minimum=0.0,
        maximum=1.5,
        step=0.01,
    )
    extra_noise: float = setting(
        0.0,
        "Extra Noise",
        "Noise added on top of what the first step expects: more detail, and soon grain",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    eta: float = setting(
        -1.0,
        "Eta",
        "How much of each step is fresh noise, for ancestral samplers and DDIM; -1 takes the sampler's own, 1 or 0",
        minimum=-1.0,
        maximum=1.0,
        step=0.01,
    )
    s_churn: float = setting(
        0.0,
        "Sigma Churn",
        "How much fresh noise is added in all before the steps of Euler",
        minimum=0.0,
        maximum=100.0,
        step=0.1,
    )
    s_tmin: float = setting(
        0.0, "Sigma Min", "The noise level below which nothing is churned", minimum=0.0, maximum=10.0, step=0.01
    )
    s_tmax: float = setting(
        0.0,
        "Sigma Max",
        "The noise level above which nothing is churned; 0 sets no limit",
        minimum=0.0,
        maximum=999.0,
        step=0.1,
    )
    s_noise: float = setting(
        1.0, "Sigma Noise", "What the sampler's fresh noise is multiplied by", minimum=0.0, maximum=1.1, step=0.001
    )
    rng: str = setting(CPU, "Random Number Generator", "Where the noise of a seed comes from", choices=RNGS)
    colour_correction: bool = setting(
        False, "Colour Correction", "Give the result the colours of the input, keeping its own light and dark"
    )
    seamless_x: bool = setting(False, "Seamless X", "Make the left and right edges fit together, for textures")
    seamless_y: bool = setting(False, "Seamless Y", "Make the upper and lower edges fit together, for textures")

    @property
    def full_prompt(self) -> str:
        """The prompt with its style; around no prompt a style closes its gap: "ink of {prompt}" is "ink" then."""
        if "{prompt}" in self.style and self.prompt.strip():
            return self.style.replace("{prompt}", self.prompt)
        if "{prompt}" in self.style:
            return re.sub(r"(\s+of)?\s*\{prompt\}", "", self.style).strip()
        return ", ".join(part for part in (self.style.strip(), self.prompt.strip()) if part)


@dataclass(frozen=True)
class Denoising(Diffusion):
    """What every operation shares that starts from a picture, each with a denoising strength of its own."""

    denoising_strength: float = denoising(
        0.75, "How far the result may leave the captured picture: 0 keeps it, 1 all but ignores it"
    )


@dataclass(frozen=True)
class Img2Img(Denoising):
    """A picture made from a picture and a prompt."""

    operation: ClassVar[str] = "img2img"
    label: ClassVar[str] = "Generate"

    resize_mode: str = setting(
        "just_resize",
        "Resize Mode",
        "How a picture of other proportions is brought to the size",
        choices=RESIZE_MODES,
    )
    resize_by: float = setting(
        0.0,
        "Resize By",
        "Make the size from the input's, times this; 0 takes width and height",
        minimum=0.0,
        maximum=4.0,
        step=0.05,
    )
    upscaler_for_img2img: str = setting(
        NO_UPSCALER,
        "Upscaler for img2img",
        "What enlarges an input that is smaller than the picture; None is Lanczos",
        choices=UPSCALERS_INPUT,
    )
    upscaler_for_img2img_file: str = setting(
        "", "Upscaler File", "A .safetensors or .pth file of weights, read when the upscaler is File", is_path=True
    )
    large_canvas: str = setting(
        "enlarge",
        "Large Canvas",
        "How a picture is made that is larger than the model is at its best",
        choices=LARGE_CANVASES,
    )
    keep_alpha: bool = setting(True, "Keep Transparency", "Put the transparency of the input back on the result")
    background_colour: str = setting(
        "#ffffff", "Background Colour", "What transparent parts of the input are laid on, as #rrggbb"
    )


@dataclass(frozen=True)
class Inpaint(Img2Img):
    """A masked part of a picture painted anew."""

    operation: ClassVar[str] = "inpaint"
    label: ClassVar[str] = "Inpaint"
    images: ClassVar[tuple[str, ...]] = ("init", "mask")

    denoising_strength: float = denoising(
        0.75, "How far the masked part may leave what is there: 0 keeps it, 1 all but ignores it"
    )
    mask_blur: int = setting(4, "Mask Blur", "Softness of the mask's edge in pixels", minimum=0, maximum=64)
    mask_blur_y: int = setting(
        -1, "Mask Blur Y", "Softness of the mask's upper and lower edges; -1 takes Mask Blur", minimum=-1, maximum=64
    )
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
    conditioning_mask_strength: float = setting(
        1.0,
        "Conditioning Mask Strength",
        "What an inpainting model sees of the masked part: 1 hides it, 0 shows it whole",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    return_mask: bool = setting(False, "Save Mask", "Give the mask back too, as it was laid over the result")
    return_mask_composite: bool = setting(
        False, "Save Masked Composite", "Give what was painted back too, transparent where the mask is black"
    )
    soft_inpainting: bool = setting(
        False, "Soft Inpainting", "Let greys of the mask mix old and new, instead of a hard border between them"
    )
    schedule_bias: float = setting(
        1.0,
        "Schedule Bias",
        "Soft inpainting: above 1 keeps the original longer while it is blurry, below 1 while details form",
        minimum=0.0,
        maximum=8.0,
        step=0.1,
    )
    preservation_strength: float = setting(
        0.5,
        "Preservation Strength",
        "Soft inpainting: how strongly partly masked parts keep the original",
        minimum=0.0,
        maximum=8.0,
        step=0.05,
    )
    transition_contrast_boost: float = setting(
        4.0,
        "Transition Contrast Boost",
        "Soft inpainting: how much contrast the mix of old and new keeps",
        minimum=1.0,
        maximum=32.0,
        step=0.5,
    )
    mask_influence: float = setting(
        0.0,
        "Mask Influence",
        "Soft inpainting: how much the mask itself, rather than what changed, decides where the result shows",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
    )
    difference_threshold: float = setting(
        0.5,
        "Difference Threshold",
        "Soft inpainting: how much must have changed before the result shows",
        minimum=0.0,
        maximum=8.0,
        step=0.25,
    )
    difference_contrast: float = setting(
        2.0,
        "Difference Contrast",
        "Soft inpainting: how sharply old and new are told apart",
        minimum=0.0,
        maximum=8.0,
        step=0.25,
    )

    @property
    def blurs(self) -> tuple[int, int]:
        """The mask's blur along x and y, in pixels."""
        return self.mask_blur, self.mask_blur if self.mask_blur_y < 0 else self.mask_blur_y
