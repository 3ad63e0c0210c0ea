"""Which graphics hardware a machine has, found by looking at files and at the makers' own tools."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..processes import answer

PATIENCE = 15.0  # seconds; nvidia-smi takes some on a card that sleeps
AMD, INTEL = "0x1002", "0x8086"  # PCI vendors
INTEL_DRIVERS = ("xe", "i915")
DISPLAY_CLASS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"  # of Windows' registry

FILL_IN = "its address is shown on PyTorch's own page Get Started"
NEEDS_INDEX = "The registry's build of torch for this system does not use it. Fill in Extra Index for {what}: {where}"


@dataclass(frozen=True)
class Accelerator:
    """Hardware that a build of torch exists for: kind is cuda, rocm, xpu or mps."""

    kind: str
    name: str


def look(system: str = "", sysfs: Path = Path("/sys"), path: str | None = None) -> list[Accelerator]:
    """Return the accelerators of this machine, the best for torch first; takes up to seconds."""
    system = system or platform.system()
    if system == "Darwin":
        return [Accelerator("mps", "Apple GPU")] if platform.machine() == "arm64" else []
    found = _nvidia(system, path)
    if system == "Windows":
        return found + _windows()
    return found + _amd(sysfs, path) + _intel(sysfs)


def default_build(system: str = "", machine: str = "") -> str:
    """Return which build of torch the public registry has for a system."""
    system, machine = system or platform.system(), (machine or platform.machine()).lower()
    if system == "Darwin":
        return "mps"
    return "cuda" if system == "Linux" and machine in ("x86_64", "amd64", "aarch64", "arm64") else "cpu"


def planned_build(accelerators: list[Accelerator], extra_index: str, system: str = "") -> str:
    """Return the build of torch that an installation will most likely fetch, to tell its size."""
    last = extra_index.rstrip("/").rpartition("/")[2].lower()
    for sign, build in (("cpu", "cpu"), ("rocm", "rocm"), ("xpu", "xpu"), ("cu", "cuda")):
        if last.startswith(sign):
            return build
    if extra_index and accelerators:
        return accelerators[0].kind
    return default_build(system)


def fitting(accelerators: list[Accelerator], system: str = "") -> str:
    """Return in words which build fits the machine, and what to fill in where it isn't the registry's own."""
    system = system or platform.system()
    default = default_build(system)
    if not accelerators:
        if default == "cuda":
            return (
                "No graphics card for torch was found. The registry's build works on the processor too, but is large: "
                f"Extra Index for CPU saves most of it; {FILL_IN}"
            )
        return "No graphics card for torch was found: pictures are made on the processor"
    best = accelerators[0]
    if best.kind == default:
        return f"{best.name}: the registry's build of torch uses it"
    what = {"cuda": "CUDA", "rocm": "ROCm", "xpu": "XPU", "mps": "MPS"}[best.kind]
    return f"{best.name}. {NEEDS_INDEX.format(what=what, where=FILL_IN)}"


def _nvidia(system: str, path: str | None) -> list[Accelerator]:
    tool = shutil.which("nvidia-smi", path=path)
    if tool is None and system == "Windows":
        tool = str(Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvidia-smi.exe")
    lines = _said([tool, "--query-gpu=name", "--format=csv,noheader"]) if tool else []
    return [Accelerator("cuda", line) for line in lines]


def _amd(sysfs: Path, path: str | None) -> list[Accelerator]:
    tool = shutil.which("rocminfo", path=path)
    names = [line.partition(":")[2].strip() for line in (_said([tool]) if tool else []) if "Marketing Name" in line]
    cards = [card for card in _cards(sysfs) if _read(card / "vendor") == AMD]
    if not cards:
        return []
    graphics = [name for name in names if "CPU" not in name and "Processor" not in name and name]
    return [Accelerator("rocm", graphics[0] if graphics else "AMD graphics")]


def _intel(sysfs: Path) -> list[Accelerator]:
    for card in _cards(sysfs):
        driver = (card / "driver").resolve().name
        if _read(card / "vendor") == INTEL and driver in INTEL_DRIVERS:
            return [Accelerator("xpu", "Intel graphics (Arc and Core Ultra can be used)")]
    return []


def _windows() -> list[Accelerator]:
    """Return AMD's and Intel's cards, by the names of their drivers in the registry."""
    if os.name != "nt":
        return []
    import winreg

    found = []
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, DISPLAY_CLASS) as displays:  # type: ignore[attr-defined]
        for number in range(16):
            try:
                with winreg.OpenKey(displays, f"{number:04}") as display:  # type: ignore[attr-defined]
                    name = str(winreg.QueryValueEx(display, "DriverDesc")[0])  # type: ignore[attr-defined]
            except OSError:
                continue
            if "AMD" in name or "Radeon" in name:
                found.append(Accelerator("rocm", name))
            elif "Arc" in name:
                found.append(Accelerator("xpu", name))
    return found


def _cards(sysfs: Path) -> list[Path]:
    return sorted(path / "device" for path in (sysfs / "class" / "drm").glob("card[0-9]") if (path / "device").exists())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip().lower()
    except OSError:
        return ""


def _said(command: list[str]) -> list[str]:
    """Return the lines that a tool says, none where it can't run or fails."""
    said = answer(command, PATIENCE)
    return [line.strip() for line in said[1].splitlines() if line.strip()] if said is not None and said[0] == 0 else []
