"""Install in the preferences: an environment of the extension's own, and what the preferences show of it."""

from __future__ import annotations

import importlib
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import pytest

EXTENSION = "bl_ext.user_default.viewport_diffusion"


class Layout:
    """Keeps what a draw function lays out: the operators with their texts, the properties, and the words."""

    def __init__(self, kept: dict[str, list[str]] | None = None) -> None:
        self.kept = kept if kept is not None else {"operators": [], "properties": [], "words": []}

    def operator(self, name: str, text: str | None = None, **_rest: Any) -> None:
        assert hasattr(bpy.ops.viewport_diffusion, name.partition(".")[2])
        self.kept["operators"].append(text if text else name.partition(".")[2])

    def prop(self, _owner: object, name: str, **_rest: Any) -> None:
        self.kept["properties"].append(name)

    def label(self, text: str = "", **_rest: Any) -> None:
        self.kept["words"].append(text)

    def progress(self, factor: float, text: str) -> None:
        self.kept["words"].append(text)

    def row(self, **_rest: Any) -> Layout:
        return Layout(self.kept)

    column = box = row


@pytest.fixture
def installation(addon: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The extension's installation, asked for one tiny package instead of torch, on a machine without uv."""
    module = importlib.import_module(f"{EXTENSION}.addon.installation")
    interpreters = importlib.import_module(f"{EXTENSION}.backend.install.interpreters")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("grain==1.0\n")
    monkeypatch.setenv("PATH", f"/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(interpreters, "EXTRA_PLACES", ())
    whole = module.plan
    monkeypatch.setattr(
        module,
        "plan",
        lambda **chosen: replace(whole(**chosen), requirements=(str(requirements),), alone=(), modules=("grain",)),
    )
    settings = bpy.context.preferences.addons[EXTENSION].preferences
    python, settings.python = settings.python, ""
    settings.base_python = module.own_python()
    settings.wheels = str(wheels(tmp_path))
    yield module
    module.shut_down()
    if module.folder().exists():
        bpy.ops.viewport_diffusion.uninstall_environment()
    settings.python, settings.wheels, settings.base_python = python, "", ""


def wheels(folder: Path) -> Path:
    """Return a folder with the wheel of one tiny package."""
    info = "grain-1.0.dist-info"
    with zipfile.ZipFile(folder / "grain-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("grain.py", "__version__ = '1.0'\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: grain\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return folder


def drawn() -> dict[str, list[str]]:
    """Return what the preferences show now."""
    preferences = importlib.import_module(f"{EXTENSION}.addon.preferences")
    environment = importlib.import_module(f"{EXTENSION}.addon.panels.environment")
    layout = Layout()
    environment.draw_environment(layout, preferences.preferences())
    return layout.kept


def test_install_gives_the_backend_its_python_and_uninstall_takes_it(installation: ModuleType) -> None:
    preferences = importlib.import_module(f"{EXTENSION}.addon.preferences")
    before = preferences.backend_python()
    assert drawn()["operators"] == ["Install"]
    assert bpy.ops.viewport_diffusion.install_environment() == {"FINISHED"}
    folder = installation.folder()
    assert folder.is_relative_to(bpy.utils.extension_path_user(EXTENSION))
    assert Path(preferences.backend_python()).is_relative_to(folder / "v1")
    shown = drawn()
    assert any("grain 1.0" in word for word in shown["words"])
    assert shown["operators"] == [
        "Update",
        "uninstall_environment",
        "copy_installation_log",
    ]
    assert "grain-1.0" in installation.last_log()

    assert bpy.ops.viewport_diffusion.install_environment() == {"FINISHED"}
    assert Path(preferences.backend_python()).is_relative_to(folder / "v2")
    assert not (folder / "v1").exists(), "the version before is removed once the new one is verified"

    assert bpy.ops.viewport_diffusion.uninstall_environment() == {"FINISHED"}
    assert not folder.exists() and preferences.backend_python() == before
    assert not bpy.ops.viewport_diffusion.uninstall_environment.poll()


def test_failed_installation_is_an_error_with_a_remedy_and_can_be_resumed(installation: ModuleType) -> None:
    wheel = next(Path(bpy.context.preferences.addons[EXTENSION].preferences.wheels).glob("*.whl"))
    other = wheel.rename(wheel.with_name("other-1.0-py3-none-any.whl"))
    with pytest.raises(RuntimeError, match="folder of wheels"):
        bpy.ops.viewport_diffusion.install_environment()
    shown = drawn()
    assert shown["operators"][0] == "Resume" and any("Incomplete" in word for word in shown["words"])
    assert any("grain" in word for word in shown["words"])
    other.rename(wheel)
    assert bpy.ops.viewport_diffusion.install_environment() == {"FINISHED"}
    assert not any("Incomplete" in word for word in drawn()["words"])


def test_blender_is_never_waited_for_and_cancel_ends_it(installation: ModuleType) -> None:
    installation.start("install", installation.plan(wheels="", python=""), "Installing")
    assert installation.running() and bpy.app.timers.is_registered(installation._tick)
    shown = drawn()
    assert shown["operators"] == ["cancel_installation"] and any("Installing 0%" in word for word in shown["words"])
    assert not bpy.ops.viewport_diffusion.install_environment.poll()
    assert bpy.ops.viewport_diffusion.cancel_installation() == {"FINISHED"}
    installation.wait()
    assert installation.report().kind == "cancelled"
    assert not installation.running()


def test_without_online_access_only_a_folder_of_wheels_can_be_installed_from(installation: ModuleType) -> None:
    assert not bpy.app.online_access
    assert bpy.ops.viewport_diffusion.install_environment.poll()
    bpy.context.preferences.addons[EXTENSION].preferences.wheels = ""
    assert not bpy.ops.viewport_diffusion.install_environment.poll()


def test_dialog_says_sizes_folder_and_what_fits(installation: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    install = importlib.import_module(f"{EXTENSION}.addon.operators.install")
    detect = importlib.import_module(f"{EXTENSION}.backend.install.detect")
    bpy.context.preferences.addons[EXTENSION].preferences.wheels = ""
    monkeypatch.setattr(installation._state, "accelerators", [detect.Accelerator("cuda", "NVIDIA RTX")])
    words = dialog(install)
    assert "NVIDIA RTX" in words and "GB to fetch" in words and "roughly" in words
    assert "".join(str(installation.folder()).split()) in "".join(words.split())
    bpy.context.preferences.addons[EXTENSION].preferences.extra_index = "https://example.org/cpu"
    assert "roughly" not in dialog(install), "the CPU build was measured"
    bpy.context.preferences.addons[EXTENSION].preferences.extra_index = ""
    monkeypatch.setattr(installation._state, "accelerators", None)
    assert "Looking" in dialog(install)


def dialog(install: ModuleType) -> str:
    """Return the words of the dialog that Install opens."""

    class Operator:
        layout = Layout()

    operator = Operator()
    operator.layout = Layout()
    install.VIEWPORT_DIFFUSION_OT_install_environment.draw(operator, bpy.context)
    return " ".join(operator.layout.kept["words"])


def test_environment_whose_python_has_gone_is_offered_for_repair(installation: ModuleType) -> None:
    assert bpy.ops.viewport_diffusion.install_environment() == {"FINISHED"}
    installation.installed().python.unlink()
    assert installation.installed() is None
    assert drawn()["operators"][0] == "Repair"
