"""Small pictures and settings for the real engine on the embedded model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.engine import Engine
from tests.backend.helpers import Picture


@pytest.fixture(scope="session")
def engine() -> Engine:
    """One engine for all tests: the model loads once."""
    return Engine()


@pytest.fixture(scope="session")
def picture() -> Picture:
    """A figure of flat colours on a sky, 256×256."""
    array = np.full((256, 256, 3), (150, 190, 230), np.uint8)
    array[190:] = (90, 120, 70)
    array[90:180, 100:156] = (200, 40, 40)
    array[180:240, 105:150] = (40, 50, 120)
    array[50:90, 112:144] = (230, 190, 160)
    return array


@pytest.fixture(scope="session")
def mask() -> NDArray[np.float32]:
    """A mask over the figure's middle."""
    array = np.zeros((256, 256), np.float32)
    array[100:170, 105:150] = 1
    return array


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """A folder for jobs."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    return folder
