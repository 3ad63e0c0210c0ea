"""Pictures on disk with their infotext inside: encoded, read back, saved whole or not at all, and numbered."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Literal, TypeAlias

from PIL import Image, PngImagePlugin

from ..disk import write_atomically
from ..errors import InvalidRequest
from . import infotext
from .pictures import Picture, require_picture, to_pillow

ImageFormat: TypeAlias = Literal["png", "jpg", "jpeg", "webp"]

PNG_KEY = "parameters"
EXIF_IFD = 0x8769
USER_COMMENT = 0x9286
UNICODE_PREFIX = b"UNICODE\0"
ASCII_PREFIX = b"ASCII\0\0\0"
COUNTER = re.compile(r"(\d{5,})(?=\D|$)")
EXIF_LIMIT = 65000
"""Bytes of EXIF that a JPEG can hold (its segment ends at 65,533)."""


def user_comment(text: str) -> bytes:
    """The EXIF field UserComment that holds a text: the eight bytes "UNICODE\\0", then UTF-16, high byte first."""
    return UNICODE_PREFIX + text.encode("utf-16-be")


def text_of_user_comment(value: object) -> str:
    """The text in an EXIF UserComment of any of its encodings, UTF-16 of either byte order included."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        return ""
    prefix, body = value[:8], value[8:]
    if prefix == UNICODE_PREFIX:
        if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return body.decode("utf-16", errors="replace")
        # Without a byte order mark, the zero bytes of plain letters tell which end comes first.
        little = body[1::2].count(0) > body[0::2].count(0)
        return body.decode("utf-16-le" if little else "utf-16-be", errors="replace")
    if prefix in (ASCII_PREFIX, bytes(8)):
        return body.decode("utf-8", errors="replace").strip("\0")
    return value.decode("utf-8", errors="replace").strip("\0")


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
        image.save(stream, "PNG", pnginfo=chunks)
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


def read_infotext(source: Path | str | bytes) -> str:
    """The infotext inside an image file (path, or the file's bytes), "" where it has none.

    Looks in PNG text, in EXIF UserComment (JPEG, WebP, AVIF, PNG), in GIF comments and in NovelAI's JSON. Raises
    InvalidRequest where the file can't be read as an image.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            # Text chunks may follow the pixels in a PNG, so the whole file is read.
            image.load()
            found = dict(image.info)
            comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidRequest("The file can't be read as an image.", "Choose a PNG, JPEG or WebP file.") from error
    if isinstance(found.get(PNG_KEY), str):
        return str(found[PNG_KEY])
    if comment is not None:
        return text_of_user_comment(comment)
    text = found.get("Comment", found.get("comment", ""))
    text = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else str(text)
    if found.get("Software") == "NovelAI":
        return infotext.from_novelai(text, str(found.get("Description", ""))) or ""
    return text


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


def numbered_path(folder: Path, seed: int, image_format: ImageFormat = "png") -> Path:
    """The next free name in the web UI's form, such as 00012-1234567.png."""
    return folder / f"{next_counter(folder):05d}-{seed}.{image_format}"


def save_numbered(
    picture: Picture, folder: Path, seed: int, text: str = "", image_format: ImageFormat = "png", *, quality: int = 90
) -> Path:
    """Save a picture with its infotext under the next free number of a folder, and give its path."""
    path = numbered_path(folder, seed, image_format)
    save(picture, path, text, quality=quality)
    return path
