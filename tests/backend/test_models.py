"""Models of the families that run here, built tiny and random on the spot, through the same setting as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from numpy.typing import NDArray
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from backend.engine import Engine
from backend.errors import ModelError
from backend.models.load import EMBEDDED_FOLDER, Models, Options
from backend.request import Request
from backend.settings import Img2Img, Inpaint
from tests.backend.helpers import Picture, img2img, run

BLOCKS = {
    "sample_size": 32,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}


def parts() -> dict[str, object]:
    """Return a tiny autoencoder, tokenizer and scheduler."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )
    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED_FOLDER / "tokenizer")
    scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
    )
    return {"vae": vae, "tokenizer": tokenizer, "scheduler": scheduler}


def text_encoder(cls: type, tokenizer: CLIPTokenizer) -> torch.nn.Module:
    """Return a tiny text encoder, 32 wide."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    module: torch.nn.Module = cls(config).eval()
    return module


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny SDXL folder."""
    folder = str(tmp_path_factory.mktemp("xl"))
    shared = parts()
    unet = UNet2DConditionModel(
        **BLOCKS,
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=32 + 6 * 8,
    )
    StableDiffusionXLPipeline(
        **shared,
        unet=unet,
        text_encoder=text_encoder(CLIPTextModel, shared["tokenizer"]),
        text_encoder_2=text_encoder(CLIPTextModelWithProjection, shared["tokenizer"]),
        tokenizer_2=shared["tokenizer"],
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny inpainting model, whose UNet takes nine channels."""
    folder = str(tmp_path_factory.mktemp("inpainting"))
    shared = parts()
    StableDiffusionInpaintPipeline(
        **shared,
        unet=UNet2DConditionModel(**BLOCKS, in_channels=9, cross_attention_dim=32, attention_head_dim=4),
        text_encoder=text_encoder(CLIPTextModel, shared["tokenizer"]),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["xl", "inpainting"])
def test_the_family_paints_and_inpaints(family: str, request: pytest.FixtureRequest, picture: Picture) -> None:
    engine, small = Engine(), picture[::4, ::4].copy()
    common = {"model": request.getfixturevalue(family), "width": 64, "height": 64, "steps": 3, "seed": 1}
    painted = run(engine, Request(Img2Img(**common), {"init": small}))
    assert painted.shape == small.shape and not np.array_equal(painted, small)
    mask: NDArray[np.float32] = np.zeros((64, 64), np.float32)
    mask[20:40, 20:40] = 1
    repainted = run(engine, Request(Inpaint(**common, mask_blur=0), {"init": small, "mask": mask}))
    assert np.array_equal(repainted[mask == 0], small[mask == 0])
    assert not np.array_equal(repainted[mask == 1], small[mask == 1])


def test_an_inpainting_model_sees_the_mask(inpainting: str, picture: Picture) -> None:
    model = Models(Options()).get(inpainting)
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


def test_an_unknown_device_is_a_sentence(picture: Picture) -> None:
    with pytest.raises(ModelError, match="no device tpu"):
        run(Engine(Options(device="tpu")), img2img(picture))
