"""Which Python an environment is made from, and by which tool: uv where it is, else venv and pip."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import BackendError
from ..processes import answer

SUITABLE = ((3, 11), (3, 12))  # that the pinned packages have wheels for, the one that was tested first
PATIENCE = 30.0  # seconds for an interpreter to answer; the first start from a cold disk takes some
# Where a Blender that was started from a desktop doesn't look.
EXTRA_PLACES = ("~/.local/bin", "~/.cargo/bin", "/opt/homebrew/bin", "/usr/local/bin")
PROBE = (
    "import importlib.util as u, json, sys, sysconfig; print(json.dumps({'version': sys.version_info[:2], "
    "'wide': sys.maxsize > 2**32, 'free': bool(sysconfig.get_config_var('Py_GIL_DISABLED')), "
    "'pip': u.find_spec('venv') is not None and u.find_spec('ensurepip') is not None, 'path': sys.executable}))"
)
NO_PYTHON = (
    "No Python 3.11 or 3.12 was found.",
    "Install Python 3.11, or uv, which fetches one; then install again.",
)
NO_ENSUREPIP = (
    "The system's Python can't make environments: its packages venv and ensurepip are missing.",
    "On Debian and Ubuntu install python3-venv; or install uv; then install again.",
)


@dataclass(frozen=True)
class Interpreter:
    """A Python that answered."""

    path: str
    version: tuple[int, int]
    has_pip: bool  # venv and ensurepip

    @property
    def is_suitable(self) -> bool:
        """Whether the pinned packages exist for it."""
        return self.version in SUITABLE


@dataclass(frozen=True)
class Base:
    """What an environment is made with: a python, or a version for uv to find or fetch.

    Where uv is empty and bootstrap isn't, uv is to be installed by that interpreter first.
    """

    python: str
    uv: str = ""
    bootstrap: str = ""


def search_path() -> str:
    """Return PATH and the places beside it."""
    places = [str(Path(place).expanduser()) for place in EXTRA_PLACES] if os.name != "nt" else []
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *places])


def probe(python: str) -> Interpreter | None:
    """Return what a file answers to the question which Python it is; None where it doesn't."""
    answered = answer([python, "-I", "-c", PROBE], PATIENCE)
    if answered is None:
        return None
    try:
        said = json.loads(answered[1])
        usable = said["wide"] and not said["free"]
        version = (int(said["version"][0]), int(said["version"][1]))
        return Interpreter(python, version, bool(said["pip"])) if usable else None
    except (ValueError, KeyError, TypeError):
        return None


def candidates(own: str, path: str) -> list[str]:
    """Return the files that may be a Python, the preferred first, Blender's own last."""
    names = [f"python{major}.{minor}" for major, minor in SUITABLE] + ["python3", "python"]
    found = [shutil.which(name, path=path) for name in names]
    return list(dict.fromkeys(name for name in [*found, own] if name))


def choose(chosen: str = "", own: str = "", *, offline: bool = False, path: str | None = None) -> Base:
    """Return what to make an environment with; raises BackendError where nothing serves."""
    path = search_path() if path is None else path
    uv = shutil.which("uv", path=path) or ""
    if chosen:
        return _chosen(chosen, uv)
    answers = [answer for answer in map(probe, candidates(own, path)) if answer is not None]
    suitable = [answer for answer in answers if answer.is_suitable and (uv or answer.has_pip)]
    if suitable:
        return Base(suitable[0].path, uv)
    version = ".".join(map(str, SUITABLE[0]))
    if uv and not offline:
        return Base(version, uv)
    if any(answer.is_suitable for answer in answers):
        raise BackendError(*NO_ENSUREPIP)
    helpers = [answer for answer in answers if answer.has_pip and answer.version >= SUITABLE[0]]
    if helpers and not offline:
        return Base(version, bootstrap=helpers[0].path)
    raise BackendError(*NO_PYTHON)


def _chosen(python: str, uv: str) -> Base:
    answer = probe(python)
    if answer is None:
        raise BackendError(f"{python} is no Python that can be used.", "Choose a 64-bit Python 3.11 or 3.12.")
    if not answer.is_suitable:
        version = ".".join(map(str, answer.version))
        raise BackendError(f"{python} is Python {version}.", "The backend's packages need Python 3.11 or 3.12.")
    if not uv and not answer.has_pip:
        raise BackendError(*NO_ENSUREPIP)
    return Base(python, uv)
