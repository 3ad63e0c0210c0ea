"""What holds for the whole repository: no bpy and no torch where they don't belong, names that agree."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from backend.models.upscalers import UPSCALERS
from backend.settings import UPSCALER_NAMES
from tools.settings_table import updated

ROOT = Path(__file__).resolve().parents[2]


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_the_backend_never_imports_bpy() -> None:
    files = list((ROOT / "backend").rglob("*.py"))
    assert len(files) > 20
    for path in files:
        assert not imported(path) & {"bpy", "bmesh", "mathutils", "gpu"}, path


def test_importing_what_blender_uses_of_the_backend_costs_neither_torch_nor_pillow() -> None:
    program = (
        "import backend.transport.subprocess, backend.transport.embedded, backend.flags, backend.operations.plan, "
        "backend.imaging.infotext, backend.imaging.metadata, backend.imaging.masks, "
        "backend.imaging.outpaint, backend.operations.parameters, sys; "
        "print(sorted({'torch', 'PIL', 'diffusers', 'skimage'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


def test_the_upscalers_of_the_panel_are_those_of_the_backend() -> None:
    assert set(UPSCALER_NAMES) == set(UPSCALERS) - {"None"}


def test_the_readmes_table_is_made_from_the_settings() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert updated(text) == text, "run: python tools/settings_table.py"
