"""Every operation from the panel and from `python -m backend run`: the same settings give the same pixels."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from backend.__main__ import main
from backend.imaging.files import save
from backend.imaging.pictures import load
from backend.settings import OPERATIONS
from tools.extension import EXTENSION

SIDE = 128
# Operation → the operator, the values that make it quick and its own, and whether it goes on from the scene's result.
CASES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "img2img": ("generate", {"variation_strength": 0.4, "variation_seed": 3, "batch_size": 2}, False),
    "inpaint": ("inpaint", {"masked_content": "fill", "soft_inpainting": True}, False),
    "outpaint": ("outpaint", {"pixels_right": 32, "method": "poor_mans"}, True),
    "upscale": ("upscale", {"upscaler": "R-ESRGAN AnimeVideo x2", "upscaler_2": "Lanczos"}, True),
    "sd_upscale": ("sd_upscale", {"width": 128, "height": 128, "overlap": 32, "upscaler": "Lanczos"}, True),
    "loopback": ("generate", {"loops": 2, "final_denoising_strength": 0.3}, False),
    "xyz_plot": ("generate", {"x_values": "2, 5", "y_values": "0.3, 0.6"}, False),
    "prompt_matrix": ("generate", {"prompt": "a woman|red dress"}, False),
    "prompt_lines": ("generate", {"lines": "a man\n--prompt 'a woman' --steps 2"}, False),
    "alternative": ("generate", {"decode_steps": 3, "original_prompt": "a figure"}, False),
}


def test_no_operation_is_forgotten() -> None:
    assert set(CASES) | {"interrogate"} == set(OPERATIONS)


@pytest.mark.parametrize("operation", CASES)
def test_panel_and_command_line_give_the_same_pixels(scene: bpy.types.Scene, operation: str, tmp_path: Path) -> None:
    operator, values, on_result = CASES[operation]
    init, mask = pictures(tmp_path)
    settings = scene.viewport_diffusion
    image = bpy.data.images.load(str(init))
    if on_result:
        settings.result = image
    settings.capture.source, settings.capture.image, settings.capture.size = "IMAGE", image, "OWN"
    settings.capture.mask_source, settings.capture.mask_image = "IMAGE", bpy.data.images.load(str(mask))
    settings.diffusion.width = settings.diffusion.height = SIDE
    settings.script = operation if operation in settings.bl_rna.properties["script"].enum_items else "NONE"
    set_values(settings, operation, values)

    before = set(bpy.data.images)
    assert getattr(bpy.ops.viewport_diffusion, operator)() == {"FINISHED"}
    made = [new for new in bpy.data.images if new not in before]

    read_settings = sys.modules[f"{EXTENSION}.addon.properties"].read_settings
    chosen = dataclasses.asdict(read_settings(scene, cls_of(operation)))
    output = tmp_path / "out"
    images = ["--init", str(init), *(["--mask", str(mask)] if operation == "inpaint" else [])]
    assert main(["run", operation, *images, "--output", str(output), *flags(chosen)]) == 0
    expected = [load(path) for path in sorted(output.iterdir())]

    assert len(made) == len(expected) > 0
    read_image = sys.modules[f"{EXTENSION}.addon.scene.images"].read_image
    for picture, other in zip(sorted(made, key=lambda image: image.name), expected, strict=True):
        assert np.array_equal(read_image(picture)[..., :3], other[..., :3]), picture.name


def test_the_command_line_prints_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init, _ = pictures(tmp_path)
    assert (
        main(["run", "upscale", "--init", str(init), "--output", str(tmp_path / "out"), "--upscaler", "Lanczos"]) == 0
    )
    line = json.loads(capsys.readouterr().out)
    assert load(Path(line["path"])).shape == (2 * SIDE, 2 * SIDE, 3) and "Lanczos" in line["infotext"]


def pictures(folder: Path) -> tuple[Path, Path]:
    """Write a figure of flat colours and a mask over its middle, and return where."""
    array = np.full((SIDE, SIDE, 3), (150, 190, 230), np.uint8)
    array[40:110, 50:80] = (200, 40, 40)
    array[20:40, 56:74] = (230, 190, 160)
    mask = np.zeros((SIDE, SIDE, 3), np.uint8)
    mask[50:90, 45:85] = 255
    save(array, folder / "init.png")
    save(mask, folder / "mask.png")
    return folder / "init.png", folder / "mask.png"


def cls_of(operation: str) -> Any:
    """Return the settings class of an operation as the enabled extension has it."""
    return sys.modules[f"{EXTENSION}.backend.settings"].OPERATIONS[operation]


def set_values(settings: Any, operation: str, values: dict[str, Any]) -> None:
    """Set each value where the panel keeps it."""
    for name, value in values.items():
        places = [getattr(settings, operation), settings.img2img, settings.inpaint, settings.diffusion]
        place = next(place for place in places if name in place.bl_rna.properties)
        setattr(place, name, value)


def flags(settings: dict[str, Any]) -> list[str]:
    """Return settings as the command line takes them."""
    result = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            result.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            result.append(f"--{flag}={value}")
    return result
