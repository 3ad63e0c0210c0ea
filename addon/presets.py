"""Presets in Blender's own preset menu: those that come with the extension, and the artist's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import bpy
from bl_operators.presets import AddPresetBase
from bl_ui.utils import PresetPanel

from ..backend.errors import InvalidRequest
from ..backend.settings import Diffusion, Img2Img, Inpaint, Outpaint
from ..backend.settings.presets import AGAIN, read_preset
from .properties import own_fields

SUBFOLDER = "viewport_diffusion"
BUNDLED = Path(__file__).resolve().parents[1] / "presets"
# Of this picture and this machine, so that a preset leaves them alone, as it does all that is a path.
PERSONAL = {"width", "height", "seed", "model"}


class VIEWPORT_DIFFUSION_PT_presets(PresetPanel, bpy.types.Panel):
    """The menu of presets."""

    bl_label = "Diffusion Presets"
    preset_subdir = SUBFOLDER
    preset_operator = "viewport_diffusion.preset_apply"
    preset_add_operator = "viewport_diffusion.preset_add"


class VIEWPORT_DIFFUSION_OT_preset_apply(bpy.types.Operator):
    """Set what this preset keeps"""

    bl_idname = "viewport_diffusion.preset_apply"
    bl_label = "Apply Diffusion Preset"
    bl_options = {"REGISTER", "UNDO"}
    filepath: bpy.props.StringProperty(name="File", subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Set all of it, or nothing and say why."""
        path = Path(self.filepath)
        try:
            left_out = apply_file(context.scene, path)
        except InvalidRequest as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if left_out:
            self.report({"WARNING"}, f"Not known here, and left out: {', '.join(left_out)}.")
        VIEWPORT_DIFFUSION_PT_presets.bl_label = bpy.path.display_name(path.name, title_case=False)
        return {"FINISHED"}


class VIEWPORT_DIFFUSION_OT_preset_add(AddPresetBase, bpy.types.Operator):
    """Keep these settings as a preset, or remove one of your own"""

    bl_idname = "viewport_diffusion.preset_add"
    bl_label = "Add Diffusion Preset"
    preset_menu = "VIEWPORT_DIFFUSION_PT_presets"
    preset_subdir = SUBFOLDER
    preset_defines = ["settings = bpy.context.scene.viewport_diffusion"]

    @property
    def preset_values(self) -> list[str]:
        """Return the settings that a preset keeps."""
        values = [f"settings.diffusion.{item.name}" for item in dataclasses.fields(Diffusion) if _is_kept(item)]
        own = {"img2img": Img2Img, "inpaint": Inpaint, "outpaint": Outpaint}  # scripts are chosen, not kept
        for group, cls in own.items():
            values += [f"settings.{group}.{item.name}" for item in own_fields(cls) if _is_kept(item)]
        return values

    def remove(self, context: bpy.types.Context, filepath: str) -> None:
        """Remove a preset of the artist's own; those of the extension stay (Blender would delete them)."""
        if Path(filepath).resolve().is_relative_to(BUNDLED):
            raise PermissionError(f"{Path(filepath).stem} comes with the extension and can't be removed")
        Path(filepath).unlink()


def find_preset(name: str) -> Path:
    """Return the file of a preset by its name as the menu shows it; raises InvalidRequest with the known names."""
    files = {path.stem: path for folder in bpy.utils.preset_paths(SUBFOLDER) for path in Path(folder).glob("*.py")}
    for stem, path in files.items():
        if _plain(stem) == _plain(name):
            return path
    known = ", ".join(sorted(bpy.path.display_name(stem, has_ext=False) for stem in files))
    raise InvalidRequest(f"There is no preset called “{name}”.", f"Known ones: {known}.")


def apply_preset(name: str) -> None:
    """Set what a preset keeps in the current scene; raises InvalidRequest where there is none, or it is damaged."""
    apply_file(bpy.context.scene, find_preset(name))


def apply_file(scene: bpy.types.Scene, path: Path) -> list[str]:
    """Set what a preset's file keeps, and return the settings in it that are unknown here.

    Raises InvalidRequest, with nothing changed, where the file can't be read or holds a value that does not fit.
    """
    try:
        values = read_preset(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The preset {path.name} can't be read.", "Choose another.") from error
    groups = scene.viewport_diffusion
    before: list[tuple[bpy.types.PropertyGroup, str, Any]] = []
    left_out = []
    for (group_name, name), value in values.items():
        group = getattr(groups, group_name, None)
        if not isinstance(group, bpy.types.PropertyGroup) or name not in group.bl_rna.properties:
            left_out.append(f"{group_name}.{name}")
            continue
        before.append((group, name, getattr(group, name)))
        try:
            setattr(group, name, value)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            for changed, setting, old in reversed(before):
                setattr(changed, setting, old)
            label = group.bl_rna.properties[name].name
            raise InvalidRequest(f"The preset {path.stem} has a value for {label} that does not fit.", AGAIN) from error
    return left_out


def _is_kept(item: dataclasses.Field[Any]) -> bool:
    return item.name not in PERSONAL and not item.metadata["is_path"]


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").strip()


CLASSES = (VIEWPORT_DIFFUSION_PT_presets, VIEWPORT_DIFFUSION_OT_preset_apply, VIEWPORT_DIFFUSION_OT_preset_add)


def register() -> None:
    """Register the menu and the folder of bundled presets."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.utils.register_preset_path(str(BUNDLED.parent))


def unregister() -> None:
    """Unregister both."""
    bpy.utils.unregister_preset_path(str(BUNDLED.parent))
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
