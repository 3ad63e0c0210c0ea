"""Single-file checkpoints: the same pixels as the pipeline they were written from, a sentence for everything else."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import random
import shutil
import socket
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from backend.errors import ModelError
from backend.models import load, pickles, single_file
from backend.models.recognise import Header, tell_family
from backend.models.samplers import build_scheduler
from backend.models.single_file import (
    CONFIGS,
    EPSILON,
    VELOCITY,
    build_tokenizer,
    load_single_file,
    predicts_noise,
    tell_prediction,
)

Weights = dict[str, torch.Tensor]

FAMILIES = ["sd1", "sd1-inpaint", "sd2", "sd2-inpaint", "sdxl", "sdxl-inpaint"]
TINY_MERGES = 20
TINY_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
TINY_VOCABULARY = 2 * 256 + TINY_MERGES + 2


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small lose more by waiting for other threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"the network was asked: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


# --- Tiny models, shrunk from the shipped configurations, and the original layout of their keys ---


def shrink(part: str, family: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a part's configuration with the same structure at a size for tests."""
    if part == "unet":
        head = [2, 4] if isinstance(config["attention_head_dim"], list) else 4
        tiny = {"block_out_channels": [32, 64], "layers_per_block": 1, "norm_num_groups": 8, "sample_size": 8}
        tiny |= {"attention_head_dim": head, "cross_attention_dim": 80 if family.startswith("sdxl") else 32}
        tiny |= {name: config[name][:1] + config[name][-1:] for name in ("down_block_types", "up_block_types")}
        if family.startswith("sdxl"):
            tiny |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 48 + 6 * 8}
            tiny |= {"transformer_layers_per_block": [1, 2]}
            tiny |= {"down_block_types": config["down_block_types"][:2], "up_block_types": config["up_block_types"][1:]}
        return config | tiny
    if part == "vae":
        tiny = {"block_out_channels": [16, 32], "layers_per_block": 1, "norm_num_groups": 8, "sample_size": 16}
        return config | tiny | {name: config[name][:2] for name in ("down_block_types", "up_block_types")}
    if part == "text_encoder":
        return config | TINY_TEXT | {"projection_dim": 32, "vocab_size": TINY_VOCABULARY}
    if part == "text_encoder_2":
        return config | TINY_TEXT | {"hidden_size": 48, "projection_dim": 48, "vocab_size": TINY_VOCABULARY}
    return config


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny configurations, laid out like the shipped one."""
    folder = tmp_path_factory.mktemp("configs")
    merges = (CONFIGS / "clip/merges.txt").read_text(encoding="utf-8").splitlines()[:TINY_MERGES]
    (folder / "clip").mkdir()
    (folder / "clip/merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    for source in CONFIGS.glob("*/**/*.json"):
        target = folder / source.relative_to(CONFIGS)
        target.parent.mkdir(parents=True, exist_ok=True)
        family = source.relative_to(CONFIGS).parts[0]
        config = shrink(source.parent.name, family, json.loads(source.read_text(encoding="utf-8")))
        target.write_text(json.dumps(config), encoding="utf-8")
    return folder


def build(family: str, configs: Path, device: str = "cpu") -> Any:
    """Return a random pipeline of a family, built in memory without any of the code under test but the tokenizer."""
    torch.manual_seed(FAMILIES.index(family))
    folder = configs / family
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    parts: dict[str, Any] = {}
    for part, entry in index.items():
        if not isinstance(entry, list):
            continue
        library, name = entry
        if name is None:
            parts[part] = None
        elif part.startswith("tokenizer"):
            parts[part] = build_tokenizer(folder / part, configs)
        elif library == "transformers":
            cls = getattr(transformers, name)
            with torch.device(device):
                parts[part] = cls(cls.config_class.from_pretrained(folder / part)).eval()
        else:
            cls = getattr(diffusers, name)
            with torch.device("cpu" if part == "scheduler" else device):
                parts[part] = cls.from_config(cls.load_config(folder / part))
    for part in ("unet", "vae"):
        parts[part].eval()
    if family.startswith("sdxl"):
        return diffusers.StableDiffusionXLImg2ImgPipeline(**parts, add_watermarker=False)
    return diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)


def unet_key(key: str, layers: int, attentive: set[str]) -> str:
    """Return the original key of a UNet's weight; attentive holds the up blocks with attention."""
    top = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    top |= {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    top |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    module, _, last = key.rpartition(".")
    if module in top:
        return f"{top[module]}.{last}"
    names = key.split(".")
    if names[0] == "mid_block":
        place = f"middle_block.{2 * int(names[2]) if names[1] == 'resnets' else 1}"
        rest = names[3:]
    else:
        block, kind, number, rest = int(names[1]), names[2], int(names[3]), names[4:]
        first = block * (layers + 1)
        if kind == "downsamplers":
            return ".".join([f"input_blocks.{first + layers + 1}.0.op", *rest[1:]])
        if kind == "upsamplers":
            return ".".join([f"output_blocks.{first + layers}.{2 if names[1] in attentive else 1}", *rest])
        side = f"input_blocks.{first + number + 1}" if names[0] == "down_blocks" else f"output_blocks.{first + number}"
        place = f"{side}.{0 if kind == 'resnets' else 1}"
    if "resnets" in names[:3]:
        inner = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3"}
        inner |= {"time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
        rest = [inner[rest[0]], *rest[1:]]
    return ".".join([place, *rest])


def vae_key(key: str, levels: int) -> str:
    """Return the original key of an autoencoder's weight."""
    names = key.split(".")
    if names[0] not in ("encoder", "decoder"):
        return key
    side, block, rest = names[0], names[1], names[2:]
    if block == "mid_block" and rest[0] == "resnets":
        place, rest = f"mid.block_{int(rest[1]) + 1}", rest[2:]
    elif block == "mid_block":
        inner = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}
        return f"{side}.mid.attn_1.{inner[rest[2]]}.{rest[-1]}"
    elif block in ("down_blocks", "up_blocks"):
        level = int(rest[0]) if block == "down_blocks" else levels - 1 - int(rest[0])
        kinds = {"resnets": f"block.{rest[2]}", "downsamplers": "downsample", "upsamplers": "upsample"}
        place, rest = f"{block.removesuffix('_blocks')}.{level}.{kinds[rest[1]]}", rest[3:]
    else:
        place = {"conv_norm_out": "norm_out"}.get(block, block)
    return ".".join([side, place, *rest]).replace("conv_shortcut", "nin_shortcut")


def open_clip(state: Weights) -> Weights:
    """Return a text encoder's weights as OpenCLIP stores them: one matrix for query, key and value."""
    top = {"embeddings.token_embedding.weight": "token_embedding.weight", "text_projection.weight": "text_projection"}
    top |= {"embeddings.position_embedding.weight": "positional_embedding"}
    top |= {f"final_layer_norm.{kind}": f"ln_final.{kind}" for kind in ("weight", "bias")}
    inner = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    inner |= {"self_attn.out_proj": "attn.out_proj"}
    state = {key.removeprefix("text_model."): value for key, value in state.items()}
    result: Weights = {}
    for key, value in state.items():
        if key in top:
            result[top[key]] = value.T if key.startswith("text_projection") else value
            continue
        layer, _, place = key.removeprefix("encoder.layers.").partition(".")
        module, _, last = place.rpartition(".")
        if module == "self_attn.q_proj":
            both = [state[key.replace("q_proj", other)] for other in ("k_proj", "v_proj")]
            result[f"transformer.resblocks.{layer}.attn.in_proj_{last}"] = torch.cat([value, *both])
        elif module in inner:
            result[f"transformer.resblocks.{layer}.{inner[module]}.{last}"] = value
    return result


def original(pipe: Any) -> Weights:
    """Return a pipeline's weights under the keys, and in the shapes, of the original checkpoints."""
    unet, vae = pipe.unet, pipe.vae
    attentive = {str(number) for number, block in enumerate(unet.up_blocks) if hasattr(block, "attentions")}
    layers, levels = unet.config.layers_per_block, len(vae.config.block_out_channels)
    result = {f"model.diffusion_model.{unet_key(key, layers, attentive)}": v for key, v in unet.state_dict().items()}
    for key, value in vae.state_dict().items():
        is_matrix = "attentions" in key and value.ndim == 2  # once convolutions of one pixel
        result[f"first_stage_model.{vae_key(key, levels)}"] = value[:, :, None, None] if is_matrix else value
    text = pipe.text_encoder.state_dict()
    clip = {f"transformer.text_model.{key.removeprefix('text_model.')}": value for key, value in text.items()}
    if hasattr(pipe, "text_encoder_2"):
        result |= {f"conditioner.embedders.0.{key}": value for key, value in clip.items()}
        second = open_clip(pipe.text_encoder_2.state_dict())
        result |= {f"conditioner.embedders.1.model.{key}": value for key, value in second.items()}
    elif pipe.text_encoder.config.hidden_act == "gelu":
        result |= {f"cond_stage_model.model.{key}": value for key, value in open_clip(text).items()}
    else:
        result |= {f"cond_stage_model.{key}": value for key, value in clip.items()}
    return {key: value.clone().contiguous() for key, value in result.items()}


@pytest.fixture(scope="module")
def pipelines(configs: Path) -> dict[str, Any]:
    return {family: build(family, configs) for family in FAMILIES}


@pytest.fixture(scope="module")
def weights(pipelines: dict[str, Any]) -> dict[str, Weights]:
    return {family: original(pipe) for family, pipe in pipelines.items()}


def picture(pipe: Any) -> np.ndarray[Any, Any]:
    """Return the pixels that a pipeline makes of a fixed picture, through inpainting where it takes a mask."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    arguments: dict[str, Any] = {"image": Image.fromarray(pixels), "strength": 0.6, "num_inference_steps": 5}
    if pipe.unet.config.in_channels == 9:
        pipe = diffusers.AutoPipelineForInpainting.from_pipe(pipe)
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[8:24, 8:24] = 255
        arguments |= {"mask_image": Image.fromarray(mask), "height": 32, "width": 32}
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    result = pipe("a photo of a cat!", negative_prompt="rain", generator=generator, output_type="np", **arguments)
    return np.asarray(result.images[0])


def refusal(path: Path, configs: Path = CONFIGS) -> str:
    """Return the sentence with which a file is refused."""
    with pytest.raises(ModelError) as caught:
        load_single_file(path, torch.float32, configs)
    assert path.name in caught.value.sentence
    assert caught.value.remedy
    return caught.value.sentence


# --- The same pixels ---


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_equal_those_of_the_pipeline_that_was_saved(
    family: str, pipelines: dict[str, Any], weights: dict[str, Weights], configs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(weights[family], path, {"modelspec.prediction_type": "epsilon"})
    loaded = load_single_file(path, torch.float32, configs)
    path.write_bytes(b"")  # nothing may depend on the file once it is loaded
    expected = picture(pipelines[family])
    assert np.array_equal(picture(loaded), expected)
    assert expected.std() > 0.01
    assert type(loaded) is type(pipelines[family])


def test_checkpoint_gives_the_same_pixels_as_safetensors(
    pipelines: dict[str, Any], weights: dict[str, Weights], configs: Path, tmp_path: Path
) -> None:
    extra = {"model_ema.decay": torch.tensor(0.9999), "global_step": 5, "state": {"lr": np.float64(1e-5)}}
    torch.save({"state_dict": weights["sd1"] | extra, "epoch": 3}, tmp_path / "zip.ckpt")
    torch.save(weights["sd1"], tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    shutil.copy(tmp_path / "zip.ckpt", tmp_path / "misnamed.safetensors")
    expected = picture(pipelines["sd1"])
    for name in ("zip.ckpt", "old.ckpt", "misnamed.safetensors"):
        assert np.array_equal(picture(load_single_file(tmp_path / name, torch.float32, configs)), expected), name


def test_old_text_encoder_keys_are_known(
    pipelines: dict[str, Any], weights: dict[str, Weights], configs: Path, tmp_path: Path
) -> None:
    old = {key.replace("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."): value
           for key, value in weights["sd1"].items()}  # fmt: skip
    assert old.keys() != weights["sd1"].keys()
    save_file(old, tmp_path / "old.safetensors")
    loaded = load_single_file(tmp_path / "old.safetensors", torch.float32, configs)
    assert np.array_equal(picture(loaded), picture(pipelines["sd1"]))


def test_precision_is_the_one_asked_for(weights: dict[str, Weights], configs: Path, tmp_path: Path) -> None:
    half = {key: value.half() for key, value in weights["sdxl"].items()}
    half["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(half, tmp_path / "half.safetensors")
    pipe = load_single_file(tmp_path / "half.safetensors", torch.bfloat16, configs)
    modules = [pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2]
    assert {value.dtype for module in modules for value in module.parameters()} == {torch.bfloat16}


def test_diffusers_own_loader_takes_the_configurations(
    pipelines: dict[str, Any], weights: dict[str, Weights], configs: Path, tmp_path: Path
) -> None:
    save_file(weights["sd1"], tmp_path / "model.safetensors")
    tokenizer = build_tokenizer(configs / "sd1/tokenizer", configs)
    pipe = diffusers.StableDiffusionImg2ImgPipeline.from_single_file(
        str(tmp_path / "model.safetensors"), config=str(configs / "sd1"), local_files_only=True, tokenizer=tokenizer
    )
    assert np.array_equal(picture(pipe), picture(pipelines["sd1"]))


# --- What the UNet predicts ---


class AsNoise(torch.nn.Module):
    """A UNet that predicts the velocity, read as one that predicts the noise: a·v + b·x."""

    def __init__(self, unet: Any, remaining: torch.Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.config = unet.config
        self.remaining = remaining

    def forward(self, sample: torch.Tensor, time: int, encoder_hidden_states: torch.Tensor) -> Any:
        answer = self.unet(sample, time, encoder_hidden_states=encoder_hidden_states)
        remaining = self.remaining[time]
        return type(answer)(sample=remaining.sqrt() * answer.sample + (1 - remaining).sqrt() * sample)


def test_trained_unet_is_asked_what_it_predicts() -> None:
    unet = diffusers.UNet2DConditionModel.from_pretrained(load.EMBEDDED_FOLDER, subfolder="unet", local_files_only=True)
    scheduler = diffusers.DDIMScheduler.from_pretrained(load.EMBEDDED_FOLDER, subfolder="scheduler")
    assert scheduler.config.prediction_type == VELOCITY
    assert not predicts_noise(unet)
    assert predicts_noise(AsNoise(unet, scheduler.alphas_cumprod))


def test_stable_diffusion_2_without_a_mark_is_asked(
    weights: dict[str, Weights], configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(weights["sd2"], tmp_path / "model.safetensors")
    for answer, prediction, native in ((True, EPSILON, 8), (False, VELOCITY, 768 // 2)):
        monkeypatch.setattr(single_file, "predicts_noise", lambda unet, answer=answer: answer)
        pipe = load_single_file(tmp_path / "model.safetensors", torch.float32, configs)
        assert pipe.scheduler.config.prediction_type == prediction
        assert pipe.unet.config.sample_size == native


def test_random_unet_answers_in_every_precision(weights: dict[str, Weights], configs: Path, tmp_path: Path) -> None:
    save_file(weights["sd2"], tmp_path / "model.safetensors")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        pipe = load_single_file(tmp_path / "model.safetensors", dtype, configs)
        assert pipe.scheduler.config.prediction_type == VELOCITY  # noise in, something else out


def test_marks_of_velocity_are_read() -> None:
    def told(family: str, *keys: str, **metadata: str) -> str | None:
        spec = {f"modelspec.{name}": value for name, value in metadata.items()}
        return tell_prediction(Header(dict.fromkeys(keys, ()), spec), family)

    assert told("sdxl") == told("sd1") == told("sd2-inpaint") == EPSILON
    assert told("sdxl", "v_pred") == VELOCITY
    assert told("sd1", prediction_type="v") == told("sd2", architecture="stable-diffusion-v2-768-v") == VELOCITY
    assert told("sd2", prediction_type="epsilon") == told("sd2", architecture="stable-diffusion-v2-512") == EPSILON
    assert told("sd2") is None


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_marked_velocity_reaches_every_sampler(
    family: str, weights: dict[str, Weights], configs: Path, tmp_path: Path
) -> None:
    save_file(weights[family] | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, tmp_path / "v.safetensors")
    config = load_single_file(tmp_path / "v.safetensors", torch.float32, configs).scheduler.config
    for sampler in ("Euler", "DDIM", "DPM++ 2M"):
        made = build_scheduler(sampler, "Automatic", config).config
        assert (made.prediction_type, made.rescale_betas_zero_snr) == (VELOCITY, True)


# --- The shipped configurations ---


VAE_PARAMETERS, CLIP_L_PARAMETERS, CLIP_H_PARAMETERS, CLIP_G_PARAMETERS = 83653863, 123060480, 340387840, 694659840
PUBLISHED = {  # what diffusers calls the original file, and the parameters of its parts
    "sd1": ("v1", [859520964, VAE_PARAMETERS, CLIP_L_PARAMETERS]),
    "sd1-inpaint": ("inpainting", [859535364, VAE_PARAMETERS, CLIP_L_PARAMETERS]),
    "sd2": ("v2", [865910724, VAE_PARAMETERS, CLIP_H_PARAMETERS]),
    "sd2-inpaint": ("inpainting_v2", [865925124, VAE_PARAMETERS, CLIP_H_PARAMETERS]),
    "sdxl": ("xl_base", [2567463684, VAE_PARAMETERS, CLIP_L_PARAMETERS, CLIP_G_PARAMETERS]),
    "sdxl-inpaint": ("xl_inpaint", [2567478084, VAE_PARAMETERS, CLIP_L_PARAMETERS, CLIP_G_PARAMETERS]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_shipped_configuration_is_the_published_model(family: str) -> None:
    pipe = build(family, CONFIGS, "meta")
    parts = [pipe.unet, pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)]
    counts = [sum(value.numel() for value in part.parameters()) for part in parts if part is not None]
    known_as = diffusers.loaders.single_file_utils.infer_diffusers_model_type(original(pipe))
    assert (known_as, counts) == PUBLISHED[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_shipped_scheduler_starts_at_the_published_noise(family: str) -> None:
    index = json.loads((CONFIGS / family / "model_index.json").read_text(encoding="utf-8"))
    scheduler = getattr(diffusers, index["scheduler"][1]).from_pretrained(CONFIGS / family, subfolder="scheduler")
    remaining = scheduler.alphas_cumprod[-1].item()
    assert ((1 - remaining) / remaining) ** 0.5 == pytest.approx(14.6146, abs=1e-3)
    assert scheduler.config.prediction_type == EPSILON


@pytest.mark.parametrize(("folder", "padding"), [("sd1/tokenizer", 49407), ("sdxl/tokenizer_2", 0)])
def test_shipped_tokenizer_gives_the_well_known_ids(folder: str, padding: int) -> None:
    tokenizer = build_tokenizer(CONFIGS / folder)
    assert len(tokenizer) == 49408

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, padding="max_length", truncation=True, max_length=77).input_ids
        assert len(found) == 77
        return found

    assert ids("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407, *[padding] * 70]
    assert ids("A photo, of a CAT!")[:9] == [49406, 320, 1125, 267, 539, 320, 2368, 256, 49407]
    assert ids("")[:3] == [49406, 49407, padding]
    assert ids("cat " * 100) == [49406, *[2368] * 75, 49407]


def test_shipped_configurations_are_what_the_tool_writes(tmp_path: Path) -> None:
    tool = Path(__file__).parents[2] / "tools/build_configs.py"
    spec = importlib.util.spec_from_file_location("build_configs", tool)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_families(tmp_path)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert written == {path.relative_to(CONFIGS): path.read_bytes() for path in CONFIGS.rglob("*.json")}


# --- Everything else ---


def whole(**changes: tuple[int, ...] | None) -> dict[str, tuple[int, ...]]:
    """Return the telling keys of a whole Stable Diffusion 1 checkpoint, with changes (None leaves a key out)."""
    keys: dict[str, tuple[int, ...] | None] = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
        "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": (77, 768),
    }
    return {key: shape for key, shape in (keys | changes).items() if shape is not None}


INPUT = "model.diffusion_model.input_blocks.0.0.weight"
TEXT = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"
ENCODER = "first_stage_model.encoder.conv_in.weight"


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 8)}, "a LoRA"),
        ({"unet.mid_block.attentions.0.to_q.lora_A.weight": (4, 8)}, "a LoRA"),
        ({"emb_params": (4, 768)}, "a textual inversion embedding"),
        ({"clip_l": (4, 768), "clip_g": (4, 1280)}, "a textual inversion embedding"),
        ({"string_to_param": (), "name": ()}, "a textual inversion embedding"),
        ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "a ControlNet"),
        (whole(**{"control_model.time_embed.0.weight": (1280, 320)}), "a ControlNet"),
        ({"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)}, "a ControlNet"),
        ({"ip_adapter.1.to_k_ip.weight": (8, 8)}, "an IP-Adapter"),
        ({"params_ema": ()}, "an upscaler"),
        ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (8, 8)}, "Stable Diffusion 3"),
        ({"double_blocks.0.img_attn.qkv.weight": (8, 8)}, "a Flux model"),
        (whole(edm_mean=(1, 4, 1, 1)), "the EDM kind"),
        (whole(**{"model.diffusion_model.input_blocks.1.1.time_stack.0.norm1.weight": (8,)}), "a video model"),
        ({"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 4, 3, 3)}, "a VAE alone"),
        ({ENCODER: (128, 3, 3, 3)}, "a VAE alone"),
        ({"down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3)}, "diffusers' layout"),
        ({"text_model.encoder.layers.0.mlp.fc1.weight": (8, 8)}, "a text encoder alone"),
        ({"some.weight": (2, 2)}, "holds no Stable Diffusion model"),
        ({}, "holds no Stable Diffusion model"),
        (whole(**{ENCODER: None}), "lacks the VAE of"),
        (whole(**{TEXT: None}), "lacks the text encoder of"),
        (whole(**{TEXT: None, ENCODER: None}), "lacks the text encoder and the VAE"),
        (whole(**{TEXT: None, "conditioner.embedders.0.model.text_projection": (1280, 1280)}), "the refiner"),
        (whole(**{INPUT: (320, 7, 3, 3)}), "x4 upscaler"),
        (whole(**{INPUT: (320, 5, 3, 3)}), "depth-to-image"),
        (whole(**{INPUT: (320, 8, 3, 3)}), "InstructPix2Pix"),
        (whole(**{INPUT: (320, 12, 3, 3)}), "12 input channels"),
        (whole(**{"model.diffusion_model.label_emb.0.0.weight": (1280, 2048)}), "unCLIP"),
    ],
)
def test_other_files_are_named_in_a_sentence(shapes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(ModelError) as caught:
        tell_family(shapes, "file.safetensors")
    assert words in caught.value.sentence
    assert caught.value.remedy


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_told_by_the_keys(family: str, weights: dict[str, Weights]) -> None:
    assert tell_family({key: tuple(value.shape) for key, value in weights[family].items()}, "model") == family


def test_lora_file_is_refused_from_its_header(tmp_path: Path) -> None:
    save_file({"lora_unet_x.lora_up.weight": torch.zeros(2, 2)}, tmp_path / "style.safetensors")
    assert "is a LoRA" in refusal(tmp_path / "style.safetensors")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"not a model at all, just words\n", "is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 4265146304\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "a web page"),
        (b"GGUF\x03\0\0\0", "a GGUF file"),
        (bytes(1000), "filled with zeros"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "neither a safetensors nor"),
        (b"PK\x03\x04" + bytes(100), "is damaged"),
        (b"\x80\x02garbage", "is damaged"),
        (struct.pack("<Q", 200) + b'{"a": 1', "is damaged"),
        (struct.pack("<Q", 7) + b'{"a":1}', "is damaged"),
        (struct.pack("<Q", 1 << 55) + b'{"a":1}', "is damaged"),
        (b"cposix\nsystem\n(S'true'\ntR.", "is a text file"),
        (pickle.dumps([1, 2], protocol=2), "is damaged"),
    ],
)
def test_file_that_is_no_model_is_a_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert words in refusal(path)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_truncated_file_is_a_sentence(suffix: str, share: float, weights: dict[str, Weights], tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    save_file(weights["sd1"], path) if suffix == ".safetensors" else torch.save(weights["sd1"], path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "is damaged" in refusal(path)
    with pytest.raises(ModelError, match="is damaged"):
        load.load(str(path), load.Options(device="cpu"))


def test_sizes_of_another_model_are_a_sentence(weights: dict[str, Weights], configs: Path, tmp_path: Path) -> None:
    save_file(weights["sd1"], tmp_path / "tiny.safetensors")
    assert "is made like Stable Diffusion 1, but its" in refusal(tmp_path / "tiny.safetensors")  # shipped sizes
    for key in ("model.diffusion_model.middle_block.0.in_layers.2.weight", TEXT.replace("position", "token")):
        save_file({k: v for k, v in weights["sd1"].items() if k != key}, tmp_path / "gap.safetensors")
        assert "lacks some weights" in refusal(tmp_path / "gap.safetensors", configs)
    decoder = {k: v for k, v in weights["sdxl"].items() if ".label_emb." not in k}
    save_file(decoder, tmp_path / "gap.safetensors")
    assert "is made like Stable Diffusion XL, but its UNet" in refusal(tmp_path / "gap.safetensors", configs)


class Evil:
    """Opens a file for writing when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_pickle_that_would_run_code_is_refused(form: str, weights: dict[str, Weights], tmp_path: Path) -> None:
    path, target = tmp_path / "model.ckpt", tmp_path / "touched"
    state: dict[str, Any] = weights["sd1"] | {"extra": Evil(target)}
    if form == "bare":
        path.write_bytes(pickle.dumps({"state_dict": Evil(target)}, protocol=2))
        pickle.loads(path.read_bytes())
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
        torch.load(path, weights_only=False)
    assert target.exists()  # so it works, where it is let
    target.unlink()
    assert "would run code when it is loaded" in refusal(path)
    assert not target.exists()


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    torch.save({key: torch.zeros(1).expand(1 << 40) for key in whole()}, tmp_path / "bomb.ckpt")
    assert "larger than the file" in refusal(tmp_path / "bomb.ckpt")


def test_objects_of_old_training_tools_are_passed_over(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"callbacks": {OrderedDict: {"best": np.float64(0.5), "step": np.int64(3)}}}, buffer)
    module, _, name = pickles.FORGOTTEN[0].rpartition(".")
    path = tmp_path / "old.ckpt"
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.namelist():
            named = source.read(entry).replace(b"ccollections\nOrderedDict\n", f"c{module}\n{name}\n".encode())
            target.writestr(entry, named)
    assert "holds no Stable Diffusion model" in refusal(path)


def test_file_with_something_other_than_weights_is_a_sentence(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.ckpt")
    assert "holds no weights, but a list" in refusal(tmp_path / "list.ckpt")


def test_mutated_files_give_sentences_alone(configs: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    small = {key: torch.zeros(2, 4, 3, 3) for key in whole()}
    save_file(small, tmp_path / "model.safetensors")
    buffer, old = io.BytesIO(), io.BytesIO()
    torch.save(small, buffer)
    torch.save(small, old, _use_new_zipfile_serialization=False)
    path = tmp_path / "mutated"
    for content in ((tmp_path / "model.safetensors").read_bytes(), buffer.getvalue(), old.getvalue()):
        for _ in range(int(os.environ.get("MUTATIONS", "60"))):
            mutated = bytearray(content)
            for _ in range(rng.randint(1, 8)):
                mutated[rng.randrange(min(len(mutated), 2000))] = rng.randrange(256)
            path.write_bytes(mutated)
            with pytest.raises(ModelError), warnings.catch_warnings(action="ignore"):
                load_single_file(path, torch.float32, configs)
