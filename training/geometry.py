"""The geometry of one scene as plain arrays: the dressed, posed figure, its hair, props and surroundings."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from figure.makehuman import Body
from figure.poses import BACK, RIGHT, UP, Pose, pose_rotations, posed_joints, rotation
from training.regions import Region
from training.wardrobe import Outfit, Part, cloth_regions, hairline

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

EYE_REACH = 0.020  # metres around an eye's centre that grow with it
ROUND = (20, 12)  # segments and rings of a sphere


@dataclass
class Mesh:
    """Quads with, for every vertex, its place on the unposed body, its part and its normal (all in metres, world)."""

    points: list[Floats] = field(default_factory=list)
    places: list[Floats] = field(default_factory=list)
    quads: list[Ints] = field(default_factory=list)
    parts: list[Floats] = field(default_factory=list)
    smooth: list[NDArray[np.bool_]] = field(default_factory=list)
    count: int = 0

    def add(self, points: Floats, quads: Ints, part: int, places: Floats | None = None, smooth: bool = True) -> None:
        """Append a piece; flat-shaded pieces get corners of their own so that normals do not blend."""
        places = points if places is None else places
        if not smooth:
            points, places = points[quads.ravel()], places[quads.ravel()]
            quads = np.arange(len(points)).reshape(-1, 4)
        used, quads = np.unique(quads, return_inverse=True)
        quads = quads.reshape(-1, 4)
        self.points.append(np.asarray(points[used], np.float32))
        self.places.append(np.asarray(places[used], np.float32))
        self.quads.append(quads + self.count)
        self.parts.append(np.full(len(used), part, np.float32))
        self.smooth.append(np.full(len(quads), smooth))
        self.count += len(used)

    def arrays(self) -> tuple[Floats, Floats, Ints, Floats, NDArray[np.bool_]]:
        """Return points, places, quads, parts (one a vertex) and smoothness (one a quad) in one piece each."""
        return (
            np.concatenate(self.points),
            np.concatenate(self.places),
            np.concatenate(self.quads),
            np.concatenate(self.parts),
            np.concatenate(self.smooth),
        )


def vertex_normals(points: Floats, quads: Ints) -> Floats:
    """Return unit normals (N×3) averaged over the quads around each vertex."""
    across = np.cross(points[quads[:, 2]] - points[quads[:, 0]], points[quads[:, 3]] - points[quads[:, 1]])
    normals = np.zeros_like(points)
    for corner in range(4):
        np.add.at(normals, quads[:, corner], across)
    unit: Floats = normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9)
    return unit


def box(centre: Floats, size: Floats, turn: float = 0.0) -> tuple[Floats, Ints]:
    """Return a box (8 points, 6 quads) turned about the vertical by degrees."""
    corners = np.array([[x, y, z] for z in (-1, 1) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))], np.float32)
    points = (corners * size / 2) @ rotation(UP, turn).T + centre
    quads = np.array([[3, 2, 1, 0], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]])
    return points.astype(np.float32), quads


def solid(centre: Floats, radii: Floats, profile: Floats) -> tuple[Floats, Ints]:
    """Return a solid of revolution; profile rows are (radius, height), -1 to 1, from top to bottom."""
    segments = ROUND[0]
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rings = [np.stack([r * np.cos(angles), r * np.sin(angles), np.full(segments, h)], 1) for r, h in profile]
    points = np.concatenate(rings) * radii + centre
    i, j = np.meshgrid(np.arange(len(profile) - 1), np.arange(segments), indexing="ij")
    k = (j + 1) % segments
    quads = np.stack([i * segments + j, (i + 1) * segments + j, (i + 1) * segments + k, i * segments + k], -1)
    return points.astype(np.float32), quads.reshape(-1, 4)


def _sphere_profile() -> Floats:
    t = np.linspace(0, np.pi, ROUND[1] + 1)
    return np.stack([np.sin(t), np.cos(t)], 1).astype(np.float32)


PROFILES: dict[str, Floats] = {
    "ball": _sphere_profile(),
    "cone": np.array([[0, 1], [0.5, 0], [1, -1], [0, -1]], np.float32),
    "pillar": np.array([[0, 1], [1, 1], [1, 0], [1, -1], [0, -1]], np.float32),
    "vase": np.array(
        [[0, 1], [0.5, 1], [0.35, 0.7], [0.9, 0.1], [0.95, -0.3], [0.6, -0.9], [0.6, -1], [0, -1]], np.float32
    ),
}


@dataclass
class Character:
    """Everything drawn by chance about one figure but its colours."""

    masculine: float
    age: str
    muscle: float
    weight: float
    ethnicity: dict[str, float]
    head_scale: float
    eye_scale: float
    hair: str
    hair_thickness: float
    hair_end: float
    fringe: float
    outfit: Outfit


class Figures:
    """Builds dressed, posed figures from the MakeHuman body."""

    def __init__(self) -> None:
        self.body = Body()
        self.names = [bone.name for bone in self.body.bones]

    @cached_property
    def pieces(self) -> dict[str, Ints]:
        """Return the quads of each layer; the body only where the cloth layer leaves it bare."""
        base = self.body.vertices
        skin = self.body.quads("body")
        places = base[skin].mean(1)
        hands = (np.abs(places[:, 0]) > 0.40) & (places[:, 2] > 0.05)
        head = (places[:, 2] > 0.545) & (np.abs(places[:, 0]) < 0.12)
        return {
            "skin": skin[hands | head],
            "scalp": skin[(hairline(places) > -0.045) & (places[:, 2] > 0.6) & (np.abs(places[:, 0]) < 0.12)],
            "cloth": self.body.quads("helper-tights"),
            "skirt": self.body.quads("helper-skirt"),
            "hair": self.body.quads("helper-hair"),
            "eyes": np.concatenate([self.body.quads("helper-l-eye"), self.body.quads("helper-r-eye")]),
        }

    def shape(self, character: Character) -> Floats:
        """Return the shaped body at rest (N×3), head and eyes scaled for a drawn figure's proportions."""
        vertices = self.body.shape(
            masculine=character.masculine,
            age=character.age,
            muscle=character.muscle,
            weight=character.weight,
            ethnicity=character.ethnicity,
        )
        head = self.names.index("head")
        heads, _ = self.body.joints(vertices)
        share = np.clip(self.body.weights[:, head], 0, 1)[:, None]
        vertices = vertices + share * (vertices - heads[head]) * (character.head_scale - 1)
        for side in ("l", "r"):
            index = np.unique(self.body.quads(f"helper-{side}-eye"))
            centre = vertices[index].mean(0)
            away = vertices - centre
            near = np.exp(-0.5 * (away**2).sum(1) / (EYE_REACH * character.head_scale) ** 2)
            near[index] = 1
            vertices = vertices + away * near[:, None] * (character.eye_scale - 1) * np.array([1, 0.35, 1], np.float32)
        return vertices.astype(np.float32)

    def build(self, character: Character, pose: Pose, rng: np.random.Generator, mesh: Mesh) -> Floats:
        """Add the figure to the mesh; return its skin's vertices (M×3, metres, world), to frame it by."""
        base, rest = self.body.vertices, self.shape(character)
        moves = posed_joints(self.body, rest, pose_rotations(self.body, rest, pose)).astype(np.float32)
        blended = (self.body.weights @ moves.reshape(len(moves), 12)).reshape(-1, 3, 4)

        def move(points: Floats) -> Floats:
            moved: Floats = np.einsum("vij,vj->vi", blended[:, :, :3], points) + blended[:, :, 3]
            return moved

        outfit, pieces = character.outfit, self.pieces
        mesh.add(move(rest), pieces["skin"], Part.BODY, base)
        mesh.add(move(rest), pieces["eyes"], Part.EYE, base)
        scale = np.float32(np.ptp(rest[:13380, 2]) / 1.7)
        offsets = np.zeros(len(base), np.float32)
        cloth = np.unique(pieces["cloth"])
        regions = cloth_regions(base[cloth], outfit)
        table = np.full(256, 0.0015, np.float32)
        table[[Region.TOP, Region.TOP_SECOND]] = outfit.top_looseness
        table[[Region.BOTTOM, Region.BOTTOM_SECOND]] = outfit.bottom_looseness
        table[[Region.JACKET, Region.SHOES, Region.SOCKS]] = outfit.top_looseness + 0.012, 0.009, 0.004
        table[Region.BELT] = max(outfit.top_looseness, outfit.bottom_looseness) + 0.004
        offsets[cloth] = table[regions]
        normals = vertex_normals(rest, pieces["cloth"])
        mesh.add(move(rest + normals * offsets[:, None] * scale), pieces["cloth"], Part.CLOTH, base)
        if outfit.skirted:
            centres = base[pieces["skirt"]].mean(1)
            kept = pieces["skirt"][centres[:, 2] > outfit.skirt_end]
            mesh.add(move(rest), kept, Part.SKIRT, base)
        head = moves[self.names.index("head")]
        self._add_hair(character, rest, move, head, rng, mesh)
        visible = np.unique(np.concatenate([pieces["skin"], pieces["cloth"]]))
        return move(rest)[visible]

    def _add_hair(
        self,
        character: Character,
        rest: Floats,
        move: object,
        head: Floats,
        rng: np.random.Generator,
        mesh: Mesh,
    ) -> None:
        """Add a shell over the scalp and what hangs from it; everything is built at rest and follows the head."""
        style = character.hair
        if style == "bald":
            return
        assert callable(move)
        base, scalp = self.body.vertices, self.pieces["scalp"]
        size = np.float32(character.head_scale)
        inside = hairline(base) + self.fringe_drop(base, character)
        cover = np.clip(inside / 0.03, 0, 1)
        lumps = _smooth_noise(base, rng, {"spiky": 0.02, "afro": 0.03}.get(style, 0.025))
        thickness = character.hair_thickness * (
            1 + {"spiky": 1.2, "afro": 0.25, "buzz cut": 0.0}.get(style, 0.35) * lumps
        )
        normals = vertex_normals(rest, self.body.quads("body"))
        lifted = rest + normals * (np.clip(thickness, 0.002, 0.2) * cover)[:, None] * size
        mesh.add(move(lifted), scalp, Part.HAIR, _hair_places(base, inside))

        def follow(points: Floats) -> Floats:
            return (points @ head[:, :3].T + head[:, 3]).astype(np.float32)

        crown = rest[np.unique(scalp)]
        top, back = crown[:, 2].max(), crown[:, 1].max()
        middle = np.float32(crown[:, 2].mean())
        if style in ("long", "bob"):
            hair = self.pieces["hair"]
            places = base[hair].mean(1)
            strands = (places[:, 1] < -0.085) & (places[:, 2] < 0.80)
            kept = hair[~strands & (places[:, 2] > character.hair_end)]
            spread = rest.copy()
            around = np.unique(hair)
            centre = np.array([0, crown[:, 1].mean(), 0], np.float32)
            spread[around] += (spread[around] - centre) * np.array([0.10, 0.10, 0.0], np.float32)
            mesh.add(move(spread), kept, Part.HAIR, np.full_like(base, 9.0))

        def blob(at: Floats, radii: tuple[float, float, float]) -> None:
            points, quads = solid(np.asarray(at, np.float32), np.array(radii, np.float32) * size, PROFILES["ball"])
            mesh.add(follow(points), quads, Part.HAIR, np.full_like(points, 9.0))

        def tail(start: Floats, way: Floats, length: float, radius: float) -> None:
            steps = max(3, int(length / (radius * 0.7)))
            for i in range(steps):
                t = i / (steps - 1)
                at = (
                    start
                    + way * length * t * size
                    + np.array([0, 0.05 * t * (1 - t), -0.25 * length * t * t], np.float32)
                )
                r = radius * (0.75 + 0.9 * t - 1.35 * t * t)
                blob(at, (r, r, r * 1.25))

        if style == "ponytail":
            tail(np.array([0, back + 0.01, middle + 0.02]), np.array([0, 0.35, -0.9]), character.hair_end, 0.045)
        elif style == "bun":
            high = rng.random() < 0.5
            at = (0, back - 0.04, top + 0.015) if high else (0, back + 0.03, middle)
            blob(np.array(at), (0.047, 0.047, 0.043))
        elif style == "twintails":
            for side in (-1, 1):
                start = np.array([side * 0.085 * float(size), back - 0.09, middle + 0.03])
                tail(start, np.array([side * 0.45, 0.1, -0.85]), character.hair_end, 0.04)

    @staticmethod
    def fringe_drop(places: Floats, character: Character) -> Floats:
        """Return how much lower (metres) the front hairline comes: a fringe in locks."""
        front = np.clip((-places[:, 1] - 0.06) / 0.05, 0, 1)
        locks = 0.7 + 0.3 * np.abs((places[:, 0] / 0.028 + 0.25) % 1 - 0.5) * 2
        drop: Floats = (character.fringe * front * locks).astype(np.float32)
        return drop


def _hair_places(base: Floats, inside: Floats) -> Floats:
    """Return places for the shell that carry only how deep in the hair they are (z), so that its edge is smooth."""
    places = np.zeros_like(base)
    places[:, 2] = inside
    return places


def _smooth_noise(points: Floats, rng: np.random.Generator, scale: float) -> Floats:
    """Return noise in about -1 to 1 for points (N×3), in lumps of `scale` metres: a sum of random waves."""
    waves = rng.normal(0, 1 / scale, (24, 3)).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, 24).astype(np.float32)
    noise: Floats = np.sin(points @ waves.T + phases).sum(1) / np.float32(4.9)
    return noise


def add_props(
    mesh: Mesh, rng: np.random.Generator, kinds: list[str], centre: Floats, ground: float, facing: float, room: bool
) -> None:
    """Stand props around the figure, most behind it as the camera (azimuth `facing`, degrees) sees it."""
    for i, kind in enumerate(kinds):
        part, second = Part.PROP + 2 * i, Part.PROP + 2 * i + 1
        angle = np.radians(rng.uniform(-85, 85) + 90 + facing)
        distance = rng.uniform(0.75, 1.2 if room else 2.4)
        spot = np.array([centre[0] + np.cos(angle) * distance, centre[1] + np.sin(angle) * distance, ground])
        size, turn = rng.uniform(0.28, 0.75), rng.uniform(0, 90)

        def put(at: tuple[float, float, float], radii: tuple[float, float, float], shape: str, part: int) -> None:
            where = (spot + at).astype(np.float32)  # noqa: B023 - used at once
            if shape == "box":
                points, quads = box(where, np.array(radii) * 2, turn)  # noqa: B023
                mesh.add(points, quads, part, smooth=False)
            else:
                points, quads = solid(where, np.array(radii, np.float32), PROFILES[shape])
                mesh.add(points, quads, part, smooth=shape in ("ball", "vase"))

        half = size / 2
        if kind == "box":
            put((0, 0, half), (half, half, half), "box", part)
        elif kind in ("ball", "cone", "vase"):
            put(
                (0, 0, half),
                (half if kind != "vase" else half * 0.6, half if kind != "vase" else half * 0.6, half),
                kind,
                part,
            )
        elif kind == "pillar":
            put((0, 0, 1.1), (0.16, 0.16, 1.1), "pillar", part)
        elif kind == "tree":
            put((0, 0, 0.55), (0.09, 0.09, 0.55), "pillar", second)
            for _ in range(4):
                dx, dy, dz = rng.normal(0, 0.25, 3)
                put((dx, dy, 1.45 + dz), (0.45, 0.45, 0.42), "ball", part)
        elif kind == "table":
            put((0, 0, 0.68), (0.5, 0.38, 0.03), "box", part)
            put((0, 0, 0.33), (0.07, 0.07, 0.33), "pillar", second)
        elif kind == "chair":
            put((0, 0, 0.42), (0.22, 0.22, 0.03), "box", part)
            put((0, 0, 0.2), (0.2, 0.2, 0.19), "box", second)
            offset = rotation(UP, turn) @ np.array([0, 0.2, 0.75])
            put(tuple(offset), (0.22, 0.025, 0.32), "box", part)
        elif kind == "potted plant":
            put((0, 0, 0.18), (0.17, 0.17, 0.18), "vase", second)
            for _ in range(4):
                dx, dy, dz = rng.normal(0, 0.1, 3)
                put((dx, dy, 0.55 + dz), (0.16, 0.16, 0.2), "ball", part)


PROP_KINDS = ("box", "ball", "cone", "vase", "pillar", "tree", "table", "chair", "potted plant")


def add_ground(mesh: Mesh, ground: float) -> None:
    """Lay a wide square under the figure."""
    reach = 45.0
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32) * reach
    corners[:, 2] = ground
    mesh.add(corners, np.array([[0, 1, 2, 3]]), Part.GROUND, smooth=False)


def add_room(mesh: Mesh, rng: np.random.Generator, centre: Floats, ground: float, facing: float) -> None:
    """Stand a wall behind the figure as seen from azimuth `facing` (degrees) and one at its side."""
    turn = rotation(UP, facing + rng.normal(0, 14))
    back, side = rng.uniform(1.3, 2.6), rng.uniform(1.2, 2.6) * (1 if rng.random() < 0.5 else -1)
    origin = np.array([centre[0], centre[1], ground])

    def wall(start: Floats, way: Floats, part: int) -> None:
        corners = np.array([start, start + way, start + way + UP * 6, start + UP * 6])
        mesh.add((corners @ turn.T + origin).astype(np.float32), np.array([[0, 1, 2, 3]]), part, smooth=False)

    wall(-RIGHT * 14 + BACK * back, RIGHT * 28, Part.WALL)
    if rng.random() < 0.6:
        wall(RIGHT * side - BACK * 8, BACK * (8 + back), Part.SIDE_WALL)
