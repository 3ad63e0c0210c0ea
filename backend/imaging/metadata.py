"""Infotext inside image files, with the standard library alone: Blender's own Python has no Pillow."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import InvalidRequest
from . import infotext

PNG_KEY = "parameters"
EXIF_IFD = 0x8769
USER_COMMENT = 0x9286
UNICODE_PREFIX = b"UNICODE\0"
ASCII_PREFIX = b"ASCII\0\0\0"
EXIF_PREFIX = b"Exif\0\0"
GIF_SIGNATURES = (b"GIF87a", b"GIF89a")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_HEADER = re.compile(rb"II\*\0|MM\0\*")
LARGEST_TEXT = 4 * 2**20
"""Bytes that a compressed text may unfold to; a few of a file's bytes could otherwise fill the memory."""


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


def read_infotext(source: Path | str | bytes) -> str:
    """The infotext inside an image file (path, or the file's bytes), "" where it has none.

    Looks in PNG text, in EXIF UserComment (JPEG, WebP, AVIF, PNG), in GIF and JPEG comments and in NovelAI's JSON.
    Raises InvalidRequest where the file can't be read as one of these.
    """
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        found = _fields(content)
    except (OSError, ValueError, struct.error, IndexError, zlib.error) as error:
        raise InvalidRequest("The file can't be read as an image.", "Choose a PNG, JPEG or WebP file.") from error
    if PNG_KEY in found:
        return found[PNG_KEY]
    if "UserComment" in found:
        return found["UserComment"]
    if found.get("Software") == "NovelAI":
        return infotext.from_novelai(found.get("Comment", ""), found.get("Description", "")) or ""
    return found.get("Comment", "") if content.startswith(GIF_SIGNATURES) else ""  # elsewhere it is anybody's


def infotext_if_any(source: Path | str | bytes) -> str:
    """The infotext of an image, "" where it has none or is of a kind that can't hold it, or can't be read for it."""
    try:
        return read_infotext(source)
    except InvalidRequest:
        return ""


def with_infotext(png: bytes, text: str) -> bytes:
    """A PNG's bytes with an infotext added, as Latin-1 where that can hold it and else as UTF-8, as the web UI does."""
    if not text:
        return png
    key = PNG_KEY.encode("latin-1")
    try:
        chunk = b"tEXt" + key + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        chunk = b"iTXt" + key + b"\0\0\0\0\0" + text.encode()
    head = len(PNG_SIGNATURE) + 25  # behind the header, which is the first chunk and has 13 bytes
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:head] + framed + png[head:]


def _fields(content: bytes) -> dict[str, str]:
    """The texts of an image by their names: PNG keywords, "UserComment" of EXIF, "Comment" of JPEG and GIF."""
    if content.startswith(PNG_SIGNATURE):
        return _png_fields(content)
    if content.startswith(b"\xff\xd8\xff"):
        return _jpeg_fields(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _webp_fields(content)
    if content.startswith(GIF_SIGNATURES):
        return _gif_fields(content)
    if content[4:8] == b"ftyp":
        # AVIF and its kin keep EXIF in a box that only their index leads to; its header is found without.
        for match in TIFF_HEADER.finditer(content):
            if found := _exif_fields(content[match.start() :]):
                return found
        return {}
    raise ValueError("an unknown kind of file")


def _png_fields(content: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    position = len(PNG_SIGNATURE)
    while position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        data = content[position + 8 : position + 8 + length]
        if len(data) < length:
            raise ValueError("the file ends in the middle")
        position += length + 12
        if kind == b"tEXt":
            name, _, text = data.partition(b"\0")
            found[name.decode("latin-1")] = text.decode("latin-1")
        elif kind == b"zTXt":
            name, _, packed = data.partition(b"\0")
            found[name.decode("latin-1")] = _inflate(packed[1:]).decode("latin-1")
        elif kind == b"iTXt":
            name, _, rest = data.partition(b"\0")
            _, _, text = rest[2:].split(b"\0", 2)
            found[name.decode("latin-1")] = (_inflate(text) if rest[0] else text).decode("utf-8", errors="replace")
        elif kind == b"eXIf":
            found |= _exif_fields(data)
        elif kind == b"IEND":
            return found
    raise ValueError("the file ends in the middle")


def _inflate(packed: bytes) -> bytes:
    return zlib.decompressobj().decompress(packed, LARGEST_TEXT)


def _jpeg_fields(content: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    position = 2
    while content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xDA:  # the pixels; no text comes after
            return found
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        data = content[position + 4 : position + 2 + length]
        position += 2 + length
        if marker == 0xE1 and data.startswith(EXIF_PREFIX):
            found |= _exif_fields(data)
        elif marker == 0xFE:
            found["Comment"] = data.decode("utf-8", errors="replace")
    raise ValueError("not a JPEG's segment")


def _webp_fields(content: bytes) -> dict[str, str]:
    position = 12
    while position < len(content):
        kind, length = struct.unpack_from("<4sI", content, position)
        if kind == b"EXIF":
            return _exif_fields(content[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    return {}


def _gif_fields(content: bytes) -> dict[str, str]:
    comment = b""
    position = 13 + _gif_table(content[10])
    while content[position] != 0x3B:
        if content[position] == 0x2C:
            position += 11 + _gif_table(content[position + 9])
            label = 0
        else:
            label = content[position + 1]
            position += 2
        while size := content[position]:
            if label == 0xFE:
                comment += content[position + 1 : position + 1 + size]
            position += 1 + size
        position += 1
    return {"Comment": comment.decode("utf-8", errors="replace")} if comment else {}


def _gif_table(flags: int) -> int:
    """Bytes of the colour table that a GIF's flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _exif_fields(data: bytes) -> dict[str, str]:
    """The UserComment of EXIF data, which is a small TIFF file; nothing where it is broken."""
    data = data.removeprefix(EXIF_PREFIX)
    try:
        order = {b"II": "<", b"MM": ">"}[data[:2]]
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        for tag, _, _, offset in _entries(data, order, first):
            if tag == EXIF_IFD:
                for inner, count, place, start in _entries(data, order, offset):
                    if inner == USER_COMMENT:
                        start = place if count <= 4 else start
                        return {"UserComment": text_of_user_comment(data[start : start + count])}
    except (struct.error, KeyError):
        return {}
    return {}


def _entries(data: bytes, order: str, offset: int) -> Iterator[tuple[int, int, int, int]]:
    """The entries of one directory of a TIFF: tag, count, where the value stands, the value as an offset."""
    (number,) = struct.unpack_from(f"{order}H", data, offset)
    for index in range(number):
        start = offset + 2 + 12 * index
        tag, _, count, value = struct.unpack_from(f"{order}HHII", data, start)
        yield tag, count, start + 8, value
