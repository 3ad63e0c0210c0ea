"""A scene, small and without Blender, that several tests draw from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from training.buffers import SIZE, Scene
from training.pictures import STYLES_EACH
from training.regions import Region, choose_palette
from training.stylist import STYLES
from training.wardrobe import choose_outfit


def facts(**changes: object) -> dict[str, object]:
    """Return what is known of the scene, with changes."""
    outfit = asdict(choose_outfit(np.random.default_rng(2), 0.0))
    outfit |= {"top": "t-shirt", "bottom": "trousers", "top_pattern": "plain", "jacket": False}
    known = {
        "subject": "old man",
        "pose": "waving",
        "hair": "short",
        "skin": "tan",
        "old": True,
        "outfit": outfit,
        "setting": "plain",
        "props": [],
        "framing": "full body",
        "azimuth": 0.0,
    }
    return known | changes


def known(**changes: object) -> dict[str, Any]:
    """Return what is known of a record of its pictures, with changes."""
    colours = choose_palette(np.random.default_rng(1), "tan", True).names
    styles = list(STYLES)[:STYLES_EACH]
    return facts(**changes) | {"colours": [colours, colours], "styles": styles, "changed": []}


def scene() -> Scene:
    """Return a lit ball before the sky, as G-buffers."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    ball = np.hypot(rows - SIZE / 2, columns - SIZE / 2) / (SIZE / 3)
    inside = ball < 1
    normal = np.stack([columns - SIZE / 2, SIZE / 2 - rows, 0 * rows], 2) / (SIZE / 3)
    normal[..., 2] = np.sqrt(np.clip(1 - ball**2, 0, 1))
    normal[~inside] = 0
    ids = np.where(inside, Region.TOP, Region.SKY).astype(np.uint8)
    shade = np.repeat(np.clip(normal @ (0.5, 0.5, 0.7), 0.1, 1)[..., None], 3, 2)
    depth = np.where(inside, 2 - normal[..., 2] * 0.3, 60)
    return Scene(ids, normal.astype(np.float32), depth.astype(np.float32), shade.astype(np.float32), facts())
