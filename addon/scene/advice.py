"""What the panel says before the artist pays for a picture: its size and steps, and advice where a value is risky."""

from __future__ import annotations

import re

import bpy

from ...backend.models.load import MEMORY_MODES
from ...backend.models.memory import in_words, memory_for_models
from ...backend.models.needs import Anatomy, Job, anatomy_of, item_bytes, plan_memory
from ...backend.models.traits import traits_of
from ...backend.operations.plan import CanvasPlan, Size, longest_schedule, plan_canvas, plan_steps
from ...backend.settings import EMBEDDED, SIDE_STEP
from .. import jobs
from ..preferences import preferences
from .capture import picture_size

LEAST_CFG, GREATEST_CFG = 5.0, 15.0  # outside of these the guide warns
STRONG_DENOISE = 0.7
EDITING_DENOISE = 0.9
EMBEDDED_CFG, EMBEDDED_DENOISE = 3.0, 0.7  # beyond these the embedded model loses colours and figures
# LoRAs by which any model of their family needs few steps, and the sampler for it.
FAST_LORAS = {name: re.compile(rf"<lora:[^<>]*(?<![a-z]){name}(?![a-z])", re.IGNORECASE) for name in ("LCM", "TCD")}
FEW_STEPS = 12  # more than a distilled model can use
SMALLER = "choose a smaller size or batch, or set Memory to Low in the preferences."

LOW_CFG = {
    "": "A CFG scale below 5 leaves the prompt loose and colours pale; 5 to 15 is the usable range.",
    EMBEDDED: "A CFG scale below 5 leaves the prompt loose: the embedded model wants that, others want 5 to 15.",
}


def advice(settings: bpy.types.PropertyGroup) -> list[str]:
    """Return short sentences on values that seldom give what one hopes for."""
    sentences = []
    cfg, denoise = settings.diffusion.cfg_scale, settings.img2img.denoising_strength
    traits = traits_of(bpy.path.abspath(settings.diffusion.model))
    prompt = settings.diffusion.prompt
    fast = traits.few_steps or next((name for name, lora in FAST_LORAS.items() if lora.search(prompt)), "")
    if not settings.diffusion.prompt.strip() and not settings.diffusion.style.strip():
        sentences.append("Say what the picture shows, such as: anime illustration of a woman, walking, red dress")
    if cfg > GREATEST_CFG:
        sentences.append("A CFG scale above 15 distorts colours; 5 to 15 is the usable range.")
    elif cfg < LEAST_CFG and not fast:
        sentences.append(LOW_CFG.get(settings.diffusion.model, LOW_CFG[""]))
    if settings.diffusion.model == EMBEDDED and (cfg > EMBEDDED_CFG or denoise > EMBEDDED_DENOISE):
        sentences.append("The embedded model draws best at a CFG scale of 1 to 3, a denoising strength of 0.4 to 0.6.")
    if denoise > STRONG_DENOISE and cfg > 10:
        sentences.append("For heavy repainting keep the CFG scale low; a high one suits detail at low denoising.")
    if fast and (settings.diffusion.sampler != fast or settings.diffusion.steps > FEW_STEPS):
        sentences.append(f"This model or LoRA needs few steps: 4 to 8 by {fast}, at a CFG scale of 1 to 2.")
    if traits.edits and denoise < EDITING_DENOISE:
        sentences.append("This model sees the picture beside the one it makes: a denoising strength of 1 suits it.")
    return sentences


def size_line(context: bpy.types.Context) -> str:
    """Return in one line how many steps run, and which sizes the picture goes through: "16 of 20 steps, 512×512"."""
    settings = context.scene.viewport_diffusion
    strength, shared = settings.img2img.denoising_strength, settings.diffusion
    canvas = _canvas_plan(context.scene, anatomy_of(bpy.path.abspath(shared.model)))
    if strength == 0:
        return f"{canvas.canvas.width}×{canvas.canvas.height}, no steps: the capture itself"
    plan = plan_steps(shared.steps, strength, shared.exact_steps, longest_schedule(shared.sampler))
    return f"{plan.executed} of {plan.schedule} steps, {canvas}"


def memory_line(context: bpy.types.Context) -> tuple[str, bool]:
    """Return in one line how much memory the picture takes of what is free, "" if unknown, and whether it suffices."""
    settings = context.scene.viewport_diffusion
    model = bpy.path.abspath(settings.diffusion.model)
    anatomy = anatomy_of(model)
    if anatomy is None or settings.img2img.denoising_strength == 0:
        return "", True
    chosen, canvas = preferences(), _canvas_plan(context.scene, anatomy)
    device = jobs.device() or chosen.device.strip()
    known = device not in ("", "automatic")
    job = Job(
        *(canvas.canvas if canvas.tiles else canvas.made),
        settings.diffusion.batch_size,
        item_bytes(chosen.precision, device if known else "cpu"),
        known and device != "cpu",
        window=max(canvas.tile.width * canvas.tile.height, canvas.made.width * canvas.made.height) * (canvas.tiles > 0),
    )
    room = jobs.room() or (memory_for_models(device) if device == "cpu" else 0)  # a card is the backend's to ask
    plan = plan_memory(anatomy, job, room, chosen.memory)
    needed, there = in_words(plan.bytes), in_words(room)
    if not plan.fits:
        return f"About {needed} are needed and {there} free: {SMALLER}", False
    how = "" if plan.mode == "full" else f", {MEMORY_MODES[plan.mode][0]}"
    return f"About {needed}{f' of {there} free' if room else ''}{how}", True


def _canvas_plan(scene: bpy.types.Scene, anatomy: Anatomy | None) -> CanvasPlan:
    """Return how the canvas that is set comes about by a model of that anatomy."""
    settings = scene.viewport_diffusion
    width, height = picture_size(scene)
    if settings.capture.size == "SCALE":
        source = {"IMAGE": settings.capture.image, "SKETCH": settings.capture.sketch}.get(settings.capture.source)
        width, height = source.size if source is not None and min(source.size) else (width, height)
        width, height = (max(int(side * settings.capture.scale), SIDE_STEP) for side in (width, height))
    canvas = Size(width, height)
    if anatomy is None:
        return CanvasPlan(canvas, canvas, canvas)
    return plan_canvas(width, height, anatomy.native, large_canvas=settings.img2img.large_canvas)
