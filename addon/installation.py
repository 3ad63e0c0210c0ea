"""The backend's own environment from Blender's side: one installing process, and one timer that listens to it."""

from __future__ import annotations

import atexit
import functools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import bpy

from ..backend.install import environments
from ..backend.install.child import Child
from ..backend.install.detect import Accelerator, look
from ..backend.install.installer import own_python
from ..backend.install.plan import ALONE, REQUIREMENTS, Plan, digest
from ..backend.install.report import Report

log = logging.getLogger(__name__)

PACKAGE = __package__.rpartition(".")[0]
INTERVAL = 0.2  # seconds between two looks at the process
LOG_LENGTH = 200_000  # characters of the log that are copied, the last ones


class _State:
    """What lives from register() to unregister()."""

    child: Child | None = None
    title: str = ""
    report: Report | None = None
    on_end: Callable[[Report], None] | None = None
    accelerators: list[Accelerator] | None = None


_state = _State()


def folder() -> Path:
    """Return the folder of the environments, below the only place where an extension may write."""
    return Path(bpy.utils.extension_path_user(PACKAGE, path="python"))


def installed() -> environments.Installed | None:
    """Return the environment in use, if its interpreter is still there."""
    found = environments.current(folder())
    return found if found is not None and found.is_whole else None


def is_outdated() -> bool:
    """Whether the extension asks for other versions than are installed."""
    found = environments.current(folder())
    return found is not None and found.digest != _wanted_digest()


def start(command: str, plan: Plan, title: str, on_end: Callable[[Report], None] | None = None) -> None:
    """Start a command of the installing process; on_end(report) is called on the main thread after the last report.

    Raises BackendError where the process can't be started.
    """
    _state.child = Child(command, plan)
    _state.title, _state.on_end = title, on_end
    _state.report = Report("progress", message=title)
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=INTERVAL, persistent=True)


def plan(**changes: str) -> Plan:
    """Return a plan for this Blender's own folder."""
    return Plan(str(folder()), own_python=own_python(), **changes)


def cancel() -> None:
    """Ask for the end of what runs."""
    if _state.child is not None:
        _state.child.cancel()


def running() -> bool:
    """Whether something is being installed or removed."""
    return _state.child is not None


def report() -> Report | None:
    """Return what was reported last, if anything."""
    return _state.report


def title() -> str:
    """Return what runs, or ran last."""
    return _state.title


def drain() -> bool:
    """Take in what the process reports and return whether anything has changed. Never waits for the process's work."""
    if _state.child is None:
        return False
    reports = _state.child.poll()
    for each in reports:
        _state.report = each
        if each.is_last:
            _state.child = None
            if each.kind == "failed":
                log.warning("%s failed: %s %s", _state.title, each.message, each.remedy)
            on_end, _state.on_end = _state.on_end, None
            if on_end is not None:
                on_end(each)
    return bool(reports)


def wait() -> None:
    """Block until nothing runs any more, for scripts and the command line."""
    while running():
        drain()
        time.sleep(INTERVAL / 4)


def look_around() -> None:
    """Find out which graphics hardware there is, on a thread: the makers' tools take their time."""
    if _state.accelerators is None:
        threading.Thread(target=_look, name="viewport-diffusion-look", daemon=True).start()


def accelerators() -> list[Accelerator] | None:
    """Return the graphics hardware that was found, None while it isn't known."""
    return _state.accelerators


def last_log() -> str:
    """Return the end of the last installation's log, empty where there is none."""
    try:
        text = (folder() / environments.LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text[-LOG_LENGTH:]


def shut_down() -> None:
    """End what runs."""
    child, _state.child = _state.child, None
    if child is not None:
        child.close()


def _look() -> None:
    _state.accelerators = look()


@functools.cache
def _wanted_digest() -> str:
    return digest(tuple(map(str, (*REQUIREMENTS, *ALONE))))


def _tick() -> float | None:
    """Drain on Blender's timer, and stop once nothing runs."""
    if drain():
        redraw()
    return INTERVAL if running() else None


def redraw() -> None:
    """Have the preferences drawn again."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "PREFERENCES":
                area.tag_redraw()


def register() -> None:
    """Make sure that no installing process outlives Blender."""
    atexit.register(shut_down)


def unregister() -> None:
    """Stop the timer and what runs."""
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    shut_down()
    _state.report = None
    atexit.unregister(shut_down)
