"""The zip: it validates, installs, works from where it was installed, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.package import ROOT, build

PROGRAM = """
import json, sys
import bpy
import addon_utils

def names():
    kinds = (bpy.types.Panel, bpy.types.Operator, bpy.types.PropertyGroup, bpy.types.AddonPreferences, bpy.types.Menu)
    known = {cls.__name__ for kind in kinds for cls in kind.__subclasses__() if hasattr(bpy.types, cls.__name__)}
    return sorted(name for name in known if "viewport_diffusion" in name.lower())

module = "bl_ext.user_default.viewport_diffusion"
before = names()
bpy.ops.extensions.package_install_files(filepath=sys.argv[1], repo="user_default", enable_on_install=True)
installed = sys.modules[module].__file__
assert names() and hasattr(bpy.types.Scene, "viewport_diffusion")
if sys.argv[2]:
    bpy.context.preferences.addons[module].preferences.python = sys.argv[2]
bpy.ops.viewport_diffusion.add_mannequin()
bpy.ops.viewport_diffusion.apply_pose(pose="Running")
scene = bpy.context.scene
settings = scene.viewport_diffusion
settings.capture.source, settings.capture.size = "CAMERA", "OWN"
settings.diffusion.width = settings.diffusion.height = 256
settings.diffusion.steps = 2
assert bpy.ops.viewport_diffusion.generate() == {"FINISHED"}
size = list(settings.result.size)
addon_utils.disable(module, default_set=True)
after = names()
timers = [name for name in sys.modules if name.startswith(module) and "jobs" in name]
registered = [bpy.app.timers.is_registered(sys.modules[name]._tick) for name in timers]
print("ANSWER", json.dumps({
    "installed": installed, "size": size, "before": before, "after": after, "timers": registered,
    "property": hasattr(bpy.types.Scene, "viewport_diffusion"),
    "operator": "generate" in dir(bpy.ops.viewport_diffusion),
    "presets": [path for path in bpy.utils.preset_paths("viewport_diffusion")],
}))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built zip."""
    return build(tmp_path_factory.mktemp("zip"))


def test_the_zip_holds_what_an_artist_needs_and_nothing_of_the_workshop(package: Path) -> None:
    names = zipfile.ZipFile(package).namelist()
    for needed in (
        "blender_manifest.toml",
        "README.md",
        "LICENSE",
        "requirements/backend.txt",
        "requirements/upscalers.txt",
        "presets/scenes/mannequin.blend",
        "presets/viewport_diffusion/Anime_Cel.py",
        "backend/models/embedded/model_index.json",
    ):
        assert needed in names, needed
    assert not [name for name in names if name.startswith((".", "tests/", "tools/", "training/", "figure/", "build/"))]
    assert not [name for name in names if "__pycache__" in name]


def test_the_zip_installs_works_and_leaves_nothing_behind(package: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "BLENDER_USER_RESOURCES": str(tmp_path / "user")}
    python = os.environ.get("VIEWPORT_DIFFUSION_PYTHON", "")
    command = [sys.executable, "-c", PROGRAM, str(package), python]
    # Away from the checkout, so that nothing of it can be imported by chance.
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("ANSWER "))
    answer = json.loads(line.removeprefix("ANSWER "))
    assert not Path(answer["installed"]).is_relative_to(ROOT)
    assert answer["size"] == [256, 256]
    assert answer["before"] == answer["after"] == []
    assert not answer["property"] and not answer["operator"] and not any(answer["timers"])
    assert answer["presets"] == []
