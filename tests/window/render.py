"""Blender's command line: frames of the mannequin's scene rendered by the installed extension, with no window."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from checks import EXTENSION, call_blender, check, must, step

SIDE = 256  # pixels
STEPS = 4
FRAMES = ("0001.png", "0002.png", "0003.png")


def render(scene: Path, work: Path) -> None:
    """Render three frames with -b and with --background, and check that a wrong preset is told in one sentence."""
    for flag in ("-b", "--background"):
        output = work / f"frames{flag}"
        with step(f"blender {flag} … --command viewport_diffusion render --frames 1-3"):
            must(call_blender(*_command(flag, scene, output, "Anime Cel")))
        check_frames(output)
    with step("a preset that there isn't"):
        done = call_blender(*_command("-b", scene, work / "none", "No Such Style"))
    check(done.returncode == 2, f"A wrong preset should end with 2, not {done.returncode}:\n{done.stdout}{done.stderr}")
    told = [line for line in done.stderr.splitlines() if line.strip()]
    check(len(told) == 1 and "No Such Style" in told[0], f"A wrong preset should be told in one line:\n{done.stderr}")
    check(not list(work.glob("none/*.png")), "A wrong preset left pictures.")


def check_frames(output: Path) -> None:
    """Check that a folder holds the three frames, of the size asked for, with their parameters."""
    found = tuple(sorted(path.name for path in output.iterdir()))
    check(found == FRAMES, f"The frames should be {FRAMES}, not {found}.")
    for name in FRAMES:
        size, parameters = read_png(output / name)
        check(size == (SIDE, SIDE), f"{name} is {size}.")
        check("anime illustration, cel shading" in parameters, f"{name} doesn't hold its preset's style: {parameters}")
        check(f"Steps: {STEPS}" in parameters and "Seed: " in parameters, f"{name} lacks parameters: {parameters}")


def read_png(path: Path) -> tuple[tuple[int, int], str]:
    """Return the size of a PNG, and the text that it holds under “parameters”."""
    data = path.read_bytes()
    size: tuple[int, int] = struct.unpack(">II", data[16:24])
    place, parameters = 8, ""
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + length]
        if kind == b"tEXt" and body.startswith(b"parameters\0"):
            parameters = body.split(b"\0", 1)[1].decode("latin-1")
        elif kind == b"iTXt" and body.startswith(b"parameters\0"):
            compressed, rest = body[11], body[13:].split(b"\0", 2)[2]
            parameters = (zlib.decompress(rest) if compressed else rest).decode("utf-8")
        place += 12 + length
    return size, parameters


def _command(flag: str, scene: Path, output: Path, preset: str) -> list[object]:
    own = ["--frames", "1-3", "--preset", preset, "--steps", STEPS, "--width", SIDE, "--height", SIDE]
    return [flag, scene, "--addons", EXTENSION, "--command", "viewport_diffusion", "render", *own, "--output", output]
