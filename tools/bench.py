"""Measure what a job costs beside the bare diffusers pipeline, and how long it holds Blender's main thread."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.extension import EXTENSION, disable, enable, fresh_user_folder

_user = fresh_user_folder()

import bpy  # noqa: E402
import numpy as np  # noqa: E402

from backend.engine import Engine  # noqa: E402
from backend.models.load import EMBEDDED_FOLDER, Options, choose_precision  # noqa: E402
from backend.operations.plan import plan_steps  # noqa: E402
from backend.request import Array, Request  # noqa: E402
from backend.settings import Img2Img  # noqa: E402

STEPS, STRENGTH, SIDE, REPEATS = 20, 0.75, 256, 3
TICK = 0.005  # seconds that the stand-in for Blender's main loop sleeps between two looks


def picture() -> Array:
    """Return a picture of coloured squares (uint8 256×256×3)."""
    squares = np.random.default_rng(0).integers(0, 255, (8, 8, 3))
    return np.kron(squares, np.ones((SIDE // 8, SIDE // 8, 1))).astype(np.uint8)


def seconds(work: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def against_the_bare_pipeline() -> None:
    """Print first and later runs of the engine and of diffusers alone, on the same model, steps and precision."""
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline
    from PIL import Image

    init = picture()
    plan = plan_steps(STEPS, STRENGTH)
    dtype = choose_precision("automatic", "cpu")
    settings = Img2Img(prompt="a woman", steps=STEPS, denoising_strength=STRENGTH, width=SIDE, height=SIDE, seed=1)
    state: dict[str, Any] = {}

    def bare() -> None:
        if "pipe" not in state:
            state["pipe"] = StableDiffusionImg2ImgPipeline.from_pretrained(EMBEDDED_FOLDER, dtype=dtype)
            state["pipe"].set_progress_bar_config(disable=True)
        state["pipe"](
            "a woman",
            image=Image.fromarray(init),
            strength=plan.strength,
            num_inference_steps=plan.schedule,
            guidance_scale=settings.cfg_scale,
            generator=torch.Generator().manual_seed(1),
        )

    def ours() -> None:
        engine = state.setdefault("engine", Engine(Options(device="cpu")))
        engine.run(Request(settings, {"init": init}), lambda share, text: None, lambda: False)

    first = {"bare": seconds(bare), "ours": seconds(ours)}
    later: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(REPEATS):
        later["bare"].append(seconds(bare))
        later["ours"].append(seconds(ours))
    middle = {name: statistics.median(values) for name, values in later.items()}
    print(f"img2img {SIDE}², {plan.executed} of {plan.schedule} steps, {dtype}, CPU")
    print(f"  first run, model load included: {first['ours']:.2f} s, bare {first['bare']:.2f} s")
    print(f"  later runs, median of {REPEATS}: {middle['ours']:.2f} s, bare {middle['bare']:.2f} s, ", end="")
    print(f"ratio {middle['ours'] / middle['bare']:.2f}")


def main_thread(backend: str) -> None:
    """Print the longest times that a job holds the main thread: while it is sent, runs, and comes back."""
    bpy.context.preferences.addons[EXTENSION].preferences.backend = backend
    jobs, results = sys.modules[f"{EXTENSION}.addon.jobs"], sys.modules[f"{EXTENSION}.addon.scene.results"]
    request_module = sys.modules[f"{EXTENSION}.backend.request"]
    scene = bpy.context.scene.session_uid
    for label in ("first job", "second job"):
        settings = request_module.Img2Img(prompt="a woman", width=1024, height=1024, steps=STEPS, seed=1)
        init = np.kron(picture(), np.ones((4, 4, 1), np.uint8))
        request = request_module.Request(settings, {"init": init})
        applied: list[float] = []

        def apply(job: Any, applied: list[float] = applied) -> None:
            applied.append(seconds(lambda: results.apply_results(job.results, scene, "")))

        started = time.perf_counter()
        job = jobs.submit(request, "Bench", apply)
        sent = time.perf_counter() - started
        gaps: list[float] = []
        while not job.is_over:
            before = time.perf_counter()
            jobs.drain()
            time.sleep(TICK)
            gaps.append(time.perf_counter() - before - TICK)
        gaps = [gap - (applied[0] if gap == max(gaps) and applied else 0) for gap in gaps]
        worst, often = max(gaps) * 1000, statistics.quantiles(gaps, n=100)[98] * 1000
        print(f"  {backend}, {label}: sending {sent * 1000:.0f} ms, ", end="")
        print(f"running p99 {often:.1f} ms, longest {worst:.0f} ms, result {applied[0] * 1000:.0f} ms ({job.kind})")


def main() -> int:
    """Run every benchmark."""
    with tempfile.TemporaryDirectory(prefix="viewport-diffusion-bench-"):
        against_the_bare_pipeline()
    enable()
    print("How long the main thread is held, a 1024² picture:")
    main_thread("subprocess")
    main_thread("embedded")
    disable()
    return 0


if __name__ == "__main__":
    sys.exit(main())
