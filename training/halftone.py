"""Teaches the frozen autoencoder to tell half-tone from a tint, and to print it: one mark, the same for any colour.

An encoder that averages dots away gives a shade the latents of the tint that they make. Colours fill three of a
latent's four dimensions where a picture is even; so a shade of dots is told by a step along what is left, the direction
that is seen least. To a UNet it is a tint as any other. All other latents stay as they are, so that what has learnt
them stays of use. The autoencoder from before is kept as `vae_plain`; what was encoded has to be encoded anew.
"""

from __future__ import annotations

import argparse
import copy
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import mse_loss

from training.autoencoder import (
    DECODER_LAYERS,
    LATENT_NOISE,
    checked_pictures,
    deepened,
    loss_of,
    psnr_row,
    to_tensor,
)
from training.buffers import load_scene, scene_path, scene_paths
from training.checkpoints import QUICK_BFLOAT16, trained
from training.decoder import STRUCTURE, train, unlike
from training.encode import frozen
from training.guide import make_guide, render
from training.losses import sight
from training.pictures import COLOURINGS, choose_hand, palettes
from training.stylist import BLOCK, PICTURE, STYLES, dotted, finish, stylise, tinted_comic

SEED = 14
RATE, WARM = 4e-4, 50
MARK = 1.5  # of a latent's deviation, where all of it is dots
KEPT = 4.0  # the weight of latents that stay as they are or get the mark
SCENES = 2  # a step and process, each a crop of a comic, of its tinted form and of something else
SIDE = 32  # latents a side
OTHERS = ("render", *(style for style in STYLES if style != "comic"))


@torch.no_grad()
def least_seen(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Return the direction (4, of length 1) in which latents of pictures (N×3×H×W, -1 to 1) are seen least."""
    latents = vae.encode(pictures).latent_dist.mean
    direction: Tensor = torch.linalg.eigh(sight(vae, latents, vae.decode(latents).sample))[1][:, 0]
    return direction


@dataclass
class Lessons:
    """What a process needs to draw its share of a step's crops and learn from them."""

    model: AutoencoderKL
    before: AutoencoderKL  # the autoencoder whose latents are kept
    mark: Tensor  # 4
    cache: Path
    scenes: int

    def drawn(self, rng: np.random.Generator, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return crops of a scene (3×3×H×W): a comic, the same in tints, another style; then all of them without dots.

        The last says how much of each latent is dots (3×1×SIDE×SIDE).
        """
        scene = load_scene(scene_path(self.cache / "scenes", number))
        palette = palettes(scene.facts, number, held_out=False)[:2][int(rng.integers(COLOURINGS))]
        guide, hand = make_guide(scene, palette), choose_hand(rng)
        comic, tinted, share = stylise(guide, "comic", hand), tinted_comic(guide, hand), dotted(guide, hand)
        style = OTHERS[int(rng.integers(len(OTHERS)))]
        other = finish(render(scene, palette)) if style == "render" else stylise(guide, style, hand)
        row, column = rng.integers(0, PICTURE // BLOCK - SIDE + 1, 2)
        pixels = tuple(slice(BLOCK * first, BLOCK * (first + SIDE)) for first in (row, column))
        given, even = (
            to_tensor(np.stack([picture[pixels] for picture in pictures]))
            for pictures in ((comic, tinted, other), (tinted, tinted, other))
        )
        marked = torch.zeros(3, 1, SIDE, SIDE)
        marked[0, 0] = torch.from_numpy(share[row : row + SIDE, column : column + SIDE])
        return given, even, marked

    def learn(self, step: int, process: int) -> Tensor:
        """Add to the gradients; return the losses of decoder and encoder."""
        rng = np.random.default_rng((SEED, step, process))
        torch.manual_seed(int(rng.integers(2**62)))
        drawn = [self.drawn(rng, int(rng.integers(self.scenes))) for _ in range(SCENES)]
        pictures, even, share = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        with torch.autocast("cpu", torch.bfloat16, enabled=QUICK_BFLOAT16):
            with torch.no_grad():
                goal = self.before.encode(even).latent_dist.mean.float() + MARK * self.mark.view(1, -1, 1, 1) * share
            found = self.model.encode(pictures).latent_dist.mean
            noise = LATENT_NOISE * torch.rand(len(goal), 1, 1, 1) * torch.randn_like(goal)
            result = self.model.decode(goal + noise).sample
        encoded = mse_loss(found.float(), goal)
        decoded = loss_of(result.float(), pictures) + STRUCTURE * unlike(result.float(), pictures)
        (decoded + KEPT * encoded).backward()
        return torch.stack([decoded, encoded]).detach()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--seconds", type=float, default=600, help="how long this stretch lasts, its rate falling")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Train for a stretch and write `vae` anew; the checkpoint is `halftone.pt`, the log `halftone.csv`."""
    torch.manual_seed(SEED)
    plain = cache / "vae_plain"
    if not plain.exists():
        frozen(cache)
        shutil.copytree(cache / "vae", plain)
    before = AutoencoderKL.from_pretrained(plain).eval().requires_grad_(False)
    model = deepened(copy.deepcopy(before), DECODER_LAYERS).requires_grad_(True)
    checked, styles = checked_pictures(cache)
    mark = least_seen(before, checked[[name == "anime" for name in styles]])
    lessons = Lessons(model, before, mark, cache, len(scene_paths(cache / "scenes")))

    def kept(average: AutoencoderKL) -> dict[str, float]:
        return psnr_row(average, checked, styles)

    train(lessons, "halftone", ("decoded", "encoded"), RATE, WARM, options.seconds, threads, kept)
    model.load_state_dict(trained(cache, "halftone")["average"])
    model.eval().save_pretrained(cache / "vae")
