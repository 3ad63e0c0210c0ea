"""What is wrong with a UNet's predictions, as it is seen: errors of brightness and hue, of broad areas, of structure.

Latents are whitened, so that an error of one of them is seen far less than the same of another; `Eye` knows how they
look, without decoding them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from pytorch_msssim import ssim
from torch import Tensor
from torch.nn.functional import avg_pool2d

SEED = 9
BROAD, BROADLY = 4, 4.0  # latents a side of the areas whose mean error is punished as well, and its weight
# As the windows of 11 pixels, 1.5 wide, that the evaluation lays on pictures of 256, 128 and 64 pixels fall on a latent
# of four pixels: side and width.
WINDOWS = ((11, 1.5), (5, 0.75), (3, 0.45))


@dataclass
class Eye:
    """How latents are seen."""

    sight: Tensor  # 4×4, see `sight`
    hues: Tensor  # 3×4: a latent's share of red, green and blue
    grey: Tensor  # 3: the colour of a latent of nothing

    def errors(self, wrong: Tensor) -> Tensor:
        """Return errors of latents (N×4×H×W) in the measure of `sight`."""
        return torch.einsum("ij,njhw->nihw", self.sight, wrong)

    def preview(self, latents: Tensor) -> Tensor:
        """Return the pictures (N×3×H×W, -1 to 1) that latents (N×4×H×W) show, a pixel a latent."""
        return torch.einsum("ij,njhw->nihw", self.hues, latents) + self.grey[:, None, None]


@torch.no_grad()
def look(vae: AutoencoderKL, latents: Tensor) -> Eye:
    """Learn from a decoder how latents are seen; latents: N×4×H×W, of pictures.

    A decoder that began as a linear one stays near it: what the factors show is 0.5 of 255 off (root mean square).
    """
    drawn = vae.decode(latents).sample
    side = drawn.shape[-1] // latents.shape[-1]
    given = torch.cat([latents, torch.ones_like(latents[:, :1])], 1).permute(0, 2, 3, 1).reshape(-1, 5)
    shown = avg_pool2d(drawn, side).permute(0, 2, 3, 1).reshape(-1, 3)
    factors = torch.linalg.lstsq(given, shown).solution.T
    return Eye(sight(vae, latents, drawn), factors[:, :4].contiguous(), factors[:, 4].contiguous())


@torch.no_grad()
def sight(vae: AutoencoderKL, latents: Tensor, drawn: Tensor) -> Tensor:
    """Return the 4×4 matrix that makes an error of latents as large as it is seen, to the half (mean square 1).

    A deviation of brightness moves pixels by 53 of 255, one of hue by 9 and 13, and the least seen direction by 3: with
    all counted alike, three quarters of the loss would be of what hardly anybody sees. Taken whole, hues would drift.
    latents: N×4×H×W, of pictures, and as they are drawn.
    """
    nudge = 0.1 * torch.randn(len(latents), 1, *latents.shape[2:], generator=torch.Generator().manual_seed(SEED))
    axes = nudge * torch.eye(latents.shape[1])[:, None, :, None, None]  # a nudge of one channel each
    moved = torch.stack([(vae.decode(latents + axis).sample - drawn).flatten() for axis in axes])
    strengths, directions = torch.linalg.eigh(moved @ moved.T)
    sizes = strengths.clamp(min=0) ** 0.25
    matrix: Tensor = directions @ torch.diag(sizes / sizes.square().mean().sqrt()) @ directions.T
    return matrix


def misfit(eye: Eye, wrong: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of velocities that are wrong by so much (N×4×H×W); weight: N×1×H×W."""
    fine, broad = eye.errors(wrong).square(), avg_pool2d(wrong, BROAD).square()
    return (weight * fine).mean() + BROADLY * (avg_pool2d(weight, BROAD) * broad).mean()


def disorder(eye: Eye, result: Tensor, truth: Tensor) -> Tensor:
    """Return 1 - structural similarity of what latents show (N×4×H×W each), the mean over WINDOWS.

    Squared errors hardly heed what it does, grain on a plain area first of all.
    """
    result, truth = eye.preview(result), eye.preview(truth)
    alike = [ssim(result, truth, data_range=2, win_size=side, win_sigma=width) for side, width in WINDOWS]
    return 1 - torch.stack(alike).mean()
