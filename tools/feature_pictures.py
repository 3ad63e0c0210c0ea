"""Make the pictures of docs/features.md: every feature on the mannequin, in real Blender, by the real engine.

`python tools/feature_pictures.py` makes all, `python tools/feature_pictures.py loopback upscalers` only those.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.extension import EXTENSION, ROOT, disable, enable, fresh_user_folder

_user = fresh_user_folder()

import bpy  # noqa: E402
import numpy as np  # noqa: E402

from backend.engine import Engine  # noqa: E402
from backend.imaging.files import save  # noqa: E402
from backend.imaging.grid import contact_sheet  # noqa: E402
from backend.imaging.masks import blur, overlay_mask  # noqa: E402
from backend.imaging.resize import RESIZE_MODES, resize  # noqa: E402
from backend.imaging.seams import seam_index  # noqa: E402
from backend.imaging.tiles import plan_tiles  # noqa: E402
from backend.request import Array, Request  # noqa: E402
from backend.settings import (  # noqa: E402
    MASKED_CONTENTS,
    Img2Img,
    Inpaint,
    Loopback,
    Outpaint,
    SDUpscale,
    Settings,
    Upscale,
    XYZPlot,
)

OUTPUT = ROOT / "docs" / "features"
SIDE = 512  # pixels of a picture; the largest that the embedded model draws without enlarging
TILE = 300  # pixels; height of a picture on a sheet
STYLE = "anime illustration of {prompt}"
PROMPT = "a woman, dancing, striped red t-shirt, blue trousers, short red hair, light blue background"
SHARED: dict[str, Any] = {
    "prompt": PROMPT,
    "style": STYLE,
    "width": SIDE,
    "height": SIDE,
    "cfg_scale": 1.0,
    "sampler": "Euler",
    "seed": 4,
}


class Sheet(NamedTuple):
    """Pictures with a caption each, in so many rows."""

    pictures: Sequence[Array]
    captions: Sequence[str]
    rows: int = 1


class Studio:
    """The posed mannequin seen through its camera, its shirt's mask, and an engine."""

    def __init__(self) -> None:
        enable()
        bpy.ops.wm.open_mainfile(filepath=str(ROOT / "presets" / "scenes" / "mannequin.blend"))
        bpy.ops.viewport_diffusion.apply_pose(pose="Dancing")
        bpy.context.scene.camera.data.lens *= 1.25
        self.modules: Any = sys.modules[f"{EXTENSION}.addon.scene"]
        self.engine = Engine()
        self.render = self.capture(SIDE, SIDE)
        self.shirt: Array = self.modules.masks.object_mask(
            bpy.context, self.view(SIDE, SIDE), [bpy.data.objects["Shirt"]]
        )
        self.drawn = self.run(Img2Img(**SHARED, denoising_strength=0.5), self.render)

    def view(self, width: int, height: int) -> Any:
        """Return the camera's view at that size."""
        return self.modules.capture.camera_view(bpy.context, width, height)

    def capture(self, width: int, height: int) -> Array:
        """Return what the camera sees, textured (uint8 H×W×3)."""
        picture: Array = self.modules.capture.draw_view(bpy.context, self.view(width, height))
        return picture

    def all(self, settings: Settings, init: Array, **images: Array) -> list[Array]:
        """Return all pictures of a request."""
        output = self.engine.run(Request(settings, {"init": init, **images}), lambda share, text: None, lambda: False)
        return [picture.pixels[..., :3] for picture in output.pictures]

    def run(self, settings: Settings, init: Array, **images: Array) -> Array:
        """Return the first picture of a request."""
        return self.all(settings, init, **images)[0]


def resize_modes(studio: Studio) -> Sheet:
    """A wide capture brought to an upright size in each resize mode."""
    wide = studio.capture(512, 320)
    upright = {**SHARED, "width": 288, "height": 384, "denoising_strength": 0.5}
    pictures = [studio.run(Img2Img(**upright, resize_mode=mode), wide) for mode in RESIZE_MODES]
    return Sheet([wide, *pictures], ["Capture, 512 by 320", *(mode.replace("_", " ") for mode in RESIZE_MODES)])


def masked_contents(studio: Studio) -> Sheet:
    """The shirt repainted from each masked content, at a low and a high denoising strength."""
    pictures, captions = [], []
    for strength in (0.4, 0.9):
        for content, (label, _) in MASKED_CONTENTS.items():
            settings = Inpaint(**SHARED, denoising_strength=strength, masked_content=content, mask_blur=2)
            pictures.append(studio.run(settings, studio.drawn, mask=studio.shirt))
            captions.append(f"{label}\ndenoising {strength:g}")
    return Sheet(pictures, captions, rows=2)


def mask_blur(studio: Studio) -> Sheet:
    """What of the result is laid over the source at each mask blur, and the result."""
    overlays, pictures, captions = [], [], []
    for radius in (0, 4, 16, 48):
        overlays.append(np.rint(overlay_mask(blur(studio.shirt, radius))[..., None].repeat(3, 2) * 255))
        settings = Inpaint(**SHARED, denoising_strength=0.75, masked_content="fill", mask_blur=radius)
        pictures.append(studio.run(settings, studio.drawn, mask=studio.shirt))
        captions.append(f"Mask blur {radius}")
    return Sheet([*(o.astype(np.uint8) for o in overlays), *pictures], [*captions, *captions], rows=2)


def inpaint_area(studio: Studio) -> Sheet:
    """A small part of a large picture, processed with the whole and by itself."""
    large = studio.run(Upscale(scale=2.0), studio.drawn)
    view = studio.view(*large.shape[1::-1])
    names = [item.name for item in bpy.data.objects if "hair" in item.name.lower()]
    mask = studio.modules.masks.object_mask(bpy.context, view, [bpy.data.objects[name] for name in names])
    rows, columns = np.nonzero(mask)
    window = (slice(max(rows.min() - 60, 0), rows.max() + 140), slice(max(columns.min() - 90, 0), columns.max() + 90))
    pictures = [large[window]]
    for area in ("whole_picture", "only_masked"):
        settings = Inpaint(**SHARED, denoising_strength=0.5, inpaint_area=area)
        if area == "whole_picture":
            settings = dataclasses.replace(settings, width=large.shape[1], height=large.shape[0])
        pictures.append(studio.run(settings, large, mask=mask)[window])
    return Sheet(pictures, ["Before (a part of it)", "Whole picture", "Only masked, padding 32"])


def outpaint(studio: Studio) -> Sheet:
    """The picture continued to both sides in each way."""
    border = {"pixels_left": 128, "pixels_right": 128, "mask_blur": 8}
    wide = studio.modules.border.widened(studio.view(SIDE, SIDE), studio.modules.border.Border(128, 128, 0, 0))
    surroundings = studio.modules.capture.draw_view(bpy.context, wide)
    shared = {**SHARED, "denoising_strength": 0.8}
    pictures = [
        studio.run(Outpaint(**shared, method="poor_mans", **border), studio.drawn),
        studio.run(Outpaint(**shared, method="mk2", **border), studio.drawn),
        surroundings,
        studio.run(
            Outpaint(**{**shared, "denoising_strength": 0.25}, method="scene", **border),
            studio.drawn,
            surroundings=surroundings,
        ),
    ]
    captions = ["Poor man's", "mk2", "What a wider camera sees", "From the scene, denoising 0.25"]
    return Sheet([studio.drawn, *pictures], ["Before", *captions])


def upscalers(studio: Studio) -> Sheet:
    """A small part of a capture enlarged four times by each upscaler."""
    part = studio.capture(192, 192)[16:106, 62:152]
    names = ("Nearest", "Lanczos", "R-ESRGAN 4x+", "R-ESRGAN 4x+ Anime6B", "R-ESRGAN AnimeVideo x4")
    return Sheet([studio.run(Upscale(upscaler=name, scale=4.0), part) for name in names], names)


def sd_upscale(studio: Studio) -> Sheet:
    """The picture enlarged and drawn anew in tiles, with their seams measured."""
    pictures, captions = [], []
    for method, overlap in (("tiles", 0), ("tiles", 64), ("seamless", 64)):
        settings = SDUpscale(
            **{**SHARED, "width": 256, "height": 256},
            upscaler="Lanczos",
            denoising_strength=0.3,
            method=method,
            overlap=overlap,
        )
        picture = studio.run(settings, studio.drawn)
        index = seam_index(picture, plan_tiles(picture.shape[1], picture.shape[0], 256, 256, overlap))
        pictures.append(picture[200:760, 200:760])
        captions.append(f"{method}, overlap {overlap}\nseam index {index:.2f}")
    return Sheet(pictures, captions)


def loopback(studio: Studio) -> Sheet:
    """The result fed back four times."""
    settings = Loopback(**SHARED, loops=4, denoising_strength=0.3, final_denoising_strength=0.2)
    pictures = [picture for picture in studio.all(settings, studio.render) if picture.shape[:2] == (SIDE, SIDE)]
    return Sheet([studio.render, *pictures], ["Capture", *(f"Loop {i + 1}" for i in range(len(pictures)))])


def cfg_and_denoising(studio: Studio) -> Sheet:
    """CFG scale against denoising strength."""
    settings = XYZPlot(
        **{**SHARED, "width": 256, "height": 256},
        x_type="cfg_scale",
        x_values="1, 1.5, 3, 7, 15",
        y_type="denoising_strength",
        y_values="0.2, 0.4, 0.6, 0.8",
    )
    return Sheet([studio.all(settings, studio.render)[0]], [""])


def soft_inpainting(studio: Studio) -> Sheet:
    """A mask that fades, with and without soft inpainting."""
    rows = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None]
    mask = np.ascontiguousarray(np.broadcast_to(rows, (SIDE, SIDE)))
    shared = {**SHARED, "denoising_strength": 0.6, "mask_blur": 0}
    pictures = [studio.run(Inpaint(**shared, soft_inpainting=soft), studio.drawn, mask=mask) for soft in (False, True)]
    shown = np.rint(mask[..., None].repeat(3, 2) * 255).astype(np.uint8)
    return Sheet([shown, *pictures], ["Mask", "Soft inpainting off", "Soft inpainting on"])


def variations(studio: Studio) -> Sheet:
    """From one seed to another by the variation strength."""
    shared = {**SHARED, "denoising_strength": 0.4, "variation_seed": 77}
    strengths = (0.0, 0.25, 0.5, 0.75, 1.0)
    pictures = [studio.run(Img2Img(**shared, variation_strength=strength), studio.render) for strength in strengths]
    return Sheet(pictures, [f"Variation strength {strength:g}" for strength in strengths])


FEATURES: dict[str, Callable[[Studio], Sheet]] = {
    function.__name__: function
    for function in (
        resize_modes,
        masked_contents,
        mask_blur,
        inpaint_area,
        soft_inpainting,
        outpaint,
        upscalers,
        sd_upscale,
        loopback,
        cfg_and_denoising,
        variations,
    )
}


def main(names: Sequence[str]) -> int:
    """Make the pictures of those features; returns 0, or 2 where a name is not known."""
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        print(f"There is no feature {', '.join(unknown)}. Known ones: {', '.join(FEATURES)}.", file=sys.stderr)
        return 2
    OUTPUT.mkdir(parents=True, exist_ok=True)
    studio = Studio()
    for name in names or FEATURES:
        print(name, flush=True)
        sheet = FEATURES[name](studio)
        if len(sheet.pictures) == 1:
            whole = sheet.pictures[0]
        else:
            small = [resize(p, p.shape[1] * TILE // p.shape[0], TILE, "just_resize") for p in sheet.pictures]
            whole = contact_sheet(small, sheet.captions, rows=sheet.rows)
        save(whole, OUTPUT / f"{name}.jpg", quality=88)
    disable()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
