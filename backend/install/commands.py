"""Running pip, uv and Python for an installation: clean surroundings, every line logged, ended when cancelled."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ..errors import BackendError, Cancelled
from ..processes import NO_WINDOW, ROOT
from .causes import explain

TICK = 0.5  # seconds between two looks at the disk
STOP_TIME = 5.0  # seconds that a command has to end by itself once it was asked to
# Settings of Python, pip and uv could lead the installation elsewhere: all are hidden, but for where packages are and
# how they are reached. Proxies and certificates have other names, and stay.
HIDDEN = ("PYTHON", "__PYVENV", "PIP_", "UV_", "VIRTUAL_ENV", "CONDA_")
KEPT = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|CERT|CLIENT_CERT|PROXY|TRUSTED_HOST|DEFAULT_TIMEOUT|TIMEOUT|RETRIES|"
    r"CONFIG_FILE|KEYRING_PROVIDER)|"
    r"UV_(DEFAULT_INDEX|INDEX\w*|EXTRA_INDEX_URL|FIND_LINKS|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST|HTTP_TIMEOUT|"
    r"CONFIG_FILE|KEYRING_PROVIDER|PYTHON_INSTALL_MIRROR)"
)
SECRET = re.compile(r"//[^/@\s]+@")  # a name and a password in an address


def clean_environment(root: Path, offline: bool) -> dict[str, str]:
    """Return the surroundings of the commands: nothing leads out of the folder, and offline nowhere at all."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(HIDDEN) or (KEPT.fullmatch(name) and not offline)
    }
    own = {
        "PIP_CACHE_DIR": root / "cache",
        "UV_CACHE_DIR": root / "cache",
        "UV_PYTHON_INSTALL_DIR": root / "pythons",
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), root / "temp"),
    }
    alone = {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"} if offline else {}
    fixed = {
        "PIP_USER": "0",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_PYTHON_INSTALL_BIN": "0",
        "UV_PYTHON_INSTALL_REGISTRY": "0",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
        "PYTHONUTF8": "1",
    }
    return {**kept, **fixed, **alone, **{name: str(path) for name, path in own.items()}}


class Commands:
    """Runs the commands of one installation, one after another."""

    def __init__(self, log: IO[str], environment: dict[str, str], lock: int, cancelled: Callable[[], bool]) -> None:
        """Write to that log; the children hold the lock too, so that none of them is ever left at work unseen."""
        self._log = log
        self._environment = environment
        self._lock = lock
        self._cancelled = cancelled

    def run(
        self,
        command: list[str],
        hear: Callable[[str], None] | None = None,
        tick: Callable[[], None] | None = None,
    ) -> list[str]:
        """Run a command to its end and return its lines; raises BackendError by its last words, or Cancelled."""
        self.note(f"$ {' '.join(command)}")
        process = self._start(command)
        heard: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process, heard), daemon=True)
        reader.start()
        lines: list[str] = []
        looked = time.monotonic()
        while (line := self._next(heard)) is not None:
            if self._cancelled():
                _end(process)
                self.note("cancelled")
                raise Cancelled
            if line:
                lines.append(line)
                self.note(line)
                if hear is not None:
                    hear(line)
            if tick is not None and time.monotonic() - looked > TICK:
                tick()
                looked = time.monotonic()
        code = process.wait()
        self.note(f"ended with code {code}")
        if code != 0:
            raise BackendError(*explain(code, lines))
        return lines

    def note(self, line: str) -> None:
        """Write a line to the log, without passwords."""
        self._log.write(SECRET.sub("//***@", line) + "\n")
        self._log.flush()

    @staticmethod
    def _next(heard: queue.Queue[str | None]) -> str | None:
        """Return the next line, an empty one where there was none for a while, None at the end."""
        try:
            return heard.get(timeout=TICK)
        except queue.Empty:
            return ""

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=self._environment,
                text=True,
                encoding="utf-8",
                errors="replace",
                pass_fds=() if os.name == "nt" else (self._lock,),
                creationflags=NO_WINDOW,
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise BackendError(
                f"{command[0]} could not be started: {reason}.", "Choose another interpreter."
            ) from error


def _read(process: subprocess.Popen[str], heard: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            heard.put(line.rstrip())
    finally:
        heard.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIME)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
