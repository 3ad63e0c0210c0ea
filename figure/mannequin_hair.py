"""The mannequin's hair and brows: tapered locks combed over the head's own surface."""

# Blender's stubs say less than Blender:
# mypy: disable-error-code="attr-defined,arg-type,assignment,no-any-return,var-annotated"

from __future__ import annotations

import numpy as np
from mathutils import Vector
from mathutils.bvhtree import BVHTree
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter

from figure.makehuman import Floats, Ints
from figure.mannequin_parts import Figure, Part

TURNS, HEIGHTS = 96, 64  # samples of the skull, around and from the crown down
LOCK_STEPS = 14
LOCK_PROFILE = ((-1.0, 0.0), (-0.6, 0.75), (0.0, 1.0), (0.6, 0.75), (1.0, 0.0), (0.0, -0.5))  # across, out


class Skull:
    """The head without its ears, as a distance from a centre for every direction."""

    def __init__(self, figure: Figure) -> None:
        faces = figure.body.quads("body")
        head = figure.carried_by(faces, "head", "neck")
        self.tree = BVHTree.FromPolygons(figure.vertices.tolist(), faces[head].tolist())
        points = figure.vertices[np.unique(faces[figure.carried_by(faces, "head")])]
        self.eye = figure.body.centre("joint-l-eye", figure.vertices)
        top = points[:, 2].max()
        self.centre = np.array([0, (points[:, 1].min() + points[:, 1].max()) / 2 + 0.012, self.eye[2] + 0.012])
        self.top = float(top)
        radius = np.zeros((HEIGHTS, TURNS))
        for row in range(HEIGHTS):
            for column in range(TURNS):
                way = direction(2 * np.pi * column / TURNS, np.pi * (row + 0.5) / HEIGHTS)
                hit = self.tree.ray_cast(Vector(self.centre + way * 0.4), Vector(-way))[0]
                radius[row, column] = np.linalg.norm(np.array(hit) - self.centre) if hit else 0.09
        wrapped = np.pad(radius, ((0, 0), (8, 8)), mode="wrap")
        radius = median_filter(wrapped, (13, 11), mode="nearest")[:, 8:-8]
        self.radius = gaussian_filter(radius, 2.5, mode=("nearest", "wrap"))

    def reach(self, turn: float, fall: float) -> float:
        """Return the skull's distance from its centre; turn runs about Z from the face, fall from the crown down."""
        row = np.clip(fall / np.pi * HEIGHTS - 0.5, 0, HEIGHTS - 1.001)
        column = (turn / (2 * np.pi) * TURNS) % TURNS
        r, c = int(row), int(column)
        a, b = row - r, column - c
        near, far = self.radius[r], self.radius[r + 1]
        following = (c + 1) % TURNS
        here = near[c] * (1 - b) + near[following] * b
        return float(here * (1 - a) + (far[c] * (1 - b) + far[following] * b) * a)


def direction(turn: float, fall: float) -> NDArray[np.float64]:
    """Return the unit direction of a turn about Z (0 towards the face) and a fall from the zenith, radians."""
    return np.array([np.sin(fall) * np.sin(turn), -np.sin(fall) * np.cos(turn), np.cos(fall)])


def _path(skull: Skull, turn: float, end: float, lift: float, drop: float) -> NDArray[np.float64]:
    """Return a lock's middle line: over the skull to the fall `end`, then hanging `drop` metres and curling in."""
    points = []
    start = 0.04
    for share in np.linspace(0, 1, 10):
        fall = start + (end - start) * share
        points.append(skull.centre + direction(turn, fall) * (skull.reach(turn, fall) + lift * (0.6 + 0.4 * share)))
    last, before = points[-1], points[-2]
    heading = (last - before) / np.linalg.norm(last - before)
    inward = -direction(turn, np.pi / 2)
    for share in np.linspace(0, 1, 7)[1:]:
        heading = heading + np.array([0, 0, -0.5]) + inward * (0.34 * share)
        heading /= np.linalg.norm(heading)
        points.append(points[-1] + heading * drop / 6)
    return np.array(points)


def _lock(line: NDArray[np.float64], outward_from: NDArray[np.float64], width: float, thick: float) -> Floats:
    """Return rings of vertices (steps × profile × 3) along a line, widest at its middle and pointed at its end."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    even = np.linspace(0, length[-1], LOCK_STEPS)
    middle = np.stack([np.interp(even, length, line[:, k]) for k in range(3)], 1)
    ahead = np.gradient(middle, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    out = middle - outward_from
    out -= (out * ahead).sum(1, keepdims=True) * ahead
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    side = np.cross(ahead, out)
    share = np.linspace(0, 1, LOCK_STEPS)
    taper = np.clip(0.30 + 2.2 * share, 0, 1) * np.clip(1 - np.maximum(share - 0.62, 0) / 0.38, 0, 1) ** 0.75
    taper = np.maximum(taper, 0.015)
    rings = [
        middle + side * (across * width * taper)[:, None] + out * (away * thick * np.sqrt(taper))[:, None]
        for across, away in LOCK_PROFILE
    ]
    return np.stack(rings, 1).astype(np.float32)


def hair(figure: Figure, rng: np.random.Generator) -> Part:
    """Return a chin-long bob with a fringe: a cap on the scalp, and two layers of locks over it."""
    skull = Skull(figure)
    vertices: list[Floats] = []
    faces: list[Ints] = []
    uvs: list[Floats] = []
    count = 0

    def grid(points: Floats, closed: bool, along: tuple[float, float], across: tuple[float, float]) -> None:
        """Add a mesh of steps × profile points; v runs along the hair, u across."""
        nonlocal count
        steps, width = points.shape[:2]
        columns = width if closed else width - 1
        i, j = np.meshgrid(np.arange(steps - 1), np.arange(columns), indexing="ij")
        near, far = i * width + j, i * width + (j + 1) % width
        quads = np.stack([near, far, far + width, near + width], -1).reshape(-1, 4)
        v0 = 1 - (along[0] + (along[1] - along[0]) * i / (steps - 1))
        v1 = 1 - (along[0] + (along[1] - along[0]) * (i + 1) / (steps - 1))
        u0 = across[0] + (across[1] - across[0]) * j / columns
        u1 = across[0] + (across[1] - across[0]) * (j + 1) / columns
        uvs.append(np.stack([np.stack(p, -1) for p in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))], 2).reshape(-1, 4, 2))
        vertices.append(points.reshape(-1, 3))
        faces.append(quads + count)
        count += steps * width

    def front(turn: float) -> float:
        """Return how much a direction looks to the face: 1 straight on, 0 from the temples back."""
        away = abs((turn + np.pi) % (2 * np.pi) - np.pi)
        return float(np.clip((1.02 - away) / 0.25, 0, 1))

    cap_turns = np.linspace(0, 2 * np.pi, 49)
    cap = np.zeros((14, 49, 3), np.float32)
    for column, turn in enumerate(cap_turns):
        end = 2.1 - 0.98 * front(turn)
        for row, fall in enumerate(np.linspace(0.01, end, 14)):
            cap[row, column] = skull.centre + direction(turn, fall) * (skull.reach(turn, fall) + 0.010)
    grid(cap, False, (0.02, 0.9), (0.0, 1.0))
    for layer, (number, lift, shorter) in enumerate(((34, 0.014, 0.0), (30, 0.021, 0.010))):
        for k in range(number):
            turn = 2 * np.pi * (k + 0.5 * layer + 0.25 * rng.uniform(-1, 1)) / number
            face = front(turn)
            if face > 0.5:
                swept = turn + 0.16 * np.sin(turn)  # the fringe parts a little
                line = _path(skull, swept, 1.00 - 0.02 * layer, lift, 0.046 - shorter + rng.uniform(-0.006, 0.006))
                width, thick = 0.021, 0.007
            else:
                fall = 1.62 + 0.10 * (1 - np.cos(turn)) / 2
                back = (1 - np.cos(turn)) / 2
                drop = 0.118 - 0.035 * back - shorter * 2.2 + rng.uniform(-0.008, 0.008)
                line = _path(skull, turn, fall, lift + 0.004, drop)
                width, thick = 0.024, 0.010
            rings = _lock(line, skull.centre, width * rng.uniform(0.9, 1.15), thick)
            u = rng.uniform(0, 0.75)
            grid(rings, True, (0.02, 0.98), (u, u + 0.25))
    points = np.concatenate(vertices)
    quads = np.concatenate(faces)
    weights = figure.rigid("head", len(points))
    return Part("Hair", points, quads, weights, np.concatenate(uvs).astype(np.float32), ["Hair"], levels=1)


def brows(figure: Figure) -> Part:
    """Return two brows that lie on the face: thick at the nose, tapered to the temple."""
    skull = Skull(figure)
    steps = 12
    vertices, faces, uvs = [], [], []
    for side in (1, -1):
        rows = []
        for share in np.linspace(0, 1, steps):
            x = skull.eye[0] - 0.015 + 0.041 * share
            z = skull.eye[2] + 0.0265 + 0.0055 * np.sin(np.pi * (0.15 + share * 0.75)) - 0.004 * share**3
            half = 0.0026 * (1 - share**2.2) * min(1.0, 0.55 + 3 * share) + 0.0005
            for offset, away in ((half, 0.0004), (0.0, 0.0017), (-half, 0.0004)):
                hit = skull.tree.ray_cast(Vector((side * x, -0.6, z + offset)), Vector((0, 1, 0)))[0]
                if hit is None:
                    raise ValueError("The brows lie off the face")
                rows.append([hit.x, hit.y - away, hit.z])
        base = len(vertices)
        vertices += rows
        for i in range(steps - 1):
            for j in range(2):
                quad = [i * 3 + j, i * 3 + j + 1, i * 3 + j + 4, i * 3 + j + 3]
                faces.append([base + k for k in (quad if side > 0 else quad[::-1])])
                u0, u1, v0, v1 = i / steps, (i + 1) / steps, 1 - j / 2, 1 - (j + 1) / 2
                corners = [(u0, v0), (u0, v1), (u1, v1), (u1, v0)]
                uvs.append(corners if side > 0 else corners[::-1])
    points = np.array(vertices, np.float32)
    quads = np.array(faces, np.int64)
    weights = figure.rigid("head", len(points))
    return Part("Brows", points, quads, weights, np.array(uvs, np.float32), ["Brows"], levels=1)
