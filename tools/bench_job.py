"""One process of the benchmark: a picture made several times over by diffusers alone or by the engine, as JSON."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

PROMPT, NEGATIVE, SEED, CFG = "anime illustration of a woman", "blurry", 1, 7.0
SAMPLER = "EulerAncestralDiscreteScheduler"
PEAK_SIDE, PEAK_TIMES = 4096, 5  # of the matrix product that tells what the device can do

Made = Callable[[], None]


class Clock:
    """When things happened, in seconds of the wall and of work since the process was asked for.

    On a processor its own seconds are the work; a card has none, so that there the wall's are, once all is done.
    """

    def __init__(self, began: float, device: str) -> None:
        self._began = began
        self._on_card = device.startswith("cuda")
        self.steps: list[float] = []  # ends of the steps of the run at hand
        self.looks: list[tuple[str, float]] = []  # what was being done, and when a cancel would have been seen
        self.doing = ""

    def now(self) -> tuple[float, float]:
        """Return the seconds of the wall and of work."""
        work = self.work()
        return time.time() - self._began, work

    def work(self) -> float:
        """Return the seconds of work."""
        if not self._on_card:
            return time.process_time()
        import torch

        torch.cuda.synchronize()
        return time.time() - self._began

    def look(self) -> bool:
        """Stand in for the artist, who doesn't cancel, and note when they could have."""
        self.looks.append((self.doing, time.time() - self._began if self._on_card else time.process_time()))
        return False

    def say(self, share: float, message: str) -> None:
        """Take note of what the engine says."""
        self.doing = " ".join(word for word in message.split() if not word.isdecimal() and word != "of")
        if message.startswith("Step"):
            self.steps.append(self.work())


def picture(side: int) -> Any:
    """Return a picture of coloured squares (uint8 side×side×3)."""
    squares = np.random.default_rng(0).integers(0, 255, (8, 8, 3))
    return np.kron(squares, np.ones((side // 8, side // 8, 1))).astype(np.uint8)


def bare(asked: argparse.Namespace, clock: Clock) -> Made:
    """Return what makes the picture by diffusers alone, as its documentation says, the model loaded at the first."""
    state: dict[str, Any] = {}

    def make() -> None:
        import diffusers
        import torch
        from PIL import Image

        if not state:
            state["pipe"] = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
                asked.model, dtype=getattr(torch, asked.precision), safety_checker=None, requires_safety_checker=False
            ).to(asked.device)
            state["pipe"].set_progress_bar_config(disable=True)
        pipe = state["pipe"]
        pipe.scheduler = getattr(diffusers, SAMPLER).from_config(pipe.scheduler.config)

        def after(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            clock.steps.append(clock.work())
            return tensors

        pipe(
            PROMPT,
            negative_prompt=NEGATIVE,
            image=Image.fromarray(picture(asked.side)),
            strength=(asked.run + 1e-6) / asked.steps,
            num_inference_steps=asked.steps,
            guidance_scale=CFG,
            generator=torch.Generator().manual_seed(SEED),
            callback_on_step_end=after,
        )

    return make


def ours(asked: argparse.Namespace, clock: Clock) -> Made:
    """Return what makes the picture by the engine."""
    from backend.engine import Engine
    from backend.models.load import Options
    from backend.request import Request
    from backend.settings import Img2Img

    engine = Engine(Options(device=asked.device, precision=asked.precision))
    settings = Img2Img(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        model=asked.model,
        steps=asked.steps,
        denoising_strength=(asked.run - 0.5) / asked.steps,
        width=asked.side,
        height=asked.side,
        seed=SEED,
        cfg_scale=CFG,
        fast_mode=asked.fast,
    )

    def make() -> None:
        engine.run(Request(settings, {"init": picture(asked.side)}), clock.say, clock.look)

    return make


def gaps(looks: list[tuple[str, float]], ended: float) -> dict[str, tuple[float, float]]:
    """Return for each thing done the longest wait for a look, and the mean one of a cancel at any moment of it."""
    times = [*looks, ("", ended)]
    waits: dict[str, list[float]] = {}
    for (doing, at), (_, after) in itertools.pairwise(times):
        waits.setdefault(doing, []).append(after - at)
    return {doing: (max(all_), sum(w * w for w in all_) / 2 / (sum(all_) or 1)) for doing, all_ in waits.items()}


def flops(asked: argparse.Namespace) -> tuple[float, float]:
    """Return the floating-point operations of one guided model call, and how many a second a large product reaches."""
    import torch
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    dtype = getattr(torch, asked.precision)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(Path(asked.model) / "unet"))
        sample = torch.empty(2, 4, asked.side // 8, asked.side // 8)
        text = torch.empty(2, 77, unet.config.cross_attention_dim)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(sample, torch.empty(2, device="meta"), text)
    square = torch.randn(PEAK_SIDE, PEAK_SIDE, dtype=dtype, device=asked.device)
    found = []
    for _ in range(PEAK_TIMES):
        began = time.perf_counter()
        product = square @ square
        float(product[0, 0])  # waits for the device
        found.append(time.perf_counter() - began)
    return counter.get_total_flops(), 2 * PEAK_SIDE**3 / min(found)


def main() -> int:
    """Make the pictures and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("who", choices=("bare", "ours", "flops"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--run", type=int, required=True, help="how many of the steps run")
    parser.add_argument("--precision", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fast", default="off")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--began", type=float, required=True, help="when the process was asked for")
    asked = parser.parse_args()
    if asked.who == "flops":
        print(json.dumps(dict(zip(("flops", "peak"), flops(asked), strict=True))))
        return 0
    clock = Clock(asked.began, asked.device)
    make = bare(asked, clock) if asked.who == "bare" else ours(asked, clock)
    wall, processor, steps = [], [], []
    waits: dict[str, tuple[float, float]] = {}
    before = (0.0, 0.0)
    with contextlib.redirect_stdout(sys.stderr):
        for _ in range(asked.times):
            clock.steps.clear()
            clock.looks.clear()
            make()
            now = clock.now()
            wall.append(now[0] - before[0])
            processor.append(now[1] - before[1])
            steps.append(statistics.median(np.diff(clock.steps).tolist() or [0.0]))
            for doing, (worst, mean) in gaps(clock.looks, now[1]).items():
                known = waits.get(doing, (0.0, 0.0))
                waits[doing] = (max(known[0], worst), max(known[1], mean))
            before = clock.now()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if asked.device.startswith("cuda"):
        import torch

        memory = torch.cuda.max_memory_allocated()
    print(json.dumps({"wall": wall, "cpu": processor, "step": steps, "waits": waits, "memory": memory}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
