"""The posable mannequin: appended from the bundled scene, and posed by bone rotations that hold in every Blender."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import bpy
from mathutils import Quaternion, Vector

from ...backend.errors import DiffusionError, InvalidRequest

FOLDER = Path(__file__).resolve().parents[2] / "presets" / "scenes"
SCENE_FILE = FOLDER / "mannequin.blend"
POSE_FILE = FOLDER / "mannequin_poses.json"
FIGURE_COLLECTION = "Mannequin"
SET_COLLECTION = "Mannequin Set"
WORLD = "Mannequin World"
PROP_KEY = "viewport_diffusion_prop"  # the objects that only some poses show, such as the stool, carry their name here
CARRIER = "pelvis"  # the one bone that a pose also moves


@functools.cache
def _library() -> dict[str, Any]:
    if not POSE_FILE.is_file():
        raise DiffusionError(f"The mannequin's poses are missing: {POSE_FILE.name}.", "Install the extension again.")
    library: dict[str, Any] = json.loads(POSE_FILE.read_text(encoding="utf-8"))
    return library


def pose_names() -> list[str]:
    """Return the names of the mannequin's poses, in the order in which menus show them."""
    return list(_library()["poses"])


def is_mannequin(candidate: bpy.types.Object | None) -> bool:
    """Whether an object is an armature with every bone that the poses turn."""
    if candidate is None or candidate.type != "ARMATURE":
        return False
    return all(name in candidate.pose.bones for name in _library()["bones"])


def find_mannequin(context: bpy.types.Context) -> bpy.types.Object | None:
    """Return the active mannequin (or the one whose garment is active), else the scene's only one, else None."""
    active = context.view_layer.objects.active
    for candidate in (active, active.parent if active else None):
        if is_mannequin(candidate):
            return candidate
    figures = [candidate for candidate in context.view_layer.objects if is_mannequin(candidate)]
    return figures[0] if len(figures) == 1 else None


def add_mannequin(context: bpy.types.Context, with_set: bool = False) -> bpy.types.Object:
    """Append a mannequin at the 3D cursor and return its armature, selected and active.

    With `with_set` the camera, light, backdrop and world that it was made with come along, and become the scene's.
    Raises DiffusionError where the bundled scene is missing.
    """
    if not SCENE_FILE.is_file():
        raise DiffusionError(f"The mannequin's scene is missing: {SCENE_FILE.name}.", "Install the extension again.")
    wanted = [FIGURE_COLLECTION, *([SET_COLLECTION] if with_set else [])]
    with bpy.data.libraries.load(str(SCENE_FILE), link=False) as (_source, target):
        target.collections = list(wanted)
        target.worlds = [WORLD] if with_set else []
    scene = context.scene
    for collection in target.collections:
        scene.collection.children.link(collection)
        for root in collection.all_objects:
            if root.parent is None:
                root.location += Vector(scene.cursor.location)
    figure = next(member for member in target.collections[0].all_objects if member.type == "ARMATURE")
    if with_set:
        scene.camera = next(member for member in target.collections[1].all_objects if member.type == "CAMERA")
        scene.world = target.worlds[0]
    for selected in context.view_layer.objects.selected[:]:
        selected.select_set(False)
    figure.select_set(True)
    context.view_layer.objects.active = figure
    context.view_layer.update()
    return figure


def apply_pose(armature: bpy.types.Object, name: str) -> None:
    """Put a mannequin into a named pose, from whatever pose it had, keying nothing.

    Raises InvalidRequest where the object isn't a mannequin or no pose has that name.
    """
    if not is_mannequin(armature):
        raise InvalidRequest(f"{armature.name} isn't a mannequin.", "Select one made by Add Mannequin.")
    if name not in _library()["poses"]:
        raise InvalidRequest(f"There is no pose {name!r}.", f"Choose one of: {', '.join(pose_names())}.")
    pose = _library()["poses"][name]
    for bone in armature.pose.bones:
        turn = Quaternion(pose["rotations"].get(bone.name, (1.0, 0.0, 0.0, 0.0)))
        if bone.rotation_mode == "QUATERNION":
            bone.rotation_quaternion = turn
        elif bone.rotation_mode == "AXIS_ANGLE":
            axis, angle = turn.to_axis_angle()
            bone.rotation_axis_angle = (angle, *axis)
        else:
            bone.rotation_euler = turn.to_euler(bone.rotation_mode)
        bone.location = pose["pelvis"] if bone.name == CARRIER else (0.0, 0.0, 0.0)
        bone.scale = (1.0, 1.0, 1.0)
    for child in armature.children:
        if PROP_KEY in child:
            child.hide_viewport = child.hide_render = child[PROP_KEY] not in pose["props"]
    armature.update_tag()
