"""Run by the new interpreter: imports what the backend needs, compares the versions with the pins, and computes."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import sys

SIGN = "VERIFIED "
ACCELERATORS = ("cuda", "xpu", "mps")


def main(question: str) -> None:
    """Print the versions of the modules; anything that is wrong ends it with a line that says so."""
    names, pins = json.loads(question)
    modules = {name: importlib.import_module(name) for name in names}
    for name, wanted in pins.items():
        found = importlib.metadata.version(name)
        if found.partition("+")[0] != wanted.partition("+")[0]:
            sys.exit(f"{name} is {found}, not {wanted}")
    versions = {"python": platform.python_version()}
    versions |= {name: str(module.__version__) for name, module in modules.items() if hasattr(module, "__version__")}
    if "torch" in modules:
        versions["device"] = compute()
    print(SIGN + json.dumps(versions))


def compute() -> str:
    """Return what torch will run on, once it has multiplied two matrices rightly."""
    import torch

    square = torch.arange(4.0).reshape(2, 2)
    if (square @ square).tolist() != [[2.0, 3.0], [6.0, 11.0]]:
        sys.exit("torch computes wrong numbers")
    kinds = [kind for kind in ACCELERATORS if hasattr(torch, kind) and getattr(torch, kind).is_available()]
    return (*kinds, "cpu")[0]


if __name__ == "__main__":
    main(sys.argv[1])
