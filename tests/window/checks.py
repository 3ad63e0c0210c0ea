"""What the steps of the window test share: saying what is wrong, waiting, and Blender without a window."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXTENSION = "bl_ext.user_default.viewport_diffusion"


class Failed(Exception):
    """The product doesn't do what this test wants; the message says what."""


def check(fact: object, sentence: str) -> None:
    """Fail with that sentence unless something is so."""
    if not fact:
        raise Failed(sentence)


def wait_for(look: Callable[[], Any], seconds: float, sentence: str, pause: float = 0.2) -> Any:
    """Return what look() returns as soon as it is true; fail with that sentence after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise Failed(f"{sentence} within {seconds:g} s.")
        time.sleep(pause)
    return found


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:6.1f} s  {title}", flush=True)


def call_blender(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Blender without a window to its end."""
    command = ["blender", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def must(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command said; fail where it failed."""
    check(done.returncode == 0, f"{done.args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def installed_scene(work: Path) -> Path:
    """Return the mannequin's scene as the installed extension brings it."""
    found = list((work / "home").glob("**/user_default/viewport_diffusion/presets/scenes/mannequin.blend"))
    check(len(found) == 1, f"The installed extension should hold one mannequin.blend, not {len(found)}.")
    return found[0]
