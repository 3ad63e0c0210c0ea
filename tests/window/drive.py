"""Runs in the chroot: installs the extension with Blender's own tools in a fresh home, and does the steps named."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from checks import EXTENSION, Failed, call_blender, installed_scene, must, step
from render import render
from use import use


def install(root: Path, work: Path) -> None:
    """Build the zip, validate it, install it in the fresh home, set the preferences: all by Blender itself."""
    with step("validate, build the zip and validate that"):
        must(call_blender("--command", "extension", "validate", root))
        must(call_blender("--command", "extension", "build", "--source-dir", root, "--output-dir", work))
        archive = next(work.glob("viewport_diffusion-*.zip"))
        must(call_blender("--command", "extension", "validate", archive))
    with step(f"install {archive.name} ({archive.stat().st_size / 1e6:.1f} MB)"):
        must(call_blender("--command", "extension", "install-file", "-r", "user_default", "-e", archive))
        preferences = f"bpy.context.preferences.addons[{EXTENSION!r}].preferences"
        script = (
            f"import bpy; {preferences}.backend = 'subprocess'; {preferences}.python = {str(work / 'python')!r}; "
            "bpy.ops.wm.save_userpref()"
        )
        must(call_blender("-b", "--python-exit-code", 3, "--python-expr", script))


def main() -> int:
    """Run the steps that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the checkout")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder, with the script called python")
    parser.add_argument("--shaders", type=Path, required=True, help="where Mesa keeps its shaders between runs")
    parser.add_argument("steps", nargs="+", choices=("window", "render"))
    parsed = parser.parse_args()
    os.environ.update(HOME=str(parsed.work / "home"), XDG_CACHE_HOME=str(parsed.shaders))
    try:
        install(parsed.root, parsed.work)
        if "window" in parsed.steps:
            use(parsed.work)
        if "render" in parsed.steps:
            render(installed_scene(parsed.work), parsed.work)
    except Failed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
