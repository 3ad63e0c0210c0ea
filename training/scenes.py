"""Draws scenes in Blender: who stands where in what, under which light, seen from where, as G-buffers on disk."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from figure.poses import POSES, Pose, random_pose, rotation, varied
from training.buffers import FAR, SIZE, Scene, save_scene, scene_path
from training.geometry import PROP_KINDS, Character, Figures, Mesh, add_ground, add_props, add_room, box, vertex_normals
from training.regions import PROP_COUNT, SKIN, Region
from training.wardrobe import (
    HAIR_STYLES,
    Part,
    body_regions,
    choose_outfit,
    cloth_regions,
    eye_regions,
    skirt_regions,
)

Floats = NDArray[np.float32]
logger = logging.getLogger(__name__)

HELD_OUT_SEED = 7_000_003  # a stream of scenes that training never draws from
WHITE = 0.6  # the linear albedo drawn with, below one so that bright light does not clip
FRAMINGS = ("full body", "upper body", "portrait")
SETTINGS = ("plain", "open", "props", "room")

VERTEX_SHADER = """
void main()
{
  vec4 seen = view * vec4(position, 1.0);
  gl_Position = projection * seen;
  the_normal = mat3(view) * normal;
  the_place = place;
  the_part = part;
  distance_away = -seen.z;
}
"""
FRAGMENT_SHADER = """
void main()
{
  vec3 n = normalize(the_normal);
  colour_out = want_place ? vec4(the_place, the_part) : vec4(gl_FrontFacing ? n : -n, distance_away);
}
"""


def choose_character(rng: np.random.Generator) -> tuple[Character, str, str]:
    """Draw one figure; return it with its subject ("girl", "old man" ...) and the name of its skin."""
    man = rng.random() < 0.5
    age = "child" if rng.random() < 0.13 else "old" if rng.random() < 0.14 else "young"
    mix = rng.dirichlet((0.5, 0.5, 0.5))
    darkness = float(np.dot(mix, (3.6, 1.2, 0.5)) + rng.normal(0, 0.6))
    skin = list(SKIN)[int(np.clip(round(darkness), 0, len(SKIN) - 1))]
    feminine = 0.05 if man else 1.0
    likely = (
        (0.30, 0.14, 0.10, 0.06, 0.08, 0.10, 0.06, 0.04, 0.01, 0.11)
        if man
        else (0.10, 0.03, 0.02, 0.08, 0.19, 0.27, 0.14, 0.07, 0.09, 0.01)
    )
    hair = str(rng.choice(HAIR_STYLES, p=likely))
    thickness = {"buzz cut": (0.003, 0.005), "afro": (0.045, 0.075), "spiky": (0.02, 0.035)}.get(hair, (0.010, 0.024))
    ends = {"bob": (0.60, 0.66), "long": (0.22, 0.52), "ponytail": (0.22, 0.48), "twintails": (0.22, 0.45)}
    character = Character(
        masculine=float(rng.uniform(0.8, 1) if man else rng.uniform(0, 0.15)),
        age=age,
        muscle=float(rng.random()),
        weight=float(np.clip(rng.normal(0.48, 0.24), 0, 1)),
        ethnicity=dict(zip(("african", "asian", "caucasian"), map(float, mix), strict=True)),
        head_scale=float(rng.uniform(1.0, 1.32)),
        eye_scale=float(rng.uniform(1.15, 1.75)),
        hair=hair,
        hair_thickness=float(rng.uniform(*thickness)),
        hair_end=float(rng.uniform(*ends.get(hair, (0, 0)))),
        fringe=float(rng.uniform(0.02, 0.045)) if rng.random() < 0.5 and hair not in ("buzz cut", "bald") else 0.0,
        outfit=choose_outfit(rng, feminine),
    )
    who = {"child": ("girl", "boy"), "old": ("old woman", "old man"), "young": ("woman", "man")}[age][int(man)]
    return character, who, skin


class Stage:
    """Blender with one mesh, one camera and an off-screen buffer (the wheel bpy, no window)."""

    def __init__(self) -> None:
        import bpy  # only this stage of the recipe needs Blender
        import gpu

        self.bpy, self.gpu = bpy, gpu
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self.scene = bpy.context.scene
        self.scene.view_settings.view_transform = "Standard"
        self.scene.render.engine = "BLENDER_WORKBENCH"
        self.scene.render.resolution_x = self.scene.render.resolution_y = SIZE
        self.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        self.mesh = bpy.data.meshes.new("mesh")
        for thing in (self.camera, bpy.data.objects.new("mesh", self.mesh)):
            self.scene.collection.objects.link(thing)
        self.scene.camera = self.camera
        if hasattr(gpu, "init"):
            gpu.init()
        else:  # one tiny render starts the GPU where there is no window
            self.scene.render.resolution_percentage = 2
            bpy.ops.render.render()
            self.scene.render.resolution_percentage = 100
        self.area = next(a for screen in bpy.data.screens for a in screen.areas if a.type == "VIEW_3D")
        self.space = self.area.spaces.active
        self.region = next(r for r in self.area.regions if r.type == "WINDOW")
        bpy.context.preferences.system.viewport_aa = "OFF"
        self.scene.display.viewport_aa = self.scene.display.render_aa = "OFF"
        self.space.overlay.show_overlays = False
        self.offscreen = gpu.types.GPUOffScreen(SIZE, SIZE)
        self.shader = self._compile()
        self.exact = gpu.types.GPUOffScreen(SIZE, SIZE, format="RGBA32F")

    def _compile(self) -> Any:
        info, between = self.gpu.types.GPUShaderCreateInfo(), self.gpu.types.GPUStageInterfaceInfo("between")
        for kind, name in (("VEC3", "the_normal"), ("VEC3", "the_place"), ("FLOAT", "distance_away")):
            between.smooth(kind, name)
        between.flat("FLOAT", "the_part")
        info.push_constant("MAT4", "view")
        info.push_constant("MAT4", "projection")
        for slot, (kind, name) in enumerate(
            (("VEC3", "position"), ("VEC3", "normal"), ("VEC3", "place"), ("FLOAT", "part"))
        ):
            info.vertex_in(slot, kind, name)
        info.vertex_out(between)
        info.push_constant("BOOL", "want_place")
        info.fragment_out(0, "VEC4", "colour_out")
        info.vertex_source(VERTEX_SHADER)
        info.fragment_source(FRAGMENT_SHADER)
        return self.gpu.shader.create_from_info(info)

    def load(self, mesh: Mesh) -> None:
        """Put the geometry into Blender's mesh and into a batch for the buffers."""
        from gpu_extras.batch import batch_for_shader

        points, places, quads, parts, smooth = mesh.arrays()
        data, count = self.mesh, len(quads)
        data.clear_geometry()
        data.vertices.add(len(points))
        data.vertices.foreach_set("co", points.ravel())
        data.loops.add(count * 4)
        data.loops.foreach_set("vertex_index", quads.ravel().astype(np.int32))
        data.polygons.add(count)
        data.polygons.foreach_set("loop_start", np.arange(count, dtype=np.int32) * 4)
        data.polygons.foreach_set("use_smooth", smooth)
        data.update(calc_edges=True)
        triangles = np.ascontiguousarray(np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]), np.int32)
        content = {"position": points, "normal": vertex_normals(points, quads), "place": places, "part": parts}
        self.batch = batch_for_shader(self.shader, "TRIS", content, indices=triangles)

    def look(self, matrix: NDArray[np.float64], field_of_view: float) -> None:
        """Place the camera (4×4 world matrix, angle in degrees)."""
        from mathutils import Matrix

        lens = self.camera.data
        lens.lens_unit, lens.angle = "FOV", np.radians(field_of_view)
        lens.clip_start, lens.clip_end = 0.05, 150
        self.camera.matrix_world = Matrix(matrix.tolist())
        graph = self.bpy.context.evaluated_depsgraph_get()
        graph.update()
        self.view = self.camera.matrix_world.inverted()
        self.projection = self.camera.calc_matrix_camera(graph, x=SIZE, y=SIZE)

    def _read(self, framebuffer: Any, slot: int, kind: str) -> NDArray[Any]:
        values = framebuffer.read_color(0, 0, SIZE, SIZE, 4, slot, kind)
        values.dimensions = SIZE * SIZE * 4
        dtype = np.uint8 if kind == "UBYTE" else np.float32
        return np.array(values, dtype=dtype).reshape(SIZE, SIZE, 4)[::-1]

    def buffers(self) -> tuple[Floats, Floats]:
        """Return normal and depth (H×W×4), and place and part (H×W×4); part 0 where nothing is."""
        state, drawn = self.gpu.state, []
        for want_place in (False, True):
            with self.exact.bind():
                framebuffer = state.active_framebuffer_get()
                state.depth_mask_set(True)  # before the clear, which would else leave the depth as it is
                state.depth_test_set("LESS_EQUAL")
                framebuffer.clear(color=(0.0, 0.0, 0.0, 0.0), depth=1.0)
                self.shader.bind()
                self.shader.uniform_float("view", self.view)
                self.shader.uniform_float("projection", self.projection)
                self.shader.uniform_bool("want_place", want_place)
                self.batch.draw(self.shader)
                state.depth_test_set("NONE")
                drawn.append(self._read(framebuffer, 0, "FLOAT"))
        return drawn[0], drawn[1]

    def light(self, rng: np.random.Generator) -> str:
        """Set Workbench's studio light: often Blender's own default, else four lamps at random."""
        shading, system = self.space.shading, self.bpy.context.preferences.system
        shading.type, shading.light, shading.color_type = "SOLID", "STUDIO", "SINGLE"
        shading.single_color = (WHITE,) * 3
        shading.show_specular_highlight = False
        shading.show_cavity = bool(rng.random() < 0.35)
        shading.cavity_type = "BOTH"
        shading.show_shadows = bool(rng.random() < 0.25)
        shading.shadow_intensity = float(rng.uniform(0.2, 0.6))
        default = rng.random() < 0.4
        system.use_studio_light_edit = not default
        if default:
            return "default"
        system.light_ambient = tuple(float(x) for x in rng.uniform(0.02, 0.30) * (1 + rng.normal(0, 0.1, 3)))
        side = 1 if rng.random() < 0.5 else -1
        aims = (
            (side * rng.uniform(0.0, 1.0), rng.uniform(0.0, 1.0), rng.uniform(0.25, 1.0)),
            (-side * rng.uniform(0.3, 1), rng.uniform(-0.3, 0.5), rng.uniform(0.1, 0.8)),
            (-side * rng.uniform(0.4, 1), rng.uniform(-0.2, 0.8), rng.uniform(-1, -0.2)),
        )
        strengths = (rng.uniform(0.7, 1.15), rng.uniform(0.05, 0.4), rng.uniform(0, 0.6))
        for lamp, aim, strength in zip(system.solid_lights, aims, strengths, strict=False):
            lamp.use = True
            lamp.direction = tuple(float(x) for x in np.array(aim) / np.linalg.norm(aim))
            tint = 1 + rng.normal(0, 0.06, 3)
            lamp.diffuse_color = tuple(float(x) for x in np.clip(strength * tint, 0, 1.5))
            lamp.smooth = float(rng.uniform(0.0, 0.5))
        system.solid_lights[3].use = False
        self.scene.display.light_direction = tuple(float(x) for x in np.array((side * 0.5, 0.4, 0.6)))
        return "studio"

    def shade(self) -> Floats:
        """Draw the viewport and return the linear light that falls on white (H×W×3)."""
        shading = self.space.shading
        shading.background_type, shading.background_color = "VIEWPORT", (WHITE,) * 3
        layer = self.bpy.context.view_layer
        self.offscreen.draw_view3d(
            self.scene,
            layer,
            self.space,
            self.region,
            self.view,
            self.projection,
            do_color_management=True,
            draw_background=True,
        )
        with self.offscreen.bind():
            drawn = self._read(self.gpu.state.active_framebuffer_get(), 0, "UBYTE")[..., :3]
        srgb = drawn.astype(np.float32) / 255
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        light: Floats = (linear / WHITE).astype(np.float32)
        return light


def _camera(
    rng: np.random.Generator, skin: Floats, framing: str, setting: str, azimuth: float, held_out: bool
) -> tuple[NDArray[np.float64], float, Floats]:
    """Return a camera that holds the points (N×3): its 4×4 matrix, angle of view (degrees) and their middle."""
    elevation = rng.normal(6, 12 if held_out else 10)
    angle = float(rng.uniform(24, 55) if held_out else rng.uniform(26, 50))
    turn = rotation(np.array([0, 0, 1.0]), azimuth)
    towards = turn @ np.array([0, -np.cos(np.radians(elevation)), np.sin(np.radians(elevation))])
    right = turn @ np.array([1.0, 0, 0])
    frame = np.stack([right, np.cross(towards, right), towards], 1)
    middle = (skin.max(0) + skin.min(0)) / 2
    seen = (skin - middle) @ frame
    tangent = np.tan(np.radians(angle) / 2)
    slack = rng.uniform(1.05, 1.30 if framing == "full body" else 1.18)
    distance = float(np.max(np.abs(seen[:, :2]).max(1) / tangent * slack + seen[:, 2]))
    shift = frame[:, :2] @ rng.normal(0, (0.06, 0.035)) * distance * tangent
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = frame, middle + towards * distance + shift
    return matrix, angle, middle.astype(np.float32)


def _pose(rng: np.random.Generator, held_out: bool) -> tuple[str, Pose]:
    """Draw a named pose, varied, or one at random; held-out scenes vary further."""
    if rng.random() < (0.3 if held_out else 0.15):
        return "dynamic pose", random_pose(rng)
    name = list(POSES)[int(rng.integers(len(POSES)))]
    return name, varied(POSES[name], rng, 1.6 if held_out else 1.0)


def draw_scene(stage: Stage, figures: Figures, seed: int, held_out: bool = False) -> Scene:
    """Draw one scene; the same seed gives the same scene."""
    rng = np.random.default_rng((HELD_OUT_SEED if held_out else 1, seed))
    character, subject, skin_name = choose_character(rng)
    pose_name, pose = _pose(rng, held_out)
    mesh = Mesh()
    skin = figures.build(character, pose, rng, mesh)
    ground = float(skin[:, 2].min()) - 0.008
    setting = str(rng.choice(SETTINGS, p=(0.28, 0.27, 0.25, 0.20)))
    if pose_name == "sitting" and setting in ("plain", "open"):
        setting = "props"
    framing = str(rng.choice(FRAMINGS, p=(0.52, 0.29, 0.19)))
    azimuth = float(rng.normal(0, 28) if rng.random() < 0.8 else rng.uniform(-180, 180))
    centre = (skin.max(0) + skin.min(0)) / 2
    props: list[str] = []
    if setting != "plain":
        lift = 0.0
        if pose_name in ("jumping", "flying"):
            lift = float(rng.uniform(0.15, 0.6))
        add_ground(mesh, ground - lift)
        if setting in ("props", "room"):
            count = int(rng.integers(0 if setting == "room" else 1, PROP_COUNT))
            props = [str(kind) for kind in rng.choice(PROP_KINDS, count)]
            if pose_name == "sitting":
                props = ["box", *props[:3]]
        if setting == "room":
            add_room(mesh, rng, centre, ground - lift, azimuth)
        if pose_name == "sitting":
            hips = _seat(mesh)
            height = max(float(hips[2]) - ground, 0.08)
            middle = np.array([hips[0], hips[1] + 0.04, ground + height / 2])
            mesh.add(*box(middle, np.array([0.44, 0.42, height])), Part.PROP, smooth=False)
        scattered = ["", *props[1:]] if pose_name == "sitting" else props
        add_props(mesh, rng, scattered, centre, ground - lift, azimuth, setting == "room")
    matrix, angle, _ = _camera(rng, _framed(mesh, skin, framing), framing, setting, azimuth, held_out)
    if setting != "plain":
        matrix[2, 3] = max(matrix[2, 3], ground + 0.15)
    stage.load(mesh)
    stage.look(matrix, angle)
    light = stage.light(rng)
    shade = stage.shade()
    geometry, where = stage.buffers()
    brow, mouth = float(rng.normal(0.004, 0.002)), float(rng.uniform(0.85, 1.15))
    gaze = (float(rng.normal(0, 0.0012)), float(rng.normal(0, 0.0008)))
    ids = resolve(where, character, setting, rng, brow, mouth, gaze)
    normal = geometry[..., :3].copy()
    part = where[..., 3]
    normal[part == 0] = 0
    depth = np.where(part == 0, FAR, geometry[..., 3]).astype(np.float32)
    facts = {
        "seed": seed,
        "held_out": held_out,
        "subject": subject,
        "skin": skin_name,
        "old": character.age == "old",
        "pose": pose_name,
        "hair": character.hair,
        "fringe": character.fringe > 0,
        "outfit": asdict(character.outfit),
        "setting": setting,
        "props": props,
        "framing": framing,
        "azimuth": (azimuth + 180) % 360 - 180,
        "light": light,
    }
    return Scene(ids, normal, depth, shade, facts)


def _seat(mesh: Mesh) -> Floats:
    """Return where the figure sits: under the hips of the cloth layer (3, metres)."""
    points, places, _, parts, _ = mesh.arrays()
    hips = (parts == Part.CLOTH) & (places[:, 2] < 0.12) & (places[:, 2] > -0.06) & (np.abs(places[:, 0]) < 0.16)
    low = points[hips]
    at: Floats = np.array([low[:, 0].mean(), low[:, 1].mean(), low[:, 2].min()], np.float32)
    return at


def _framed(mesh: Mesh, skin: Floats, framing: str) -> Floats:
    """Return the points that the frame shall hold."""
    points, places, _, parts, _ = mesh.arrays()
    figure = np.isin(parts, (Part.BODY, Part.CLOTH))
    if framing == "full body":
        return skin
    low = 0.10 if framing == "upper body" else 0.50
    reach = 0.42 if framing == "upper body" else 0.16
    return points[figure & (places[:, 2] > low) & (np.abs(places[:, 0]) < reach)]


def resolve(
    where: Floats,
    character: Character,
    setting: str,
    rng: np.random.Generator,
    brow: float,
    mouth: float,
    gaze: tuple[float, float],
) -> NDArray[np.uint8]:
    """Return the id map (H×W) from places and parts (H×W×4)."""
    part = np.round(where[..., 3]).astype(np.int64)
    place = where[..., :3]
    ids = np.full(part.shape, Region.SKY, np.uint8)
    outfit = character.outfit

    def fill(which: Part, regions: Any) -> None:
        mask = part == which
        if mask.any():
            ids[mask] = regions(place[mask])

    def head(places: Floats) -> NDArray[np.uint8]:
        found = body_regions(places, outfit, character.hair, brow, mouth)
        return found

    def shell(places: Floats) -> NDArray[np.uint8]:
        return np.where(places[:, 2] > 0, Region.HAIR, Region.SKIN).astype(np.uint8)

    def ground(places: Floats) -> NDArray[np.uint8]:
        checked = (np.floor(places[:, 0] / 0.6) + np.floor(places[:, 1] / 0.6)) % 2 == 0
        return np.where(checked & tiles, Region.GROUND_SECOND, Region.GROUND).astype(np.uint8)

    tiles = bool(rng.random() < 0.2)
    fill(Part.BODY, head)
    fill(Part.EYE, lambda places: eye_regions(places, gaze))
    fill(Part.CLOTH, lambda places: cloth_regions(places, outfit))
    fill(Part.SKIRT, lambda places: skirt_regions(places, outfit))
    fill(Part.HAIR, shell)
    fill(Part.GROUND, ground)
    fill(Part.WALL, lambda places: np.full(len(places), Region.WALL, np.uint8))
    fill(Part.SIDE_WALL, lambda places: np.full(len(places), Region.SIDE_WALL, np.uint8))
    props = part >= Part.PROP
    ids[props] = Region.PROP + part[props] - Part.PROP
    if setting in ("open", "props") and rng.random() < 0.4:
        ids[(part == Part.NOTHING) & _clouds(part.shape, rng)] = Region.CLOUD
    return ids


def _clouds(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask (H×W) of a few heaped clouds with flat bottoms."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    mask = np.zeros(shape, bool)
    for _ in range(int(rng.integers(1, 4))):
        x, y, size = rng.uniform(0, shape[1]), rng.uniform(0.05, 0.4) * shape[0], rng.uniform(18, 45)
        for _ in range(4):
            dx, r = rng.normal(0, 1.3) * size, rng.uniform(0.5, 1.0) * size
            mask |= (np.hypot(columns - x - dx, (rows - y) * 1.3) < r) & (rows < y + 0.3 * size)
    return mask


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this stage."""
    parser.add_argument("--count", type=int, default=4000, help="how many scenes")
    parser.add_argument("--start", type=int, default=0, help="number of the first scene; the number is its seed")
    parser.add_argument("--held-out", action="store_true", help="draw from the evaluation's stream instead")


def run(cache: Path, threads: int, options: argparse.Namespace) -> None:
    """Draw scenes into the cache, skipping those that are there."""
    folder = cache / ("held_out" if options.held_out else "scenes")
    folder.mkdir(parents=True, exist_ok=True)
    stage, figures = Stage(), Figures()
    began = time.monotonic()
    for seed in range(options.start, options.start + options.count):
        path = scene_path(folder, seed)
        if path.exists():
            continue
        save_scene(path, draw_scene(stage, figures, seed, options.held_out))
        if seed % 100 == 0:
            logger.info("scene %d after %.0f s", seed, time.monotonic() - began)
    logger.info("done")
    sys.stdout.flush()
    os._exit(0)  # the wheel's own exit can crash while it frees the GPU
