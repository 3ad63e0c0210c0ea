"""Giving the models' memory back, and telling how much they hold."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..engine import Engine
from ..models.load import Models
from ..models.memory import free_caches, give_back


def free_models(engine: Engine) -> None:
    """Forget every loaded model and give its memory back to the device and the system."""
    engine.models = Models(engine.models.options)
    free_caches()
    torch = sys.modules.get("torch")
    there = [] if torch is None else [name for name in ("cuda", "xpu") if getattr(torch, name).is_available()]
    if torch is not None and torch.backends.mps.is_available():
        there.append("mps")
    for device in (*there, "cpu"):
        give_back(device)  # which collects what is unreachable, too: a model's denoiser holds its model


def held_memory(device: str) -> int:
    """Return the bytes that this process holds of the device's memory, of the system's on a processor; 0 if unknown."""
    if device.startswith("cuda"):
        return int(sys.modules["torch"].cuda.memory_reserved(device))
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        return 0
    return int(statistics.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def system_memory() -> int:
    """Return the machine's memory in bytes, 0 where it can't be told."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
