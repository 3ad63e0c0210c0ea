"""What is to be installed, from where and how large it is: all that the installing process is told."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import BackendError
from ..processes import ROOT

REQUIREMENTS = (ROOT / "requirements" / "backend.txt",)
ALONE = (ROOT / "requirements" / "upscalers.txt",)
UV_REQUIREMENTS = ROOT / "requirements" / "installer.txt"
MODULES = ("torch", "diffusers", "transformers", "backend.engine")
SCHEMES = ("https", "http", "file")
PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)")
GIGABYTE = 1_000_000_000


@dataclass(frozen=True)
class Size:
    """What a build of torch with all its company costs, in GB."""

    download: float
    disk: float
    measured: bool = False


# CPU was measured, see docs/install.md; the others are the sums of the sizes that their makers state, rounded up.
SIZES = {
    "cpu": Size(0.4, 1.5, measured=True),
    "cuda": Size(3.2, 7.5),
    "rocm": Size(5.0, 18.0),
    "xpu": Size(2.2, 7.0),
    "mps": Size(0.3, 1.4),
}


@dataclass(frozen=True)
class Plan:
    """One installation: travels to the installing process as a line of JSON."""

    root: str
    requirements: tuple[str, ...] = tuple(map(str, REQUIREMENTS))
    alone: tuple[str, ...] = tuple(map(str, ALONE))  # files installed without what they depend on
    python: str = ""  # the interpreter to start from; empty looks for one
    own_python: str = ""  # Blender's
    extra_index: str = ""
    wheels: str = ""  # a folder; given, nothing is fetched
    modules: tuple[str, ...] = MODULES  # imported to see that all is well
    build: str = "cpu"  # a key of SIZES

    def to_wire(self) -> dict[str, object]:
        """Return the plan as what JSON can say."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_wire(cls, message: dict[str, object]) -> Plan:
        """Return the plan of such a message; raises BackendError where it isn't one."""
        known = {name: value for name, value in message.items() if name in cls.__dataclass_fields__}
        try:
            plan = cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})  # type: ignore[arg-type]
        except TypeError as error:
            raise BackendError(f"The plan of the installation is not understood: {error}.") from error
        return plan

    @property
    def space(self) -> int:
        """The bytes that must be free: downloads are kept until all is verified."""
        size = SIZES[self.build]
        return int((size.download + size.disk) * GIGABYTE)


def check_sources(plan: Plan) -> None:
    """Raise BackendError where the extra index or the folder of wheels can't be meant."""
    index = plan.extra_index
    if index and (re.search(r"\s", index) or urlsplit(index).scheme not in SCHEMES):
        raise BackendError(
            "The extra index is not an address.",
            "Copy it from PyTorch's instructions, or leave it empty.",
        )
    if plan.wheels and not any(Path(plan.wheels).glob("*.whl")):
        raise BackendError(
            f"There are no wheels in {plan.wheels}.", "Choose the folder that the .whl files were downloaded to."
        )


def digest(files: tuple[str, ...]) -> str:
    """Return what tells one set of pinned versions from another."""
    return hashlib.sha256(json.dumps(pins(files), sort_keys=True).encode()).hexdigest()[:16]


def pins(files: tuple[str, ...]) -> dict[str, str]:
    """Return the pinned version of each package that the files name; raises BackendError where one can't be read."""
    found: dict[str, str] = {}
    for file in files:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise BackendError(f"{file} can't be read: {error.strerror}.", "Install the extension again.") from error
        found.update({match[1]: match[2] for match in map(PIN.match, lines) if match})
    return found
