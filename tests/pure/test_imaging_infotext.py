"""Infotext by the measured rules, inside PNG, JPEG and WebP, and files saved whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import string
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from backend.errors import InvalidRequest
from backend.imaging import files, infotext, metadata
from backend.imaging.files import ImageFormat
from backend.imaging.pictures import Picture, load


def noise(width: int = 24, height: int = 16, channels: int = 3) -> Picture:
    return np.random.RandomState(3).randint(0, 256, (height, width, channels)).astype(np.uint8)


PARAMETERS: dict[str, object] = {
    "Steps": 20,
    "Sampler": "Euler a",
    "Schedule type": "Automatic",
    "CFG scale": 7.0,
    "Seed": 123,
    "Size": "512x768",
    "Denoising strength": 0.75,
}


def test_written_text_by_value() -> None:
    text = infotext.write("a knight", "blurry", PARAMETERS)
    assert text == (
        "a knight\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.0, "
        "Seed: 123, Size: 512x768, Denoising strength: 0.75"
    )
    assert infotext.write("a knight", "", {"Steps": 1}) == "a knight\nSteps: 1"
    assert infotext.write("", "", {"Steps": 1}) == "Steps: 1"
    assert infotext.write(" a ", "", {}) == "a"


def test_keys_come_in_the_order_of_the_web_ui() -> None:
    given_order = {"Version": "1", "Mask blur": 4, "Seed": 1, "User": "me", "Inpaint area": "Only masked", "Steps": 2}
    text = infotext.write("", "", given_order)
    assert text == "Steps: 2, Seed: 1, Mask blur: 4, Inpaint area: Only masked, Version: 1, User: me"


def test_none_and_defaults_are_left_out_and_a_value_like_its_key_prints_the_key() -> None:
    parameters = {"Tiling": "Tiling", "ENSD": None, "Clip skip": 1, "RNG": "GPU", "Mask mode": "Inpaint masked"}
    assert infotext.write("", "", parameters) == "Tiling"
    assert infotext.write("", "", {"Clip skip": 2, "Masked content": "fill"}) == "Clip skip: 2, Masked content: fill"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a, b", '"a, b"'),
        ('quote"x', 'quote"x'),
        ("a:b", '"a:b"'),
        ("a\nb", '"a\\nb"'),
        ("ü, ß", '"ü, ß"'),
        (7, "7"),
        ('"a", b', '"\\"a\\", b"'),
    ],
)
def test_values_are_quoted_only_where_they_must_be(value: object, written: str) -> None:
    assert infotext.quote(value) == written
    assert infotext.unquote(written) == str(value)


def test_broken_quotes_come_back_as_they_are() -> None:
    assert infotext.unquote('"a\\x"') == '"a\\x"' and infotext.unquote('"') == '"'


def test_parse_by_value() -> None:
    parsed = infotext.parse(infotext.write("a\nb", "c\nd", {**PARAMETERS, "Lora hashes": "x: 1, y: 2"}))
    expected = {
        "Prompt": "a\nb",
        "Negative prompt": "c\nd",
        "Size-1": "512",
        "Size-2": "768",
        "Lora hashes": "x: 1, y: 2",
    }
    assert expected.items() <= parsed.items() and "Size" not in parsed


def test_one_letter_keys_and_fewer_than_three_pairs_are_prompt() -> None:
    assert infotext.parse("a: b, c: d, e: f")["Prompt"] == "a: b, c: d, e: f"
    assert infotext.parse("x\nSteps: 2, Seed: 3")["Prompt"] == "x\nSteps: 2, Seed: 3"
    assert infotext.parse("x\nSteps: 2, Seed: 3, Size: 8x9")["Prompt"] == "x"


def test_defaults_are_filled() -> None:
    parsed = infotext.parse("(a:1.2)\nSteps: 2, Seed: 3, CFG scale: 4")
    for key, value in {
        "Clip skip": "1",
        "Mask mode": "Inpaint masked",
        "Masked content": "original",
        "Inpaint area": "Whole picture",
        "Masked area padding": "32",
        "RNG": "GPU",
        "Schedule type": "Automatic",
        "VAE Encoder": "Full",
        "VAE Decoder": "Full",
        "Emphasis": "Original",
    }.items():
        assert parsed[key] == value
    assert "Emphasis" not in infotext.parse("a \\(b\\)\nSteps: 2, Seed: 3, CFG scale: 4")
    assert "RNG" not in infotext.parse("a", fill_defaults=False)
    assert infotext.parse("a\nSteps: 2, Seed: 3, RNG: CPU")["RNG"] == "CPU"


def test_old_combined_samplers_are_split() -> None:
    parsed = infotext.parse("a\nSteps: 2, Seed: 3, Sampler: DPM++ 2M Karras")
    assert (parsed["Sampler"], parsed["Schedule type"]) == ("DPM++ 2M", "Karras")
    assert infotext.split_sampler("DPM++ 2M SDE Exponential") == ("DPM++ 2M SDE", "Exponential")
    assert infotext.split_sampler("Euler a") == ("Euler a", None)
    kept = infotext.parse("a\nSteps: 2, Seed: 3, Sampler: X Karras, Schedule type: Simple")
    assert kept["Sampler"] == "X Karras"


words = st.text(string.ascii_letters + " äé,.()[]:\"'\\\n漢🙂", min_size=1, max_size=30)
single_line = words.map(lambda text: text.strip()).filter(lambda text: text != "" and not infotext.SIZE.fullmatch(text))


def is_plain(text: str) -> bool:
    lines = text.split("\n")
    return (
        all(line == line.strip() and not line.startswith("Negative prompt:") for line in lines) and text == text.strip()
    )


@given(words.filter(is_plain), words.filter(is_plain), single_line)
def test_round_trip(prompt: str, negative: str, value: str) -> None:
    if not any(mark in value for mark in ",:\n") and value.startswith('"') and value.endswith('"'):
        return
    text = infotext.write(prompt, negative, {**PARAMETERS, "Script note": value})
    parsed = infotext.parse(text)
    assert (parsed["Prompt"], parsed["Negative prompt"]) == (prompt, negative)
    assert parsed["Script note"] == value and parsed["Seed"] == "123"


@given(st.text(max_size=200))
def test_parse_never_fails(text: str) -> None:
    assert "Prompt" in infotext.parse(text)


TEXT = infotext.write("a knight, 漢字 🙂", "blurry", PARAMETERS)


@pytest.mark.parametrize("image_format", ["png", "jpg", "jpeg", "webp"])
@pytest.mark.parametrize("text", [TEXT, "plain, Steps: 3", ""])
def test_files_give_their_infotext_back(image_format: ImageFormat, text: str, tmp_path: Path) -> None:
    content = files.encode(noise(), text, image_format)
    assert metadata.read_infotext(content) == text
    path = tmp_path / f"new/picture.{image_format}"
    files.save(noise(), path, text)
    assert metadata.read_infotext(path) == text and load(path).shape == (16, 24, 3)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_png_and_lossless_webp_keep_every_byte_and_alpha() -> None:
    picture = noise(channels=4)
    assert (load(files.encode(picture, TEXT)) == picture).all()
    assert (load(files.encode(picture, TEXT, "webp", quality=100)) == picture).all()


def test_plain_text_is_a_text_chunk_that_every_reader_knows() -> None:
    assert b"tEXtparameters\0plain" in files.encode(noise(), "plain")
    assert b"iTXtparameters" in files.encode(noise(), "漢字")


def test_user_comments_of_other_programs() -> None:
    assert metadata.user_comment("ab") == b"UNICODE\0\0a\0b"
    assert metadata.text_of_user_comment(b"UNICODE\0" + "abc".encode("utf-16-le")) == "abc"
    assert metadata.text_of_user_comment(b"UNICODE\0" + "abc".encode("utf-16")) == "abc"
    assert metadata.text_of_user_comment(b"ASCII\0\0\0abc") == "abc"
    assert metadata.text_of_user_comment(b"\0" * 8 + b"abc\0") == "abc"
    assert metadata.text_of_user_comment(b"abc") == "abc" and metadata.text_of_user_comment("abc") == "abc"
    assert metadata.text_of_user_comment(5) == ""


def test_gif_comment_and_novelai() -> None:
    stream = io.BytesIO()
    Image.fromarray(noise()).convert("P").save(stream, "GIF", comment=b"a\nSteps: 3")
    assert metadata.read_infotext(stream.getvalue()) == "a\nSteps: 3"
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Software", "NovelAI")
    chunks.add_text("Description", "a girl")
    chunks.add_text("Comment", json.dumps({"steps": 28, "sampler": "k_euler", "seed": 5, "scale": 11, "uc": "bad"}))
    stream = io.BytesIO()
    Image.fromarray(noise()).save(stream, "PNG", pnginfo=chunks)
    parsed = infotext.parse(metadata.read_infotext(stream.getvalue()))
    assert (parsed["Prompt"], parsed["Negative prompt"], parsed["CFG scale"]) == ("a girl", "bad", "11")
    assert infotext.from_novelai("rubbish") is None and infotext.from_novelai("[1]") is None


def test_wrong_files_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no image")
    for source in (tmp_path / "x.png", tmp_path / "none.png", b"", tmp_path):
        with pytest.raises(InvalidRequest):
            metadata.read_infotext(source)
    with pytest.raises(InvalidRequest):
        files.encode(noise(channels=4), "", "jpg")
    with pytest.raises(InvalidRequest):
        files.encode(noise(), "x" * 40000, "jpg")
    with pytest.raises(InvalidRequest):
        files.save(noise(), tmp_path / "x.bmp")


def test_a_failed_save_keeps_the_old_file_and_leaves_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.png"
    files.save(noise(), path, "old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.save(noise(), path, "new")
    assert metadata.read_infotext(path) == "old" and list(tmp_path.iterdir()) == [path]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 99999), max_size=5))
def test_next_counter_follows_the_highest(numbers: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in numbers:
            (folder / f"{number:05d}-77.png").touch()
        (folder / "notes-99999.txt").touch()
        assert files.next_counter(folder) == max(numbers, default=-1) + 1


def test_numbered_files(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    assert files.next_counter(folder) == 0
    assert files.numbered_path(folder, 5).name == "00000-5.png"
    files.save(noise(), files.numbered_path(folder, 5, "masked composite"), TEXT)
    assert [path.name for path in folder.iterdir()] == ["00000-5-masked-composite.png"]
    assert files.numbered_path(folder, -1).name == "00001.png"
    (folder / "99999-1.png").touch()
    assert files.numbered_path(folder, 7).name == "100000-7.png"


def pillow_bytes(image_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise()).save(stream, image_format, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def exif_of(text: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = "a description before it"
    exif.get_ifd(metadata.EXIF_IFD)[metadata.USER_COMMENT] = metadata.user_comment(text)
    return exif


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_exif_of_every_format_that_has_it_is_read(image_format: str) -> None:
    content = pillow_bytes(image_format, exif=exif_of(TEXT))
    assert metadata.read_infotext(content) == TEXT
    assert metadata.read_infotext(pillow_bytes(image_format)) == ""


def test_exif_of_either_byte_order_is_read() -> None:
    little = exif_of("a knight").tobytes()
    comment = metadata.user_comment("a knight")
    directory = struct.pack(">HHHIII", 1, metadata.EXIF_IFD, 4, 1, 26, 0)
    inner = struct.pack(">HHHIII", 1, metadata.USER_COMMENT, 7, len(comment), 44, 0)
    big = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + directory + inner + comment
    for exif in (little, big):
        assert metadata.read_infotext(pillow_bytes("JPEG", exif=exif)) == "a knight"


def test_compressed_png_texts_are_read_and_anybodys_comments_are_not() -> None:
    for name in ("plain", "漢字"):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("parameters", name, zip=True)
        assert metadata.read_infotext(pillow_bytes("PNG", pnginfo=chunks)) == name
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", "plain", zip=True)
    assert b"zTXtparameters" in pillow_bytes("PNG", pnginfo=chunks)
    assert metadata.read_infotext(pillow_bytes("PNG", pnginfo=chunks)) == "plain"
    assert metadata.read_infotext(pillow_bytes("JPEG", comment=b"Created with GIMP")) == ""


def test_a_compressed_text_never_fills_the_memory() -> None:
    packed = b"parameters\0\0" + zlib.compress(bytes(50 * 2**20))
    chunk = struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    content = pillow_bytes("PNG")
    assert len(metadata.read_infotext(content[:33] + chunk + content[33:])) == metadata.LARGEST_TEXT


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "AVIF"]), st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(image_format: str, data: st.DataObject) -> None:
    options = {} if image_format == "GIF" else {"exif": exif_of(TEXT)}
    content = bytearray(pillow_bytes(image_format, **options))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidRequest):
        metadata.read_infotext(bytes(content[: data.draw(st.integers(0, len(content)))]))


def test_reading_infotext_needs_no_pillow() -> None:
    program = "import sys, backend.imaging.metadata; print('PIL' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.strip() == "False"
