"""The main job in real Blender: a posed figure becomes an illustration, is repainted, widened and enlarged."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.extension import EXTENSION, ROOT, disable, enable, fresh_user_folder

_user = fresh_user_folder()

import bpy  # noqa: E402
import numpy as np  # noqa: E402

from backend.imaging.files import save  # noqa: E402
from backend.imaging.grid import contact_sheet  # noqa: E402
from backend.imaging.masks import blur, overlay_mask  # noqa: E402
from backend.imaging.pictures import load  # noqa: E402
from backend.imaging.resize import resize  # noqa: E402
from backend.request import Array  # noqa: E402

OUTPUT = ROOT / "demo"
POSE = "Dancing"
PROMPT = "a woman, dancing, striped red t-shirt, blue trousers, short red hair, beige ground, light blue sky"
NEW_GARMENT = "a woman, dancing, plain red t-shirt, blue trousers, short red hair, beige ground, light blue sky"
CFG = 1.4
SAMPLER = "Euler"
DENOISING = 0.5
REPAINTING = 0.75
WIDENING = 0.25
SEED = 4
CLOSER = 1.25  # how much longer the camera's lens is made: a small model draws a larger figure better
TILE = 400  # pixels; height of a picture on the contact sheet
SIDE = 512  # pixels; the largest that the embedded model draws without enlarging


class Demo:
    """The steps of the main job, each with its picture and its caption."""

    def __init__(self) -> None:
        self.pictures: list[Array] = []
        self.captions: list[str] = []
        self.started = time.monotonic()

    @property
    def settings(self) -> Any:
        """The panel's own properties."""
        return bpy.context.scene.viewport_diffusion

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        print(f"[{time.monotonic() - self.started:5.1f} s] {text}", flush=True)

    def keep(self, name: str, picture: Array, caption: str, infotext: str = "") -> None:
        """Write a picture to the output folder, and onto the contact sheet."""
        save(picture, OUTPUT / f"{len(self.pictures)}_{name}.png", infotext)
        self.pictures.append(picture)
        self.captions.append(caption)
        self.say(caption.splitlines()[0])

    def keep_result(self, name: str, caption: str) -> Array:
        """Keep the scene's result, and return its pixels."""
        image = self.settings.result
        pixels = scene_modules().images.read_image(image)[..., :3]
        self.keep(name, pixels, caption, image["parameters"])
        return pixels


def scene_modules() -> Any:
    """Return the enabled extension's modules for the scene."""
    return sys.modules[f"{EXTENSION}.addon.scene"]


def main() -> int:
    """Run the demo; returns 0 when every step held what it promises."""
    OUTPUT.mkdir(exist_ok=True)
    enable()
    demo = Demo()
    demo.say("Opening the mannequin scene")
    bpy.ops.wm.open_mainfile(filepath=str(ROOT / "presets" / "scenes" / "mannequin.blend"))
    capture_pose(demo)
    illustration = generate(demo)
    compare_backends(demo, illustration)
    repaint_garment(demo, illustration)
    widen_and_enlarge(demo)
    keep_in_file(demo)
    tiles = [resize(tile, tile.shape[1] * TILE // tile.shape[0], TILE, "just_resize") for tile in demo.pictures]
    save(contact_sheet(tiles, demo.captions, rows=2), OUTPUT / "contact_sheet.png")
    disable()
    demo.say("Done")
    print(f"\nLook at {OUTPUT / 'contact_sheet.png'}")
    print("The pictures are beside it, and the scene is mannequin_diffused.blend.")
    return 0


def capture_pose(demo: Demo) -> None:
    """Pose the figure and draw what the viewport shows through its camera."""
    bpy.ops.viewport_diffusion.apply_pose(pose=POSE)
    settings = demo.settings
    settings.capture.source = "VIEWPORT"
    settings.capture.shading = "TEXTURE"
    settings.capture.size = "OWN"
    settings.diffusion.width = settings.diffusion.height = SIDE
    space, _ = scene_modules().capture.find_viewport(bpy.context)
    space.region_3d.view_perspective = "CAMERA"
    bpy.context.scene.camera.data.lens *= CLOSER
    picture = scene_modules().capture.capture(bpy.context, SIDE, SIDE)
    demo.keep("capture", picture, f"Viewport, textured\npose: {POSE}")


def generate(demo: Demo) -> Array:
    """Turn the capture into an illustration in the separate process."""
    settings = demo.settings
    bpy.context.preferences.addons[EXTENSION].preferences.backend = "subprocess"
    settings.diffusion.style = "anime illustration of {prompt}"
    settings.diffusion.prompt = PROMPT
    settings.diffusion.cfg_scale = CFG
    settings.diffusion.sampler = SAMPLER
    settings.diffusion.seed = SEED
    settings.img2img.denoising_strength = DENOISING
    bpy.ops.viewport_diffusion.generate()
    return demo.keep_result("img2img", f"img2img, separate process\nCFG {CFG:g}, denoising {DENOISING:g}, seed {SEED}")


def repaint_garment(demo: Demo, before: Array) -> None:
    """Repaint the shirt by the mask of its 3D object; everything else must stay as it is, byte for byte."""
    settings = demo.settings
    settings.capture.mask_source = "OBJECT"
    settings.capture.mask_object = bpy.data.objects["Shirt"]
    settings.diffusion.prompt = NEW_GARMENT
    settings.inpaint.denoising_strength = REPAINTING
    settings.inpaint.mask_blur = 1
    view = scene_modules().capture.current_view(bpy.context, SIDE, SIDE)
    mask = scene_modules().masks.current_mask(bpy.context, view)
    demo.keep(
        "mask", np.rint(mask[..., None].repeat(3, 2) * 255).astype(np.uint8), "Mask from the 3D scene\nobject: Shirt"
    )
    bpy.ops.viewport_diffusion.inpaint()
    after = demo.keep_result("inpaint", f"inpaint the shirt\n“plain red t-shirt”, denoising {REPAINTING:g}")
    outside = overlay_mask(blur(mask, settings.inpaint.mask_blur)) == 0
    if not np.array_equal(after[outside], before[outside]) or np.array_equal(after, before):
        raise SystemExit("The inpaint touched pixels outside its mask, or changed nothing inside.")
    demo.say(f"Outside the mask all {int(outside.sum())} pixels are as they were")


def widen_and_enlarge(demo: Demo) -> None:
    """Outpaint to the right, then upscale."""
    settings = demo.settings
    settings.outpaint.pixels_right = 192
    settings.outpaint.method = "scene"
    settings.outpaint.denoising_strength = WIDENING
    bpy.ops.viewport_diffusion.outpaint()
    demo.keep_result("outpaint", f"outpaint, 192 pixels to the right\nfrom the scene, denoising {WIDENING:g}")
    settings.upscale.scale = 2.0
    bpy.ops.viewport_diffusion.upscale()
    demo.keep_result("upscale", "upscale, 2 times\nR-ESRGAN 4x+ Anime6B")


def keep_in_file(demo: Demo) -> None:
    """Show the result on a plane and behind the camera, save, reopen, and see that the pixels are still there."""
    read_image = scene_modules().images.read_image
    bpy.ops.viewport_diffusion.result_to_plane()
    bpy.ops.viewport_diffusion.result_to_background()
    before = {image.name: read_image(image) for image in bpy.data.images if image.name.startswith("Diffusion")}
    path = OUTPUT / "mannequin_diffused.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    bpy.ops.wm.open_mainfile(filepath=str(path))
    for name, pixels in before.items():
        if not np.array_equal(read_image(bpy.data.images[name]), pixels):
            raise SystemExit(f"{name} lost its pixels on reopening.")
    plane = bpy.context.scene.viewport_diffusion.result.name
    if plane not in bpy.data.objects or not bpy.context.scene.camera.data.background_images:
        raise SystemExit("The plane or the camera's background is gone after reopening.")
    demo.say(f"Saved and reopened: {len(before)} results are there, pixel for pixel")


def compare_backends(demo: Demo, expected: Array) -> None:
    """Make the illustration again inside this process; its pixels must be the same."""
    preferences = bpy.context.preferences.addons[EXTENSION].preferences
    preferences.backend = "embedded"
    bpy.ops.viewport_diffusion.generate()
    preferences.backend = "subprocess"
    again = scene_modules().images.read_image(demo.settings.result)[..., :3]
    if not np.array_equal(again, expected):
        raise SystemExit("The embedded backend gave other pixels than the separate process.")
    picture = load(OUTPUT / "1_img2img.png")
    if not np.array_equal(picture, expected):
        raise SystemExit("The PNG on disk differs from the image in Blender.")
    demo.say("The embedded backend gives the same pixels as the separate process")


if __name__ == "__main__":
    sys.exit(main())
