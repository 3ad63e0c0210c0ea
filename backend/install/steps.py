"""What pip and uv say, turned into how far an installation is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

UNITS = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "bytes": 1}
SIZE = r"\(([\d.]+) ?([KMGkmg]?i?[Bb]|bytes)\)"
COLLECTING = re.compile(r"^\s*Collecting ([A-Za-z0-9._-]+)")
FETCHING = re.compile(rf"^\s*(?:Downloading|Using cached) (\S+).*?{SIZE}")
LOCAL = re.compile(r"^\s*Processing (\S+\.whl)")
RAW = re.compile(r"^\s*Progress (\d+) of (\d+)")
INSTALLING = re.compile(r"^\s*Installing collected packages: (.+)")
PREPARED = re.compile(r"^\s*Prepared (\d+) packages?")
DOWNLOADS = 0.8  # the part of an installation that is fetching; the rest is unpacking


class Steps:
    """Follows one command of pip or uv: lines go in, and how far it is comes out."""

    def __init__(self, packages: int, size: float) -> None:
        """Expect that many packages, and that many bytes of downloads."""
        self._packages = max(packages, 1)
        self._size = max(size, 1.0)
        self._collected = 0
        self._whole = 0.0  # bytes of the downloads before the one at work
        self._part = 0.0  # and of the one at work
        self._pending = 0.0
        self._seen = 0.0  # and of all, as the disk shows them
        self._installing = 0
        self._unpacked = 0
        self._fetching = ""
        self.complete: list[str] = []  # names of the wheels that were fetched whole
        self.message = "Looking for the packages"

    def hear(self, line: str) -> None:
        """Take in one line."""
        if match := RAW.match(line):
            self._part = float(match[1])
        elif match := COLLECTING.match(line):
            self._settle()
            self._collected += 1
            self.message = f"Looking for {match[1]}"
        elif match := FETCHING.match(line):
            self._settle()
            self._pending = float(match[2]) * UNITS[match[3].lower()]
            self._fetching = unquote(match[1]).rpartition("/")[2]
            verb = "Found" if "cached" in line else "Fetching"
            self.message = f"{verb} {package(match[1])} ({size_in_words(self._pending)})"
        elif match := LOCAL.match(line):
            self._settle()
            self.message = f"Reading {package(match[1])}"
        elif match := INSTALLING.match(line):
            self._settle()
            self._installing = len(match[1].split(","))
            self.message = f"Unpacking {self._installing} packages"
        elif match := PREPARED.match(line):
            self._settle()
            self._installing = int(match[1])
            self.message = f"Unpacking {self._installing} packages"

    def measure(self, fetched: float, unpacked: int) -> None:
        """Take in what can be seen on the disk: bytes of the downloads, and packages in the environment."""
        self._seen = max(self._seen, fetched)
        self._unpacked = unpacked

    @property
    def progress(self) -> float:
        """How far it is, 0–1."""
        if self._installing:
            return DOWNLOADS + (1 - DOWNLOADS) * min(self._unpacked / self._installing, 1.0)
        fetched = max(self._whole + min(self._part, self._pending), self._seen)
        return DOWNLOADS * min(max(fetched / self._size, 0.5 * self._collected / self._packages), 1.0)

    def _settle(self) -> None:
        """The line before this one is done: what it fetched is whole."""
        self._whole += self._pending
        self._pending = self._part = 0.0
        if self._fetching.endswith(".whl"):
            self.complete.append(self._fetching)
        self._fetching = ""


def package(name: str) -> str:
    """Return the package that a wheel's address or path belongs to."""
    return re.split(r"[/\\]", name)[-1].partition("-")[0]


def size_in_words(size: float) -> str:
    """Return bytes as an artist reads them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def bytes_below(folder: Path) -> int:
    """Return the bytes of the files in a folder and those in it; what vanishes meanwhile counts for nothing."""
    total = 0
    for place, _, names in os.walk(folder):  # rglob raises where a folder vanishes before it is read
        for name in names:
            try:
                total += Path(place, name).stat(follow_symlinks=False).st_size
            except OSError:
                continue
    return total


def records(folder: Path, name: str = "*") -> list[Path]:
    """Return the records of the packages of that name that an environment has."""
    places = ("lib/python*/site-packages", "Lib/site-packages")
    return [path for place in places for path in folder.glob(f"{place}/{name}.dist-info")]
