"""Outpainting mk2: one direction after the other, the new area first filled with noise matched to the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest
from .colour import Levels
from .outpaint import padded_side
from .pictures import Mask, Picture, require_mask, require_picture, require_size, size_of
from .regions import Region

Direction: TypeAlias = Literal["left", "right", "up", "down"]
DIRECTIONS: tuple[Direction, ...] = ("left", "right", "up", "down")
"""In the order in which they are painted."""


@dataclass(frozen=True)
class Expansion:
    """One direction's outpaint: the canvas with noise, and the strip of it that is generated.

    `canvas` is uint8 H x W x 3 with sides that are multiples of 64; the masks (1 = repaint) are the canvas's size; the
    mask wants a blur of blur_x and blur_y pixels, masked content "original". `result` is the exact picture in it.
    """

    canvas: Picture
    mask: Mask
    latent_mask: Mask
    blur_x: int
    blur_y: int
    region: Region
    result: Region

    @property
    def strip(self) -> Picture:
        return self.canvas[self.region.slices].copy()

    @property
    def strip_mask(self) -> Mask:
        return self.mask[self.region.slices].copy()

    @property
    def strip_latent_mask(self) -> Mask:
        return self.latent_mask[self.region.slices].copy()

    def finish(self, painted: Picture) -> Picture:
        """The painted strip pasted back and the canvas cut to the exact size that was asked for."""
        require_picture(painted, "painted strip", (3,))
        if size_of(painted) != (self.region.width, self.region.height):
            raise InvalidRequest("The painted strip is not the size of its region.", "Resize it to the region.")
        finished = self.canvas.copy()
        finished[self.region.slices] = painted
        return finished[self.result.slices].copy()


def directions(*, left: int = 0, right: int = 0, up: int = 0, down: int = 0) -> tuple[tuple[Direction, int], ...]:
    """The directions that grow and by how many pixels, in the order in which they are painted."""
    pixels = {"left": left, "right": right, "up": up, "down": down}
    if min(pixels.values()) < 0 or max(pixels.values()) == 0:
        raise InvalidRequest("There is no direction to outpaint in.", "Give at least one direction some pixels.")
    return tuple((direction, pixels[direction]) for direction in DIRECTIONS if pixels[direction])


def require_strips(
    size: tuple[int, int],
    wanted: Sequence[tuple[Direction, int]],
    process_width: int,
    process_height: int,
    mask_blur: int,
) -> None:
    """Raise what `expand` would for any of the directions, one after the other, for a picture of (width, height)."""
    width, height = size
    for direction, pixels in wanted:
        if direction in ("left", "right"):
            _strip(width, pixels, process_width, mask_blur)
            width += pixels
        else:
            _strip(height, pixels, process_height, mask_blur)
            height += pixels


def _strip(length: int, pixels: int, process: int, mask_blur: int) -> tuple[int, int]:
    """The length of the canvas that a side grows to, and of the strip of it that is processed."""
    canvas_length = padded_side(length + pixels)
    strip = min(process, canvas_length)
    if canvas_length - strip >= length - 2 * mask_blur:
        raise InvalidRequest(
            f"A strip of {strip} pixels shows nothing of the picture beside {pixels} new ones.",
            "Outpaint fewer pixels, lower the mask blur, or raise the width and height.",
        )
    return canvas_length, strip


def expand(
    picture: Picture,
    direction: Direction,
    pixels: int,
    process_width: int,
    process_height: int,
    *,
    mask_blur: int = 8,
    falloff: float = 1.0,
    colour_variation: float = 0.05,
    seed: int = 0,
) -> Expansion:
    """Prepare a uint8 H x W x 3 picture to grow by `pixels` in one direction.

    The canvas is padded to multiples of 64: along the direction with more of the new area, across it with repeated
    edge pixels, both cropped off the result. The strip is min(process side, canvas side) long and as wide as the
    canvas. The mask keeps the picture inset by `mask_blur` and is blurred by four times that along the direction only;
    the latent mask keeps it inset by twice that. Raises InvalidRequest for an unknown direction or no pixels, and where
    the strip would hold nothing of the picture.
    """
    require_picture(picture, channels=(3,))
    require_size(process_width, process_height)
    if direction not in DIRECTIONS:
        raise InvalidRequest(f"“{direction}” is not a direction.", f"Choose one of {', '.join(DIRECTIONS)}.")
    if pixels < 1 or not 0 <= mask_blur <= 64:
        raise InvalidRequest("The outpaint has no pixels or an impossible mask blur.", "Choose 8 to 256, blur 0 to 64.")
    horizontal, before = direction in ("left", "right"), direction in ("left", "up")
    # Worked out for a growth to the right; the other directions are turned into it and back.
    turned = picture if horizontal else picture.swapaxes(0, 1)
    turned = turned[:, ::-1] if before else turned
    across, length = turned.shape[:2]
    canvas_length, strip = _strip(length, pixels, process_width if horizontal else process_height, mask_blur)
    canvas_across = padded_side(across)
    require_size(canvas_length, canvas_across, "canvas")
    masks = [_keep_mask(canvas_across, canvas_length, length - inset) for inset in (mask_blur, 2 * mask_blur)]
    # The picture's place on the canvas before noise: edges repeated across, black along the direction.
    canvas = np.zeros((canvas_across, canvas_length, 3), dtype=np.uint8)
    canvas[:, :length] = turned[np.minimum(np.arange(canvas_across), across - 1)]
    regions = [Region(canvas_length - strip, 0, canvas_length, canvas_across), Region(0, 0, length + pixels, across)]

    def unturn(array: NDArray[np.generic]) -> NDArray[np.generic]:
        array = array[:, ::-1] if before else array
        return np.ascontiguousarray(array if horizontal else array.swapaxes(0, 1))

    placed = [_unturned_region(region, canvas_length, horizontal, before) for region in regions]
    mask = unturn(masks[0]).astype(np.float32)
    levels = matched_noise(unturn(canvas).astype(np.float64) / 255, mask, falloff, colour_variation, seed)
    return Expansion(
        np.rint(levels * 255).astype(np.uint8),
        mask,
        unturn(masks[1]).astype(np.float32),
        4 * mask_blur if horizontal else 0,
        0 if horizontal else 4 * mask_blur,
        *placed,
    )


def _keep_mask(across: int, length: int, kept: int) -> Mask:
    if kept <= 0:
        raise InvalidRequest(
            "The mask blur leaves nothing of the picture to go on from.", "Choose a smaller mask blur."
        )
    mask = np.ones((across, length), dtype=np.float32)
    mask[:, :kept] = 0
    return mask


def _unturned_region(region: Region, length: int, horizontal: bool, before: bool) -> Region:
    x1, y1, x2, y2 = region.as_tuple()
    if before:
        x1, x2 = length - x2, length - x1
    return Region(x1, y1, x2, y2) if horizontal else Region(y1, x1, y2, x2)


def _spectrum(levels: Levels) -> NDArray[np.complex128]:
    transformed: NDArray[np.complex128] = np.fft.fftshift(np.fft.fft2(levels, axes=(0, 1), norm="ortho"), axes=(0, 1))
    return transformed


def _from_spectrum(spectrum: NDArray[np.complex128]) -> Levels:
    levels: Levels = np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(0, 1)), axes=(0, 1), norm="ortho").real
    return levels


def _soft_noise(width: int, height: int, colour_variation: float, seed: int) -> Levels:
    """Uniform noise of some colour, its fine detail held down by 1/((x² + 1)(y² + 1)) in frequency."""
    # The legacy generator's stream is fixed for ever, so a seed gives the same picture with every numpy.
    noise: Levels = np.random.RandomState(seed).random_sample((height, width, 3))
    noise = colour_variation * noise + (1 - colour_variation) * noise.mean(axis=2, keepdims=True)
    shorter = min(width, height)
    x = (np.arange(width) - width / 2) / (shorter / 2)
    y = (np.arange(height) - height / 2) / (shorter / 2)
    window = 1 / ((x[None, :] ** 2 + 1) * (y[:, None] ** 2 + 1))
    return _from_spectrum(_spectrum(noise) * window[:, :, None])


def match_distribution(values: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values (1-D) in the same order of size, but distributed as the reference, with exactly its mean.

    Each rank takes the mean of its share of the sorted reference: interpolating between the few levels of an 8-bit
    picture would darken it by half a level.
    """
    totals = np.concatenate([[0.0], np.cumsum(np.sort(reference))])
    shares = np.arange(values.size + 1) * (reference.size / values.size)
    means = np.diff(np.interp(shares, np.arange(totals.size), totals)) * (values.size / reference.size)
    matched = np.empty_like(values)
    matched[np.argsort(values, kind="stable")] = means
    return matched


def matched_noise(
    source: Levels, mask: Mask, falloff: float = 1.0, colour_variation: float = 0.05, seed: int = 0
) -> Levels:
    """The picture (float64 H x W x 3, sRGB in 0-1), its masked part replaced by noise of like texture and colour.

    Noise is given the picture's amplitude spectrum to the power `falloff` (0-4) and its phase, then the histogram of
    the known part; `colour_variation` (0-1) is the share of coloured noise. The web UI's rule, measured, deterministic
    by `seed`. Raises InvalidRequest where the mask leaves nothing known.
    """
    height, width = source.shape[:2]
    require_mask(mask, size=(width, height))
    if not 0 <= falloff <= 4 or not 0 <= colour_variation <= 1:
        raise InvalidRequest("The noise's fall-off or colour variation is impossible.", "Choose 0 to 4, and 0 to 1.")
    masked, known = mask > 1e-6, mask < 1e-3
    if not bool(masked.any()):
        return source.copy()
    if not bool(known.any()):
        raise InvalidRequest("The mask covers the whole picture, so there is nothing to match.", "Leave a part of it.")
    weight = mask.astype(np.float64)[:, :, None]
    windowed = source * (1 - weight)
    brightest = float(windowed.max())
    windowed = (windowed / brightest if brightest > 0 else windowed) + float(source.mean()) * weight
    spectrum = _spectrum(windowed)
    amplitude = np.abs(spectrum)
    # A frequency that the picture lacks has no phase; it gets phase 0 instead of 0/0.
    phase = np.divide(spectrum, amplitude, out=np.ones_like(spectrum), where=amplitude > 0)
    noise = _spectrum(_soft_noise(width, height, colour_variation, seed))
    shaped = _from_spectrum(np.abs(noise) ** 2 * amplitude**falloff * phase)
    spread = float(shaped.max() - shaped.min())
    shaped = (shaped - shaped.min()) / spread if spread > 0 else np.zeros_like(shaped)
    for channel in range(3):
        shaped[:, :, channel][masked] = match_distribution(shaped[:, :, channel][masked], source[:, :, channel][known])
    blended: Levels = np.clip(source * (1 - weight) + shaped * weight, 0, 1)
    return blended
