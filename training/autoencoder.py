"""Trains the autoencoder: 256 px pictures to 64×64×4 latents and back, colours before lines."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL, AutoencoderTiny
from numpy.typing import NDArray
from torch import Tensor, nn

from training.buffers import load_scene, scene_paths
from training.checkpoints import QUICK_BFLOAT16, Averaged, Log, Stretch, smoothed
from training.pictures import COLOURINGS, STYLES_EACH, Pictures, draw, open_pictures
from training.stylist import PICTURE, STYLES

CHANNELS = (16, 48, 96)  # (32, 64, 128) costs 1.9 times as much a picture
LAYERS, DECODER_LAYERS = 1, 3  # residual blocks a level: as it is trained, and once the decoder finishes results
# The tiny one's, 32 wide: none at the pictures' own scale, where they cost most.
TINY_WIDTH, TINY_ENCODER, TINY_DECODER = 32, (0, 1, 2), (3, 2, 0)
SEED = 5
RATE = 4e-4  # more shakes the colours that the highway begins with
CROPS = ((64, 16, 0.4), (128, 4, 0.4), (256, 1, 0.2))  # pixels, batch, share: the same work a step
COLOUR_WEIGHT = 1.0  # of the linear reading
SPREAD = 1e-4  # the weight of the latents' own size
LATENT_NOISE = 0.08  # of the latents' deviation, at most: the decoder must bear a denoiser's errors
CHECKED_SCENES = 3


class Coder(nn.Module):
    """The autoencoder, and a linear reading of colours from its latents.

    The reading pulls the encoder to keep every hue from the first steps, where the decoder's own gradient is content
    with lines and one axis of colour for thousands of them; it also gives the factors of cheap previews.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        self.preview = nn.Conv2d(4, 3, 1)


HIGHWAY = 8  # channels: red, green, blue, the three negated, and a constant of either sign
CONSTANT = 4.0  # keeps the normalisation's scale steady from picture to picture


@torch.no_grad()
def lay_colour_highway(model: AutoencoderKL) -> None:
    """Start the autoencoder as a plain blur that keeps every colour, for training to add the detail to.

    From random weights lines come within a thousand steps, but hues take many thousands. So the first eight channels
    of every level carry the colours through untouched: averaged on the way down, smoothed on the way up. The pairs of
    either sign pass SiLU unharmed, since silu(x) - silu(-x) = x.
    """

    def carry(layer: nn.Module, taps: Tensor) -> None:
        layer.weight[:HIGHWAY], layer.bias[:HIGHWAY] = 0, 0
        for channel in range(HIGHWAY):
            layer.weight[channel, channel] = taps

    def start(layer: nn.Conv2d) -> None:
        layer.weight[:HIGHWAY], layer.bias[:HIGHWAY] = 0, 0
        for colour in range(3):
            layer.weight[colour, colour, 1, 1], layer.weight[colour + 3, colour, 1, 1] = 1, -1
        layer.bias[6], layer.bias[7] = CONSTANT, -CONSTANT

    def end(layer: nn.Conv2d) -> None:
        layer.weight[:3], layer.bias[:3] = 0, 0
        for colour in range(3):
            layer.weight[colour, colour, 1, 1], layer.weight[colour, colour + 3, 1, 1] = 1, -1

    halving = torch.zeros(3, 3)
    halving[:2, :2] = 0.25
    tent = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25]))
    for coder in (model.encoder, model.decoder):
        start(coder.conv_in)
        for name, layer in coder.named_modules():
            if name.endswith("conv2"):
                layer.weight[:HIGHWAY], layer.bias[:HIGHWAY] = 0, 0
            elif name.endswith("conv_shortcut"):
                carry(layer, torch.ones(1, 1))
            elif name.endswith("downsamplers.0.conv"):
                carry(layer, halving)
            elif name.endswith("upsamplers.0.conv"):
                carry(layer, tent)
        end(coder.conv_out)
    for layer in (model.quant_conv, model.post_quant_conv):
        layer.weight.copy_(torch.eye(len(layer.weight))[:, :, None, None])
        layer.bias.zero_()


@torch.no_grad()
def fit_highway(coder: Coder, pictures: Tensor) -> None:
    """Scale the output so that the fresh highway gives back the pictures' colours, and set the linear reading."""
    result = coder.vae.decode(coder.vae.encode(pictures).latent_dist.mean).sample
    coder.vae.decoder.conv_out.weight *= float((result * pictures).sum() / result.square().sum())
    fit_reading(coder, pictures)


@torch.no_grad()
def fit_reading(coder: Coder, pictures: Tensor) -> None:
    """Set the linear reading of colours from latents by least squares."""
    latents = coder.vae.encode(pictures).latent_dist.mean.permute(0, 2, 3, 1).reshape(-1, 4)
    colours = functional.avg_pool2d(pictures, 4).permute(0, 2, 3, 1).reshape(-1, 3)
    known = torch.cat([latents, torch.ones(len(latents), 1)], 1)
    found = torch.linalg.lstsq(known, colours).solution
    coder.preview.weight[:, :, 0, 0], coder.preview.bias[:] = found[:4].T, found[4]


def build(channels: tuple[int, ...] = CHANNELS) -> AutoencoderKL:
    """Return a fresh autoencoder with downsampling factor 4 for three levels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        block_out_channels=channels,
        layers_per_block=LAYERS,
        latent_channels=4,
        norm_num_groups=1,  # groups of two channels, as 8 gives at full size, lose the colour of broad areas
        mid_block_add_attention=False,
        sample_size=PICTURE,
        scaling_factor=1.0,
    )


def build_tiny() -> AutoencoderTiny:
    """Return a fresh autoencoder for previews, for the same latents."""
    return AutoencoderTiny(
        encoder_block_out_channels=(TINY_WIDTH,) * len(TINY_ENCODER),
        decoder_block_out_channels=(TINY_WIDTH,) * len(TINY_DECODER),
        num_encoder_blocks=TINY_ENCODER,
        num_decoder_blocks=TINY_DECODER,
        scaling_factor=1.0,
    )


@torch.no_grad()
def deepened(model: AutoencoderKL, layers: int) -> AutoencoderKL:
    """Return the autoencoder with so many residual blocks a level, in the decoder one more; new ones do nothing yet.

    AutoencoderKL gives both its halves as many: those of a frozen encoder do nothing for ever.
    """
    if model.config.layers_per_block == layers:
        return model
    deep: AutoencoderKL = AutoencoderKL.from_config(model.config, layers_per_block=layers)
    new = set(deep.load_state_dict(model.state_dict(), strict=False).missing_keys)
    for name, part in deep.named_parameters():
        if name in new and ".conv2." in name:
            part.zero_()
    return deep.eval()


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """Return pictures (N×H×W×3 bytes) as N×3×H×W float32 in -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def loss_of(result: Tensor, truth: Tensor) -> Tensor:
    """Weigh errors of value, edges, colour and broad areas; the last two keep hues from drifting."""
    error = result - truth
    luma = error[:, :1] * 0.299 + error[:, 1:2] * 0.587 + error[:, 2:] * 0.114
    chroma = error - luma
    edges = sum(
        (a - b).abs().mean()
        for a, b in (
            (result.diff(dim=2), truth.diff(dim=2)),
            (result.diff(dim=3), truth.diff(dim=3)),
        )
    )
    broad = functional.avg_pool2d(error, 8)
    return (
        error.abs().mean()
        + 2.0 * error.square().mean()
        + 0.25 * edges
        + 0.7 * chroma.abs().mean()
        + 1.5 * broad.abs().mean()
        + 4.0 * broad.square().mean()
    )


def crops(pictures: Pictures, rng: np.random.Generator, size: int, count: int) -> Tensor:
    """Return random crops (count×3×size×size) of random pictures, seldom of empty ground."""
    batch = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        record = pictures.records[int(rng.integers(len(pictures)))]
        picture = record[int(rng.integers(COLOURINGS)), int(rng.integers(1 + STYLES_EACH))]
        for _ in range(3):
            row, column = rng.integers(0, PICTURE - size + 1, 2)
            crop = picture[row : row + size, column : column + size]
            if crop.std() > 12:
                break
        batch[i] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return to_tensor(batch)


def checked_pictures(cache: Path) -> tuple[Tensor, list[str]]:
    """Return pictures of held-out scenes (N×3×256×256) in every style, and their styles."""
    pictures = [
        draw(load_scene(path), i, list(STYLES), held_out=True)[0][0]
        for i, path in enumerate(scene_paths(cache / "held_out")[:CHECKED_SCENES])
    ]
    return to_tensor(np.concatenate(pictures)), ["render", *STYLES] * len(pictures)


@torch.no_grad()
def reconstruction(model: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Return the pictures (N×3×H×W) after encoding and decoding, clipped to -1 to 1."""
    with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
        parts = [model.decode(model.encode(part).latent_dist.mean).sample.float() for part in pictures.split(1)]
    return torch.cat(parts).clamp(-1, 1)


def psnr(result: Tensor, truth: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each picture (N), in dB, for values from -1 to 1."""
    return -10 * torch.log10((result - truth).square().mean((1, 2, 3)) / 4)


def psnr_by_style(model: AutoencoderKL, pictures: Tensor, styles: list[str]) -> dict[str, float]:
    """Return the mean PSNR in dB that each style's pictures (N×3×H×W) keep; styles: N."""
    ratios = psnr(reconstruction(model, pictures), pictures)
    return {name: float(ratios[[s == name for s in styles]].mean()) for name in ("render", *STYLES)}


def psnr_row(model: AutoencoderKL, pictures: Tensor, styles: list[str]) -> dict[str, float]:
    """Return what a log says of them: the mean over the styles as `psnr`, and that of each."""
    named = psnr_by_style(model, pictures, styles)
    return {"psnr": float(np.mean(list(named.values())))} | named


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--seconds", type=float, default=3600, help="how long this stretch lasts")
    parser.add_argument("--init", type=Path, help="diffusers folder to start from where there is no checkpoint")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Train for a stretch; the checkpoint is `autoencoder.pt`, the log `autoencoder.csv`."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    model = Coder(AutoencoderKL.from_pretrained(options.init, subfolder="vae") if options.init else build())
    some = crops(open_pictures(cache), np.random.default_rng(SEED), 128, 8)
    if options.init:
        fit_reading(model, some)
    else:
        lay_colour_highway(model.vae)
        fit_highway(model, some)
    average = Averaged(model, 0.998)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    stretch = Stretch(cache / "autoencoder.pt", model, average, optimiser, options.seconds)
    log = Log(cache / "logs" / "autoencoder.csv")
    checked, styles = checked_pictures(cache)
    pictures = open_pictures(cache)
    model.train()
    running = 0.0
    for due in stretch.steps():
        rng = stretch.rng(SEED)
        if stretch.step % 100 == 0:
            pictures = open_pictures(cache)
        rate = RATE * min(1.0, (stretch.step + 1) / 100) / max(1.0, stretch.step / 1500) ** 0.5
        for group in optimiser.param_groups:
            group["lr"] = rate
        size, count, _ = CROPS[int(rng.choice(len(CROPS), p=[share for *_, share in CROPS]))]
        truth = crops(pictures, rng, size, count)
        with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
            latents = model.vae.encode(truth).latent_dist.mean
            deviation = latents.detach().float().std((0, 2, 3), keepdim=True)
            noise = (
                torch.randn_like(latents, dtype=torch.float32) * deviation * LATENT_NOISE * torch.rand(count, 1, 1, 1)
            )
            result = model.vae.decode(latents + noise).sample
            colours = model.preview(latents)
        loss = loss_of(result.float(), truth) + SPREAD * latents.float().square().mean()
        loss = loss + COLOUR_WEIGHT * (colours.float() - functional.avg_pool2d(truth, 4)).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model, stretch.step)
        stretch.samples += count * size * size // PICTURE**2 or 1
        running = smoothed(running, loss)
        if due or stretch.step in (60, 300):
            row = {"seconds": stretch.elapsed, "step": stretch.step, "loss": running}
            log.write(row | psnr_row(average.module.vae, checked, styles))
