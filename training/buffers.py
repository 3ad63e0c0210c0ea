"""Scenes on disk: the G-buffers of one scene in one small file, from which pictures are restyled at will."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SIZE = 384  # pixels a side of the buffers: pictures of 256 come out antialiased
FAR = 60.0  # metres of depth given to the sky
LOG_DEPTH = 65535 / np.log1p(FAR)


@dataclass
class Scene:
    """One drawn scene: region ids, view-space normals (x right, y up, z to the eye), depth and the light on white."""

    ids: Bytes  # H×W
    normal: Floats  # H×W×3, unit or zero
    depth: Floats  # H×W, metres
    shade: Floats  # H×W×3 linear light on a white surface, 0-2
    facts: dict[str, Any]


def middles(side: int) -> tuple[NDArray[np.int64], ...]:
    """Return the index of the buffers' pixels in the middle of each of side × side squares."""
    at = ((np.arange(side) + 0.5) * SIZE / side).astype(np.int64)
    return np.ix_(at, at)


def _png(array: NDArray[Any]) -> Bytes:
    ok, packed = cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 2])
    if not ok:
        raise ValueError(f"PNG refused an array of shape {array.shape}")
    return packed


def _unpng(packed: Bytes) -> NDArray[Any]:
    return cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)


def save_scene(path: Path, scene: Scene) -> None:
    """Write one scene; the file appears whole or not at all."""
    normal = np.round(scene.normal * 127 + 128).clip(0, 255).astype(np.uint8)
    depth = np.round(np.log1p(scene.depth.clip(0, FAR)) * LOG_DEPTH).astype(np.uint16)
    shade = np.round(np.sqrt(scene.shade.clip(0, 2) / 2) * 255).astype(np.uint8)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            ids=_png(scene.ids),
            normal=_png(normal),
            depth=_png(depth),
            shade=_png(shade),
            facts=np.frombuffer(json.dumps(scene.facts).encode(), np.uint8),
        )
    partial.rename(path)


def load_scene(path: Path) -> Scene:
    """Read one scene."""
    with np.load(path) as stored:
        normal = (_unpng(stored["normal"]).astype(np.float32) - 128) / 127
        shade = (_unpng(stored["shade"]).astype(np.float32) / 255) ** 2 * 2
        depth = np.expm1(_unpng(stored["depth"]).astype(np.float32) / LOG_DEPTH)
        return Scene(_unpng(stored["ids"]), normal, depth, shade, json.loads(stored["facts"].tobytes()))


def scene_path(folder: Path, number: int) -> Path:
    """Return where a folder keeps the scene of that number."""
    return folder / f"scene_{number:06d}.npz"


def scene_paths(folder: Path) -> list[Path]:
    """Return the finished scenes of a folder in the order of their numbers."""
    return sorted(folder.glob("scene_*.npz"))
