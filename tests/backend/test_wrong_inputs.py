"""What is wrong with an input is one sentence for every operation, before a model is loaded, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.__main__ import main
from backend.engine import Engine
from backend.errors import DiffusionError
from backend.imaging.files import save
from backend.request import Request
from backend.settings import OPERATIONS, Diffusion, Settings

PICTURE = np.full((64, 72, 3), 128, np.uint8)
MASK = np.ones((64, 72), np.float32)
FLOAT = PICTURE.astype(np.float32)
NOT_A_NUMBER = np.full((64, 72), np.nan, np.float32)
TOO_LARGE = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (20_000, 20_000, 3))
DIFFUSION = [name for name, cls in OPERATIONS.items() if issubclass(cls, Diffusion)]
# What a script needs besides, to be run at all.
NEEDED: dict[str, dict[str, Any]] = {
    "xyz_plot": {"x_values": "3, 5"},
    "prompt_matrix": {"prompt": "a woman|a hat"},
    "prompt_lines": {"lines": "a cat"},
}
MASKED = [name for name, cls in OPERATIONS.items() if "mask" in cls.images + cls.optional_images]


def sentence(request: Request) -> str:
    """Run a request on a fresh engine and return the one sentence that it fails with, no model loaded."""
    engine = Engine()
    with pytest.raises(DiffusionError) as caught:
        engine.run(request, lambda share, text: None, lambda: False)
    assert engine.models._model is None
    text = str(caught.value)
    assert text.endswith((".", "?")) and "\n" not in text and "Traceback" not in text
    return text


def request(operation: str, images: dict[str, Any] | None = None, **values: Any) -> Request:
    """Return a request of that operation with a plain picture, and a mask where it must have one."""
    cls: type[Settings] = OPERATIONS[operation]
    given = {"init": PICTURE} | ({"mask": MASK} if "mask" in cls.images else {})
    return Request(cls(**{**NEEDED.get(operation, {}), **values}), {**given, **(images or {})})


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("init", "words"),
    [
        (FLOAT, "uint8"),
        (PICTURE[..., 0], "uint8"),
        (PICTURE[..., :2], "uint8"),
        (PICTURE[:0], "0"),
        (TOO_LARGE, "20000"),
    ],
    ids=["float", "grey", "two channels", "0 px", "20,000 px"],
)
def test_a_picture_of_the_wrong_kind_or_size(operation: str, init: Any, words: str) -> None:
    assert words in sentence(request(operation, {"init": init}))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_missing_or_strange_image(operation: str) -> None:
    wrong = request(operation)
    assert "init" in sentence(Request(wrong.settings, {k: v for k, v in wrong.images.items() if k != "init"}))
    assert "takes no image" in sentence(request(operation, {"depth": PICTURE}))


@pytest.mark.parametrize("operation", MASKED)
@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (NOT_A_NUMBER, "0–1"),
        (MASK * 2, "0–1"),
        (MASK.astype(np.float64), "float32"),
        (MASK[:, :5], "same size"),
        (MASK * 0, "blank"),
    ],
    ids=["NaN", "above 1", "float64", "another size", "blank"],
)
def test_a_wrong_mask(operation: str, mask: Any, words: str) -> None:
    assert words in sentence(request(operation, {"mask": mask}))


@pytest.mark.parametrize("operation", DIFFUSION)
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sampler": "Euler b"}, "Euler a"),
        ({"schedule": "Karra"}, "Karras"),
        ({"cfg_scale": float("nan")}, "finite"),
        ({"denoising_strength": 1.5}, "between"),
        ({"steps": 0}, "between"),
        ({"width": 0}, "between"),
        ({"height": 20_000}, "between"),
        ({"batch_size": 99}, "between"),
        ({"seed": -5}, "between"),
        ({"prompt": "a\0b"}, "null"),
    ],
)
def test_a_wrong_setting(operation: str, values: dict[str, Any], words: str) -> None:
    assert words in sentence(request(operation, **values))


@pytest.mark.parametrize("operation", DIFFUSION)
@pytest.mark.parametrize("model", ["/nowhere/model.safetensors", "/nowhere", "nonsense", "owner/unknown"])
def test_a_missing_model(operation: str, model: str) -> None:
    assert model in sentence(request(operation, model=model, denoising_strength=0.5))


@pytest.mark.parametrize(
    ("operation", "values", "words"),
    [
        ("outpaint", {"pixels_right": 0}, "direction"),
        ("outpaint", {"method": "scene"}, "surroundings"),
        ("upscale", {"upscaler": "Magic"}, "Choose one of"),
        ("upscale", {"upscaler": "File", "upscaler_file": "/nowhere.pth"}, "/nowhere.pth"),
        ("sd_upscale", {"width": 64, "height": 64, "overlap": 64}, "overlap"),
        ("interrogate", {"caption_model": "/nowhere"}, "/nowhere"),
        ("xyz_plot", {"x_values": "2, banana"}, "banana"),
        ("xyz_plot", {"x_type": "sampler", "x_values": "Euler, Fast"}, "Fast"),
        ("xyz_plot", {"x_type": "prompt_replace", "x_values": "needle, thread"}, "needle"),
        ("prompt_lines", {"lines": ""}, "line"),
        ("prompt_lines", {"lines": "a\n--steps many"}, "2"),
        ("img2img", {"resize_by": 9.0}, "between"),
        ("img2img", {"background_colour": "mauve-ish"}, "mauve-ish"),
    ],
)
def test_what_only_one_operation_can_get_wrong(operation: str, values: dict[str, Any], words: str) -> None:
    assert words in sentence(request(operation, **values))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_command_line_says_it_too_and_writes_nothing(
    operation: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init, broken, output = tmp_path / "init.png", tmp_path / "broken.png", tmp_path / "out"
    save(PICTURE, init)
    broken.write_bytes(init.read_bytes()[:60])
    mask = ["--mask", str(init)] if "mask" in OPERATIONS[operation].images else []
    for file in (tmp_path / "missing.png", broken, tmp_path):
        assert main(["run", operation, "--init", str(file), *mask, "--output", str(output)]) == 2
        told = capsys.readouterr()
        assert told.out == "" and file.name in told.err and told.err.count("\n") == 1
    if operation in MASKED:
        blank = tmp_path / "blank.png"
        save(np.zeros_like(PICTURE), blank)
        needed = [f"--{name.replace('_', '-')}={value}" for name, value in NEEDED.get(operation, {}).items()]
        given = ["--init", str(init), "--mask", str(blank), "--output", str(output), *needed]
        assert main(["run", operation, *given]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not output.exists() or not list(output.iterdir())
