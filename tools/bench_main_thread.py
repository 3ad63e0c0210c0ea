"""How long a job holds Blender's main thread: while it is sent, while it runs, and as its picture comes back."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.extension import EXTENSION, disable, enable, fresh_user_folder

_user = fresh_user_folder()

import bpy  # noqa: E402
import numpy as np  # noqa: E402

STEPS, SIDE = 20, 1024
TICK = 0.005  # seconds that the stand-in for Blender's main loop sleeps between two looks


def seconds(work: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main_thread(backend: str) -> dict[str, float]:
    """Return the longest times in milliseconds that a job of 1024² holds the main thread, once the model is loaded."""
    bpy.context.preferences.addons[EXTENSION].preferences.backend = backend
    jobs, results = sys.modules[f"{EXTENSION}.addon.jobs"], sys.modules[f"{EXTENSION}.addon.scene.results"]
    request_module, settings_module = (sys.modules[f"{EXTENSION}.backend.{name}"] for name in ("request", "settings"))
    scene = bpy.context.scene.session_uid
    init = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    found: dict[str, float] = {}
    for steps in (1, STEPS):  # the first one loads the model
        settings = settings_module.Img2Img(prompt="a woman", width=SIDE, height=SIDE, steps=steps, seed=1)
        applied: list[float] = []

        def apply(job: Any, applied: list[float] = applied) -> None:
            applied.append(seconds(lambda: results.apply_results(job.results, scene, "")))

        started = time.perf_counter()
        job = jobs.submit(request_module.Request(settings, {"init": init}), "Bench", apply)
        sent = time.perf_counter() - started
        held: list[float] = []
        while not job.is_over:
            held.append(seconds(jobs.drain) - (applied[0] if applied else 0))
            time.sleep(TICK)
        if not applied:
            raise SystemExit(f"The job was not finished: {job.sentence}")
        found = {
            "sent": sent,
            "often": statistics.quantiles(held, n=100)[98],
            "longest": max(held),
            "result": applied[0],
        }
    return {name: 1000 * value for name, value in found.items()}


def main() -> int:
    """Print what each backend costs the main thread, as JSON."""
    enable()
    print(json.dumps({backend: main_thread(backend) for backend in ("subprocess", "embedded")}))
    disable()
    return 0


if __name__ == "__main__":
    sys.exit(main())
