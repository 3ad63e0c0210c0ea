"""What a picture costs beside the bare diffusers pipeline on the same model, measured in one run: docs/bench.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from backend.engine import Engine  # noqa: E402
from backend.models.load import EMBEDDED_FOLDER, Options, choose_device, choose_precision  # noqa: E402
from backend.operations.plan import plan_steps  # noqa: E402
from backend.request import Array, Request  # noqa: E402
from backend.settings import FAST_MODES, Img2Img  # noqa: E402
from backend.transport.subprocess import SubprocessBackend  # noqa: E402
from tools import bench_table  # noqa: E402
from tools.full_size import full_size_model  # noqa: E402

REPORT = ROOT / "docs" / "bench.md"
STEPS, STRENGTH = 20, 0.75  # the panel's defaults
FEWER = 12  # steps of the large model, so that all is measured within some minutes
PATIENCE = 3600  # seconds that one process may take
SEEDS = (1, 2, 3, 4)  # of the pictures that the fast modes are compared by
FRAMES = 6
LOOK = 0.001  # seconds between two looks at the backend


@dataclass(frozen=True)
class Subject:
    """A model to be measured: how it is called, where it is, and how large its pictures are."""

    title: str
    folder: Path
    side: int
    steps: int = STEPS

    @property
    def run(self) -> int:
        """How many of the steps run."""
        return plan_steps(self.steps, STRENGTH).executed


@dataclass
class Costs:
    """What one process after another told of the same job."""

    runs: list[dict[str, Any]] = field(default_factory=list)

    def first(self, kind: str) -> float:
        """Return the seconds from a process's start to its first picture."""
        return statistics.median(run[kind][0] for run in self.runs)

    def later(self, kind: str) -> float:
        """Return the seconds of the pictures after that."""
        return statistics.median(value for run in self.runs for value in run[kind][1:])

    @property
    def memory(self) -> float:
        """The most memory that a process held, in GB."""
        return max(float(run["memory"]) for run in self.runs) / 1e9

    @property
    def waits(self) -> dict[str, tuple[float, float]]:
        """How long a cancel waits to be seen while something is done, at worst and on average, in steps."""
        found: dict[str, tuple[float, float]] = {}
        for run in self.runs:
            for doing, waits in run["waits"].items():
                found[doing] = max(found.get(doing, (0.0, 0.0)), (waits[0] / self.later("step"), waits[1]))
        return {doing: (worst, mean / self.later("step")) for doing, (worst, mean) in found.items()}


@dataclass(frozen=True)
class Setup:
    """What everything is run on."""

    device: str
    precision: str

    def job(self, who: str, subject: Subject, times: int = 2, fast: str = "off", precision: str = "") -> dict[str, Any]:
        """Return what a process of tools/bench_job.py tells of a subject."""
        return child(
            "bench_job.py",
            who,
            *("--model", str(subject.folder), "--side", str(subject.side), "--steps", str(subject.steps)),
            *("--run", str(subject.run), "--precision", precision or self.precision, "--device", self.device),
            *("--fast", fast, "--times", str(times), "--began", repr(time.time())),
        )

    def beside_bare(self, subject: Subject, rounds: int) -> tuple[Costs, Costs]:
        """Return what bare diffusers and the engine cost, measured in turns."""
        costs = {"bare": Costs(), "ours": Costs()}
        for number in range(rounds):
            for who in ("bare", "ours") if number % 2 == 0 else ("ours", "bare"):
                costs[who].runs.append(self.job(who, subject))
        return costs["bare"], costs["ours"]

    def __str__(self) -> str:
        import diffusers
        import torch

        name = torch.cuda.get_device_name() if self.device.startswith("cuda") else f"{os.cpu_count()} cores"
        return (
            f"{platform.system()} {platform.machine()}, {name}, {torch.get_num_threads()} threads, torch "
            f"{torch.__version__}, diffusers {diffusers.__version__}, {self.precision}"
        )


def child(program: str, *arguments: str) -> dict[str, Any]:
    """Return what a program of the benchmark prints, in a process of its own."""
    command = [sys.executable, str(ROOT / "tools" / program), *arguments]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # else threads that wait would count as working
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{program} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def figure(side: int, place: int = 0) -> Array:
    """Return a figure of flat colours on a sky (uint8 side×side×3), so many pixels to the right."""
    array = np.full((256, 256, 3), (150, 190, 230), np.uint8)
    array[190:] = (90, 120, 70)
    for rows, left, right, colour in (
        (slice(90, 180), 100, 156, (200, 40, 40)),
        (slice(180, 240), 105, 150, (40, 50, 120)),
        (slice(50, 90), 112, 144, (230, 190, 160)),
    ):
        array[rows, left + place : right + place] = colour
    return np.kron(array, np.ones((side // 256, side // 256, 1), np.uint8))


def fidelity() -> dict[str, list[float]]:
    """Return each fast mode's PSNR in dB to the full pictures of the embedded model, faint ones and strong ones."""
    engine = Engine(Options())

    def made(**changes: Any) -> Array:
        settings = Img2Img(prompt="anime illustration of a woman, red dress", width=256, height=256, **changes)
        request = Request(settings, {"init": figure(256)})
        pixels: Array = engine.run(request, lambda share, text: None, lambda: False).pictures[0].pixels
        return pixels

    found: dict[str, list[float]] = {mode: [] for mode in FAST_MODES if mode != "off"}
    for strength, cfg_scale in (bench_table.FAINT, bench_table.STRONG):
        changes = {"denoising_strength": strength, "cfg_scale": cfg_scale}
        full = [made(**changes, seed=seed) for seed in SEEDS]
        for mode, each in found.items():
            errors = [
                np.mean((made(**changes, seed=seed, fast_mode=mode).astype(float) - picture) ** 2)
                for seed, picture in zip(SEEDS, full, strict=True)
            ]
            each.append(float(np.mean([10 * np.log10(255**2 / error) for error in errors])))
    return found


def frames(subject: Subject) -> dict[str, float]:
    """Return what frames of one seed cost in a worker: seconds, and how long the first step is waited for."""
    with tempfile.TemporaryDirectory(prefix="viewport-diffusion-bench-") as folder:
        backend = SubprocessBackend(sys.executable, Path(folder), Options())
        took, waited, loads = [], [], 0
        try:
            for number in range(FRAMES):
                settings = Img2Img(
                    prompt="a woman", steps=subject.steps, width=subject.side, height=subject.side, seed=1
                )
                submitted = time.perf_counter()
                job = backend.submit(Request(settings, {"init": figure(subject.side, 4 * number)}))
                over, steps = False, [0.0]
                while not over:
                    for event in backend.poll():
                        loads += event.message.startswith("Loading")
                        if event.message.startswith("Step"):
                            steps.append(time.perf_counter() - submitted)
                        over = over or (event.job == job and event.is_last)
                    time.sleep(LOOK)
                took.append(time.perf_counter() - submitted)
                waited.append(steps[1] - statistics.median(np.diff(steps[1:])))
        finally:
            backend.close()
    return {
        "first": took[0],
        "later": statistics.median(took[1:]),
        "cold": waited[0],
        "warm": statistics.median(waited[1:]),
        "loads": loads,
    }


def main() -> int:
    """Measure everything, print it, and write it to docs/bench.md unless told to be quick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the embedded model alone, two minutes")
    parser.add_argument("--rounds", type=int, default=1, help="how often the large model is measured (default 1)")
    parser.add_argument("--output", type=Path, default=REPORT, help="where the report goes")
    parsed = parser.parse_args()
    device = choose_device("automatic")
    setup = Setup(device, str(choose_precision("automatic", device)).removeprefix("torch."))
    small = Subject("The embedded model", EMBEDDED_FOLDER, 256)
    report = bench_table.Report(str(setup), device.startswith("cuda"))
    report.beside(small, *setup.beside_bare(small, 1 if parsed.quick else 3))
    report.frames(small, frames(small))
    if not parsed.quick:
        large = Subject("Stable Diffusion 1's size, random weights", full_size_model(), 512, FEWER)
        bare, ours = setup.beside_bare(large, parsed.rounds)
        report.beside(large, bare, ours, plan_steps(STEPS, STRENGTH).executed - large.run)
        report.peak(setup.job("flops", large), ours)
        report.cancels(ours)
        exact = setup.job("bare", large, 1, precision="float32")
        hurried = {mode: setup.job("ours", large, 2, mode) for mode in FAST_MODES if mode != "off"}
        report.fast(exact, bare, ours, hurried, fidelity())
    report.main_thread(child("bench_main_thread.py"))
    text = report.text()
    sys.stdout.write(text)
    if not parsed.quick:
        parsed.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
