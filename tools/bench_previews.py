"""What live previews cost: a step of the engine, a VAE's colours once, and Blender's main thread."""

from __future__ import annotations

import json
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

REPEATS = 30
STEPS, SIDE = 20, 1024
TICK = 0.005  # seconds that the stand-in for Blender's main loop sleeps between two looks


def milliseconds(work: Callable[[], Any], repeats: int = REPEATS) -> list[float]:
    """Return how long each of several calls keeps this thread busy, after a first one."""
    work()
    found = []
    for _ in range(repeats):
        began = time.thread_time()
        work()
        found.append(1000 * (time.thread_time() - began))
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Return median, 99th percentile and largest value."""
    return {
        "p50": round(statistics.median(values), 2),
        "p99": round(statistics.quantiles(values, n=100, method="inclusive")[98], 2),
        "most": round(max(values), 2),
    }


def engine() -> dict[str, Any]:
    """Return milliseconds of a core a preview, written to a folder, for pictures of 512² and 1024²; and once a VAE.

    The VAE and the tiny autoencoder have the size of Stable Diffusion's and random weights.
    """
    import torch
    from diffusers import AutoencoderKL, AutoencoderTiny

    from backend.models import previews
    from backend.models.load import Options, load
    from backend.previews import FileViewer, Previews

    model: Any = load("embedded", Options(device="cpu"))
    found: dict[str, Any] = {"colours of the embedded VAE": _once(lambda: previews.colours_of(model))}
    with tempfile.TemporaryDirectory(prefix="viewport-diffusion-bench-") as folder:
        previewer = previews.Previewer(model, FileViewer(Path(folder), Previews(1)))
        for side in (512, 1024):
            latents = torch.randn(1, 4, side // 8, side // 8)
            found[f"cheap, {side}²"] = spread(milliseconds(lambda latents=latents: previewer.show(latents)))
    full = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    model._put_vae(full.to(next(model.pipe.vae.parameters()).dtype).eval())
    found["colours of a full-size VAE"] = _once(lambda: previews.colours_of(model))
    dtype = previews.choose_precision("automatic", "cpu")
    tiny = AutoencoderTiny().to(torch.device("cpu"), dtype).eval()
    with torch.inference_mode():
        decode = milliseconds(lambda: previews._decoded(tiny, torch.randn(1, 4, 64, 64)), 3)
    found["tiny autoencoder, 512² and larger"] = round(statistics.median(decode))
    return found


def _once(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return round(1000 * (time.process_time() - began))


def main_thread(backend: str, method: str) -> dict[str, Any]:
    """Return the milliseconds that each look at a running job of 1024² holds the main thread."""
    preferences = bpy.context.preferences.addons[EXTENSION].preferences
    preferences.backend, preferences.previews = backend, method
    jobs, requests = sys.modules[f"{EXTENSION}.addon.jobs"], sys.modules[f"{EXTENSION}.backend.request"]
    preview = sys.modules[f"{EXTENSION}.addon.scene.preview"]
    settings = sys.modules[f"{EXTENSION}.backend.settings"].Img2Img(
        prompt="a woman", width=SIDE, height=SIDE, steps=STEPS, seed=1
    )
    init = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    job = jobs.submit(requests.Request(settings, {"init": init}), "Bench", lambda job: None)
    held: list[float] = []
    shown: list[float] = []
    while not job.is_over:
        count, began = preview._state.count, time.perf_counter()
        jobs.drain()
        jobs.show_preview()
        taken = 1000 * (time.perf_counter() - began)
        held.append(taken)
        if preview._state.count != count:
            shown.append(taken)
        time.sleep(TICK)
    jobs.show_preview()
    if job.kind != "finished":
        raise SystemExit(f"The job was not finished: {job.sentence}")
    return {"all looks": spread(held), **({"looks with a new preview": spread(shown)} if len(shown) > 1 else {})}


def editor() -> dict[str, float]:
    """Return the milliseconds that an Image Editor takes to lay the largest preview over its picture."""
    sys.modules[f"{EXTENSION}.addon.compat"].start_gpu(bpy.context.scene)
    import gpu
    from gpu_extras.presets import draw_texture_2d

    preview = sys.modules[f"{EXTENSION}.addon.scene.preview"]
    levels = np.zeros((512, 512, 4), np.uint8)
    target = gpu.types.GPUOffScreen(1024, 1024)

    def draw() -> None:
        preview._state.texture = None
        draw_texture_2d(preview._texture(levels), (0, 0), 1024, 1024)

    with target.bind():
        return spread(milliseconds(draw))


def main() -> int:
    """Print all of it as JSON."""
    found: dict[str, Any] = {"engine": engine()}
    enable()
    for backend in ("subprocess", "embedded"):
        for method in ("off", "cheap"):
            main_thread(backend, method)  # the first one loads the model
            found[f"main thread, {backend}, previews {method}"] = main_thread(backend, method)
    found["an Image Editor's drawing"] = editor()
    disable()
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
