"""Measure what a model of Stable Diffusion 1's size takes in each memory mode, and write the table docs/memory.md."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from backend.engine import Engine  # noqa: E402
from backend.models.load import Options  # noqa: E402
from backend.models.memory import in_words  # noqa: E402
from backend.models.needs import MODES, Job, anatomy_of, bytes_needed  # noqa: E402
from backend.request import Request  # noqa: E402
from backend.settings import Img2Img  # noqa: E402
from tools.full_size import full_size_model  # noqa: E402

TABLE = ROOT / "docs" / "memory.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
LOOK = 0.01  # seconds between two looks at what the process holds
KILOBYTE = 1024


def held() -> dict[str, int]:
    """Return the bytes that this process holds: all, and those of them that the system can't take back by itself."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    wanted = [line.split() for line in lines if line.startswith(("VmRSS:", "RssAnon:"))]
    found = {name.rstrip(":"): int(number) * KILOBYTE for name, number, _ in wanted}
    return {"all": found["VmRSS"], "own": found["RssAnon"]}


class Watch:
    """The most that is held from now on."""

    def __init__(self) -> None:
        self.most = held()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self.most = {name: max(number, self.most[name]) for name, number in held().items()}
            time.sleep(LOOK)


def measure(mode: str, side: int, precision: str) -> None:
    """Print as JSON what one step of one picture takes in a mode, beyond what Python and the libraries hold."""
    import diffusers  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    before = held()
    engine = Engine(Options("cpu", precision, memory=mode))
    model = engine.models.get(str(full_size_model()))
    loaded, watch, began = held(), Watch(), time.monotonic()
    settings = Img2Img(prompt="a woman", model=model.name, steps=1, width=side, height=side, seed=1)
    picture = np.random.default_rng(0).integers(0, 255, (side, side, 3)).astype(np.uint8)
    engine.run(Request(settings, {"init": picture}), lambda share, text: None, lambda: False)
    result = {
        "loaded": loaded["own"] - before["own"],
        "all": watch.most["all"] - before["all"],
        "own": watch.most["own"] - before["own"],
        "seconds": time.monotonic() - began,
    }
    print(json.dumps(result))


def table(side: int, precision: str) -> str:
    """Return the measurements of all modes, each in a process of its own, beside what is planned for them."""
    anatomy = anatomy_of(str(full_size_model()))
    assert anatomy is not None
    lines = [
        f"A picture of {side}×{side}, one step, {precision}, on a processor, beyond what the libraries hold:",
        "",
        "| Mode | Planned | Most at once | of it the process's own | own, once loaded | Seconds |",
        "|---|---|---|---|---|---|",
    ]
    for mode in MODES:
        command = [sys.executable, "-m", "tools.memory", "--mode", mode, "--side", str(side), "--precision", precision]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        planned = bytes_needed(anatomy, Job(side, side, item=4 if precision == "float32" else 2), mode, False)
        numbers = " | ".join(in_words(found[name]) for name in ("all", "own", "loaded"))
        lines.append(f"| {mode} | {in_words(planned)} | {numbers} | {found['seconds']:.0f} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> int:
    """Measure one mode, or all of them for the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--precision", default="bfloat16")
    parsed = parser.parse_args()
    if parsed.mode:
        measure(parsed.mode, parsed.side, parsed.precision)
        return 0
    text = TABLE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    measured = table(parsed.side, parsed.precision)
    TABLE.write_text(f"{before}{BEGIN}\n\n{measured}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
