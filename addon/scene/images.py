"""Pictures in and out of Blender; the only place that knows its row order and its float buffers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import bpy
import numpy as np

from ...backend.disk import write_atomically
from ...backend.errors import InvalidRequest
from ...backend.events import Result
from ...backend.imaging.metadata import PNG_SIGNATURE, with_infotext
from ...backend.request import Array

INFOTEXT = "parameters"  # the custom property that keeps how a picture was made, named as in the web UI's PNGs
PREVIEW_SIDE = 256  # pixels, the most that Blender shows of a preview
LEAST_LINEAR = 0.0031308  # the sRGB curve (IEC 61966-2-1) is straight below this


def read_image(image: bpy.types.Image) -> Array:
    """Return an image's pixels (uint8 H×W×3 or H×W×4 display sRGB, straight alpha, top row first).

    Byte images come exactly as they are; float ones are scene-linear and are encoded as sRGB. Raises InvalidRequest
    for an image without pixels.
    """
    width, height = image.size
    channels = image.channels
    if width * height == 0 or channels == 0:
        raise InvalidRequest(f"The image {image.name} has no pixels.", "Load or render it first, or choose another.")
    flat = np.empty(width * height * channels, np.float32)
    image.pixels.foreach_get(flat)
    values = flat.reshape(height, width, channels)[::-1]
    if channels == 1:
        values = values.repeat(3, 2)
    elif channels == 2:
        values = values[..., (0, 0, 0, 1)]
    if image.is_float:
        if channels == 4 and image.alpha_mode not in ("CHANNEL_PACKED", "NONE"):  # Blender has them premultiplied
            alpha = values[..., 3:]
            values = np.concatenate([values[..., :3] / np.where(alpha > 0, alpha, 1), alpha], axis=2)
        values = np.concatenate([encode_srgb(values[..., :3]), values[..., 3:]], axis=2)
    return np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)


def write_pixels(image: bpy.types.Image, pixels: Array) -> None:
    """Give an 8-bit image of four channels these pixels (uint8 H×W×3 or H×W×4 sRGB, straight alpha, top row first)."""
    levels = np.ones((*pixels.shape[:2], 4), np.float32)
    levels[..., : pixels.shape[2]] = pixels[::-1] / np.float32(255)
    image.pixels.foreach_set(levels.ravel())


def encode_srgb(linear: Array) -> Array:
    """Return linear values (float32, 0–1) as sRGB ones, by IEC 61966-2-1."""
    clipped = np.clip(np.nan_to_num(linear), 0, 1)
    curved = 1.055 * np.power(np.maximum(clipped, LEAST_LINEAR), 1 / 2.4) - 0.055
    return np.where(clipped <= LEAST_LINEAR, clipped * 12.92, curved).astype(np.float32)


def load_result(result: Result, name: str) -> bpy.types.Image:
    """Return a finished picture as a packed image of the file, with the infotext that tells how it was made.

    The PNG's own bytes are packed, infotext included, so that nothing is encoded on the main thread. Raises
    InvalidRequest where the picture has gone.
    """
    try:
        image = bpy.data.images.load(result.path, check_existing=False)
    except RuntimeError as error:
        raise InvalidRequest(f"The picture {result.path} can't be opened any more.", "Generate it again.") from error
    image.name = name
    image.pack()
    image.filepath_raw = f"//{bpy.path.clean_name(image.name)}.png"
    image[INFOTEXT] = result.infotext
    make_preview(image)
    image.use_fake_user = True  # a result that nothing shows yet would be lost on saving
    return image


def make_preview(image: bpy.types.Image) -> None:
    """Give an image the small picture of itself that panels show; Blender makes none by itself for a packed one."""
    width, height = image.size
    if width * height == 0:
        return
    flat = np.empty(width * height * image.channels, np.float32)
    image.pixels.foreach_get(flat)
    every = max(-(-max(width, height) // PREVIEW_SIDE), 1)
    small = flat.reshape(height, width, -1)[::every, ::every]
    if small.shape[2] == 3:
        small = np.dstack([small, np.ones(small.shape[:2], np.float32)])
    preview = image.preview_ensure()
    preview.image_size = (small.shape[1], small.shape[0])
    preview.image_pixels_float.foreach_set(np.ascontiguousarray(small).ravel())


def save_image(image: bpy.types.Image, path: Path) -> None:
    """Write an image to a file as a PNG with its infotext, whole or not at all; the image stays as it is.

    Its packed PNG is written as it is, or encoded anew where it is none or was painted on. Raises OSError of the disk,
    and InvalidRequest for an image without pixels.
    """
    packed = image.packed_file
    if packed is not None and not image.is_dirty and bytes(packed.data[:8]) == PNG_SIGNATURE:
        write_atomically(path, packed.data)
        return
    write_atomically(path, with_infotext(encode_png(read_image(image)), str(image.get(INFOTEXT, ""))))


def encode_png(pixels: Array) -> bytes:
    """Return pixels (uint8 H×W×3 or H×W×4 sRGB, straight alpha) as a PNG's bytes."""
    height, width, channels = pixels.shape
    image = bpy.data.images.new("Encoded", width, height, alpha=channels == 4)
    try:
        write_pixels(image, pixels)
        image.file_format = "PNG"
        with tempfile.TemporaryDirectory(prefix="viewport-diffusion-") as folder:
            path = Path(folder) / "picture.png"
            image.save(filepath=str(path))
            return path.read_bytes()
    finally:
        bpy.data.images.remove(image)
