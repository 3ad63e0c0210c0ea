"""The installing process from its parent's side: started, listened to without waiting, and ended."""

from __future__ import annotations

import queue
import tempfile
from typing import IO

from ..errors import BackendError
from ..processes import LineProcess, last_words
from .causes import explain
from .plan import Plan
from .report import Report

STOP_TIME = 8.0  # seconds that the process has to end what it runs


class Child:
    """One command of `python -m backend.install` in a process of its own."""

    def __init__(self, command: str, plan: Plan) -> None:
        """Start it; raises BackendError where Blender's own Python can't be started."""
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        command_line = [plan.own_python, "-E", "-s", "-B", "-u", "-m", "backend.install", command]
        try:
            self._child = LineProcess(command_line, self._errors, "installer")
        except OSError as error:
            self._errors.close()
            sentence = f"Blender's own Python could not be started: {error.strerror or error}."
            raise BackendError(sentence, "Choose an interpreter that has the backend's packages.") from error
        self._last: Report | None = None
        self._child.send(plan.to_wire())

    def poll(self) -> list[Report]:
        """Return what was reported since the last call; the last of all ends it, a death is reported as a failure."""
        reports: list[Report] = []
        while self._last is None:
            try:
                message = self._child.hear()
            except queue.Empty:
                break
            report = self._died() if message is None else Report.from_wire(message)
            if report is None:
                continue
            reports.append(report)
            if report.is_last:
                self._last = report
                self._close()
        return reports

    def cancel(self) -> None:
        """Ask for the end; it comes as a report."""
        self._child.send({"type": "cancel"})

    def close(self) -> None:
        """End it now, whatever it does: its input ends, and with that what it runs."""
        if self._last is None:
            self._last = Report("cancelled", message="Cancelled")
            self._close()

    def _close(self) -> None:
        self._child.close(STOP_TIME)
        self._errors.close()

    def _died(self) -> Report:
        code = self._child.process.wait()
        sentence, remedy = explain(code, last_words(self._errors))
        return Report("failed", message=sentence, remedy=remedy)
