"""How a request is told in the web UI's infotext."""

from __future__ import annotations

from ..imaging import infotext
from ..models.load import EMBEDDED_TITLE
from ..request import EMBEDDED, INPAINT_AREAS, MASKED_CONTENTS, Diffusion, Img2Img, Inpaint, Outpaint, Request, Upscale

PROGRAM = "Viewport Diffusion"


def describe(request: Request) -> str:
    """Return the infotext of a request whose seed is settled: prompts, then "Key: value" pairs."""
    settings = request.settings
    extras: dict[str, object] = {}
    if isinstance(settings, Inpaint):
        extras = {
            "Mask mode": "Inpaint masked" if settings.mask_mode == "masked" else "Inpaint not masked",
            "Mask blur": settings.mask_blur,
            "Inpaint area": INPAINT_AREAS[settings.inpaint_area][0].capitalize(),
            "Masked area padding": settings.only_masked_padding if settings.inpaint_area == "only_masked" else None,
            "Masked content": MASKED_CONTENTS[settings.masked_content][0].lower(),
        }
    elif isinstance(settings, Outpaint):
        pixels = (settings.pixels_left, settings.pixels_right, settings.pixels_up, settings.pixels_down)
        extras = {"Outpaint": " ".join(map(str, pixels)), "Mask blur": settings.mask_blur}
    elif isinstance(settings, Upscale):
        extras = {"Postprocess upscaler": settings.upscaler, "Postprocess upscale by": settings.scale}
    if isinstance(settings, Diffusion):
        return infotext.write(
            settings.full_prompt, settings.negative_prompt, {**_diffusion(settings), **extras, "Version": PROGRAM}
        )
    return infotext.write("", "", {**extras, "Version": PROGRAM})


def _diffusion(settings: Diffusion) -> dict[str, object]:
    return {
        "Steps": settings.steps,
        "Sampler": settings.sampler,
        "Schedule type": settings.schedule,
        "CFG scale": settings.cfg_scale,
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
        "Model": EMBEDDED_TITLE if settings.model == EMBEDDED else settings.model,
        "Denoising strength": settings.denoising_strength if isinstance(settings, (Img2Img, Outpaint)) else None,
    }
