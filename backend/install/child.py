"""The installing process from its parent's side: started, listened to without waiting, and ended."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
from typing import IO

from ..errors import BackendError
from .causes import explain
from .plan import ROOT, Plan
from .report import Report

STOP_TIME = 8.0  # seconds that the process has to end what it runs


class Child:
    """One command of `python -m backend.install` in a process of its own."""

    def __init__(self, command: str, plan: Plan) -> None:
        """Start it; raises BackendError where Blender's own Python can't be started."""
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        try:
            self._process = subprocess.Popen(
                [plan.own_python, "-E", "-s", "-B", "-u", "-m", "backend.install", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                cwd=ROOT,
                text=True,
                encoding="utf-8",
                errors="replace",
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self._errors.close()
            sentence = f"Blender's own Python could not be started: {error.strerror or error}."
            raise BackendError(sentence, "Choose an interpreter that has the backend's packages.") from error
        self._heard: queue.Queue[Report | None] = queue.Queue()
        self._last: Report | None = None
        threading.Thread(target=self._listen, name="viewport-diffusion-installer", daemon=True).start()
        self._send(plan.to_wire())

    def poll(self) -> list[Report]:
        """Return what was reported since the last call; the last of all ends it, a death is reported as a failure."""
        reports: list[Report] = []
        while self._last is None and not self._heard.empty():
            report = self._heard.get_nowait()
            if report is None:
                report = self._died()
            if report.is_last:
                self._last = report
                self._close()
            reports.append(report)
        return reports

    def cancel(self) -> None:
        """Ask for the end; it comes as a report."""
        self._send({"type": "cancel"})

    def close(self) -> None:
        """End it now, whatever it does: its input ends, and with that what it runs."""
        if self._last is None:
            self._last = Report("cancelled", message="Cancelled")
            self._close()

    def _close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIME)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _send(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it died in between, which its silence tells
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        """Read the process's lines until they end; runs on a thread of its own."""
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                with contextlib.suppress(json.JSONDecodeError, RecursionError):
                    report = Report.from_wire(json.loads(line))
                    if report is not None:
                        self._heard.put(report)
        finally:
            self._heard.put(None)

    def _died(self) -> Report:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", errors="replace").splitlines()
        sentence, remedy = explain(code, lines)
        return Report("failed", message=sentence, remedy=remedy)
