"""Writes what has been trained as a plain diffusers folder in fp16, and unpacks such a folder into the cache again."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from transformers import CLIPTokenizer

from backend.models.previews import OWN
from training.autoencoder import DECODER_LAYERS, Coder, build_tiny, deepened
from training.autoencoder import build as fresh_autoencoder
from training.bridge import trained_betas
from training.checkpoints import load, trained
from training.denoiser import build
from training.encode import frozen

logger = logging.getLogger(__name__)

CALMER = 1 / 16


def decoder(cache: Path) -> AutoencoderKL:
    """Return the autoencoder with the frozen encoder and the best decoder so far."""
    vae = deepened(frozen(cache), DECODER_LAYERS)
    stored = load(cache / "decoder.pt")
    if stored is not None:
        vae.load_state_dict(stored["average"])
    vae.register_to_config(scaling_factor=1.0)
    return vae


def pipeline(cache: Path) -> StableDiffusionPipeline:
    """Return the averaged weights as a Stable Diffusion pipeline."""
    tokenizer = CLIPTokenizer.from_pretrained(cache / "tokenizer")
    model = build(tokenizer)
    model.load_state_dict(trained(cache, "unet")["average"])
    scheduler = EulerDiscreteScheduler(  # one that adds noise at every step leaves grain
        trained_betas=trained_betas(),
        prediction_type="v_prediction",
        steps_offset=1,
        timestep_spacing="leading",
    )
    scheduler.register_to_config(clip_sample=False)  # no option of this one, but of DDIM's, which would clip latents
    return StableDiffusionPipeline(
        vae=decoder(cache),
        text_encoder=model.text.eval(),
        tokenizer=tokenizer,
        unet=model.unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def calm(unet: UNet2DConditionModel) -> None:
    """Make all that a UNet adds up a sixteenth as large, or half precision overflows (153,000 was seen).

    Every block reads it through a normalisation, or hands it on as it is: but for that one's epsilon nothing changes.
    """
    added: list[Any] = [unet.conv_in.weight, unet.conv_in.bias]
    for part in unet.modules():
        if isinstance(part, ResnetBlock2D):
            added += [part.conv2.weight, part.conv2.bias]
            added += [part.conv_shortcut.bias] if part.conv_shortcut is not None else []
        elif isinstance(part, Downsample2D | Upsample2D):
            added.append(part.conv.bias)
        elif isinstance(part, Transformer2DModel):
            added += [part.proj_out.weight, part.proj_out.bias]
    for values in added:
        values *= CALMER


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("folder", type=Path, help="the diffusers folder to write or, with --unpack, to read")
    parser.add_argument("--calm", action="store_true", help="scale the UNet down where half precision overflows")
    parser.add_argument("--autoencoder", action="store_true", help="write only the autoencoder, not yet frozen")
    parser.add_argument("--unpack", action="store_true", help="put the folder's autoencoder and tokenizer in the cache")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Write the folder; or unpack one, so that a fresh clone encodes with the same autoencoder and goes on."""
    torch.set_num_threads(threads)
    if options.unpack:
        cache.mkdir(parents=True, exist_ok=True)
        for part in ("vae", "tokenizer"):
            shutil.copytree(options.folder / part, cache / part, dirs_exist_ok=True)
        logger.info("now: encode, then unet --init %s", options.folder)
        return
    if options.autoencoder:
        stored = trained(cache, "autoencoder")
        coder = Coder(fresh_autoencoder())
        coder.load_state_dict(stored["average"])
        coder.vae.half().save_pretrained(options.folder / "vae")
        logger.info("the autoencoder at step %d", stored["step"])
        return
    made = pipeline(cache)
    if options.calm:
        calm(made.unet)
    made.to(torch.float16)
    made.save_pretrained(options.folder, safe_serialization=True)
    stored = load(cache / "tiny.pt")
    if stored is not None:
        tiny = build_tiny()
        tiny.load_state_dict(stored["average"])
        tiny.half().save_pretrained(options.folder / OWN)
    for path in options.folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)  # where this machine keeps its cache
        if path.parent.name == OWN:
            config.pop("block_out_channels")  # which AutoencoderTiny writes and, when it reads it, warns of
        path.write_text(json.dumps(config, indent=2) + "\n")
    size = sum(file.stat().st_size for file in options.folder.rglob("*") if file.is_file())
    logger.info("%s: %.1f MB", options.folder, size / 1e6)
