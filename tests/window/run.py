"""The extension in a real Blender 4.3: in its window, by mouse and keyboard, and on its command line.

    python tests/window/run.py [window] [render] [--picture docs/panel.png]

Run it with the Python that has torch and diffusers (or name that in VIEWPORT_DIFFUSION_PYTHON): it makes the pictures.
Blender lives in a Debian of its own below VIEWPORT_DIFFUSION_WINDOW_CACHE (default ~/.cache/viewport_diffusion/window),
made by the first run. Exit code 0: all is well; 1: something is broken; 77: this machine can't make that Debian.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STEPS = ("window", "render")
CANNOT = 77  # the exit code of make_chroot.sh where this machine can't make one
IMPOSSIBLE = ROOT / "build" / "window-test-impossible"  # says the same to who called make, which hides exit codes
LIMIT = 1200  # seconds for everything inside
PICTURE_LIMIT = 500_000  # bytes

# Inside the chroot the host's root is /host, and the folders in use are at their own paths on both sides. chroot goes
# to the root directory, so the working directory is taken along.
HOST_PYTHON = """#!/bin/sh
exec /usr/sbin/chroot /host /bin/sh -c 'cd "$1" && shift && exec "$@"' sh "$(pwd -P)" {python} "$@"
"""


def main() -> int:
    """Make the chroot where it isn't there yet, and run the steps inside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help="window, render (default both)")
    parser.add_argument("--picture", type=Path, help="where the screenshot of the panel goes as well")
    parsed = parser.parse_args()
    if unknown := set(parsed.steps) - set(STEPS):
        parser.error(f"there is no step {', '.join(sorted(unknown))}")
    python = os.environ.get("VIEWPORT_DIFFUSION_PYTHON") or sys.executable
    probe = subprocess.run([python, "-c", "import torch, diffusers"], capture_output=True, text=True, check=False)
    if probe.returncode:
        print(f"{python} has no torch and diffusers: {probe.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return 1
    cache = Path(os.environ.get("VIEWPORT_DIFFUSION_WINDOW_CACHE") or "~/.cache/viewport_diffusion/window")
    cache = cache.expanduser().resolve()
    chroot, work, shaders = cache / "trixie", cache / "work", cache / "shaders"
    IMPOSSIBLE.unlink(missing_ok=True)
    made = subprocess.run([HERE / "make_chroot.sh", chroot], check=False)
    if made.returncode == CANNOT:
        IMPOSSIBLE.parent.mkdir(exist_ok=True)
        IMPOSSIBLE.touch()
    if made.returncode:
        return made.returncode
    shutil.rmtree(work, ignore_errors=True)
    (work / "home").mkdir(parents=True)
    shaders.mkdir(exist_ok=True)
    script = work / "python"
    script.write_text(HOST_PYTHON.format(python=shlex.quote(python)), encoding="utf-8")
    script.chmod(0o755)
    enter: list[str | Path] = [HERE / "enter.sh", chroot, ROOT, work, shaders, "--"]
    drive: list[str | Path] = ["python3", "-B", HERE / "drive.py", "--root", ROOT, "--work", work, "--shaders", shaders]
    try:
        done = subprocess.run([*enter, *drive, *(parsed.steps or STEPS)], timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        print(f"The test was not over after {LIMIT} s.", file=sys.stderr)
        return 1
    if done.returncode == 0 and parsed.picture and "window" in (parsed.steps or STEPS):
        return _keep(work / "panel.png", parsed.picture)
    return done.returncode


def _keep(screenshot: Path, picture: Path) -> int:
    if screenshot.stat().st_size > PICTURE_LIMIT:
        print(f"The screenshot has {screenshot.stat().st_size} bytes; {PICTURE_LIMIT} are the limit.", file=sys.stderr)
        return 1
    picture.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(screenshot, picture)
    print(f"The panel's picture is {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
