"""Measures a diffusers folder on held-out scenes with the real img2img and inpaint pipelines, and makes the sheets.

Writes `evaluation.json`, a table on the terminal, and sheets as PNG. The scenes, poses, colours and prompts come from
a stream that training never draws from; sheets show the first scenes, not the best.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from backend.engine import Engine
from backend.request import Array, Request
from backend.settings import Img2Img, Inpaint, Outpaint, Settings, Upscale
from training.autoencoder import checked_pictures, psnr_by_style, to_tensor
from training.buffers import Scene, load_scene, scene_paths
from training.captions import WITHOUT_COLOUR, full_caption
from training.checkpoints import PRECISION
from training.classifier import names, style_classifier
from training.measures import distance, edge_overlap, mean_colour, rank_correlation, region_mask, similarity
from training.pictures import draw
from training.regions import Region
from training.stylist import PICTURE, STYLES

Bytes = NDArray[np.uint8]
logger = logging.getLogger(__name__)

STEPS = 20
USUAL = 0.55  # the denoising strength of sheets
DENOISE = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
GARMENTS = {"top": (Region.TOP,), "bottom": (Region.BOTTOM,), "jacket": (Region.JACKET,)}
BATCH = 4
# The CFG scale where sheets rely on the prompt: garments inpainted in another colour, pictures from nothing else.
INSISTED = 5.0
ADOPTED = 0.25  # the strength over what a scene shows around, which has taken on the picture's colours already
BORDER = 32  # pixels that pictures are widened by there


@dataclass
class Case:
    """One held-out scene: pictures by colouring and style (0 is the render), facts and ids."""

    pictures: Bytes  # 2 × 9 × 256 × 256 × 3
    facts: dict[str, Any]
    scene: Scene

    def prompt(self, style: str, colouring: int = 0) -> str:
        """Return the full caption."""
        return full_caption(self.facts, self.facts["colours"][colouring], style)

    def truth(self, style: str, colouring: int = 0) -> Bytes:
        """Return the picture that a perfect model would draw."""
        picture: Bytes = self.pictures[colouring, 1 + list(STYLES).index(style)]
        return picture

    def render(self, colouring: int = 0) -> Bytes:
        """Return the viewport's picture."""
        picture: Bytes = self.pictures[colouring, 0]
        return picture


def held_out(cache: Path, count: int) -> list[Case]:
    """Return the first held-out scenes with their true pictures in the plain form of each style."""
    cases = []
    for i, path in enumerate(scene_paths(cache / "held_out")[:count]):
        scene = load_scene(path)
        pictures, facts = draw(scene, i, list(STYLES), held_out=True)
        cases.append(Case(pictures, facts, scene))
    return cases


class Model:
    """A diffusers folder, ready to draw on the CPU, in bf16 where that is quick."""

    def __init__(self, folder: Path, guidance: float, steps: int = STEPS) -> None:
        base = StableDiffusionPipeline.from_pretrained(
            folder, dtype=PRECISION, safety_checker=None, requires_safety_checker=False
        )
        self.guidance, self.steps = guidance, steps
        self.text = base
        self.image = StableDiffusionImg2ImgPipeline(**base.components, requires_safety_checker=False)
        self.inpaint = StableDiffusionInpaintPipeline(**base.components, requires_safety_checker=False)
        for pipe in (self.text, self.image, self.inpaint):
            pipe.set_progress_bar_config(disable=True)

    def _run(self, pipe: Any, prompts: list[str], **inputs: Any) -> list[Bytes]:
        results: list[Bytes] = []
        for start in range(0, len(prompts), BATCH):
            part = slice(start, start + BATCH)
            lists = {key: value[part] if isinstance(value, list) else value for key, value in inputs.items()}
            count = len(prompts[part])
            images = pipe(
                prompt=prompts[part],
                negative_prompt=[""] * count,
                num_inference_steps=self.steps,
                generator=[torch.Generator().manual_seed(start + i) for i in range(count)],
                output_type="np",
                **({"guidance_scale": self.guidance} | lists),
            ).images
            results += [(np.asarray(image, np.float32) * 255 + 0.5).astype(np.uint8) for image in images]
        return results

    def redraw(self, pictures: list[Bytes], prompts: list[str], denoise: float, guidance: float = 0) -> list[Bytes]:
        """Run img2img."""
        images = [Image.fromarray(picture) for picture in pictures]
        return self._run(self.image, prompts, image=images, strength=denoise, guidance_scale=guidance or self.guidance)

    def fill(
        self, pictures: list[Bytes], masks: list[NDArray[np.bool_]], prompts: list[str], denoise: float
    ) -> list[Bytes]:
        """Run inpainting; the source is kept outside the masks, as the product does."""
        images = [Image.fromarray(picture) for picture in pictures]
        holes = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks]
        drawn = self._run(
            self.inpaint, prompts, image=images, mask_image=holes, strength=denoise, height=PICTURE, width=PICTURE
        )
        return [np.where(m[..., None], new, old) for m, new, old in zip(masks, drawn, pictures, strict=True)]

    def imagine(self, prompts: list[str], guidance: float) -> list[Bytes]:
        """Run txt2img."""
        return self._run(self.text, prompts, height=PICTURE, width=PICTURE, guidance_scale=guidance)


def sheet(rows: list[list[Bytes]], path: Path, side: int = 192) -> None:
    """Write rows of pictures as one PNG."""
    small = [[cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA) for picture in row] for row in rows]
    table = np.concatenate([np.concatenate(row, 1) for row in small])
    cv2.imwrite(str(path), table[..., ::-1])


def in_all_styles(model: Model, cases: list[Case], styles: list[str]) -> list[list[Bytes]]:
    """Return two rows a case: the render and the model's pictures, the render and the true ones."""
    rows = []
    for case in cases:
        drawn = model.redraw([case.render()] * len(styles), [case.prompt(style) for style in styles], USUAL)
        rows += [[case.render(), *drawn], [case.render(), *(case.truth(style) for style in styles)]]
    return rows


def by_guidance(model: Model, case: Case) -> list[list[Bytes]]:
    """Return a row a CFG scale: the render, and its anime pictures by rising denoising strength."""
    render, prompt = [case.render()], [case.prompt("anime")]
    return [
        render + [picture for d in (0.3, 0.5, 0.7, 0.9) for picture in model.redraw(render, prompt, d, guidance)]
        for guidance in (1.0, 3.0, 7.0, 12.0)
    ]


def from_words(model: Model, cases: list[Case], styles: list[str]) -> list[list[Bytes]]:
    """Return rows of what the captions alone give, a style each, every one above the true pictures of its captions."""
    width = min(len(styles), len(cases))
    cases = cases[: len(cases) // width * width]
    pairs = [(case, styles[i % width]) for i, case in enumerate(cases)]
    drawn = model.imagine([case.prompt(style) for case, style in pairs], INSISTED)
    true = [case.truth(style) for case, style in pairs]
    return [row[start : start + width] for start in range(0, len(cases), width) for row in (drawn, true)]


def worked_on(folder: Path, cases: list[Case], guidance: float) -> list[list[Bytes]]:
    """Return a row a case, by the product's own operations.

    It shows the render, an illustration of its middle, that with a garment in another colour inpainted at 0.9, that
    widened over what the render shows around it, that widened from its own colours alone, and the figure's middle cut
    from the illustration four times as large.
    """
    engine = Engine()

    def made(settings: Settings, **images: Array) -> Bytes:
        output = engine.run(Request(settings, images), lambda share, text: None, lambda: False)
        return np.ascontiguousarray(output.pictures[0].pixels[..., :3])

    side = PICTURE - 2 * BORDER
    inner = (slice(BORDER, BORDER + side), slice(BORDER, BORDER + side))
    rows = []
    for case, style in zip(cases, itertools.cycle(("anime", "watercolor", "comic", "flat"))):
        shared: dict[str, Any] = {"model": str(folder), "sampler": "Euler", "seed": 1}
        shared |= {"width": side, "height": side}
        here = shared | {"prompt": case.prompt(style), "cfg_scale": guidance}
        render = case.render()
        illustration = made(Img2Img(**here, denoising_strength=USUAL), init=np.ascontiguousarray(render[inner]))
        part = next((part for part in case.facts["changed"] if part in GARMENTS), "top")
        mask = region_mask(case.scene.ids, GARMENTS[part], PICTURE)[inner].astype(np.float32)
        renamed = shared | {"prompt": case.prompt(style, 1), "cfg_scale": INSISTED}
        repainted = made(Inpaint(**renamed, denoising_strength=0.9), init=illustration, mask=mask)
        border: dict[str, Any] = here | {f"pixels_{way}": BORDER for way in ("left", "right", "up", "down")}
        border |= {"width": PICTURE, "height": PICTURE}
        around = Outpaint(**border, method="scene", denoising_strength=ADOPTED)
        widened = made(around, init=illustration, surroundings=render)
        alone = made(Outpaint(**border, method="poor_mans", denoising_strength=USUAL), init=illustration)
        enlarged = made(Upscale(upscaler="R-ESRGAN 4x+ Anime6B", scale=4.0), init=illustration)
        figure = ((case.scene.ids >= Region.SKIN) & (case.scene.ids < Region.PROP)).astype(np.float32)
        shown = np.argwhere(cv2.resize(figure, (PICTURE, PICTURE))[inner] > 0.5).mean(0) * 4
        row, column = (int(np.clip(place - PICTURE, 0, 4 * side - 2 * PICTURE)) for place in shown)
        middle = enlarged[row : row + 2 * PICTURE, column : column + 2 * PICTURE]
        rows.append([render, illustration, repainted, widened, alone, middle])
    return rows


def garment_errors(case: Case, picture: Bytes, truth: Bytes) -> list[float]:
    """Return how far (of 255, mean over channels) each garment's mean colour is from the true picture's."""
    errors = []
    for regions in GARMENTS.values():
        mask = region_mask(case.scene.ids, regions, PICTURE)
        here, there = mean_colour(picture, mask), mean_colour(truth, mask)
        if here is not None and there is not None:
            errors.append(float(np.abs(here - there).mean()))
    return errors


def measure_styles(
    model: Model, judge: torch.nn.Module, cases: list[Case], styles: list[str], denoise: float
) -> dict[str, dict[str, float]]:
    """Return the measures of "must show" 1 for every style, and for all together."""
    table: dict[str, dict[str, float]] = {}
    for style in styles:
        results = model.redraw([case.render() for case in cases], [case.prompt(style) for case in cases], denoise)
        truths, renders = [case.truth(style) for case in cases], [case.render() for case in cases]
        taken = names(judge, to_tensor(np.stack(results)))

        def ratio(measure: Any, results: list[Bytes] = results, truths: list[Bytes] = truths) -> float:
            of_result = np.mean([measure(a, b) for a, b in zip(results, truths, strict=True)])
            return float(of_result / np.mean([measure(a, b) for a, b in zip(renders, truths, strict=True)]))  # noqa: B023

        errors = [e for c, a, b in zip(cases, results, truths, strict=True) for e in garment_errors(c, a, b)]
        table[style] = {
            "l1 ratio": ratio(distance),
            "ssim ratio": ratio(lambda a, b: 1 - similarity(a, b)),
            "recognised": float(np.mean([name == style for name in taken])),
            "edges": float(np.mean([edge_overlap(a, b) for a, b in zip(results, truths, strict=True)])),
            "render's edges": float(np.mean([edge_overlap(a, b) for a, b in zip(renders, truths, strict=True)])),
            "garments": float(np.mean(errors)) if style not in WITHOUT_COLOUR else float("nan"),
        }
        logger.info("%s at %g: %s", style, denoise, {k: round(v, 3) for k, v in table[style].items()})
    table["all"] = {key: float(np.nanmean([row[key] for row in table.values()])) for key in table[styles[0]]}
    return table


def measure_judge(judge: torch.nn.Module, cases: list[Case]) -> dict[str, float]:
    """Return the share of each style's true pictures that the judge names rightly."""
    right = {}
    for style in STYLES:
        taken = names(judge, to_tensor(np.stack([case.truth(style) for case in cases])))
        right[style] = float(np.mean([name == style for name in taken]))
    return right | {"all": float(np.mean(list(right.values())))}


def measure_denoise(model: Model, cases: list[Case], styles: list[str]) -> dict[str, Any]:
    """Return how the distance to the input grows with denoising ("must show" 2), and the CFG × denoise sheet's row."""
    sources = [case.render() for case in cases]
    prompts = [case.prompt(styles[i % len(styles)]) for i, case in enumerate(cases)]
    drawn = [model.redraw(sources, prompts, denoise) for denoise in DENOISE]
    curves = [[distance(drawn[d][i], sources[i]) for d in range(len(DENOISE))] for i in range(len(cases))]
    return {
        "spearman of the mean": rank_correlation(DENOISE, np.mean(curves, 0).tolist()),
        "spearman each": float(np.mean([rank_correlation(DENOISE, curve) for curve in curves])),
        "distance": dict(zip(map(str, DENOISE), np.mean(curves, 0).tolist(), strict=True)),
        "rows": [[sources[i], *(drawn[d][i] for d in range(len(DENOISE)))] for i in range(min(4, len(cases)))],
    }


def measure_recolouring(
    model: Model, cases: list[Case], styles: list[str], denoise: float, inpaint: bool
) -> dict[str, Any]:
    """Return how often naming another garment colour brings it, and the sheet's rows."""
    jobs, coloured = [], [name for name in styles if name not in WITHOUT_COLOUR]
    for i, case in enumerate(cases):
        style = coloured[i % len(coloured)]
        for part in case.facts["changed"]:
            mask = region_mask(case.scene.ids, GARMENTS.get(part, ()), PICTURE)
            if part in GARMENTS and mask.sum() > 200:
                jobs.append((case, style, mask))
                break
    if not jobs:
        return {"cases": 0, "changed": float("nan"), "rows": []}
    prompts = [case.prompt(style, 1) for case, style, _ in jobs]
    if inpaint:
        sources = [case.truth(style) for case, style, _ in jobs]
        grown = [cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0 for *_, mask in jobs]
        drawn = model.fill(sources, grown, prompts, denoise)
    else:
        sources = [case.render() for case, *_ in jobs]
        drawn = model.redraw(sources, prompts, denoise)
    won = []
    for (case, style, mask), picture in zip(jobs, drawn, strict=True):
        old, new = case.truth(style)[mask].mean(0), case.truth(style, 1)[mask].mean(0)
        mean = picture[mask].mean(0)
        won.append(np.linalg.norm(mean - new) < np.linalg.norm(mean - old))
    rows = [[s, d, c.truth(style, 1)] for s, d, (c, style, _) in zip(sources[:8], drawn, jobs, strict=False)]
    return {"cases": len(jobs), "changed": float(np.mean(won)), "rows": rows}


def measure_speed(model: Model, case: Case) -> dict[str, float]:
    """Return seconds and memory of one img2img of 20 model calls ("must show" 5)."""
    model.redraw([case.render()], [case.prompt("anime")], 0.2)
    began, worked = time.perf_counter(), time.process_time()
    model.redraw([case.render()], [case.prompt("anime")], 1.0)
    return {
        "seconds": time.perf_counter() - began,
        "cpu seconds": time.process_time() - worked,
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("folder", type=Path, help="the diffusers folder to measure")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table and the sheets")
    parser.add_argument("--cases", type=int, default=50, help="held-out scenes, each in every style")
    parser.add_argument("--styles", nargs="+", choices=list(STYLES), default=list(STYLES), help="styles to measure")
    parser.add_argument("--denoise", type=float, nargs="+", default=[0.5, 0.6], help="levels to measure the styles at")
    parser.add_argument("--guidance", type=float, default=3.0, help="CFG scale")
    parser.add_argument("--steps", type=int, default=STEPS, help="sampling steps, of which denoising takes its share")
    parser.add_argument("--classifier-steps", type=int, default=4000, help="training of the judge, the first time")
    parser.add_argument(
        "--only", nargs="+", choices=("styles", "denoise", "colours", "sheets"), help="leave out the rest"
    )


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Measure, print and write."""
    torch.set_num_threads(threads)
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = options.only or ("styles", "denoise", "colours", "sheets")
    cases = held_out(cache, options.cases)
    model = Model(options.folder, options.guidance, options.steps)
    result: dict[str, Any] = {"folder": options.folder.name, "cases": len(cases)}
    result |= {"guidance": options.guidance, "steps": options.steps}
    result["speed"] = measure_speed(model, cases[0])
    logger.info("speed: %s", result["speed"])
    if "styles" in wanted:
        judge = style_classifier(cache, options.classifier_steps)
        checked, styles = checked_pictures(cache)
        result["psnr"] = psnr_by_style(model.text.vae.float(), checked, styles)
        model.text.vae.to(PRECISION)
        result["classifier right"] = measure_judge(judge, cases)
        result["styles"] = {str(d): measure_styles(model, judge, cases, options.styles, d) for d in options.denoise}
    if "denoise" in wanted:
        curve = measure_denoise(model, cases[:16], options.styles)
        sheet(curve.pop("rows"), options.out / "denoise.png")
        result["denoise"] = curve
    if "colours" in wanted:
        for name, denoise, inpaint in (("at 0.7", 0.7, False), ("at 0.8", 0.8, False), ("inpaint at 0.9", 0.9, True)):
            found = measure_recolouring(model, cases, options.styles, denoise, inpaint)
            if found["rows"]:
                sheet(found.pop("rows"), options.out / f"recolour {name}.png".replace(" ", "_"))
            result[f"recolour {name}"] = found
    if "sheets" in wanted:
        sheet(in_all_styles(model, cases[:8], options.styles), options.out / "styles.png", 160)
        sheet(by_guidance(model, cases[1]), options.out / "guidance.png")
        sheet(from_words(model, cases[:24], options.styles), options.out / "text.png")
        sheet(worked_on(options.folder, cases[:4], options.guidance), options.out / "worked_on.png", 256)
    (options.out / "evaluation.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
