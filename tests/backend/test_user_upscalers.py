"""Upscalers of the user's own: the same picture as the built-in of the same weights, and a sentence for any other."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from backend.errors import Cancelled, DiffusionError, InvalidRequest, ModelError
from backend.imaging.pictures import Picture
from backend.models import ncnn, upscaler_networks, upscalers, user_upscalers
from tests.backend.test_upscalers import difference, drawing, scribble

BUILT_IN = {"esrgan": "R-ESRGAN 4x+ Anime6B", "compact": "R-ESRGAN AnimeVideo x4"}

Weights = dict[str, torch.Tensor]


def layers_of(name: str) -> list[ncnn.Layer]:
    """Return the layers of a built-in upscaler that have weights."""
    layers = ncnn.read(upscalers.weights_folder() / f"{upscalers.UPSCALERS[name].weights}.param")
    return [layer for layer in layers if layer.weight is not None]


def published(kind: str) -> Weights:
    """Return a built-in upscaler's weights by the names under which such upscalers are published."""
    layers = layers_of(BUILT_IN[kind])
    if kind == "compact":
        names = [f"body.{index}" for index in range(len(layers))]
    else:
        blocks = [f"body.{b}.rdb{r}.conv{c}" for b in range(6) for r in (1, 2, 3) for c in (1, 2, 3, 4, 5)]
        names = ["conv_first", *blocks, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    assert len(names) == len(layers)
    weights = {f"{name}.weight": tensor(layer.weight) for name, layer in zip(names, layers, strict=True)}
    biases = {f"{n}.bias": tensor(layer.bias) for n, layer in zip(names, layers, strict=True) if layer.bias is not None}
    return {**weights, **biases}


def tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(values))


def small_network(channels: int = 3, scale: int = 4) -> Weights:
    """Return the weights of a compact network of two layers, the second making the levels."""
    random = torch.Generator().manual_seed(0)
    return {
        "body.0.weight": torch.randn(8, channels, 3, 3, generator=random) * 0.1,
        "body.0.bias": torch.zeros(8),
        "body.1.weight": torch.full((8,), 0.2),
        "body.2.weight": torch.randn(8, 8, 3, 3, generator=random) * 0.1,
        "body.2.bias": torch.zeros(8),
        "body.3.weight": torch.full((8,), 0.2),
        "body.4.weight": torch.randn(channels * scale**2, 8, 3, 3, generator=random) * 0.1,
        "body.4.bias": torch.zeros(channels * scale**2),
    }


def enlarged(picture: Picture, file: Path | str, factor: float = 4, **options: Any) -> Picture:
    return upscalers.upscale(picture, factor, "File", file=str(file), **options)


@pytest.fixture
def single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upscaler_networks, "best_dtype", lambda device: torch.float32)
    upscaler_networks.load_network.cache_clear()


@pytest.mark.parametrize("kind", BUILT_IN)
def test_a_file_gives_the_picture_of_the_built_in_of_its_weights(
    tmp_path: Path, kind: str, single_precision: None
) -> None:
    safetensors.torch.save_file(published(kind), tmp_path / "own.safetensors")
    torch.save({"params_ema": published(kind)}, tmp_path / "own.pth")
    torch.save(published(kind), tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    small = drawing(48)
    expected = upscalers.upscale(small, 4, BUILT_IN[kind])
    upscaler_networks.load_network.cache_clear()
    for name in ("own.safetensors", "own.pth", "old.ckpt"):
        assert difference(enlarged(small, tmp_path / name), expected).max() <= 1


def test_tiles_of_a_file_leave_no_trace(tmp_path: Path) -> None:
    safetensors.torch.save_file(published("compact"), tmp_path / "own.safetensors")
    small = scribble(100)
    whole = enlarged(small, tmp_path / "own.safetensors", tile=512)
    assert difference(enlarged(small, tmp_path / "own.safetensors", tile=96), whole).max() <= 1


def test_the_file_is_read_again_once_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file(small_network(), path)
    before = enlarged(drawing(16), path)
    assert np.array_equal(enlarged(drawing(16), path), before)
    safetensors.torch.save_file({name: -value for name, value in small_network().items()}, path)
    os.utime(path, (1, 1))
    assert not np.array_equal(enlarged(drawing(16), path), before)


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (65, 64)])
def test_pictures_of_any_size_with_and_without_transparency(tmp_path: Path, size: tuple[int, int]) -> None:
    safetensors.torch.save_file(small_network(scale=2), tmp_path / "own.safetensors")
    picture = np.ascontiguousarray(drawing(80)[: size[1], : size[0]])
    assert enlarged(picture, tmp_path / "own.safetensors", 8).shape == (8 * size[1], 8 * size[0], 3)
    alpha = np.full(picture.shape[:2], 128, np.uint8)
    assert enlarged(np.dstack([picture, alpha]), tmp_path / "own.safetensors", 8).shape[2] == 4


def test_a_network_of_one_channel_enlarges_each_colour_alone(tmp_path: Path) -> None:
    safetensors.torch.save_file(small_network(channels=1), tmp_path / "grey.safetensors")
    picture = drawing(32)
    out = enlarged(picture, tmp_path / "grey.safetensors")
    assert out.shape == (128, 128, 3)
    reds = enlarged(np.repeat(picture[:, :, :1], 3, axis=2), tmp_path / "grey.safetensors")
    assert difference(out[:, :, 0], reds[:, :, 1]).max() <= 1


def test_a_network_that_only_cleans_is_applied_once(tmp_path: Path) -> None:
    safetensors.torch.save_file(small_network(scale=1), tmp_path / "clean.safetensors")
    assert upscalers.load_upscaler("File", str(tmp_path / "clean.safetensors"))[0].scale == 1
    picture = drawing(32)
    same_size = enlarged(picture, tmp_path / "clean.safetensors", 1)
    assert same_size.shape == picture.shape and not np.array_equal(same_size, picture)
    assert enlarged(picture, tmp_path / "clean.safetensors", 2).shape == (64, 64, 3)


def test_progress_and_cancel_reach_into_the_network(tmp_path: Path) -> None:
    safetensors.torch.save_file(published("compact"), tmp_path / "own.safetensors")
    seen: list[float] = []
    enlarged(drawing(40), tmp_path / "own.safetensors", progress=seen.append)
    assert seen[0] == 0 and seen[-1] == 1 and len(seen) > 20 and seen == sorted(seen)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 7

    with pytest.raises(Cancelled):
        enlarged(drawing(40), tmp_path / "own.safetensors", should_stop=stop)
    assert len(asked) == 7


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("suffix", ["pth", "ckpt", "pt"])
def test_code_in_a_file_is_never_run(tmp_path: Path, suffix: str) -> None:
    for new in (True, False):
        path = tmp_path / f"harmful.{suffix}"
        content = {**small_network(), "extra": Harmful(tmp_path / "made")}
        torch.save(content, path, _use_new_zipfile_serialization=new)
        with pytest.raises(ModelError, match="more than weights"):
            enlarged(drawing(16), path)
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 3, 3)), tmp_path / f"program.{suffix}")
    with pytest.raises(ModelError, match="more than weights"):
        enlarged(drawing(16), tmp_path / f"program.{suffix}")
    assert not (tmp_path / "made").exists()


def test_every_file_that_is_no_upscaler_is_one_sentence(tmp_path: Path) -> None:
    safetensors.torch.save_file(small_network(), tmp_path / "good.safetensors")
    torch.save(small_network(), tmp_path / "good.pth")
    for suffix in ("safetensors", "pth"):
        good = (tmp_path / f"good.{suffix}").read_bytes()
        for length in (0, 1, 7, 100, len(good) // 2, len(good) - 1):
            (tmp_path / f"cut{length}.{suffix}").write_bytes(good[:length])
        for name, content in (
            ("text", b"not weights at all\n" * 9),
            ("page", b"<!DOCTYPE html>"),
            ("zeros", bytes(999)),
        ):
            (tmp_path / f"{name}.{suffix}").write_bytes(content)
    weights = small_network()
    contents: dict[str, Weights] = {
        "other": {"a.weight": torch.zeros(3), "b.weight": torch.zeros(3)},
        "four": small_network(channels=4),
        "lacking": {name: value for name, value in weights.items() if name != "body.2.bias"},
        "misshapen": {**weights, "body.2.weight": torch.zeros(8, 7, 3, 3)},
        "flat": {**weights, "body.0.weight": torch.zeros(8)},
    }
    for name, weights in contents.items():
        safetensors.torch.save_file(weights, tmp_path / f"{name}.safetensors")
    for number, thing in enumerate(([1, 2], {}, torch.zeros(3), 7, {"a": 1}, {"params": {}}, {1: torch.zeros(1)})):
        torch.save(thing, tmp_path / f"thing{number}.pth")
    (tmp_path / "picture.png").write_bytes(b"")
    (tmp_path / "folder.pth").mkdir()
    files = sorted(set(tmp_path.iterdir()) - {tmp_path / "good.safetensors", tmp_path / "good.pth"})
    assert len(files) > 30
    for path in [*files, tmp_path / "missing.pth", Path("~nobody-of-this-name/x.pth"), Path("x" * 300 + ".pth")]:
        with pytest.raises(ModelError) as raised:
            enlarged(drawing(16), path)
        assert raised.value.sentence.endswith(".") and raised.value.remedy and "\n" not in str(raised.value), path
    for name in ("", "  "):
        with pytest.raises(InvalidRequest, match="No upscaler file"):
            enlarged(drawing(16), name)


def test_levels_that_are_no_numbers_are_said(tmp_path: Path) -> None:
    weights = small_network()
    weights["body.0.bias"][0] = float("nan")
    safetensors.torch.save_file(weights, tmp_path / "broken.safetensors")
    with pytest.raises(ModelError, match="not numbers"):
        enlarged(drawing(16), tmp_path / "broken.safetensors")


@pytest.mark.filterwarnings("ignore")  # a network of no size is what is made here, and it says so
def test_a_network_that_breaks_as_it_runs_is_one_sentence(tmp_path: Path) -> None:
    user_upscalers._import_spandrel()
    network = importlib.import_module("spandrel.architectures.DAT").DAT
    broken = network(
        upscale=2,
        img_size=64,
        split_size=[8, 16],
        depth=[2],
        embed_dim=12,
        num_heads=[2],
        expansion_factor=2,
        resi_connection="1conv",
        upsampler="pixelshuffledirect",
    )
    weights = {name: value.clone().contiguous() for name, value in broken.state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "broken.safetensors")
    with pytest.raises(ModelError, match="can't enlarge this picture"):
        enlarged(drawing(40), tmp_path / "broken.safetensors")


@pytest.mark.parametrize("size", [(1, 1), (40, 33), (100, 70)])
def test_a_network_of_windows_takes_pictures_of_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    user_upscalers._import_spandrel()
    torch.manual_seed(0)
    network = importlib.import_module("spandrel.architectures.SwinIR").SwinIR
    swin = network(
        upscale=2, img_size=64, window_size=8, depths=[2], embed_dim=12, num_heads=[2], upsampler="pixelshuffledirect"
    )
    weights = {name: value.clone().contiguous() for name, value in swin.state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "swin.safetensors")
    picture = np.ascontiguousarray(drawing(128)[: size[1], : size[0]])
    out = enlarged(picture, tmp_path / "swin.safetensors", 8, tile=96)
    assert out.shape == (8 * size[1], 8 * size[0], 3)


def test_without_spandrel_a_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors.torch.save_file(small_network(), tmp_path / "own.safetensors")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    user_upscalers._load.cache_clear()
    with pytest.raises(DiffusionError, match=r"upscalers\.txt"):
        enlarged(drawing(16), tmp_path / "own.safetensors")


def test_the_stand_in_for_torchvision_is_gone_after_the_import() -> None:
    program = (
        "import sys; from backend.models.user_upscalers import _import_spandrel; _import_spandrel(); "
        "print('spandrel' in sys.modules, [n for n in sys.modules if n.startswith('torchvision')])"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    assert out.stdout.strip() == "True []"
