"""Pictures on disk with their infotext inside: encoded, saved whole or not at all, and numbered."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Literal, TypeAlias

from PIL import Image, PngImagePlugin

from ..disk import write_atomically
from ..errors import InvalidRequest
from .metadata import EXIF_IFD, PNG_KEY, USER_COMMENT, user_comment
from .pictures import Picture, require_picture, to_pillow

ImageFormat: TypeAlias = Literal["png", "jpg", "jpeg", "webp"]

COUNTER = re.compile(r"(\d{5,})(?=\D|$)")
EXIF_LIMIT = 65000
"""Bytes of EXIF that a JPEG can hold (its segment ends at 65,533)."""
COMPRESSION = 4
"""zlib's level for PNG: of 2048² noisy pixels, files as small as at 6, its default, in a third of the time."""


def _exif(text: str) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = user_comment(text)
    return exif


def encode(picture: Picture, text: str = "", image_format: ImageFormat = "png", *, quality: int = 90) -> bytes:
    """A file's bytes from a uint8 H x W x 3 or 4 picture and its infotext (PNG "parameters", else EXIF UserComment).

    PNG and lossless WebP (quality 100) keep every byte. JPEG raises InvalidRequest for a picture with alpha and for an
    infotext that its EXIF can't hold.
    """
    require_picture(picture)
    stream = io.BytesIO()
    image = to_pillow(picture)
    if image_format == "png":
        chunks = PngImagePlugin.PngInfo()
        if text:
            chunks.add_text(PNG_KEY, text)
        image.save(stream, "PNG", pnginfo=chunks, compress_level=COMPRESSION)
    elif image_format == "webp":
        exif = _exif(text).tobytes() if text else b""
        image.save(stream, "WEBP", quality=quality, lossless=quality == 100, exact=True, exif=exif)
    elif image_format in ("jpg", "jpeg"):
        if picture.shape[2] == 4:
            raise InvalidRequest("A JPEG can't hold transparency.", "Save it as PNG, or flatten it.")
        exif = _exif(text).tobytes() if text else b""
        if len(exif) > EXIF_LIMIT:
            raise InvalidRequest("The prompt is too long for a JPEG to hold.", "Save the picture as PNG.")
        image.save(stream, "JPEG", quality=quality, exif=exif)
    else:
        raise InvalidRequest(f"Pictures can't be saved as “{image_format}”.", "Choose png, jpg or webp.")
    return stream.getvalue()


def format_of(path: Path) -> ImageFormat:
    """The image format that a file's ending asks for; InvalidRequest for one that can't be saved."""
    endings: dict[str, ImageFormat] = {".png": "png", ".jpg": "jpg", ".jpeg": "jpeg", ".webp": "webp"}
    ending = path.suffix.lower()
    if ending not in endings:
        raise InvalidRequest(f"Pictures can't be saved as “{path.name}”.", "End the name in .png, .jpg or .webp.")
    return endings[ending]


def save(picture: Picture, path: Path, text: str = "", *, quality: int = 90) -> None:
    """Save a picture with its infotext in the format that the path's ending asks for, whole or not at all."""
    write_atomically(path, encode(picture, text, format_of(path), quality=quality))


def next_counter(folder: Path) -> int:
    """The number after the highest that starts a file's name in the folder; 0 in an empty or missing folder."""
    if not folder.is_dir():
        return 0
    matches = (COUNTER.match(entry.name) for entry in folder.iterdir())
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def numbered_path(folder: Path, seed: int, name: str = "") -> Path:
    """The next free name in the web UI's form, such as 00012-1234567.png; without a seed where it is below 0.

    name: what the picture is, such as "mask" in 00012-1234567-mask.png.
    """
    words = [f"{next_counter(folder):05d}", str(seed) if seed >= 0 else "", name.replace(" ", "-")]
    return folder / f"{'-'.join(word for word in words if word)}.png"
