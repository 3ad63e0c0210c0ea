"""The resize modes by value, and pictures loaded, checked and flattened."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backend.errors import InvalidRequest
from backend.imaging import pictures, resize
from backend.imaging.pictures import Picture
from backend.imaging.resize import Fit

sides = st.integers(1, 90)


def noise(width: int, height: int, channels: int = 3) -> Picture:
    return np.random.RandomState(width * 1000 + height).randint(0, 256, (height, width, channels)).astype(np.uint8)


def test_crop_and_resize_covers_by_the_measured_geometry() -> None:
    assert resize.fit(640, 480, 512, 768, "crop_and_resize") == Fit(1024, 768, -256, 0)


def test_resize_and_fill_fits_by_the_measured_geometry() -> None:
    assert resize.fit(640, 480, 512, 768, "resize_and_fill") == Fit(512, 384, 0, 192)


def test_just_resize_stretches() -> None:
    assert resize.fit(640, 480, 512, 768, "just_resize") == Fit(512, 768, 0, 0)


@given(sides, sides, sides, sides)
def test_crop_and_resize_leaves_no_gap(iw: int, ih: int, w: int, h: int) -> None:
    placed = resize.fit(iw, ih, w, h, "crop_and_resize")
    assert placed.x <= 0 and placed.y <= 0
    assert placed.x + placed.width >= w and placed.y + placed.height >= h
    assert placed.width == w or placed.height == h


@given(sides, sides, sides, sides)
def test_resize_and_fill_lies_inside_and_touches_two_edges(iw: int, ih: int, w: int, h: int) -> None:
    placed = resize.fit(iw, ih, w, h, "resize_and_fill")
    assert placed.x >= 0 and placed.y >= 0
    assert placed.x + placed.width <= w and placed.y + placed.height <= h
    assert placed.width == w or placed.height == h


@settings(max_examples=40, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from(["just_resize", "crop_and_resize", "resize_and_fill"]))
def test_every_mode_gives_the_asked_size_and_no_black(
    iw: int, ih: int, w: int, h: int, mode: resize.ResizeMode
) -> None:
    white = np.full((ih, iw, 3), 255, dtype=np.uint8)
    assert (resize.resize(white, w, h, mode) == 255).all()
    assert resize.resize(white, w, h, mode).shape == (h, w, 3)


def test_bars_repeat_the_outermost_row_also_in_the_odd_last_one() -> None:
    picture = noise(8, 4)
    out = resize.resize(picture, 8, 9, "resize_and_fill")
    assert resize.fit(8, 4, 8, 9, "resize_and_fill") == Fit(8, 4, 0, 2)
    assert (out[2:6] == picture).all()
    assert (out[:2] == picture[0]).all()
    assert (out[6:] == picture[3]).all()


def test_bars_repeat_the_outermost_column() -> None:
    picture = noise(4, 8)
    out = resize.resize(picture, 9, 8, "resize_and_fill")
    assert (out[:, :2] == picture[:, :1]).all() and (out[:, 6:] == picture[:, 3:]).all()


def test_crop_takes_the_middle() -> None:
    picture = noise(16, 8)
    assert (resize.resize(picture, 8, 8, "crop_and_resize") == picture[:, 4:12]).all()


def test_stretch_is_lanczos() -> None:
    picture = noise(40, 30)
    expected = np.array(Image.fromarray(picture).resize((64, 64), Image.Resampling.LANCZOS))
    assert (resize.resize(picture, 64, 64, "just_resize") == expected).all()


def test_colour_under_transparent_pixels_does_not_bleed() -> None:
    picture = np.full((16, 16, 4), (0, 255, 90, 0), dtype=np.uint8)
    picture[:, 8:] = (200, 40, 40, 255)
    out = resize.resize(picture, 64, 64, "just_resize")
    visible = out[out[:, :, 3] > 0]
    assert (abs(visible[:, :3].astype(int) - (200, 40, 40)) <= 1).all()


def test_a_mask_is_resized_like_its_bytes() -> None:
    mask = np.zeros((30, 40), dtype=np.float32)
    mask[10:20, 10:30] = 1
    out = resize.resize(mask, 64, 64, "resize_and_fill")
    drawn = np.array(Image.fromarray((mask * 255).astype(np.uint8)).resize((64, 48), Image.Resampling.LANCZOS))
    assert out.dtype == np.float32
    assert (np.rint(out * 255)[8:56] == drawn).all()
    assert (resize.resize(mask, 64, 64, "latent") == resize.resize(mask, 64, 64, "just_resize")).all()


def test_the_upscaler_serves_only_where_the_picture_grows() -> None:
    seen: list[float] = []

    def enlarge(picture: Picture, factor: float) -> Picture:
        seen.append(factor)
        return picture.repeat(2, axis=0).repeat(2, axis=1)

    picture = noise(20, 10)
    assert resize.resize(picture, 10, 5, "just_resize", enlarge=enlarge).shape == (5, 10, 3)
    assert seen == []
    assert (resize.resize(picture, 40, 20, "just_resize", enlarge=enlarge)[::2, ::2] == picture).all()
    assert seen == [2.0]
    assert resize.resize(picture, 50, 40, "crop_and_resize", enlarge=enlarge).shape == (40, 50, 3)


def test_resize_by_cuts_to_whole_pixels() -> None:
    assert resize.scale_size(333, 517, 1.5) == (499, 775)
    for factor in (0.0, -1.0, float("nan"), float("inf"), 1e-4, 1e4):
        with pytest.raises(InvalidRequest):
            resize.scale_size(333, 517, factor)


@pytest.mark.parametrize(
    ("width", "height", "mode"),
    [(0, 5, "just_resize"), (5, -1, "just_resize"), (20000, 5, "just_resize"), (5, 5, "squeeze"), (5, 5, "latent")],
)
def test_wrong_sizes_and_modes_are_one_sentence(width: int, height: int, mode: resize.ResizeMode) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resize.resize(noise(8, 8), width, height, mode)
    assert caught.value.sentence.endswith(".") and caught.value.remedy


def test_arrays_that_are_no_picture_or_mask_are_refused() -> None:
    for wrong in (noise(8, 8, 2), noise(8, 8).astype(np.float32), np.zeros((0, 4, 3), np.uint8), [1, 2], None):
        with pytest.raises(InvalidRequest):
            pictures.require_picture(wrong)
    bad = np.zeros((4, 4), np.float32)
    bad[1, 1] = np.nan
    for mask in (bad, np.full((4, 4), 255, np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 0), np.float32)):
        with pytest.raises(InvalidRequest):
            pictures.require_mask(mask)
    with pytest.raises(InvalidRequest):
        pictures.require_mask(np.zeros((4, 5), np.float32), size=(4, 5))


def test_flatten_lays_alpha_over_the_background() -> None:
    picture = np.zeros((1, 3, 4), dtype=np.uint8)
    picture[0] = [(10, 20, 30, 0), (10, 20, 30, 255), (0, 0, 0, 128)]
    assert pictures.flatten(picture).tolist() == [[[255] * 3, [10, 20, 30], [127] * 3]]
    assert pictures.flatten(np.full((1, 1, 4), (201, 201, 201, 128), np.uint8))[0, 0].tolist() == [228] * 3
    assert pictures.flatten(picture, "#102030")[0, 0].tolist() == [16, 32, 48]
    assert (pictures.flatten(noise(4, 4)) == noise(4, 4)).all()
    for colour in ("white", "#12", (0, 0, 300)):
        with pytest.raises(InvalidRequest):
            pictures.flatten(picture, colour)


def test_load_applies_the_exif_orientation(tmp_path: Path) -> None:
    picture = noise(6, 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    assert (pictures.load(tmp_path / "turned.png") == np.rot90(picture, -1)).all()


def test_load_reads_palette_transparency_and_deep_grey(tmp_path: Path) -> None:
    palette = Image.fromarray(noise(4, 4)).convert("P")
    palette.save(tmp_path / "palette.png", transparency=0)
    assert pictures.load(tmp_path / "palette.png").shape == (4, 4, 4)
    Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert pictures.load(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 1, 255]
    stream = io.BytesIO()
    Image.fromarray(noise(4, 4)).save(stream, "PNG")
    assert (pictures.load(stream.getvalue()) == noise(4, 4)).all()


def test_load_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    stream = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(stream, "PNG")
    (tmp_path / "cut.png").write_bytes(stream.getvalue()[:3000])
    for source in (tmp_path / "broken.png", tmp_path / "cut.png", tmp_path / "none.png", tmp_path, b"", b"text"):
        with pytest.raises(InvalidRequest):
            pictures.load(source)
