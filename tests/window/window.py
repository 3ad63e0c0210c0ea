"""Blender in a window on a screen of its own, with hands to use it and eyes to see it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from checks import Failed, check, wait_for

HERE = Path(__file__).resolve().parent
SCREEN_WIDTH, SCREEN_HEIGHT = 1600, 900  # pixels


class Window:
    """Blender in a window: hands to use it with, eyes to see it, and questions it answers."""

    def __init__(self, work: Path, process: subprocess.Popen[bytes]) -> None:
        self.work = work
        self.process = process
        self._number = 0

    def ask(self, call: str, **arguments: Any) -> Any:
        """Return the answer of a function of in_blender.py."""
        self._number += 1
        partial = self.work / "question.partial"
        partial.write_text(json.dumps({"number": self._number, "call": call, "arguments": arguments}), encoding="utf-8")
        partial.replace(self.work / "question.json")
        answer = wait_for(self._answer, 60, f"Blender didn't answer “{call}”", 0.02)
        check("error" not in answer, f"Blender could not answer “{call}”:\n{answer.get('error')}")
        return answer.get("value")

    def _answer(self) -> dict[str, Any] | None:
        check(self.process.poll() is None, f"Blender ended with {self.process.returncode}.")
        path = self.work / "answer.json"
        if not path.exists():
            return None
        answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        return answer if answer["number"] == self._number else None

    def screenshot(self, name: str) -> Path:
        """Take a picture of the whole screen."""
        path = self.work / name
        subprocess.run(["import", "-window", "root", path], check=True)
        fewer_colours = ["+dither", "-posterize", "64"]  # nobody sees it, and the file is half as large
        subprocess.run(["mogrify", *fewer_colours, path], check=True)
        return path

    def point(self, x: int, y: int) -> None:
        """Move the mouse there, in two moves as a hand does: Blender wants to see it arrive."""
        hand("mousemove", x - 2, y - 1)
        time.sleep(0.15)
        hand("mousemove", x, y)
        time.sleep(0.15)

    def click(self, x: int, y: int) -> None:
        """Click there."""
        self.point(x, y)
        hand("click", 1)

    def under(self, x: int, y: int) -> str:
        """Return which button or setting is there, by Blender's own Copy shortcuts: its Python name."""
        self.point(x, y)
        self.ask("clipboard")
        hand("key", "ctrl+c")
        hand("key", "ctrl+shift+alt+c")
        time.sleep(0.15)
        return str(self.ask("clipboard"))

    def find(self, name: str, share: float = 0.4) -> tuple[int, int]:
        """Return where the sidebar shows a button or setting, searching it downwards at a share of its width."""
        place = self.ask("place")
        x = round(place["left"] + share * (place["right"] - place["left"]))
        seen = []
        for y in range(place["top"] + 12, place["bottom"], 13):
            seen.append(self.under(x, y))
            if name in seen[-1]:
                return x, y + 5  # a little inside, not on its upper edge
        raise Failed(f"The sidebar shows no {name}. From top to bottom there are: {', '.join(filter(None, seen))}.")


def hand(*arguments: object) -> None:
    """Use mouse or keyboard."""
    subprocess.run(["xdotool", *map(str, arguments)], check=True)


@contextmanager
def screen(work: Path) -> Iterator[None]:
    """An X server of this test's own, as DISPLAY."""
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", f"{SCREEN_WIDTH}x{SCREEN_HEIGHT}x24"]
    with (work / "screen.log").open("wb") as log:
        server = subprocess.Popen([*command, "-nolisten", "tcp", "-noreset"], pass_fds=[write_end], stderr=log)
    os.close(write_end)
    try:
        with os.fdopen(read_end) as answer:
            os.environ["DISPLAY"] = f":{answer.readline().strip()}"
        yield
    finally:
        server.terminate()
        server.wait()


@contextmanager
def window(work: Path) -> Iterator[Window]:
    """Blender in a window on that screen."""
    command = ["blender", "--window-geometry", "0", "0", str(SCREEN_WIDTH), str(SCREEN_HEIGHT)]
    command += ["--python-exit-code", "3", "--python", str(HERE / "in_blender.py")]
    with (work / "blender.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "VIEWPORT_DIFFUSION_TEST_FOLDER": str(work)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    blender = Window(work, process)
    try:
        yield blender
    except Failed:
        print(f"What the screen showed then: {blender.screenshot('failed.png')}", flush=True)
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
