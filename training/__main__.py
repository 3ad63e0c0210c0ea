"""The stages of the recipe: `python -m training STAGE --help` says what each takes.

Every stage can be started again with the same command: it goes on where its files in the cache folder end.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from pathlib import Path

DEFAULT_CACHE = Path("~/.cache/viewport_diffusion/training")
STAGES = {
    "scenes": "draw scenes in Blender as G-buffers",
    "pictures": "render and stylise the scenes as 256 px pictures",
    "tokenizer": "learn the vocabulary of the captions",
    "autoencoder": "train the autoencoder on pictures",
    "halftone": "teach the frozen autoencoder half-tone",
    "encode": "turn the pictures into latents",
    "unet": "train UNet and text encoder on latents",
    "layout": "teach the UNet's coarsest scale to lay out a figure from words alone",
    "mean": "put the UNet between two of its checkpoints",
    "results": "draw the model's own results from renders",
    "decoder": "train the decoder to finish those results",
    "tiny": "train the tiny autoencoder of previews",
    "export": "write a diffusers folder",
    "evaluate": "measure a diffusers folder on held-out scenes and make the sheets",
    "captioner": "train what reads a picture back into a prompt",
    "evaluate_captioner": "measure that on held-out scenes",
    "plot": "plot the logged figures",
}


# glibc keeps what is freed instead of handing it back: a tenth of a training step was page faults.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


def keep_memory() -> None:
    """Start again with KEEP_MEMORY, which is read when a process starts."""
    if not KEEP_MEMORY.keys() <= os.environ.keys():
        os.environ.update(KEEP_MEMORY)
        os.execv(sys.executable, [sys.executable, "-m", "training", *sys.argv[1:]])


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder of all intermediate files")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    stages = parser.add_subparsers(dest="stage", required=True)
    for name, purpose in STAGES.items():
        stages.add_parser(name, help=purpose, add_help=False)
    options, rest = parser.parse_known_args()
    for variable in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(variable, str(options.threads))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    stage = importlib.import_module(f"training.{options.stage}")
    own = argparse.ArgumentParser(prog=f"python -m training {options.stage}", description=stage.__doc__)
    stage.add_options(own)
    stage.run(options.cache.expanduser(), options.threads, own.parse_args(rest))


if __name__ == "__main__":
    keep_memory()
    main()
