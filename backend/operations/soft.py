"""Soft inpainting: greys of the mask say how much of the source is kept, instead of a hard border between them."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from ..imaging.pictures import Mask, mask_from_bytes, mask_to_bytes, size_of
from ..imaging.regions import Region, crop
from ..imaging.resize import resize
from ..settings import Inpaint
from .sampling import Blend

END = 1 / 8  # how near 0 and 1 the mask has the last word over what has changed
SPREAD = 1.0  # latents; the softness with which a change is laid over its surroundings
RADIUS = 3  # latents on both sides that it reaches


def soft_blend(latents: torch.Tensor, mask: torch.Tensor, settings: Inpaint) -> Blend:
    """Return the blend of every prediction with the source's latents (1×C×h×w) by a mask (1×1×h×w, 1 repainted).

    At a noise level σ the mask is m^(σ^bias·strength), the web UI's: greys keep the source while there is much noise,
    which settles shapes, and let go of it as the noise falls, the darker ones later. 0 keeps it throughout, 1 never.
    """

    def blend(x0: torch.Tensor, noise: float) -> torch.Tensor:
        exponent = noise**settings.schedule_bias * settings.preservation_strength
        weight = torch.where(mask > 0, mask.clamp(min=0, max=1) ** exponent, torch.zeros_like(mask))
        mixed = mix(latents.expand_as(x0), x0, weight, settings.transition_contrast_boost)
        return torch.where(weight == 0, latents, torch.where(weight == 1, x0, mixed))

    return blend


def mix(source: torch.Tensor, new: torch.Tensor, weight: torch.Tensor, boost: float) -> torch.Tensor:
    """Return source·(1 − weight) + new·weight, each latent (B×C×h×w, along C) given its magnitude back.

    The mean of two unlike vectors is shorter than both: seen, it is pale. It is stretched to the power mean of their
    lengths, (|source|^boost·(1 − weight) + |new|^boost·weight)^(1/boost): boost 1 is the arithmetic mean, more comes
    nearer to the longer one.
    """
    mixed = source * (1 - weight) + new * weight
    lengths = torch.stack([source.norm(dim=1, keepdim=True), new.norm(dim=1, keepdim=True)])
    longest = lengths.amax(dim=0).clamp(min=1e-6)  # taken out of the powers, which would overflow
    shares = torch.stack([1 - weight, weight]).expand_as(lengths)
    wanted = longest * ((lengths / longest) ** boost * shares).sum(0) ** (1 / boost)
    stretched: torch.Tensor = mixed * wanted / mixed.norm(dim=1, keepdim=True).clamp(min=1e-6)
    return stretched


def changed_mask(before: torch.Tensor, after: torch.Tensor, mask: Mask, settings: Inpaint) -> Mask:
    """Return the mask to composite by (float32, of the mask's size): where latents (1×C×h×w) have changed.

    A change is the root mean square over the channels, softly spread. Its part of the result is d^c / (d^c + t^c) with
    the threshold t, at which old and new are seen alike, and the contrast c; the mask takes that over by its influence.
    The mask itself has the last word at its ends: 0 stays 0, exactly, and 1 stays 1.
    """
    change = spread((after - before).float().pow(2).mean(dim=1, keepdim=True).sqrt())
    threshold, contrast = settings.difference_threshold, settings.difference_contrast
    if threshold == 0:
        shown = (change > 0).float()
    else:
        # The same fraction as in the docstring, which can't overflow.
        shown = torch.sigmoid(contrast * torch.log(change.clamp(min=1e-6) / threshold))
    width, height = size_of(mask)
    shown = functional.interpolate(shown, size=(height, width), mode="bilinear", align_corners=False)
    found: Mask = shown[0, 0].cpu().numpy().astype(np.float32)
    influence = np.float32(settings.mask_influence)
    return within(found * (1 - influence) + mask * influence, mask)


def spread(values: torch.Tensor) -> torch.Tensor:
    """Return values (1×1×h×w) blurred by a Gaussian of SPREAD latents, the outermost ones going on beyond the edge."""
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-0.5 * (offsets / SPREAD) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(values, (RADIUS,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel.reshape(1, 1, 1, -1))
    return functional.conv2d(rows, kernel.reshape(1, 1, -1, 1))


def within(found: Mask, mask: Mask) -> Mask:
    """Return a mask held to another's ends: 0 where that is 0, 1 where it is 1, free between an eighth and seven."""
    return np.clip(found, (mask - (1 - END)) / END, mask / END).astype(np.float32)


def laid_back(overlay: Mask, mask: Mask, region: Region) -> Mask:
    """Return a mask of a region, at whatever size that was processed, in its place in one of the size of `mask`."""
    whole = np.zeros_like(mask)
    placed = resize(overlay, region.width, region.height, "crop_and_resize")
    whole[region.slices] = within(placed, crop(mask, region))
    return mask_from_bytes(mask_to_bytes(whole))
