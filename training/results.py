"""Draws the model's own results from renders, as latents, for the decoder to learn from what it will be given.

A result of `results.f16` is 4×64×64; the same line of `results.jsonl` says whose it is. Delete both to draw anew when
the UNet has changed.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from numpy.typing import NDArray

from training.checkpoints import PRECISION
from training.encode import LATENT, open_latents
from training.export import pipeline
from training.pictures import COLOURINGS, KEPT_BACK, STYLES_EACH, Whose
from training.reading import Pictured

logger = logging.getLogger(__name__)

SEED = 21
TOGETHER = 8
DENOISE = (0.45, 0.75)  # below it no style's picture is what the result shall be
STEPS = (10, 20)
GUIDED, GUIDANCE = 0.25, 3.0  # share of results, and their CFG scale


@dataclass
class Results:
    """The results drawn so far, and the pictures that they shall be."""

    latents: NDArray[np.float16]  # results × LATENT
    whose: list[Whose]


def open_results(cache: Path) -> Results:
    """Map the finished results."""
    whose = [Whose(**json.loads(line)) for line in (cache / "results.jsonl").read_text().splitlines()]
    return Results(np.memmap(cache / "results.f16", np.float16, "r", shape=(len(whose), *LATENT)), whose)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--count", type=int, default=1200, help="how many results in all")


@torch.no_grad()
def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Append results until there are as many."""
    torch.set_num_threads(threads)
    parts = pipeline(cache).to(PRECISION).components
    pipe = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    latents, size = open_latents(cache), int(np.prod(LATENT)) * 2
    whole, lines = cache / "results.f16", cache / "results.jsonl"
    done = len(lines.read_text().splitlines()) if lines.exists() else 0
    with whole.open("ab") as drawn, lines.open("a") as said:
        drawn.truncate(done * size)
        while done < options.count:
            rng = np.random.default_rng((SEED, done))
            some = [
                Whose(int(record), int(rng.integers(COLOURINGS)), int(rng.integers(1, 1 + STYLES_EACH)))
                for record in rng.integers(KEPT_BACK, len(latents), size=TOGETHER)
            ]
            renders = np.stack([latents.records[one.record, one.colouring, 0] for one in some])
            pictures = [Pictured(latents.facts[one.record], one.colouring, one.style) for one in some]
            found = pipe(
                prompt=[picture.caption(rng, False) for picture in pictures],
                image=torch.from_numpy(renders).to(PRECISION),
                strength=float(rng.uniform(*DENOISE)),
                num_inference_steps=int(rng.choice(STEPS)),
                guidance_scale=GUIDANCE if rng.random() < GUIDED else 1.0,
                generator=torch.Generator().manual_seed(done),
                output_type="latent",
            ).images
            drawn.write(found.half().numpy().tobytes())
            drawn.flush()
            said.writelines(json.dumps(asdict(one)) + "\n" for one in some)
            said.flush()
            done += TOGETHER
            if done % 80 == 0:
                logger.info("result %d of %d", done, options.count)
