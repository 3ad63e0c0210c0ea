"""A picture's settings told as infotext by the web UI's rules, and read back from ours, the web UI's and any text."""

from __future__ import annotations

import dataclasses
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from backend.imaging import infotext
from backend.models.samplers import AUTOMATIC, AUTOMATIC_SAMPLER, settled_sampler
from backend.operations.parameters import SOURCE, describe, keys, settings_from_text
from backend.operations.run import Picture
from backend.settings import (
    OPERATIONS,
    Diffusion,
    Img2Img,
    Inpaint,
    Loopback,
    Outpaint,
    SDUpscale,
    Settings,
    Upscale,
    XYZPlot,
    make_settings,
)

TOLD = [cls for cls in OPERATIONS.values() if issubclass(cls, (Diffusion, Upscale))]


def text_of(settings: Settings, **extras: object) -> str:
    return describe(Picture(np.zeros((8, 8, 3), np.uint8), settings, extras))


PLAIN = "Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.0, Seed: 5, Size: 512x512"
EMBEDDED = "Model: viewport-diffusion-embedded"


def test_defaults_are_told_by_value() -> None:
    assert text_of(Img2Img(prompt="a knight", negative_prompt="blurry", seed=5)) == (
        f"a knight\nNegative prompt: blurry\n{PLAIN}, {EMBEDDED}, Denoising strength: 0.75, RNG: CPU, "
        "Version: Viewport Diffusion"
    )
    assert text_of(Inpaint(seed=5)) == (
        f"{PLAIN}, {EMBEDDED}, Denoising strength: 0.75, RNG: CPU, Mask blur: 4, Version: Viewport Diffusion"
    )
    assert text_of(Outpaint(seed=5)) == (
        f"{PLAIN}, {EMBEDDED}, Denoising strength: 0.8, RNG: CPU, Outpaint: 0 128 0 0, Mask blur: 8, "
        "Masked content: fill, Version: Viewport Diffusion"
    )
    assert text_of(Upscale()) == (
        "Postprocess upscale by: 2.0, Postprocess upscaler: R-ESRGAN 4x+ Anime6B, Version: Viewport Diffusion"
    )


def test_what_is_changed_is_told_in_the_web_uis_words_and_order() -> None:
    settings = Inpaint(
        seed=5,
        clip_skip=2,
        variation_seed=9,
        variation_strength=0.25,
        seed_resize_width=768,
        seed_resize_height=512,
        initial_noise_multiplier=0.9,
        extra_noise=0.1,
        conditioning_mask_strength=0.5,
        seamless_x=True,
        mask_mode="not_masked",
        mask_blur=8,
        mask_blur_y=2,
        inpaint_area="only_masked",
        masked_content="latent_noise",
    )
    assert text_of(settings) == (
        f"{PLAIN}, {EMBEDDED}, Variation seed: 9, Variation seed strength: 0.25, Seed resize from: 768x512, "
        "Denoising strength: 0.75, Conditional mask weight: 0.5, Clip skip: 2, RNG: CPU, Tiling: X, "
        "Mask mode: Inpaint not masked, Mask blur: 8, Mask blur Y: 2, Inpaint area: Only masked, "
        "Masked area padding: 32, Masked content: latent noise, Noise multiplier: 0.9, Extra noise: 0.1, "
        "Version: Viewport Diffusion"
    )


def test_what_has_no_word_in_the_web_ui_is_told_by_its_label() -> None:
    settings = Img2Img(
        resize_mode="crop_and_resize",
        exact_steps=True,
        colour_correction=True,
        background_colour="#102030",
        keep_alpha=False,
        resize_by=1.5,
    )
    text = text_of(settings)
    for pair in (
        "Resize mode: Crop and resize",
        "Do exactly the steps: True",
        "Colour correction: True",
        "Background colour: #102030",
        "Keep transparency: False",
        "Resize by: 1.5",
    ):
        assert pair in text
    assert text_of(Img2Img(variation_seed=9, seed_resize_width=768)) == text_of(Img2Img())


def test_soft_inpainting_is_told_whole_or_not_at_all() -> None:
    assert "Soft" not in text_of(Inpaint(schedule_bias=2.0))
    assert (
        "Soft inpainting enabled: True, Soft inpainting schedule bias: 2.0, "
        "Soft inpainting preservation strength: 0.5, Soft inpainting transition contrast boost: 4.0, "
        "Soft inpainting mask influence: 0.0, Soft inpainting difference threshold: 0.5, "
        "Soft inpainting difference contrast: 2.0"
    ) in text_of(Inpaint(soft_inpainting=True, schedule_bias=2.0))


def test_both_seamless_sides_are_the_web_uis_tiling() -> None:
    assert "Tiling: True" in text_of(Img2Img(seamless_x=True, seamless_y=True))
    assert "Tiling: Y" in text_of(Img2Img(seamless_y=True))
    assert "Tiling" not in text_of(Img2Img())


def test_a_style_is_part_of_the_prompt() -> None:
    text = text_of(Img2Img(prompt="a knight", style="ink of {prompt}, fine"))
    assert text.startswith("ink of a knight, fine\nSteps")
    parsed = settings_from_text(text).settings
    assert (parsed["prompt"], parsed["style"]) == ("ink of a knight, fine", "")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("/home/somebody/models/anime.v3.safetensors", "anime.v3"),
        ("/home/somebody/models/diffusers-folder", "diffusers-folder"),
        ("somebody/some-model", "somebody/some-model"),
        ("embedded", "viewport-diffusion-embedded"),
    ],
)
def test_a_model_is_told_without_its_folders(model: str, told: str) -> None:
    text = text_of(Img2Img(model=model))
    assert f", Model: {told}, " in text
    parsed = settings_from_text(text)
    assert parsed.model == told and "model" not in parsed.settings and parsed.notices == ()


def test_a_vae_is_told_by_its_name_after_the_model() -> None:
    text = text_of(Img2Img(vae="/home/somebody/vae/softer.safetensors"))
    assert f"{EMBEDDED}, VAE: softer, Denoising" in text
    parsed = settings_from_text(text)
    assert parsed.vae == "softer" and "vae" not in parsed.settings and parsed.notices == ()


def test_refiner_and_ip_adapter_are_told_by_their_names() -> None:
    text = text_of(Img2Img(refiner="/home/somebody/finer", ip_adapter="/home/somebody/plus.safetensors"))
    parsed = settings_from_text(text)
    assert (parsed.refiner, parsed.ip_adapter, parsed.notices) == ("finer", "plus", ())
    assert not {"refiner", "ip_adapter"} & parsed.settings.keys()


def test_more_merged_tokens_than_there_can_be_are_told() -> None:
    parsed = settings_from_text("a cat\nSteps: 20, Sampler: Euler, Seed: 1, Token merging ratio: 0.9")
    assert parsed.settings["token_merging_ratio"] == 0.75
    assert parsed.notices == ("Token merging ratio 0.9 is out of range here; 0.75 is taken.",)


def test_extras_are_pairs_too() -> None:
    text = text_of(Img2Img(), **{"Script": "X/Y/Z plot", "X Values": "1, 2"})
    assert text.endswith('RNG: CPU, Script: X/Y/Z plot, X Values: "1, 2", Version: Viewport Diffusion')


def test_an_enlarged_picture_tells_its_source_first() -> None:
    source = text_of(Img2Img(prompt="a knight", seed=5))
    text = text_of(Upscale(scale=3.0), **{SOURCE: source})
    assert text == f"{source}, Postprocess upscale by: 3.0, Postprocess upscaler: R-ESRGAN 4x+ Anime6B"
    again = text_of(Upscale(upscaler="Lanczos"), **{SOURCE: text})
    assert again == f"{source}, Postprocess upscale by: 2.0, Postprocess upscaler: Lanczos"
    parsed = settings_from_text(again)
    assert parsed.operation == "img2img" and parsed.settings["seed"] == 5
    assert {"upscaler": "Lanczos", "scale": 2.0}.items() <= parsed.upscale.items()
    bare = settings_from_text(text_of(Upscale(scale=3.0), **{SOURCE: ""}))
    assert bare.operation == "upscale" and bare.settings["scale"] == 3.0 and "prompt" not in bare.settings
    words = settings_from_text(text_of(Upscale(scale=3.0), **{SOURCE: "a knight"}))
    assert words.settings["prompt"] == "a knight" and words.upscale["scale"] == 3.0


def test_how_a_picture_was_enlarged_comes_back() -> None:
    settings = Upscale(
        upscaler="Lanczos",
        resize_mode="scale_to",
        width=900,
        height=700,
        crop_to_fit=False,
        upscaler_2="R-ESRGAN 4x+",
        upscaler_2_visibility=0.25,
    )
    text = text_of(settings)
    assert text == (
        "Postprocess upscale to: 900x700, Postprocess upscaler: Lanczos, Postprocess upscaler 2: R-ESRGAN 4x+, "
        "Postprocess upscaler 2 visibility: 0.25, Version: Viewport Diffusion"
    )
    assert make_settings(Upscale, settings_from_text(text).settings) == settings
    cropped = settings_from_text(text.replace("900x700", "900x700, Postprocess crop to fit: True")).settings
    assert cropped["crop_to_fit"] is True
    other = settings_from_text("Postprocess upscaler: ESRGAN_4x, Postprocess upscale by: 12, Steps: 3")
    assert other.upscale["scale"] == 8.0 and "upscaler" not in other.upscale and len(other.notices) == 2
    assert "Postprocess" not in text_of(Upscale(upscaler="None"))
    assert "Postprocess upscaler: own" in text_of(Upscale(upscaler="File", upscaler_file="/somebody/own.pth"))


def test_a_script_is_told_by_its_name_and_its_own_settings() -> None:
    text = text_of(XYZPlot(x_type="size", x_values="512x768", y_type="cfg_scale", y_values="1, 2"))
    axes = 'X Type: Size, X Values: 512x768, Y Type: CFG Scale, Y Values: "1, 2"'
    assert f"Script: X/Y/Z Plot, Mask blur: 4, {axes}, Version" in text
    parsed = settings_from_text(text.replace("X Type", "Fixed X Values: 512x768, X Type"))
    assert parsed.operation == "xyz_plot" and parsed.settings["x_values"] == "512x768" and parsed.notices == ()
    loops = settings_from_text(text_of(Img2Img(), **{"Script": "Loopback", "Loopback loops": 8}))
    assert loops.operation == "loopback" and loops.settings["loops"] == 8 and loops.notices == ()
    assert "Loopback denoising curve: Lazy" in text_of(Loopback(denoising_curve="lazy"))
    unknown = settings_from_text("a\nSteps: 2, Seed: 3, Script: Sketch Twice")
    assert unknown.notices == ("The script “Sketch Twice” is not available here.",)
    assert unknown.operation == "img2img"


def test_sd_upscale_is_told_by_the_web_uis_keys() -> None:
    text = text_of(SDUpscale(overlap=32, method="tiles", scale=3.0))
    upscaler = "SD upscale upscaler: R-ESRGAN 4x+ Anime6B"
    assert f"{upscaler}, SD upscale scale factor: 3.0, SD upscale overlap: 32, SD upscale method: Tiles" in text
    parsed = settings_from_text("a\nSteps: 2, Seed: 3, SD upscale overlap: 48, SD upscale upscaler: Lanczos")
    assert parsed.operation == "sd_upscale" and parsed.notices == ()
    assert {"overlap": 48, "upscaler": "Lanczos", "steps": 2}.items() <= parsed.settings.items()
    together = text_of(SDUpscale(batch_size=3))  # which the seeds of the tiles hang on
    assert "SD upscale batch size: 3" in together and settings_from_text(together).settings["batch_size"] == 3
    assert "atch size" not in text_of(SDUpscale()) + text_of(Img2Img(batch_size=3))


words = st.text(string.ascii_letters + " äé,.()[]:\"'\\\n漢🙂{}", max_size=30)


def value_of(item: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    low, high = item.metadata["minimum"], item.metadata["maximum"]
    if item.metadata["choices"]:
        return st.sampled_from(list(item.metadata["choices"]))
    if isinstance(item.default, bool):
        return st.booleans()
    if isinstance(item.default, int):
        return st.one_of(st.just(item.default), st.integers(low, high))
    if isinstance(item.default, float):
        return st.one_of(st.just(item.default), st.floats(low, high))
    if item.name == "background_colour":
        return st.from_regex(r"\A#[0-9a-f]{6}\Z")
    return st.just(item.default) if is_apart(item) else words


@st.composite
def any_settings(draw: st.DrawFn) -> Settings:
    cls = draw(st.sampled_from(TOLD))
    return make_settings(cls, {item.name: draw(value_of(item)) for item in dataclasses.fields(cls)})


def is_apart(item: dataclasses.Field[Any]) -> bool:
    return item.name in keys.APART - {"prompt", "negative_prompt", *keys.SIDES, *keys.SEAMLESS} or (
        item.name.endswith("_file")
    )


def is_plain(text: str) -> bool:
    lines = text.split("\n")
    return text == text.strip() and all(x == x.strip() and not x.startswith("Negative prompt:") for x in lines)


def is_single(value: str) -> bool:
    """Whether a pair can hold a text: the web UI's own quoting loses outer spaces and outer quotes."""
    return value == value.strip() and not (value.startswith('"') and value.endswith('"') and "," not in value)


def carried(settings: Settings) -> dict[str, Any]:
    """Return the settings that their picture's infotext must give back."""
    values = dataclasses.asdict(settings)
    lost = {item.name for item in dataclasses.fields(settings) if is_apart(item)}
    if isinstance(settings, Upscale):
        lost |= {"width", "height", "crop_to_fit"} if settings.resize_mode == "scale_by" else {"scale", "maximum_side"}
        if settings.upscaler_2 == "None" or settings.upscaler_2_visibility == 0:
            lost |= {"upscaler_2", "upscaler_2_visibility"}
    if isinstance(settings, Diffusion):
        values["prompt"] = settings.full_prompt
        values["sampler"] = settled_sampler(settings.sampler, False)
        if not settings.ip_adapter:
            lost |= {"ip_adapter_scale"}
        if not settings.refiner:
            lost |= {"refiner_switch_at"}
        if not settings.variation_strength:
            lost |= {"variation_seed"}
        if not (settings.seed_resize_width and settings.seed_resize_height):
            lost |= {"seed_resize_width", "seed_resize_height"}
    if isinstance(settings, Inpaint):
        if settings.inpaint_area == "whole_picture":
            lost |= {"only_masked_padding"}
        if not settings.soft_inpainting:
            lost |= {name for name, other in keys.WRITTEN_WITH.items() if other == "soft_inpainting"}
    return {name: value for name, value in values.items() if name not in lost}


@hypothesis_settings(max_examples=400, deadline=None)
@given(any_settings())
def test_every_setting_comes_back_as_it_was(settings: Settings) -> None:
    if isinstance(settings, Diffusion):
        own = [value for name, value in vars(settings).items() if isinstance(value, str) and "prompt" not in name[:9]]
        assume(is_plain(settings.full_prompt) and is_plain(settings.negative_prompt))
        assume(all(is_single(value) for value in own))
    upscalers = [getattr(settings, name, "Lanczos") for name in ("upscaler", "upscaler_2", "upscaler_for_img2img")]
    assume("File" not in upscalers and upscalers[0] != "None")
    parsed = settings_from_text(text_of(settings))
    assert parsed.operation == settings.operation and parsed.notices == ()
    wanted = carried(settings)
    assert {name: parsed.settings.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("cls", [cls for cls in TOLD if cls is not Upscale])
def test_each_setting_alone_changes_the_text_and_comes_back(cls: type[Settings]) -> None:
    inert = {"seed_resize_width", "seed_resize_height", *keys.WRITTEN_WITH}
    for item in dataclasses.fields(cls):
        if item.name in inert or is_apart(item):
            continue
        choices, low, high = (item.metadata[name] for name in ("choices", "minimum", "maximum"))
        if choices:
            unread = ("File", AUTOMATIC, AUTOMATIC_SAMPLER) if item.name == "sampler" else ("File",)
            others = [choice for choice in choices if choice not in unread]
        elif isinstance(item.default, bool):
            others = [not item.default]
        else:
            kind: type = type(item.default)
            others = ["#abcdef"] if kind is str else [kind(low), kind(high)]
        for value in others:
            settings = make_settings(cls, {item.name: value})
            if value != item.default:
                assert text_of(settings) != text_of(cls()), item.name
            assert settings_from_text(text_of(settings)).settings[item.name] == value, item.name


WEB_UI = (
    "masterpiece, 1girl, (solo:1.2)\nNegative prompt: lowres, bad hands\n"
    "Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 3022743107, Size: 512x768, Model hash: abcdef0123, "
    "Model: anime, VAE: kl-f8, Denoising strength: 0.6, Clip skip: 2, ENSD: 31337, Mask blur: 6, "
    'Inpaint area: Only masked, Masked area padding: 48, Masked content: fill, Lora hashes: "x: 1, y: 2", '
    "Noise multiplier: 1.05, Version: v1.10.1"
)


@pytest.mark.parametrize(
    ("pairs", "rng"),
    [
        ("Version: v1.10.1", "NV"),  # the web UI's own generator is the card's, which it doesn't tell
        ("RNG: GPU, Version: v1.10.1", "NV"),
        ("RNG: NV, Version: v1.10.1", "NV"),
        ("RNG: CPU, Version: v1.10.1", "CPU"),
        ("RNG: NV, Version: Viewport Diffusion", "NV"),
        ("Version: Viewport Diffusion", "CPU"),  # of the versions that had but one
    ],
)
def test_the_random_number_generator_is_read_as_it_was(pairs: str, rng: str) -> None:
    parsed = settings_from_text(f"a\nSteps: 2, Seed: 3, {pairs}")
    assert parsed.settings["rng"] == rng and parsed.notices == ()


def test_the_web_uis_text_is_read_by_value() -> None:
    parsed = settings_from_text(WEB_UI)
    expected = {
        "prompt": "masterpiece, 1girl, (solo:1.2)",
        "negative_prompt": "lowres, bad hands",
        "style": "",
        "steps": 28,
        "sampler": "DPM++ 2M",
        "schedule": "Karras",
        "cfg_scale": 7.5,
        "seed": 3022743107,
        "width": 512,
        "height": 768,
        "denoising_strength": 0.6,
        "clip_skip": 2,
        "mask_blur": 6,
        "inpaint_area": "only_masked",
        "only_masked_padding": 48,
        "masked_content": "fill",
        "mask_mode": "masked",
        "initial_noise_multiplier": 1.05,
        "rng": "NV",
        "eta": -1.0,
        "extra_noise": 0.0,
        "variation_strength": 0.0,
        "seamless_x": False,
    }
    assert expected.items() <= parsed.settings.items()
    assert parsed.operation == "inpaint" and (parsed.model, parsed.vae) == ("anime", "kl-f8") and parsed.upscale == {}
    assert parsed.notices == ("Not known here, and left out: ENSD, Lora hashes.",)
    # What the web UI has no word for says nothing by its absence.
    assert not {"resize_mode", "exact_steps", "keep_alpha", "colour_correction"} & parsed.settings.keys()
    assert settings_from_text(text_of(Img2Img())).settings["resize_mode"] == "just_resize"


@pytest.mark.parametrize(
    ("pair", "name", "value", "sentence"),
    [
        ("Sampler: Sketchy", "sampler", None, "Sampler “Sketchy” is not available here; the one set is kept."),
        ("Sampler: euler a", "sampler", "Euler a", ""),
        ("Schedule type: Sketchy", "schedule", "Automatic", "Schedule type “Sketchy” is not available here; "),
        ("Steps: 400", "steps", 150, "Steps 400 is out of range here; 150 is taken."),
        ("Steps: 28.0", "steps", 28, ""),
        ("CFG scale: 0.5", "cfg_scale", 1.0, "CFG scale 0.5 is out of range here; 1.0 is taken."),
        ("CFG scale: nan", "cfg_scale", None, "CFG scale “nan” is not understood; the one set is kept."),
        ("Size: 16x640", "width", 64, "Size 16 is out of range here; 64 is taken."),
        ("Size: 8192x4096", "height", 2048, "Size 8192x4096 is out of range here; 4096x2048 is taken."),
        ("Size: 0x9000", "height", 4096, "Size 0 is out of range here; 64 is taken."),
        ("Tiling: True", "seamless_y", True, ""),
        ("Tiling: maybe", "seamless_y", False, "Tiling “maybe” is not understood."),
        ("Mask mode: upside down", "mask_mode", None, ""),
    ],
)
def test_what_can_not_be_taken_is_said(pair: str, name: str, value: object, sentence: str) -> None:
    parsed = settings_from_text(f"a\nAlpha: 1, Beta: 2, Gamma: 3, {pair}")
    assert parsed.settings.get(name) == value
    others = "Not known here, and left out: Alpha, Beta, Gamma"
    assert (any(notice.startswith(sentence) for notice in parsed.notices)) and parsed.notices[-1].startswith(others)
    assert len(parsed.notices) == 1 + bool(sentence) + ("0x9000" in pair)


def test_a_prompt_alone_sets_nothing_else() -> None:
    assert settings_from_text("a knight").settings == {"prompt": "a knight", "style": ""}
    both = settings_from_text("a knight\nNegative prompt: blurry")
    assert both.settings == {"prompt": "a knight", "style": "", "negative_prompt": "blurry"} and both.notices == ()


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(max_size=200), words),
    st.dictionaries(
        st.sampled_from([*keys.KEYS.values(), "Size", "Tiling", "Outpaint", "Postprocess upscaler", "Version"]),
        st.one_of(st.text(max_size=12), st.integers().map(str), st.floats().map(str), st.just("5 5 5 5000")),
    ),
)
def test_whatever_a_text_says_the_settings_can_be_made(prompt: str, pairs: dict[str, str]) -> None:
    line = ", ".join(f"{key}: {infotext.quote(value)}" for key, value in pairs.items())
    parsed = settings_from_text(f"{prompt}\n{line}")
    make_settings(OPERATIONS[parsed.operation], parsed.settings)
    make_settings(Upscale, parsed.upscale)
    assert all(notice.endswith(".") for notice in parsed.notices)


def test_importing_it_costs_neither_torch_nor_pillow() -> None:
    program = (
        "import backend.operations.parameters, sys; "
        "print(sorted({'torch', 'PIL', 'diffusers', 'skimage'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.strip() == "[]"
