"""The settings of scripts: img2img, or inpaint where a mask is given, done several times over in one way or another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .declare import setting
from .diffusion import Img2Img, Inpaint

CURVES = {
    "linear": ("Linear", "The denoising strength changes evenly"),
    "aggressive": ("Aggressive", "It changes most in the first loops"),
    "lazy": ("Lazy", "It changes most in the last loops"),
}
AXES = {
    "nothing": ("Nothing", "No axis"),
    "seed": ("Seed", "Seeds"),
    "variation_seed": ("Var. seed", "Variation seeds"),
    "variation_strength": ("Var. strength", "Variation strengths"),
    "steps": ("Steps", "Sampling steps"),
    "cfg_scale": ("CFG Scale", "CFG scales"),
    "prompt_replace": ("Prompt S/R", "Search and replace: the first text is looked for, each one takes its place"),
    "prompt_order": ("Prompt order", "Every order of the words given"),
    "sampler": ("Sampler", "Sampling methods"),
    "schedule": ("Schedule type", "Schedule types"),
    "model": ("Checkpoint name", "Models"),
    "clip_skip": ("Clip skip", "Clip skips"),
    "denoising_strength": ("Denoising", "Denoising strengths"),
    "initial_noise_multiplier": ("Initial noise multiplier", "Initial noise multipliers"),
    "extra_noise": ("Extra noise", "Amounts of extra noise"),
    "eta": ("Eta", "How much of each step is fresh noise"),
    "s_churn": ("Sigma Churn", "Amounts of churn"),
    "s_tmin": ("Sigma min", "Noise levels below which nothing is churned"),
    "s_tmax": ("Sigma max", "Noise levels above which nothing is churned"),
    "s_noise": ("Sigma noise", "Multipliers of the sampler's fresh noise"),
    "rng": ("RNG source", "CPU or NV"),
    "vae": ("VAE", "VAEs; None is the model's own"),
    "conditioning_mask_strength": ("Cond. Image Mask Weight", "What an inpainting model sees of the masked part"),
    "mask_blur": ("Mask blur", "Mask blurs in pixels"),
    "style": ("Styles", "Styles"),
    "token_merging_ratio": ("Token merging ratio", "Token merging ratios"),
    "size": ("Size", "Sizes such as 512x768"),
}


@dataclass(frozen=True)
class Script(Inpaint):
    """What does img2img, or inpaint where a mask is given, more than once."""

    images: ClassVar[tuple[str, ...]] = ("init",)
    optional_images: ClassVar[tuple[str, ...]] = ("mask", "reference")


@dataclass(frozen=True)
class Loopback(Script):
    """Each result is the next loop's input."""

    operation: ClassVar[str] = "loopback"
    label: ClassVar[str] = "Loopback"

    loops: int = setting(4, "Loops", "How often the result is fed back", minimum=1, maximum=32)
    final_denoising_strength: float = setting(
        0.5, "Final Denoising Strength", "The last loop's denoising strength", minimum=0.0, maximum=1.0, step=0.01
    )
    denoising_curve: str = setting(
        "linear", "Denoising Curve", "How the denoising strength gets from the first to the last", choices=CURVES
    )
    append_interrogation: bool = setting(
        False, "Append Interrogation", "Add to the prompt of each loop what its input shows, as Interrogate reads it"
    )


def _axis(letter: str, default: str) -> Any:
    return setting(default, f"{letter} Type", f"What changes along the grid's {letter} axis", choices=AXES)


def _values(letter: str) -> Any:
    return setting("", f"{letter} Values", "Values with commas between them, or ranges such as 1-10 (+3), 0-1 [5]")


def _vary(letter: str) -> Any:
    return setting(False, f"Vary Seeds for {letter}", f"Count the seed on along the {letter} axis")


@dataclass(frozen=True)
class XYZPlot(Script):
    """A grid of pictures, each axis of which changes one setting."""

    operation: ClassVar[str] = "xyz_plot"
    label: ClassVar[str] = "X/Y/Z Plot"

    x_type: str = _axis("X", "cfg_scale")
    x_values: str = _values("X")
    y_type: str = _axis("Y", "nothing")
    y_values: str = _values("Y")
    z_type: str = _axis("Z", "nothing")
    z_values: str = _values("Z")
    draw_legend: bool = setting(True, "Draw Legend", "Write the values beside the grid")
    keep_random_seeds: bool = setting(False, "Keep -1 for Seeds", "Give every cell a random seed of its own")
    vary_seeds_x: bool = _vary("X")
    vary_seeds_y: bool = _vary("Y")
    vary_seeds_z: bool = _vary("Z")
    include_cells: bool = setting(False, "Include Single Pictures", "Give back every picture beside the grid")
    margin: int = setting(0, "Grid Margins", "Space between the cells in pixels", minimum=0, maximum=500)


@dataclass(frozen=True)
class PromptMatrix(Script):
    """A grid of every combination of the parts of a prompt, which | separates."""

    operation: ClassVar[str] = "prompt_matrix"
    label: ClassVar[str] = "Prompt Matrix"

    put_at_start: bool = setting(
        False, "Put Variable Parts at Start", "Write the parts that change before the rest of the prompt"
    )
    different_seeds: bool = setting(False, "Use Different Seeds", "Give each picture a seed of its own")
    matrix_of_negative: bool = setting(
        False, "Split the Negative Prompt", "Make the combinations of the negative prompt instead"
    )
    include_cells: bool = setting(False, "Include Single Pictures", "Give back every picture beside the grid")
    margin: int = setting(0, "Grid Margins", "Space between the cells in pixels", minimum=0, maximum=500)


@dataclass(frozen=True)
class PromptLines(Script):
    """One picture for each line of a text, which is its prompt."""

    operation: ClassVar[str] = "prompt_lines"
    label: ClassVar[str] = "Prompts from Text"

    lines: str = setting("", "Lines", 'One prompt a line, alone or as flags: --prompt "a cat" --steps 10 --cfg-scale 5')
    iterate_seed: bool = setting(False, "Iterate Seed Every Line", "Count the seed on from line to line")


@dataclass(frozen=True)
class Alternative(Img2Img):
    """The noise that would make the input is found first, then denoised under another prompt; the sampler is Euler."""

    operation: ClassVar[str] = "alternative"
    label: ClassVar[str] = "img2img Alternative"

    original_prompt: str = setting("", "Original Prompt", "What the input shows")
    original_negative_prompt: str = setting("", "Original Negative Prompt", "What the input doesn't show")
    decode_steps: int = setting(
        50, "Decode Steps", "How many steps the search for the noise takes", minimum=1, maximum=150
    )
    decode_cfg_scale: float = setting(
        1.0, "Decode CFG Scale", "The CFG scale of that search; near 1 is stable", minimum=0.0, maximum=15.0, step=0.1
    )
    randomness: float = setting(
        0.0, "Randomness", "How much of the seed's noise is mixed in", minimum=0.0, maximum=1.0, step=0.01
    )
