"""`python -m backend run …`: pictures and lines of JSON, or one sentence and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import backend.__main__ as command_line
from backend.imaging.files import save
from backend.imaging.metadata import read_infotext
from backend.imaging.pictures import load
from backend.request import whole_size
from tests.backend.helpers import Picture

ROOT = Path(__file__).resolve().parents[2]


def backend(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-m", "backend", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def files(tmp_path: Path, picture: Picture, mask: NDArray[np.float32]) -> Path:
    """A folder with init.png and mask.png."""
    save(picture, tmp_path / "init.png")
    save(np.rint(mask[..., None].repeat(3, 2) * 255).astype(np.uint8), tmp_path / "mask.png")
    return tmp_path


def test_inpaint_writes_a_picture_and_says_where(files: Path, picture: Picture, mask: NDArray[np.float32]) -> None:
    init, covered, output = files / "init.png", files / "mask.png", files / "out"
    settings = ["--prompt", "a woman, green shirt", "--steps", "3", "--seed", "5", "--mask-blur", "0"]
    result = backend("run", "inpaint", "--init", init, "--mask", covered, "--output", output, *settings)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 1
    line = json.loads(lines[0])
    path = Path(line["path"])
    assert path.name == "00000-5.png" and line["seed"] == 5 and line["seconds"] > 0
    assert read_infotext(path) == line["infotext"]
    assert np.array_equal(load(path)[mask == 0], picture[mask == 0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--init", "missing.png"], "missing.png"),
        (["--init", "{}/init.png", "--cfg-scale", "99"], "CFG Scale"),
        (["--init", "{}/init.png", "--sampler", "Eular"], "Euler a"),
        (["--init", "{}/init.png", "--model", "/nowhere"], "/nowhere"),
        (["--init", "{}/init.png", "--width", "20000"], "Width"),
    ],
)
def test_bad_input_is_one_sentence_and_code_two(files: Path, arguments: list[str], words: str) -> None:
    given = [argument.format(files) for argument in arguments]
    result = backend("run", "img2img", *given, "--output", files / "out")
    assert result.returncode == 2
    assert words in result.stderr and "Traceback" not in result.stderr and result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list((files / "out").glob("*.png"))


def test_an_existing_picture_is_never_overwritten(files: Path) -> None:
    flags: list[str | Path] = ["--init", files / "init.png", "--output", files / "out", "--seed", "3"]
    flags += ["--denoising-strength", "0"]
    for _ in range(2):
        assert backend("run", "img2img", *flags).returncode == 0
    assert sorted(path.name for path in (files / "out").iterdir()) == ["00000-3.png", "00001-3.png"]


def test_a_folder_that_takes_no_files_is_told_before_anything_is_made(files: Path) -> None:
    result = backend("run", "img2img", "--init", files / "init.png", "--output", "/proc", "--steps", "150")
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("/proc can't be a folder for the pictures") and result.stderr.count("\n") == 1


def test_pictures_that_can_not_be_written_in_the_end_are_kept(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = files / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    flags = ["--init", str(files / "init.png"), "--output", str(files / "out"), "--denoising-strength", "0"]
    assert command_line.main(["run", "img2img", *flags]) == 0
    assert not list(scratch.iterdir()), "a job that went well leaves nothing"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("backend.disk.write_atomically", full)
    assert command_line.main(["run", "img2img", *flags]) == 2
    told = capsys.readouterr().err
    [kept] = scratch.rglob("*.png")
    assert "No space left" in told and str(kept.relative_to(scratch).parts[0]) in told
    assert load(kept).shape == load(files / "init.png").shape


def test_a_picture_larger_than_can_be_made_keeps_its_proportions() -> None:
    assert whole_size(6000, 4000) == (4096, 2728)
    assert whole_size(3508, 4961) == (2896, 4096)
    assert whole_size(1021, 30) == (1024, 64)
