"""The mannequin as Blender data: armature, skinned objects, materials with packed images, and the set around it."""

# Blender's stubs say less than Blender:
# mypy: disable-error-code="union-attr,attr-defined,assignment,type-arg"

from __future__ import annotations

import tempfile
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix, Vector
from PIL import Image

from figure.mannequin_parts import Figure, Part
from figure.mannequin_textures import Picture

JPEG_QUALITY = 90
CAMERA_LENS = 65.0  # millimetres, on a sensor 36 mm wide
CAMERA_AIM = 0.95  # metres above the ground
CAMERA_DISTANCE = 4.35  # metres; the figure with raised arms still fits into a square picture
BACKDROP_WIDTH, BACKDROP_DEPTH, BACKDROP_HEIGHT, BACKDROP_BEND = 16.0, 2.0, 6.0, 2.6  # metres
STOOL_RADIUS = 0.19  # metres


def material(name: str, texture: bpy.types.Image, roughness: float) -> bpy.types.Material:
    """Return a material whose base colour is an image on the active UV map, in every shading mode."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    nodes = made.node_tree.nodes
    shader = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    shader.inputs["Roughness"].default_value = roughness
    image_node = nodes.new("ShaderNodeTexImage")
    image_node.image = texture
    image_node.location = (-320, 280)
    made.node_tree.links.new(image_node.outputs["Color"], shader.inputs["Base Color"])
    nodes.active = image_node  # textured solid shading draws the active image node
    return made


def image(name: str, pixels: Picture) -> bpy.types.Image:
    """Return a packed JPEG image."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.jpg"
        Image.fromarray(pixels).save(path, quality=JPEG_QUALITY, subsampling=0)
        loaded = bpy.data.images.load(str(path))
        loaded.pack()
    loaded.name = name
    loaded.filepath_raw = f"//{path.name}"
    for packed in loaded.packed_files:
        packed.filepath = loaded.filepath_raw
    return loaded


def mesh_object(
    name: str, vertices: np.ndarray, faces: np.ndarray, uvs: np.ndarray, slots: np.ndarray, materials: list[str]
) -> bpy.types.Object:
    """Return a smooth mesh object of quads with a UV map and materials, linked nowhere yet."""
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(vertices.tolist(), [], [list(dict.fromkeys(face)) for face in faces.tolist()])
    corners = np.ones(faces.shape, bool)
    corners[:, 3] = faces[:, 3] != faces[:, 2]  # a triangle has its last corner twice
    layer = mesh.uv_layers.new(name="UVMap")
    layer.data.foreach_set("uv", np.ascontiguousarray(uvs[corners], np.float32).ravel())
    for slot in materials:
        mesh.materials.append(bpy.data.materials[slot])
    mesh.polygons.foreach_set("material_index", slots.astype(np.int32))
    mesh.polygons.foreach_set("use_smooth", np.ones(len(faces), bool))
    mesh.update()
    return bpy.data.objects.new(name, mesh)


def armature(figure: Figure, collection: bpy.types.Collection) -> bpy.types.Object:
    """Return the armature "Mannequin": the rig's bones, its root between the feet on the ground."""
    made = bpy.data.objects.new("Mannequin", bpy.data.armatures.new("Mannequin"))
    collection.objects.link(made)
    bpy.context.view_layer.objects.active = made
    bpy.ops.object.mode_set(mode="EDIT")
    bones = made.data.edit_bones
    for i, bone in enumerate(figure.body.bones):
        new = bones.new(bone.name)
        new.head, new.tail = figure.heads[i].tolist(), figure.tails[i].tolist()
        if bone.parent is None:
            new.head, new.tail = (0, 0, 0), (0, -0.2, 0)
            new.use_deform = False
        else:
            new.parent = bones[bone.parent]
    bpy.ops.object.mode_set(mode="OBJECT")
    made.data.display_type = "STICK"
    made.show_in_front = True
    for bone in made.pose.bones:
        bone.rotation_mode = "QUATERNION"
    return made


def skinned(part: Part, figure: Figure, rig: bpy.types.Object, collection: bpy.types.Collection) -> bpy.types.Object:
    """Return one part as a mesh object that follows the armature."""
    made = mesh_object(part.name, part.vertices, part.faces, part.uvs, part.slots, part.materials)
    collection.objects.link(made)
    made.parent = rig
    weights = part.weights / part.weights.sum(1, keepdims=True)
    for i, name in enumerate(figure.names):
        used = np.flatnonzero(weights[:, i] > 0.002)
        if len(used):
            group = made.vertex_groups.new(name=name)
            for vertex in used:
                group.add([int(vertex)], float(weights[vertex, i]), "REPLACE")
    follow = made.modifiers.new("Armature", "ARMATURE")
    follow.object = rig
    if part.thickness:
        cloth = made.modifiers.new("Cloth", "SOLIDIFY")
        cloth.thickness, cloth.offset = part.thickness, -1.0
    if part.levels:
        smooth = made.modifiers.new("Smooth", "SUBSURF")
        smooth.levels = smooth.render_levels = part.levels
    return made


def stool(height: float, rig: bpy.types.Object, collection: bpy.types.Collection, prop_key: str) -> bpy.types.Object:
    """Return the wooden stool that the sitting pose shows, hidden until then."""
    turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    profile = [(0.0, height), (0.94, height), (1.0, height - 0.012), (1.0, height - 0.04), (0.94, height - 0.05)]
    profile += [(0.80, height - 0.055), (0.84, 0.012), (0.80, 0.0), (0.0, 0.0)]
    points = np.concatenate([np.column_stack([ring * r * STOOL_RADIUS, np.full(32, z)]) for r, z in profile])
    faces, uvs = [], []
    for row in range(len(profile) - 1):
        for i in range(32):
            j = (i + 1) % 32
            faces.append([row * 32 + i, (row + 1) * 32 + i, (row + 1) * 32 + j, row * 32 + j])
            corners = [(i, row), (i, row + 1), (i + 1, row + 1), (i + 1, row)]
            uvs.append([(x / 16, points[y * 32, 2] * 2 + profile[y][0] * 0.4) for x, y in corners])
    made = mesh_object("Stool", points, np.array(faces), np.array(uvs), np.zeros(len(faces), int), ["Wood"])
    collection.objects.link(made)
    made.parent = rig
    made[prop_key] = "Stool"
    made.hide_viewport = made.hide_render = True
    return made


def backdrop(collection: bpy.types.Collection) -> bpy.types.Object:
    """Return a ground that bends up into a wall."""
    bend = np.linspace(0, np.pi / 2, 12)
    profile = [(-BACKDROP_DEPTH * 1.6, 0.0)]
    profile += [(BACKDROP_DEPTH + BACKDROP_BEND * np.sin(a), BACKDROP_BEND * (1 - np.cos(a))) for a in bend]
    profile.append((BACKDROP_DEPTH + BACKDROP_BEND, BACKDROP_HEIGHT))
    line = np.array(profile)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    length /= length[-1]
    half = BACKDROP_WIDTH / 2
    points = np.array([[x, y, z] for y, z in line for x in (-half, half)])
    faces = np.array([[2 * i, 2 * i + 1, 2 * i + 3, 2 * i + 2] for i in range(len(line) - 1)])
    uvs = np.array(
        [[(0, length[i]), (1, length[i]), (1, length[i + 1]), (0, length[i + 1])] for i in range(len(line) - 1)]
    )
    made = mesh_object("Backdrop", points, faces, uvs, np.zeros(len(faces), int), ["Backdrop"])
    collection.objects.link(made)
    return made


def look_at(place: Vector, target: Vector) -> Matrix:
    """Return the matrix of a camera or light at a place that looks at a target."""
    turn = (target - place).to_track_quat("-Z", "Y")
    return Matrix.LocRotScale(place, turn, None)


def stage(collection: bpy.types.Collection) -> bpy.types.Object:
    """Build camera, key and fill light, backdrop and world; return the camera."""
    aim = Vector((0, 0, CAMERA_AIM))
    camera = bpy.data.objects.new("Mannequin Camera", bpy.data.cameras.new("Mannequin Camera"))
    camera.data.lens = CAMERA_LENS
    camera.matrix_world = look_at(Vector((0.0, -CAMERA_DISTANCE, CAMERA_AIM + 0.22)), aim)
    collection.objects.link(camera)
    lights = (
        ("Key", (-1.9, -2.6, 3.0), 1.6, 115.0, (1.0, 0.95, 0.88)),
        ("Fill", (2.6, -2.0, 1.6), 2.4, 35.0, (0.85, 0.92, 1.0)),
    )
    for name, place, size, watts, colour in lights:
        light = bpy.data.objects.new(f"{name} Light", bpy.data.lights.new(f"{name} Light", "AREA"))
        light.data.size, light.data.energy, light.data.color = size, watts, colour
        light.matrix_world = look_at(Vector(place), aim)
        collection.objects.link(light)
    backdrop(collection)
    world = bpy.data.worlds.new("Mannequin World")
    world.use_nodes = True
    shader = next(node for node in world.node_tree.nodes if node.type == "BACKGROUND")
    shader.inputs["Color"].default_value = (0.62, 0.76, 0.88, 1)
    shader.inputs["Strength"].default_value = 0.6
    world.color = (0.62, 0.76, 0.88)
    bpy.context.scene.world = world
    return camera
