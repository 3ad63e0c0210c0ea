"""Plots the logged figures of every stage as PNG, one panel a column."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.checkpoints import Log

PANEL = (320, 200)  # pixels
MARGIN = 34


def panel(name: str, x: list[float], y: list[float]) -> NDArray[np.uint8]:
    """Return one curve with its range written at its sides."""
    width, height = PANEL
    picture = np.full((height, width, 3), 255, np.uint8)
    low, high = min(y), max(y)
    across = np.interp(x, (min(x), max(x) + 1e-9), (MARGIN, width - 8))
    up = np.interp(y, (low, high + 1e-9), (height - MARGIN, 26))
    points = np.stack([across, up], 1).round().astype(np.int32)
    cv2.polylines(picture, [points], False, (160, 70, 20), 1, cv2.LINE_AA)

    def write(text: str, at: tuple[int, int]) -> None:
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (40, 40, 40), 1, cv2.LINE_AA)

    write(f"{name}: {y[-1]:.4g}", (MARGIN, 16))
    write(f"{high:.3g}", (1, 30))
    write(f"{low:.3g}", (1, height - MARGIN))
    write(f"{min(x):.0f}", (MARGIN, height - 10))
    write(f"{max(x):.0f} steps", (width - 80, height - 10))
    return picture


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Plot every log in the cache."""
    options.out.mkdir(parents=True, exist_ok=True)
    for log in sorted((cache / "logs").glob("*.csv")):
        rows = Log(log).rows()
        if len(rows) < 2:
            continue
        panels, across = [], ("step", "seconds", "samples")
        for name in [column for column in rows[0] if column not in across]:
            known = [row for row in rows if row[name]]
            panels.append(panel(name, [float(row["step"]) for row in known], [float(row[name]) for row in known]))
        panels += [np.full_like(panels[0], 255)] * (-len(panels) % 4)
        lines = [np.concatenate(panels[i : i + 4], 1) for i in range(0, len(panels), 4)]
        cv2.imwrite(str(options.out / f"{log.stem}.png"), np.concatenate(lines))
