"""Masks: where they come from, their blur, and the forms in which sampling and compositing want them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest
from .pictures import (
    Bytes2D,
    Mask,
    Picture,
    mask_from_bytes,
    mask_to_bytes,
    require_mask,
    require_picture,
    require_size,
    size_of,
    to_pillow,
)

ALPHA_THRESHOLD = 128
"""Alpha above this repaints, of 255; the web UI's value, measured."""

MAX_BLUR = 512
"""Largest mask blur in pixels; the web UI offers 64, and outpainting multiplies it by up to 4."""


def binary_mask(picture: Picture, *, mask_round: bool = True) -> Mask:
    """The mask that an uploaded uint8 picture means: its alpha if any pixel is not opaque, else its luminance.

    Alpha is cut at 128 of 255 (unless `mask_round` is off); greys of a luminance are kept. The web UI's rule, measured.
    """
    require_picture(picture, "mask picture")
    if picture.shape[2] == 4 and bool((picture[:, :, 3] < 255).any()):
        alpha = picture[:, :, 3]
        if mask_round:
            return (alpha > ALPHA_THRESHOLD).astype(np.float32)
        return mask_from_bytes(alpha)
    luminance = to_pillow(picture[:, :, :3]).convert("L")
    return mask_from_bytes(np.array(luminance, dtype=np.uint8))


def alpha_mask(picture: Picture, drawn: Mask | None = None) -> Mask:
    """The mask of November 2022: every pixel that is not opaque is repainted fully, united with a drawn mask.

    The colour under the transparent pixels stays what it is: some editors save it as black.
    """
    require_picture(picture)
    mask = np.zeros(picture.shape[:2], dtype=np.float32)
    if picture.shape[2] == 4:
        mask[picture[:, :, 3] < 255] = 1.0
    if drawn is not None:
        require_mask(drawn, "drawn mask", size_of(picture))
        mask = np.maximum(mask, drawn)
    return mask


def sketch_mask(painted: Picture, original: Picture, *, transparency: float = 0.0) -> Mask:
    """The mask of an inpaint sketch: 1 - transparency/100 where the painted picture differs in any colour channel.

    Both are uint8 of one size; transparency is 0-100 %. From 50 on the latent mask rounds to nothing, as in the web UI.
    """
    _require_same_size(painted, original)
    if not 0 <= transparency <= 100:
        raise InvalidRequest(f"A mask transparency of {transparency} % is impossible.", "Choose 0 to 100.")
    differs = (painted[:, :, :3] != original[:, :, :3]).any(axis=2)
    strength = np.uint8(int(255 * (1 - transparency / 100)))
    return mask_from_bytes(np.where(differs, strength, np.uint8(0)).astype(np.uint8))


def sketch_picture(painted: Picture, original: Picture, mask: Mask, mask_blur: float = 4.0) -> Picture:
    """The picture of an inpaint sketch: the blurred paint over the original through the blurred mask, uint8 HxWx3."""
    _require_same_size(painted, original)
    require_mask(mask, size=size_of(original))
    soft = np.stack([blur_bytes(painted[:, :, c], mask_blur, mask_blur) for c in range(3)], axis=2)
    return mix(soft, original[:, :, :3], mask_to_bytes(blur(mask, mask_blur)))


def _require_same_size(painted: Picture, original: Picture) -> None:
    require_picture(painted, "painted picture")
    require_picture(original)
    if size_of(painted) != size_of(original):
        raise InvalidRequest("The painted picture is not the size of the original.", "Paint over the picture itself.")


def mix(above: Picture, below: Picture, weight: Bytes2D) -> Picture:
    """`above` over `below` (uint8 HxWx3), by a weight in 0-255; at 0 and 255 the bytes of one of them, exactly."""
    share = weight.astype(np.uint32)[:, :, None]
    return ((above * share + below * (255 - share) + 127) // 255).astype(np.uint8)


def invert(mask: Mask) -> Mask:
    """The mask of "Inpaint not masked": 1 - mask."""
    require_mask(mask)
    return mask_from_bytes(np.uint8(255) - mask_to_bytes(mask))


def is_blank(mask: Mask) -> bool:
    """Whether nothing is to be repainted: every value rounds to 0 of 255."""
    require_mask(mask)
    return not bool(mask_to_bytes(mask).any())


def gaussian_kernel(sigma: float) -> NDArray[np.float64]:
    """Weights of a Gaussian of sigma pixels over 2·int(2.5·sigma+0.5)+1 taps, summing to 1; the web UI's size."""
    radius = int(2.5 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    normalised: NDArray[np.float64] = taps / taps.sum()
    return normalised


def _blur_rows(values: Bytes2D, sigma: float) -> Bytes2D:
    """Blur along the last axis in 8 bits; the picture is mirrored about its outermost pixel."""
    kernel = gaussian_kernel(sigma)
    radius = kernel.size // 2
    if radius == 0:
        return values
    length = values.shape[1]
    mode = "reflect" if length > 1 else "edge"
    padded = np.pad(values, ((0, 0), (radius, radius)), mode=mode).astype(np.float32)  # type: ignore[call-overload]
    total = padded[:, radius : radius + length] * np.float32(kernel[radius])
    for offset in range(1, radius + 1):
        both = padded[:, radius - offset : radius - offset + length] + padded[:, radius + offset :][:, :length]
        total += both * np.float32(kernel[radius + offset])
    blurred: Bytes2D = np.clip(np.rint(total), 0, 255).astype(np.uint8)
    return blurred


def blur_bytes(values: Bytes2D, sigma_x: float, sigma_y: float) -> Bytes2D:
    """A uint8 HxW plane blurred by a Gaussian of its own sigma on each axis, x first, rounded after each; 0 is off."""
    for sigma in (sigma_x, sigma_y):
        if not 0 <= sigma <= MAX_BLUR:
            raise InvalidRequest(f"A mask blur of {sigma} is outside 0 to {MAX_BLUR}.", "Choose a blur from 0 to 64.")
    if sigma_x > 0:
        values = _blur_rows(values, sigma_x)
    if sigma_y > 0:
        values = _blur_rows(np.ascontiguousarray(values.T), sigma_y).T
    return np.ascontiguousarray(values)


def blur(mask: Mask, blur_x: float, blur_y: float | None = None) -> Mask:
    """The mask with a Gaussian blur of blur_x and blur_y pixels (one value serves both; 0 switches an axis off).

    The web UI's rule, measured: in 8 bits, x first, so that the faint tail ends where it rounds to 0.
    """
    require_mask(mask)
    return mask_from_bytes(blur_bytes(mask_to_bytes(mask), blur_x, blur_x if blur_y is None else blur_y))


def overlay_mask(mask: Mask) -> Mask:
    """The overlay mask of "Whole picture": twice the mask, cut at 1, so the whole fade lies outside the drawn edge.

    "Only masked" uses the blurred mask itself as its overlay mask.
    """
    require_mask(mask)
    doubled = np.minimum(mask_to_bytes(mask).astype(np.uint16) * 2, 255).astype(np.uint8)
    return mask_from_bytes(doubled)


def latent_mask(mask: Mask, latent_width: int, latent_height: int, *, mask_round: bool = True) -> Mask:
    """The mask at the size of the latent (float32, bicubic in 8 bits), rounded to 0 or 1 unless `mask_round` is off."""
    require_mask(mask)
    require_size(latent_width, latent_height, "latent")
    from PIL import Image

    image = to_pillow(mask_to_bytes(mask)).resize((latent_width, latent_height), Image.Resampling.BICUBIC)
    small = mask_from_bytes(np.array(image, dtype=np.uint8))
    return np.rint(small) if mask_round else small
