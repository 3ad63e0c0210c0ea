"""The installing process: reads its plan as a line of JSON, writes reports, ends when its input does.

`python -m backend.install install|prune|uninstall`; then a line {"type": "cancel"}, or the end of the input, cancels.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import IO

from ..errors import BackendError
from .installer import install, remove
from .plan import Plan
from .report import Report

COMMANDS = ("install", "prune", "uninstall")
BAD_INPUT = 2


def main(arguments: list[str]) -> int:
    """Serve one command; 0 once a last report has been written, 2 for what is not understood."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print(f"One of {', '.join(COMMANDS)} is needed.", file=sys.stderr)
        return BAD_INPUT
    wire = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", newline="\n")
    os.dup2(2, 1)  # nothing else can write into the wire
    try:
        plan = Plan.from_wire(json.loads(sys.stdin.readline()))
    except (ValueError, AttributeError, BackendError) as error:
        print(f"The plan is not understood: {error}", file=sys.stderr)
        return BAD_INPUT
    ended = threading.Event()
    threading.Thread(target=_listen, args=(sys.stdin, ended), daemon=True).start()

    def tell(report: Report) -> None:
        try:
            wire.write(json.dumps(report.to_wire()) + "\n")
            wire.flush()
        except OSError:
            ended.set()  # the parent is gone

    if arguments[0] == "install":
        install(plan, tell, ended.is_set)
    else:
        remove(Path(plan.root), tell, everything=arguments[0] == "uninstall")
    return 0


def _listen(orders: IO[str], ended: threading.Event) -> None:
    """Set the event at the first order or the end of the input: there is no order but to cancel."""
    orders.readline()
    ended.set()


if __name__ == "__main__":
    sys.stdout.flush()
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # the listener still waits in standard input, and Python would wait for its lock
