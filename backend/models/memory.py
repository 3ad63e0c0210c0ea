"""How much memory is free, on a device or in the machine; asks torch only where it is loaded already."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

PROCESSES = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")
KILOBYTE = 1024

# What is left to others, in bytes: Blender's window and the libraries' own work on a graphics card; on a processor
# torch, diffusers and transformers themselves, which take 0.6 GB when they are imported.
RESERVE_ON_CARD = 800_000_000
RESERVE_ON_PROCESSOR = 1_000_000_000


# What modules keep of networks that they loaded last, beside a pipeline's own: the functions by module.
CACHES = {
    "upscaler_networks": ("load_network",),
    "user_upscalers": ("_load",),
    "interrogators": ("load_captioner", "load_ranker"),
    "previews": ("load_tiny",),
}


def free_caches() -> None:
    """Let go of the networks that are kept for the next time, but for a pipeline's own."""
    for module, functions in CACHES.items():
        loaded = sys.modules.get(f"{__package__}.{module}")
        if loaded is not None:
            for function in functions:
                getattr(loaded, function).cache_clear()


def give_back(device: str) -> None:
    """Give memory that nobody uses, and torch or the C library keep for the next one, back to device and system.

    Of a model of Stable Diffusion 1's size, whose weights were made half as precise on loading, that is 0.8 GB.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    kind = device.partition(":")[0]
    if torch is not None and kind in ("cuda", "xpu", "mps"):
        getattr(torch, kind).empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
        if trim is not None:
            trim(0)


def in_words(number: int) -> str:
    """Return a number of bytes as an artist reads it, such as "3.1 GB"."""
    return f"{number / 1e9:.1f} GB" if number >= 100_000_000 else f"{number / 1e6:.0f} MB"


def memory_for_models(device: str, held: int = 0) -> int:
    """Return the bytes that models and their work may take on a device, less a reserve; 0 where that can't be told.

    device: such as "cpu" or "cuda:1". held: bytes of them that are taken by models already.
    """
    free = free_memory(device)
    if free == 0:
        return 0
    return max(1, free + held - (RESERVE_ON_PROCESSOR if device == "cpu" else RESERVE_ON_CARD))


def free_memory(device: str) -> int:
    """Return the bytes that are free on a device, 0 where that can't be told; memory of its own that torch keeps is."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        found = [free for free in (*_system(), *_groups(), *_process_limit()) if free is not None]
        return max(0, min(found, default=0))
    torch = sys.modules.get("torch")
    if torch is None:
        return 0
    try:
        if kind == "mps":
            return max(0, int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()))
        card = getattr(torch, kind)  # cuda, which ROCm goes by too, or xpu
        return int(card.mem_get_info(device)[0] + card.memory_reserved(device) - card.memory_allocated(device))
    except (RuntimeError, AssertionError):  # Intel's processors' own graphics don't tell; or torch lacks the device
        return 0


def _system() -> Iterator[int]:
    """Find what the system could give."""
    table = _read(PROCESSES / "meminfo")
    if table:
        yield from (int(line.split()[1]) * KILOBYTE for line in table.splitlines() if line.startswith("MemAvailable:"))
        return
    if "torch" in sys.modules:  # elsewhere accelerate has brought psutil along; Blender's own Python has none
        yield int(importlib.import_module("psutil").virtual_memory().available)


def _groups() -> Iterator[int]:
    """Find what the control groups leave, as those of a container: each counts, and those above it."""
    for line in _read(PROCESSES / "self" / "cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        old = controllers == "memory"
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
        root = GROUPS / "memory" if old else GROUPS
        folder = root / place.lstrip("/")
        for inside in (folder, *folder.parents):
            limit, used = (_number(inside / name) for name in names)
            if limit is not None and used is not None:
                yield limit - used + _reclaimable(inside / "memory.stat", "total_" if old else "")
            if inside == root:
                break


def _reclaimable(statistics: Path, before: str) -> int:
    """Return the bytes of files that a control group keeps and can let go of."""
    words = dict(line.split(maxsplit=1) for line in _read(statistics).splitlines())
    return int(words.get(f"{before}inactive_file", 0))


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _process_limit() -> Iterator[int]:
    """Find what a limit of this process's own leaves, as `ulimit -v` sets it."""
    if sys.platform == "win32":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    statistics = _read(PROCESSES / "self" / "statm").split()
    if limit != resource.RLIM_INFINITY and statistics:
        yield limit - int(statistics[0]) * os.sysconf("SC_PAGE_SIZE")


def _read(path: Path) -> str:
    """Return a small file of the system's, "" where there is none or it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
