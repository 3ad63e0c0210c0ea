"""Processes of ours: one that is asked a question, and one that speaks lines of JSON for as long as it lives."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent  # the folder that holds the package backend
NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows would open a console


def answer(command: Sequence[str], patience: float) -> tuple[int, str] | None:
    """Return a program's exit code and what it printed; None where it can't be run or takes longer (seconds)."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            creationflags=NO_WINDOW,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):  # ValueError: a name with a null in it
        return None
    return done.returncode, done.stdout


def parse_line(line: str) -> dict[str, Any] | None:
    """Return the message of one line, None for a line that is no JSON object."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


class LineProcess:
    """A child that reads and writes lines of JSON, each an object; a thread listens, so that nobody waits.

    The end of its input tells it that its parent is gone, however that came about.
    """

    def __init__(
        self, command: Sequence[str], errors: IO[bytes], name: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it in the folder that holds the package. errors: its last words go there. Raises OSError."""
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env=environment,
            text=True,
            encoding="utf-8",
            errors="replace",
            creationflags=NO_WINDOW,
        )
        self._heard: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._writing = threading.Lock()
        threading.Thread(target=self._listen, name=f"viewport-diffusion-{name}", daemon=True).start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one line; a child that died in between is noticed by its silence."""
        assert self.process.stdin is not None
        with self._writing, contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def hear(self, wait: float = 0.0) -> dict[str, Any] | None:
        """Return the next message, None after the last; raises queue.Empty where none comes within wait seconds."""
        return self._heard.get(timeout=wait) if wait else self._heard.get_nowait()

    def kill(self) -> int:
        """End it now, whatever it does, and return its exit code."""
        if self.process.poll() is None:
            self.process.kill()
        code = self.process.wait()
        self._hang_up()
        return code

    def close(self, patience: float) -> None:
        """End its input, which ends it; kill it after that many seconds."""
        self._hang_up()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()

    def _hang_up(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.close()

    def _listen(self) -> None:
        """Read the child's lines until they end; runs on a thread of its own."""
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                if (message := parse_line(line)) is not None:
                    self._heard.put(message)
        finally:
            self._heard.put(None)
            self.process.stdout.close()


def last_words(errors: IO[bytes]) -> list[str]:
    """Return the lines that a process has left in the file of its errors, and close it."""
    errors.seek(0)
    lines = errors.read().decode("utf-8", errors="replace").splitlines()
    errors.close()
    return lines
