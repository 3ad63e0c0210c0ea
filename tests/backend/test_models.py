"""Models of the families that run here, built tiny and random on the spot, through the same setting as any other."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from backend.engine import Engine
from backend.errors import Cancelled, InvalidRequest, ModelError
from backend.models.families.flux import pack, unpack
from backend.models.load import EMBEDDED_FOLDER, Models, Options
from backend.models.needs import anatomy_of
from backend.operations.noise import Seed
from backend.operations.plan import plan_steps
from backend.operations.sampling import Start, sample
from backend.settings import EMBEDDED, Img2Img
from tests.backend import tiny
from tests.backend.helpers import Picture, img2img, run


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return the folder of a family's tiny model."""
    return lambda family: tiny.folder(family, tmp_path_factory.getbasetemp())


def test_an_inpainting_model_sees_the_mask(tiny_model: Callable[[str], str], picture: Picture) -> None:
    model = Models(Options()).get(tiny_model("inpainting"))
    small = picture[::4, ::4].copy()
    everything = np.ones((64, 64), np.float32)
    latents = model.encode(small)
    with model.seeing(small, everything, torch.ones_like(latents[:, :1])):
        assert model.extra_channels is not None and model.extra_channels.shape == (1, 5, *latents.shape[2:])
        assert torch.equal(model.extra_channels[:, :1], torch.ones_like(latents[:, :1]))
    assert model.extra_channels is None


def test_two_loads_of_a_model_give_the_same_pixels(picture: Picture) -> None:
    request = img2img(picture, denoising_strength=0.5)
    assert np.array_equal(run(Engine(), request), run(Engine(), request))


def test_a_damaged_folder_is_a_sentence(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"')
    with pytest.raises(ModelError, match="could not be loaded"):
        run(Engine(), img2img(picture, model=str(tmp_path)))
    (tmp_path / "model_index.json").write_text('{"_class_name": "SomeVideoPipeline"}')
    with pytest.raises(ModelError, match="SomeVideoPipeline"):
        run(Engine(), img2img(picture, model=str(tmp_path)))


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_weights_copied_in_part_are_a_sentence(part: str, tmp_path: Path, picture: Picture) -> None:
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED_FOLDER, folder)
    [weights] = (folder / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="could not be loaded"):
        run(Engine(), img2img(picture, model=str(folder)))


def test_an_unknown_device_is_a_sentence(picture: Picture) -> None:
    with pytest.raises(ModelError, match="no device tpu"):
        run(Engine(Options(device="tpu")), img2img(picture))


def test_a_model_is_freed_before_another_is_loaded(tiny_model: Callable[[str], str]) -> None:
    models = Models(Options())
    gone = weakref.ref(models.get(tiny_model("sd1")))
    models.get(tiny_model("velocity"))
    assert gone() is None


def test_a_cancel_stops_the_loading_of_a_model(tiny_model: Callable[[str], str], picture: Picture) -> None:
    engine, looks = Engine(), 0
    request = img2img(picture, model=tiny_model("sdxl"), width=64, height=64)

    def is_cancelled() -> bool:
        nonlocal looks
        looks += 1
        return looks > 200

    with pytest.raises(Cancelled):
        engine.run(request, lambda share, text: None, is_cancelled)
    assert looks < 220 and not engine.models.is_loaded(tiny_model("sdxl"))
    assert torch.get_default_dtype() == torch.float32  # which diffusers changes while it loads
    assert run(engine, request).shape == (64, 64, 3)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_native_side_is_told_without_loading(family: str, tiny_model: Callable[[str], str]) -> None:
    for name in (tiny_model(family), EMBEDDED):
        anatomy = anatomy_of(name)
        assert anatomy is not None and anatomy.native == Models(Options()).get(name).native
        assert name == EMBEDDED or anatomy.native == tiny.NATIVE


# --- Flux ---


def test_latents_are_packed_as_by_diffusers() -> None:
    latents = torch.randn(2, 16, 6, 10)
    tokens = diffusers.FluxImg2ImgPipeline._pack_latents(latents, 2, 16, 6, 10)
    assert torch.equal(pack(latents), tokens)
    assert torch.equal(unpack(tokens, 3, 5), latents)


@pytest.mark.parametrize(("denoising_strength", "executed"), [(0.5, 5), (0.95, 8)])
@pytest.mark.parametrize("family", ["flux", "schnell"])
def test_flux_is_sampled_as_by_diffusers(
    family: str, denoising_strength: float, executed: int, tiny_model: Callable[[str], str], picture: Picture
) -> None:
    model = Models(Options(precision="float32")).get(tiny_model(family))
    settings = Img2Img(prompt="a cat", steps=8, sampler="Euler", cfg_scale=3.5 if family == "flux" else 1.0)
    latents = model.encode(picture[:64, :96].copy())
    assert latents.shape == (1, 16, 8, 12)
    calls: list[int] = []
    plan = plan_steps(8, denoising_strength)
    found = sample(model, settings, plan, Start(latents, [Seed(3), Seed(4)]), lambda done, total: calls.append(done))
    assert calls == list(range(1, executed + 1))
    pipe: Any = diffusers.FluxImg2ImgPipeline.from_pretrained(tiny_model(family))
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        prompt=["a cat"] * 2,
        image=latents,
        width=96,
        height=64,
        strength=executed / 8,
        num_inference_steps=8,
        guidance_scale=3.5,
        generator=[Seed(3).generator(), Seed(4).generator()],
        output_type="latent",
    ).images
    assert torch.allclose(found, unpack(expected, 4, 6), atol=1e-4)


def test_a_guided_flux_is_told_its_scale_and_knows_no_negative_prompt(
    tiny_model: Callable[[str], str], picture: Picture
) -> None:
    for family, negated in (("flux", False), ("schnell", True)):
        engine = Engine(Options(precision="float32"))
        common: dict[str, Any] = {"model": tiny_model(family), "width": 64, "height": 64, "sampler": "Euler"}
        first = run(engine, img2img(picture, **common))
        assert not np.array_equal(run(engine, img2img(picture, **common, cfg_scale=20.0)), first)
        other = run(engine, img2img(picture, **common, negative_prompt="a dog in the rain"))
        assert np.array_equal(other, first) is not negated
        assert engine.models.get(common["model"]).takes_negative is negated


def test_noise_and_extra_noise_are_mixed_into_a_flows_start(tiny_model: Callable[[str], str], picture: Picture) -> None:
    engine = Engine(Options(precision="float32"))
    common: dict[str, Any] = {"model": tiny_model("flux"), "width": 64, "height": 64, "sampler": "Euler"}
    pictures = [
        run(engine, img2img(picture, **common, denoising_strength=0.5, **change))
        for change in ({}, {"extra_noise": 0.5}, {"initial_noise_multiplier": 0.5})
    ]
    assert len({one.tobytes() for one in pictures}) == 3


@pytest.mark.parametrize(
    ("change", "words"), [({"sampler": "Euler a"}, "flow-matching"), ({"seamless_x": True}, "seamless")]
)
def test_what_flux_cant_do_is_a_sentence(
    change: dict[str, Any], words: str, tiny_model: Callable[[str], str], picture: Picture
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        run(Engine(), img2img(picture, **{"model": tiny_model("flux"), "sampler": "Euler", **change}))
