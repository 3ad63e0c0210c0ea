"""Write backend/models/configs: the published shapes of Stable Diffusion's families, and CLIP's merges from a wheel.

pip download --no-deps open_clip_torch
python tools/build_configs.py open_clip_torch-*.whl backend/models/configs
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

Config = dict[str, Any]

BPE_FILE = "open_clip/bpe_simple_vocab_16e6.txt.gz"
CLIP_TOKENS = 49408  # 2 * 256 bytes, the merges, and the two ends of a text
CLIP_MERGES = CLIP_TOKENS - 2 * 256 - 2
TEXT_LENGTH = 77

CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"


def unet(**changes: Any) -> Config:
    """Return the UNet of Stable Diffusion 1 with changes."""
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 768,
        "down_block_types": [CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, PLAIN_DOWN],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": [PLAIN_UP, CROSS_UP, CROSS_UP, CROSS_UP],
        **changes,
    }


def autoencoder(**changes: Any) -> Config:
    """Return the autoencoder that every family has, with changes."""
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 512,
        "scaling_factor": 0.18215,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        **changes,
    }


def text_encoder(**changes: Any) -> Config:
    """Return the text encoder of CLIP ViT-L/14 with changes."""
    return {
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 2,  # as published: it makes transformers pool at the highest id, which is the end of the text
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": TEXT_LENGTH,
        "model_type": "clip_text_model",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "pad_token_id": 1,
        "projection_dim": 768,
        "vocab_size": CLIP_TOKENS,
        **changes,
    }


def tokenizer(pad: str) -> Config:
    """Return the arguments of a CLIP tokenizer that pads with that token."""
    return {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "model_max_length": TEXT_LENGTH,
        "pad_token": pad,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": "<|endoftext|>",
    }


def scheduler(name: str, **changes: Any) -> Config:
    """Return the noise levels that every family was trained with, for that scheduler."""
    return {
        "_class_name": name,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": None,
        **changes,
    }


PNDM = scheduler("PNDMScheduler", set_alpha_to_one=False, skip_prk_steps=True)
DDIM = scheduler("DDIMScheduler", clip_sample=False, set_alpha_to_one=False)
EULER = scheduler("EulerDiscreteScheduler", interpolation_type="linear", use_karras_sigmas=False)

SD1_INDEX: Config = {
    "_class_name": "StableDiffusionImg2ImgPipeline",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SDXL_INDEX: Config = {
    "_class_name": "StableDiffusionXLImg2ImgPipeline",
    "force_zeros_for_empty_prompt": True,
    "requires_aesthetics_score": False,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}

END_OF_TEXT = "<|endoftext|>"
SD2_UNET: Config = {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "only_cross_attention": False,
    "use_linear_projection": True,
    "upcast_attention": True,  # as 2.1 needs it in half precision; it changes nothing for 2.0
}
SDXL_UNET: Config = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": [PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN],
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": [CROSS_UP, CROSS_UP, PLAIN_UP],
    "use_linear_projection": True,
}
# OpenCLIP ViT-H/14 less its last layer, whose output Stable Diffusion 2 does not use.
SD2_TEXT: Config = {
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
# OpenCLIP ViT-bigG/14.
SDXL_TEXT_2: Config = {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}


def families() -> dict[str, dict[str, Config]]:
    """Return, for each family, its files by their path in the family's folder."""
    sd1 = {
        "model_index.json": SD1_INDEX,
        "scheduler/scheduler_config.json": PNDM,
        "text_encoder/config.json": text_encoder(),
        "tokenizer/tokenizer_config.json": tokenizer(END_OF_TEXT),
        "unet/config.json": unet(),
        "vae/config.json": autoencoder(),
    }
    sd2 = {
        **sd1,
        "model_index.json": {**SD1_INDEX, "scheduler": ["diffusers", "DDIMScheduler"]},
        "scheduler/scheduler_config.json": DDIM,
        "text_encoder/config.json": text_encoder(**SD2_TEXT),
        "tokenizer/tokenizer_config.json": tokenizer("!"),
        "unet/config.json": unet(**SD2_UNET),
        "vae/config.json": autoencoder(sample_size=768),
    }
    sdxl = {
        "model_index.json": SDXL_INDEX,
        "scheduler/scheduler_config.json": EULER,
        "text_encoder/config.json": text_encoder(),
        "text_encoder_2/config.json": text_encoder(**SDXL_TEXT_2),
        "tokenizer/tokenizer_config.json": tokenizer(END_OF_TEXT),
        "tokenizer_2/tokenizer_config.json": tokenizer("!"),
        "unet/config.json": unet(**SDXL_UNET),
        "vae/config.json": autoencoder(sample_size=1024, scaling_factor=0.13025, force_upcast=True),
    }
    plain = {"sd1": sd1, "sd2": sd2, "sdxl": sdxl}
    inpaint = {
        f"{family}-inpaint": {**files, "unet/config.json": {**files["unet/config.json"], "in_channels": 9}}
        for family, files in plain.items()
    }
    return plain | inpaint


def write_families(folder: Path) -> None:
    """Write the families' configuration files below that folder."""
    for family, files in families().items():
        for name, config in files.items():
            path = folder / family / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_vocabulary(wheel: Path, folder: Path) -> None:
    """Write the merges of CLIP's vocabulary, which imply the rest of it, and their licence from open_clip's wheel."""
    with zipfile.ZipFile(wheel) as archive:
        lines = gzip.decompress(archive.read(BPE_FILE)).decode().splitlines()
        licence = next(name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
        licence_text = archive.read(licence).decode()
    merges = lines[1 : 1 + CLIP_MERGES]  # the first line is a version, and CLIP leaves out the rarest merges
    (folder / "clip").mkdir(parents=True, exist_ok=True)
    (folder / "clip/merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    note = (
        "merges.txt holds the merges of CLIP's byte-pair encoding, by OpenAI (MIT licence), as distributed in\n"
        "OpenCLIP under the following licence.\n\n"
    )
    (folder / "clip/LICENSE").write_text(note + licence_text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel of open_clip_torch")
    parser.add_argument("folder", type=Path, help="the folder to write")
    options = parser.parse_args(arguments)
    write_families(options.folder)
    write_vocabulary(options.wheel, options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
