"""Build and validate the extension's zip with Blender's own tool."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"


def blender_tool() -> Path:
    """Return Blender's own program for extensions, inside the bpy wheel; it needs no Blender to run."""
    spec = find_spec("bpy")
    if spec is None or spec.origin is None:
        raise SystemExit("The package bpy is not installed; run: make setup")
    return next(Path(spec.origin).parent.glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py"))


def build(folder: Path = BUILD) -> Path:
    """Write the zip into a folder, validate source and zip, and return its path."""
    version = tomllib.loads((ROOT / "blender_manifest.toml").read_text(encoding="utf-8"))["version"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"viewport_diffusion-{version}.zip"
    path.unlink(missing_ok=True)
    tool = [sys.executable, str(blender_tool())]
    subprocess.run([*tool, "validate", str(ROOT)], check=True)
    subprocess.run([*tool, "build", "--source-dir", str(ROOT), "--output-filepath", str(path)], check=True)
    subprocess.run([*tool, "validate", str(path)], check=True)
    return path


if __name__ == "__main__":
    print(build())
