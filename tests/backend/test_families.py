"""Each family of transformers against its own diffusers pipeline, and what its models can't do."""

from __future__ import annotations

import copy
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_inpaint, pipeline_qwenimage_edit_plus
from PIL import Image

from backend.engine import Engine
from backend.errors import Cancelled, InvalidRequest
from backend.models.families.flux import unpack
from backend.models.families.qwen_image import StillProcessor
from backend.models.load import Models, Options
from backend.models.needs import QWEN_IMAGE_EDIT_SIDE, QWEN_IMAGE_SIDE, anatomy_of
from backend.models.samplers import SAMPLERS, build_scheduler, is_flow
from backend.models.traits import traits_of
from backend.operations.noise import Seed
from backend.operations.plan import plan_steps
from backend.operations.sampling import Start, sample
from backend.request import Request
from backend.settings import Img2Img, Inpaint
from tests.backend import tiny
from tests.backend.helpers import Picture, img2img, run

FULL = Options(device="cpu", precision="float32")
NEW = ("sd3", "z_image", "qwen_image", "refiner", "kontext", "fill", "flux2", "klein", "qwen_edit")


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return the folder of a family's tiny model."""
    return lambda family: tiny.folder(family, tmp_path_factory.getbasetemp())


@pytest.fixture
def engine_of(tiny_model: Callable[[str], str]) -> Callable[[str], tuple[Engine, dict[str, Any]]]:
    """Return an engine that has a family's tiny model loaded, and settings for a picture of 96×80."""

    def engine(family: str) -> tuple[Engine, dict[str, Any]]:
        made = Engine(FULL)
        made.models.get(tiny_model(family))
        return made, {"model": tiny_model(family), "width": 96, "height": 80, "sampler": "Euler", "prompt": "a cat"}

    return engine


# How each family's pipeline is asked for a CFG scale of 3, as the web UI counts it, with a negative prompt.
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "sd3": ("StableDiffusion3Img2ImgPipeline", {"guidance_scale": 3.0, "negative_prompt": ["a dog"] * 2}),
    "z_image": ("ZImageImg2ImgPipeline", {"guidance_scale": 2.0, "negative_prompt": ["a dog"] * 2}),
    "qwen_image": ("QwenImageImg2ImgPipeline", {}),  # whose own CFG rescales the result
}


@pytest.mark.parametrize("family", ASKED)
@pytest.mark.parametrize(("denoising_strength", "executed"), [(0.5, 5), (0.95, 8)])
def test_it_is_sampled_as_by_diffusers(
    family: str, denoising_strength: float, executed: int, tiny_model: Callable[[str], str], picture: Picture
) -> None:
    model = Models(FULL).get(tiny_model(family))
    kind, asked = ASKED[family]
    scale = 3.0 if asked else 1.0
    settings = Img2Img(prompt="a cat", negative_prompt="a dog", steps=8, sampler="Euler", cfg_scale=scale)
    latents = model.encode(picture[:64, :96].copy())
    assert latents.shape == (1, 16, 8, 12)
    plan = plan_steps(8, denoising_strength)
    found = sample(model, settings, plan, Start(latents, [Seed(3), Seed(4)]), lambda done, total: None)
    pipe: Any = getattr(diffusers, kind).from_pretrained(tiny_model(family))
    pipe.set_progress_bar_config(disable=True)
    if family == "z_image":
        pipe.image_processor.register_to_config(vae_latent_channels=16)
    expected = pipe(
        prompt=["a cat"] * 2,
        **copy.deepcopy(asked),  # Z-Image's writes its chat template into the list of prompts
        image=latents,
        width=96,
        height=64,
        strength=executed / 8,
        num_inference_steps=8,
        generator=[Seed(3).generator(), Seed(4).generator()],
        output_type="latent",
    ).images
    expected = unpack(expected, 4, 6) if family == "qwen_image" else expected
    assert torch.allclose(found, expected, atol=1e-4)


SEEING = {
    "kontext": "FluxKontextInpaintPipeline",
    "fill": "FluxFillPipeline",
    "flux2": "Flux2Pipeline",
    "klein": "Flux2KleinInpaintPipeline",
    "distilled": "Flux2KleinInpaintPipeline",
}


@pytest.mark.parametrize("family", SEEING)
def test_what_sees_the_picture_is_sampled_as_by_diffusers(
    family: str, tiny_model: Callable[[str], str], picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Diffusers' own pipelines have no strength for Flux 2, and draw what Fill's VAE reads from its distribution."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    small = picture[60:124, 80:176].copy()
    mask = np.ones((64, 96), np.float32)
    mask[:, :32] = family != "fill"
    model = Models(FULL).get(tiny_model(family))
    latents = model.encode(small)
    plan = plan_steps(8, 1.0 if family == "flux2" else 0.5)
    settings = Img2Img(prompt="a cat", steps=8, cfg_scale=3.0)
    with model.seeing(small, mask, torch.ones_like(latents[:, :1])):
        found = sample(model, settings, plan, Start(latents, [Seed(3)]), lambda done, total: None)
    pipe: Any = getattr(diffusers, SEEING[family]).from_pretrained(tiny_model(family))
    pipe.set_progress_bar_config(disable=True)
    asked: dict[str, Any] = {
        "mask_image": Image.fromarray((mask * 255).astype(np.uint8)),
        "strength": plan.executed / 8,
        "_auto_resize": False,
    }
    asked = {name: value for name, value in asked.items() if name in inspect.signature(pipe.__call__).parameters}
    expected = pipe(
        prompt="a cat",
        image=Image.fromarray(small),
        width=96,
        height=64,
        num_inference_steps=8,
        guidance_scale=3.0,
        generator=Seed(3).generator(),
        output_type="latent",
        **asked,
    ).images
    if family in ("kontext", "fill"):
        expected = unpack(expected, 4, 6)
    elif family == "flux2":
        expected = expected.transpose(1, 2).reshape(1, -1, 4, 6)
    else:
        mean, deviation = model.pipe.vae._statistics(found)  # type: ignore[attr-defined]
        found = torch.nn.functional.pixel_shuffle(found * deviation + mean, 2)
    assert torch.allclose(found, expected, atol=0.01 if family == "fill" else 1e-4)  # whose grey is a whole number


# Each kind's own pipeline, the strength that it can be asked for, the size at which it shows a picture of 96×64 to its
# language model, and what it puts before the prompt.
EDITING = {
    "qwen_edit": ("QwenImageEditInpaintPipeline", 0.5, (1248, 832), ""),
    "qwen_edit_plus": (
        "QwenImageEditPlusPipeline",
        1.0,
        (480, 320),
        "Picture 1: <|vision_start|><|image_pad|><|vision_end|>",
    ),
}


@pytest.mark.parametrize("family", EDITING)
def test_qwen_image_edit_is_sampled_as_by_diffusers_and_reads_as_by_transformers(
    family: str, tiny_model: Callable[[str], str], picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Diffusers' own pipelines work on a million pixels, and read prompts without the places of a picture's tokens."""
    kind, strength, seen, before = EDITING[family]
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    monkeypatch.setattr(pipeline_qwenimage_edit_inpaint, "calculate_dimensions", lambda *_: (96, 64, None))
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 96 * 64)
    small = picture[60:124, 80:176].copy()
    model = Models(FULL).get(tiny_model(family))
    latents = model.encode(small)
    plan = plan_steps(8, strength)
    settings = Img2Img(prompt="a cat", steps=8, cfg_scale=1.0)
    with model.seeing(small, np.ones((64, 96), np.float32), torch.ones_like(latents[:, :1])):
        found = sample(model, settings, plan, Start(latents, [Seed(3)]), lambda done, total: None)
        prompts = model.encode_prompts("a cat", "", 8, 1)
    pipe: Any = getattr(diffusers, kind).from_pretrained(tiny_model(family), **tiny.GIVEN[family])
    pipe.set_progress_bar_config(disable=True)
    read = StillProcessor.from_pretrained(tiny_model(family), subfolder="processor")
    shown = Image.fromarray(small).resize(seen, Image.Resampling.LANCZOS)
    inputs = read(text=[pipe.prompt_template_encode.format(f"{before}a cat")], images=[shown], return_tensors="pt")
    with torch.no_grad():
        hidden = pipe.text_encoder(**inputs, output_hidden_states=True).hidden_states[-1]
    embeds = hidden[:, pipe.prompt_template_encode_start_idx :]
    assert torch.allclose(prompts.positives[0][1][0][1].embeds, embeds, atol=1e-5)
    asked: dict[str, Any] = {
        "mask_image": Image.new("L", (96, 64), 255),
        "strength": plan.executed / 8,
    }
    asked = {name: value for name, value in asked.items() if name in inspect.signature(pipe.__call__).parameters}
    expected = pipe(
        image=Image.fromarray(small),
        prompt_embeds=embeds,
        width=96,
        height=64,
        num_inference_steps=8,
        generator=Seed(3).generator(),
        output_type="latent",
        **asked,
    ).images
    assert torch.allclose(found, unpack(expected, 4, 6), atol=1e-4)


def test_a_video_models_vae_reads_and_draws_as_by_diffusers(tiny_model: Callable[[str], str], picture: Picture) -> None:
    model = Models(FULL).get(tiny_model("qwen_image"))
    small = picture[::4, ::4].copy()
    pipe: Any = diffusers.QwenImageImg2ImgPipeline.from_pretrained(tiny_model("qwen_image"))
    pixels = torch.from_numpy(small).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    with torch.no_grad():
        own = pipe.vae.encode(pixels).latent_dist.mode()
        expected = pipe.vae.decode(own).sample[0, :, 0].clamp(-1, 1).permute(1, 2, 0)
    latents = model.encode(small)
    mean, deviation = (
        torch.tensor(pipe.vae.config[key])[None, :, None, None] for key in ("latents_mean", "latents_std")
    )
    assert torch.allclose(latents, (own[:, :, 0] - mean) / deviation, atol=1e-5)
    drawn = model.decode(latents)[0].astype(float)
    assert np.abs(drawn - (expected.numpy() + 1) * 127.5).max() < 1


@pytest.mark.parametrize(("family", "side"), [("qwen_image", QWEN_IMAGE_SIDE), ("qwen_edit", QWEN_IMAGE_EDIT_SIDE)])
def test_the_size_of_qwen_image_is_known(
    family: str, side: int, tiny_model: Callable[[str], str], tmp_path: Path
) -> None:
    name = str(shutil.copytree(tiny_model(family), tmp_path / "qwen"))
    config = tmp_path / "qwen" / "vae" / "config.json"
    config.write_text(config.read_text().replace('"sample_size"', '"unknown_size"'))
    anatomy = anatomy_of(name)
    assert anatomy is not None and anatomy.native == side == Models(FULL).get(name).native


@pytest.mark.parametrize("family", NEW)
def test_not_a_byte_changes_outside_the_mask_and_a_batch_is_its_singles(
    family: str, engine_of: Callable[[str], tuple[Engine, dict[str, Any]]], picture: Picture
) -> None:
    engine, common = engine_of(family)
    source = picture[60:140, 80:176].copy()
    mask = np.zeros((80, 96), np.float32)
    mask[30:52, 34:60] = 1
    settings = Inpaint(**common, steps=3, seed=5, cfg_scale=3.0, mask_blur=0, denoising_strength=0.9, batch_size=2)

    def make(chosen: Inpaint) -> list[Picture]:
        request = Request(chosen, {"init": source, "mask": mask})
        return [one.pixels for one in engine.run(request, lambda share, text: None, lambda: False).pictures]

    first, second = make(settings)
    for made in (first, second):
        assert np.array_equal(made[mask == 0], source[mask == 0])
        assert np.abs(made[mask == 1].astype(int) - source[mask == 1]).mean() > 3
    alone = make(Inpaint(**{**common, "seed": 6}, steps=3, cfg_scale=3.0, mask_blur=0, denoising_strength=0.9))[0]
    assert np.abs(alone.astype(int) - second).max() <= 1
    assert np.abs(alone.astype(int) - first).max() > 5


@pytest.mark.parametrize("family", NEW)
def test_a_cancel_stops_amid_a_step(
    family: str, engine_of: Callable[[str], tuple[Engine, dict[str, Any]]], picture: Picture
) -> None:
    engine, common = engine_of(family)
    cancelled = False
    ended: list[int] = []

    def cancel(*_: Any) -> None:
        nonlocal cancelled
        cancelled = True

    model = engine.models.get(common["model"])
    network = model.family.network
    lists = [part for part in network.modules() if isinstance(part, torch.nn.ModuleList)]
    hooks = [lists[0][0].register_forward_hook(cancel)]
    hooks.append(network.register_forward_hook(lambda *_: ended.append(1)))
    with pytest.raises(Cancelled):
        engine.run(img2img(picture, **common), lambda share, text: None, lambda: cancelled)
    for hook in hooks:
        hook.remove()
    assert not ended
    assert run(engine, img2img(picture, **common)).shape == (80, 96, 3)


@pytest.mark.parametrize("family", ["sd3", "z_image", "qwen_image", "klein"])
def test_what_they_cant_do_is_a_sentence(
    family: str, engine_of: Callable[[str], tuple[Engine, dict[str, Any]]], picture: Picture
) -> None:
    engine, common = engine_of(family)
    assert engine.models.get(common["model"]).takes_negative
    assert "seamless_x" in traits_of(common["model"]).limits
    changes: list[tuple[dict[str, Any], str]] = [
        ({"sampler": "Euler a"}, "flow-matching"),
        ({"seamless_x": True}, "seamless"),
        ({"clip_skip": 9}, "text encoder"),
    ]
    for change, words in changes:
        with pytest.raises(InvalidRequest, match=words):
            run(engine, img2img(picture, **{**common, **change}))


@pytest.mark.parametrize("family", ["kontext", "klein"])
def test_editing_models_refine_a_large_canvas(
    family: str, engine_of: Callable[[str], tuple[Engine, dict[str, Any]]], picture: Picture
) -> None:
    engine, common = engine_of(family)
    model = engine.models.get(common["model"])
    side = 4 * model.native
    large = {**common, "width": side, "height": side, "steps": 2, "large_canvas": "refine"}
    assert run(engine, img2img(picture, **large)).shape == (side, side, 3)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_is_told_without_loading_is_so(family: str, tiny_model: Callable[[str], str]) -> None:
    name = tiny_model(family)
    model, traits = Models(FULL).get(name), traits_of(name)
    assert traits.family and traits.flow == is_flow(model.noise_schedule)
    assert ("negative_prompt" in traits.limits) != model.takes_negative
    assert ("seamless_x" in traits.limits) != bool(model.family.seamless_by)
    assert ("conditioning_mask_strength" in traits.limits) != model.is_inpainting
    assert traits.edits == model.family.is_editing
    knows_none = False
    try:
        model.encode_prompts("a cat", "", 4, 2)
    except InvalidRequest as error:
        knows_none = "knows no clip skip" in str(error)
    assert ("clip_skip" in traits.limits) == knows_none
    for sampler in SAMPLERS:
        try:
            build_scheduler(sampler, "Automatic", model.noise_schedule)
        except InvalidRequest:
            assert not traits.can_sample(sampler)
        else:
            assert traits.can_sample(sampler)


def test_stable_diffusion_3_does_without_t5(tmp_path: Path, picture: Picture) -> None:
    torch.manual_seed(0)
    pipe = tiny.sd3()
    pipe.register_modules(text_encoder_3=None, tokenizer_3=None)
    pipe.save_pretrained(tmp_path)
    assert run(Engine(FULL), img2img(picture, model=str(tmp_path), sampler="Euler", width=64, height=64)).std() > 1


def test_a_picture_too_long_for_the_places_it_knows_is_a_sentence(
    engine_of: Callable[[str], tuple[Engine, dict[str, Any]]], picture: Picture
) -> None:
    engine, common = engine_of("sd3")
    with pytest.raises(InvalidRequest, match="too long"):
        run(engine, img2img(picture, **{**common, "width": 64, "height": 3200}))
