"""The mannequin's geometry: body, garments, shoes, eyes and brows, cut out of MakeHuman's base mesh and its helpers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from figure.makehuman import Body, Floats, Ints

SIDES = ("_l", "_r")
ARMS = ("upperarm", "lowerarm", "hand", "index", "middle", "ring", "pinky", "thumb")
SLEEVE_END = 0.60  # share of the upper arm that the sleeve covers
HEM = 0.035  # metres above the hip joint at which the shirt ends
WAIST = 0.085  # metres above the hip joint at which the trousers end, under the shirt
ANKLE = 0.035  # metres above the ankle joint at which the trousers end
SHOE_TOP = 0.075  # metres above the ankle joint, under the trousers
NECK = 0.072  # radius of the neckline, metres
SOLE = 0.024  # thickness of the sole, metres
CHARACTER = {  # MakeHuman's own shape targets, and how much of each
    "proportions/female-young-averagemuscle-averageweight-idealproportions": 0.7,
    "../eyes/l-eye-scale-incr": 0.9,
    "../eyes/r-eye-scale-incr": 0.9,
    "../eyes/l-eye-height2-incr": 0.6,
    "../eyes/r-eye-height2-incr": 0.6,
    "../head/head-oval": 0.5,
    "../head/head-fat-decr": 0.5,
    "../head/head-invertedtriangular": 0.35,
    "../head/head-scale-horiz-decr": 0.2,
    "../chin/chin-width-decr": 0.5,
    "../nose/nose-scale-horiz-decr": 0.5,
    "../mouth/mouth-scale-vert-decr": 0.3,
    "../mouth/mouth-scale-horiz-decr": 0.2,
    "../mouth/mouth-angles-up": 0.8,
}


@dataclass
class Part:
    """One mesh object: quads with UVs (faces×4×2) and a material slot each, and skin weights in the rig's order."""

    name: str
    vertices: Floats
    faces: Ints
    weights: Floats
    uvs: Floats
    materials: list[str]
    slots: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    thickness: float = 0.0  # metres of cloth, added inwards
    levels: int = 0  # of subdivision

    def __post_init__(self) -> None:
        if not len(self.slots):
            self.slots = np.zeros(len(self.faces), np.int64)


class Figure:
    """The shaped body, standing with its soles on Z = 0, and what its parts are measured by."""

    def __init__(self) -> None:
        self.body = Body()
        vertices = self.body.shape(
            masculine=0.0, muscle=0.55, weight=0.36, ethnicity={"caucasian": 0.5, "asian": 0.35, "african": 0.15}
        )
        for name, amount in CHARACTER.items():
            offsets = self.body.target(name)
            if offsets is None:
                raise FileNotFoundError(f"MakeHuman's target {name} is missing")
            vertices = vertices + offsets * np.float32(amount)
        feet = np.unique(self.body.quads("helper-tights"))
        vertices[:, 2] += SOLE - vertices[feet, 2].min() + 0.001
        self.vertices: Floats = vertices
        self.names = [bone.name for bone in self.body.bones]
        self.index = {name: i for i, name in enumerate(self.names)}
        self.heads, self.tails = self.body.joints(vertices)
        self.dominant = self.body.weights.argmax(1)

    def joint(self, bone: str) -> Floats:
        """Return the place (3, metres) of a bone's head."""
        joint: Floats = self.heads[self.index[bone]]
        return joint

    def rigid(self, bone: str, count: int) -> Floats:
        """Return weights that hang `count` vertices on one bone."""
        weights = np.zeros((count, len(self.names)), np.float32)
        weights[:, self.index[bone]] = 1
        return weights

    def carried_by(self, faces: Ints, *prefixes: str) -> NDArray[np.bool_]:
        """Whether most of each face's weight is on bones with one of these beginnings."""
        chosen = np.array([name.startswith(prefixes) for name in self.names])
        carried: NDArray[np.bool_] = self.body.weights[faces].mean(1)[:, chosen].sum(1) > 0.5
        return carried

    def along_arm(self, points: Floats) -> Floats:
        """Return how far points lie along their side's upper arm: 0 at the shoulder, 1 at the elbow."""
        result = np.zeros(points.shape[:-1], np.float32)
        for tag, side in (("_l", 1), ("_r", -1)):
            start, axis = self.joint("upperarm" + tag), self.joint("lowerarm" + tag) - self.joint("upperarm" + tag)
            mine = points[..., 0] * side >= 0
            result[mine] = ((points - start) @ axis / (axis @ axis))[mine]
        return result

    def below_neckline(self, points: Floats) -> Floats:
        """Return the metres by which points lie outside the shirt's round neckline."""
        neck = self.joint("neck_01")
        below = neck[2] - 0.012 + 0.62 * (points[..., 1] - neck[1]) - points[..., 2]
        aside = np.hypot(points[..., 0], 0.8 * (points[..., 1] - neck[1] + 0.02)) - NECK
        opening: Floats = np.maximum(below, aside)
        return opening


def compact(faces: Ints) -> tuple[Ints, Ints]:
    """Return the vertices in use, and the faces counted in them."""
    used, inverse = np.unique(faces, return_inverse=True)
    return used, inverse.reshape(faces.shape)


def normals(vertices: Floats, faces: Ints) -> Floats:
    """Return unit normals (N×3) at the vertices."""
    result = np.zeros_like(vertices)
    crossed = np.cross(vertices[faces[:, 2]] - vertices[faces[:, 0]], vertices[faces[:, 3]] - vertices[faces[:, 1]])
    for corner in range(4):
        np.add.at(result, faces[:, corner], crossed)
    unit: Floats = result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-9)
    return unit


def edge_counts(faces: Ints) -> tuple[Ints, Ints]:
    """Return the edges (E×2) and how many faces share each."""
    edges = np.sort(np.concatenate([faces[:, [k, (k + 1) % 4]] for k in range(4)]), 1)
    edges = edges[edges[:, 0] != edges[:, 1]]
    unique, counts = np.unique(edges, axis=0, return_counts=True)
    return unique, counts


def border(faces: Ints) -> Ints:
    """Return the vertices on open edges."""
    edges, counts = edge_counts(faces)
    open_ends: Ints = np.unique(edges[counts == 1])
    return open_ends


def smoothed(vertices: Floats, faces: Ints, times: int, pinned: Ints) -> Floats:
    """Return the vertices after Laplacian smoothing; pinned ones stay."""
    edges, _ = edge_counts(faces)
    result = vertices.copy()
    degree = np.bincount(edges.ravel(), minlength=len(vertices))[:, None]
    for _ in range(times):
        total = np.zeros_like(result)
        np.add.at(total, edges[:, 0], result[edges[:, 1]])
        np.add.at(total, edges[:, 1], result[edges[:, 0]])
        mean = (total / np.maximum(degree, 1)).astype(np.float32)
        mean[pinned] = result[pinned]
        result = 0.5 * result + 0.5 * mean
    return result


def cut(vertices: Floats, faces: Ints, field: Floats) -> tuple[Floats, Ints]:
    """Return the mesh where the field (one value a vertex) is positive, its border moved on to the field's zero.

    A quad that the border crosses by its diagonal leaves a triangle, written with its last corner twice.
    """
    points, values = vertices.copy(), field.astype(np.float64)
    edges, _ = edge_counts(faces)
    crossing = edges[values[edges[:, 0]] * values[edges[:, 1]] < 0]
    share = values[crossing[:, 0]] / (values[crossing[:, 0]] - values[crossing[:, 1]])
    for k in np.argsort(np.minimum(share, 1 - share)):
        a, b = crossing[k]
        if values[a] * values[b] < 0:
            moved, other, way = (a, b, share[k]) if share[k] < 0.5 else (b, a, 1 - share[k])
            points[moved] += np.float32(way) * (points[other] - points[moved])
            values[moved] = 0
    kept = []
    for face in faces:
        inside = [int(vertex) for vertex in dict.fromkeys(face.tolist()) if values[vertex] >= 0]
        if len(inside) >= 3 and values[inside].max() > 0:
            kept.append(inside if len(inside) == 4 else [*inside, inside[-1]])
    return points, np.array(kept, np.int64)


def around(points: Floats, origin: Floats, axis: Floats, front: Floats) -> Floats:
    """Return the share of a turn (0–1, 0.5 at the front) of the corners of faces (M×4×3), unbroken within a face."""
    axis = axis / np.linalg.norm(axis)
    front = front - (front @ axis) * axis
    front = front / np.linalg.norm(front)
    side = np.cross(axis, front)
    offset = points - origin
    turn = np.arctan2(offset @ side, offset @ front) / (2 * np.pi) + 0.5
    first = turn[:, :1]
    return (turn - np.round(turn - first)).astype(np.float32)


def _garment(figure: Figure, chosen: NDArray[np.bool_], *fields: Floats) -> tuple[Ints, Ints, Floats, Floats, Ints]:
    """Return vertex numbers, faces, places, normals and border of the tights' chosen faces, cut along fields' zeros."""
    tights = figure.body.quads("helper-tights")
    used, _ = compact(tights)
    outward = np.zeros_like(figure.vertices)
    outward[used] = normals(figure.vertices, tights)[used]
    vertices, faces = figure.vertices, tights[chosen]
    for field_values in fields:
        vertices, faces = cut(vertices, faces, field_values)
    keep, faces = compact(faces)
    return keep, faces, vertices[keep].copy(), outward[keep], border(faces)


def shirt(figure: Figure) -> Part:
    """Return the short-sleeved shirt, with its hem over the trousers."""
    tights = figure.body.quads("helper-tights")
    middle = figure.vertices[tights].mean(1)
    hip = figure.joint("thigh_l")[2]
    arm = figure.carried_by(tights, "upperarm", "lowerarm")
    trunk = figure.carried_by(tights, "spine", "clavicle", "pelvis", "thigh", "neck", "head", "upperarm")
    sleeved = figure.body.weights[:, [figure.names.index(f"{b}arm{t}") for b in ("upper", "lower") for t in SIDES]]
    keep, faces, points, outward, edge = _garment(
        figure,
        arm | (trunk & (middle[:, 2] > hip - 0.05)),
        figure.vertices[:, 2] - hip - HEM,
        figure.below_neckline(figure.vertices),
        np.where(sleeved.sum(1) > 0.3, SLEEVE_END - figure.along_arm(figure.vertices), 1.0),
    )
    weights = figure.body.weights[keep]
    sleeve = sleeved[keep].sum(1) > 0.5
    hem = edge[(points[edge, 2] < hip + HEM + 0.02) & ~sleeve[edge]]
    points = smoothed(points, faces, 6, edge)
    loose = np.full(len(points), 0.013, np.float32)
    torso = np.clip((figure.joint("spine_03")[2] - points[:, 2]) / 0.22, 0, 1)
    loose += np.where(sleeve, 0.012 * np.clip(figure.along_arm(points) * 1.4, 0, 1), 0.007 * torso)
    loose = np.where(np.abs(figure.below_neckline(points)) < 0.030, 0.010, loose).astype(np.float32)
    points += outward * loose[:, None]
    points = smoothed(points, faces, 4, edge)
    points[hem, 2] = hip + HEM
    corners = points[faces]
    middle = corners.mean(1)
    on_arm = sleeve[faces].mean(1) > 0.5
    turn = around(corners, figure.joint("spine_02"), np.array([0, 0, 1.0]), np.array([0, -1.0, 0]))
    low, high = points[:, 2].min(), points[:, 2].max()
    uvs = np.stack([turn, 0.01 + 0.58 * (corners[..., 2] - low) / (high - low)], -1)
    for tag, side, base in (("_l", 1, 0.61), ("_r", -1, 0.81)):
        mine = on_arm & (middle[:, 0] * side > 0)
        axis = figure.joint("lowerarm" + tag) - figure.joint("upperarm" + tag)
        turn = around(corners[mine], figure.joint("upperarm" + tag), axis, np.array([0, -1.0, 0]))
        share = np.clip(figure.along_arm(corners[mine]) / SLEEVE_END, -0.8, 1.02)
        uvs[mine] = np.stack([turn, base + 0.18 * (share + 0.8) / 1.82], -1)
    return Part("Shirt", points, faces, weights, uvs.astype(np.float32), ["Shirt"], thickness=0.003, levels=1)


def trousers(figure: Figure) -> Part:
    """Return straight trousers from the waist to the ankles."""
    tights = figure.body.quads("helper-tights")
    middle = figure.vertices[tights].mean(1)
    hip, ankle = figure.joint("thigh_l")[2], figure.joint("foot_l")[2]
    chosen = figure.carried_by(tights, "pelvis", "thigh", "calf", "spine", "foot")
    chosen &= middle[:, 2] < hip + WAIST + 0.1
    heights = figure.vertices[:, 2]
    keep, faces, points, outward, edge = _garment(figure, chosen, hip + WAIST - heights, heights - ankle - ANKLE)
    points = smoothed(points, faces, 4, edge)
    points += outward * np.where(points[:, 2] > hip - 0.08, 0.007, 0.010)[:, None].astype(np.float32)
    knee = figure.joint("calf_l")[2]
    for tag, side in (("_l", 1), ("_r", -1)):
        mine = (points[:, 0] * side > 0) & (points[:, 2] < hip - 0.12)
        share = (points[mine, 2:3] - ankle) / (knee - ankle)
        axis = figure.joint("foot" + tag) + share * (figure.joint("calf" + tag) - figure.joint("foot" + tag))
        away = (points[mine] - axis) * np.array([1, 1, 0], np.float32)
        radius = np.linalg.norm(away, axis=1, keepdims=True)
        wanted = 0.058 + 0.020 * np.clip(share, 0, 2)
        amount = np.clip((hip - 0.12 - points[mine, 2:3]) / 0.2, 0, 1)
        points[mine] += away / radius * np.maximum(wanted - radius, 0) * amount
    corners = points[faces]
    middle = corners.mean(1)
    low, high = points[:, 2].min(), points[:, 2].max()
    uvs = np.zeros((len(faces), 4, 2), np.float32)
    for tag, side, base in (("_l", 1, 0.005), ("_r", -1, 0.505)):
        mine = middle[:, 0] * side > 0
        origin = 0.5 * (figure.joint("thigh" + tag) + figure.joint("foot" + tag))
        axis = figure.joint("thigh" + tag) - figure.joint("foot" + tag)
        turn = around(corners[mine], origin, axis, np.array([0, -1.0, 0]))
        uvs[mine] = np.stack([turn, base + 0.49 * (corners[mine][..., 2] - low) / (high - low)], -1)
    weights = figure.body.weights[keep]
    return Part("Trousers", points, faces, weights, uvs, ["Trousers"], thickness=0.003, levels=1)


def box_uvs(vertices: Floats, faces: Ints, halves: bool = True) -> Floats:
    """Return UVs (faces×4×2) by projection along the main axis of each face, in cells for six ways (and two halves)."""
    corners = vertices[faces]
    facing = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    axis = np.abs(facing).argmax(1)
    way = axis * 2 + (facing[np.arange(len(faces)), axis] > 0)
    half = (corners.mean(1)[:, 0] > 0).astype(int) if halves else np.zeros(len(faces), int)
    uvs = np.zeros((len(faces), 4, 2), np.float32)
    columns, rows = (4, 3) if halves else (3, 2)
    for cell in range(columns * rows):
        mine = (way + 6 * half) == cell
        if not mine.any():
            continue
        flat = np.delete(corners[mine], cell % 6 // 2, axis=2)
        low, high = flat.reshape(-1, 2).min(0), flat.reshape(-1, 2).max(0)
        inside = 0.02 + 0.96 * (flat - low) / np.maximum(high - low, 1e-6)
        uvs[mine] = (inside + np.array([cell % columns, cell // columns])) / np.array([columns, rows])
    return uvs


def shoes(figure: Figure) -> Part:
    """Return high trainers: uppers from the tights' feet, on flat soles that bend at the ball of the foot."""
    tights = figure.body.quads("helper-tights")
    middle = figure.vertices[tights].mean(1)
    ankle = figure.joint("foot_l")[2]
    chosen = figure.carried_by(tights, "foot", "ball", "calf") & (middle[:, 2] < ankle + SHOE_TOP + 0.1)
    keep, faces, points, outward, edge = _garment(figure, chosen, ankle + SHOE_TOP - figure.vertices[:, 2])
    points = smoothed(points, faces, 3, edge)
    puff = 0.007 + 0.008 * np.clip((figure.joint("ball_l")[1] - points[:, 1] + 0.02) / 0.05, 0, 1)  # a round toe
    points += outward * (puff * np.where(points[:, 2] < ankle + 0.02, 1.0, 0.5))[:, None].astype(np.float32)
    points[:, 2] = np.maximum(points[:, 2], SOLE * 0.6)
    weights = figure.body.weights[keep]
    meshes = [(points, faces, weights)]
    for tag, side in (("_l", 1), ("_r", -1)):
        low = points[(points[:, 0] * side > 0) & (points[:, 2] < ankle * 0.8)]
        hull = low[ConvexHull(low[:, :2]).vertices][:, :2]
        turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        reach = np.stack([np.cos(turn), np.sin(turn)], 1)
        centre = hull.mean(0)
        outline = np.array([_hull_reach(hull - centre, way) for way in reach])[:, None] * reach
        grown = centre + outline + 0.001 * reach
        wall = SOLE + 0.012
        rings = [(0.80, 0.001), (0.985, 0.0), (1.0, 0.006), (1.0, wall), (0.95, wall + 0.003), (0.5, SOLE + 0.004)]
        ring_points = [np.column_stack([centre + (grown - centre) * s, np.full(32, z)]) for s, z in rings]
        sole = np.concatenate([*ring_points, [[*centre, 0.001]]]).astype(np.float32)
        quads = [
            [r * 32 + i, r * 32 + (i + 1) % 32, (r + 1) * 32 + (i + 1) % 32, (r + 1) * 32 + i]
            for r in range(len(rings) - 1)
            for i in range(32)
        ]
        quads += [[len(rings) * 32, (i + 2) % 32, i + 1, i] for i in range(0, 32, 2)]
        bend = np.clip((figure.joint("ball" + tag)[1] + 0.012 - sole[:, 1]) / 0.03, 0, 1)
        sole_weights = figure.rigid("foot" + tag, len(sole)) * (1 - bend[:, None])
        sole_weights[:, figure.index["ball" + tag]] = bend
        meshes.append((sole, np.array(quads, np.int64), sole_weights))
    start = np.cumsum([0, *[len(mesh[0]) for mesh in meshes]])
    vertices = np.concatenate([mesh[0] for mesh in meshes])
    quads = np.concatenate([mesh[1] + offset for mesh, offset in zip(meshes, start[:-1], strict=True)])
    slots = np.concatenate([np.full(len(mesh[1]), int(i > 0)) for i, mesh in enumerate(meshes)])
    weights = np.concatenate([mesh[2] for mesh in meshes])
    uvs = np.zeros((len(quads), 4, 2), np.float32)
    for slot in (0, 1):
        uvs[slots == slot] = box_uvs(vertices, quads[slots == slot])
    return Part("Shoes", vertices, quads, weights, uvs, ["Shoes", "Soles"], slots, levels=1)


def _hull_reach(hull: NDArray[np.float64], way: NDArray[np.float64]) -> float:
    """Return how far a convex outline around the origin reaches in one direction."""
    following = np.roll(hull, -1, 0)
    best = 0.0
    for a, b in zip(hull, following, strict=True):
        edge = b - a
        bottom = way[0] * edge[1] - way[1] * edge[0]
        if abs(bottom) > 1e-9:
            distance = (a[0] * edge[1] - a[1] * edge[0]) / bottom
            share = (a[0] * way[1] - a[1] * way[0]) / bottom
            if -1e-6 <= share <= 1 + 1e-6 and distance > best:
                best = float(distance)
    return best


def skin(figure: Figure, lips_mask: NDArray[np.uint8]) -> Part:
    """Return the skin that clothes leave free: head, neck and arms; slots are skin, face and lips."""
    faces = figure.body.quads("body")
    uvs = figure.body.uvs[np.array(figure.body.uv_faces["body"])]
    middle = figure.vertices[faces].mean(1)
    arm = figure.carried_by(faces, *ARMS)
    head = figure.carried_by(faces, "head")
    neck = figure.carried_by(faces, "spine", "clavicle", "neck", "head") & (figure.below_neckline(middle) < 0.022)
    free = head | (neck & ~arm) | (arm & (figure.along_arm(middle) > SLEEVE_END - 0.16))
    low, high = uvs[head].reshape(-1, 2).min(0), uvs[head].reshape(-1, 2).max(0)
    faces, uvs, head = faces[free], uvs[free], head[free]
    at = np.clip((uvs.mean(1) * lips_mask.shape[0]).astype(int), 0, lips_mask.shape[0] - 1)
    lips = head & (lips_mask[lips_mask.shape[0] - 1 - at[:, 1], at[:, 0]] > 100)
    used, compacted = compact(faces)
    uvs = uvs.copy()
    uvs[head] = 0.005 + 0.99 * (uvs[head] - low) / (high - low)
    slots = np.where(lips, 2, np.where(head, 1, 0))
    weights = figure.body.weights[used]
    return Part("Body", figure.vertices[used], compacted, weights, uvs, ["Skin", "Face", "Lips"], slots)


def eyes(figure: Figure) -> Part:
    """Return both eyeballs, with the texture laid on from the front."""
    faces = np.concatenate([figure.body.quads("helper-l-eye"), figure.body.quads("helper-r-eye")])
    used, compacted = compact(faces)
    points = figure.vertices[used]
    uvs = np.zeros((len(faces), 4, 2), np.float32)
    for side in (1, -1):
        mine = points[compacted].mean(1)[:, 0] * side > 0
        ball = points[np.unique(compacted[mine])]
        centre, radius = (ball.max(0) + ball.min(0)) / 2, float(np.ptp(ball[:, 2])) / 2
        uvs[mine] = 0.5 + 0.48 * (points[compacted[mine]] - centre)[..., [0, 2]] / radius
    return Part("Eyes", points, compacted, figure.rigid("head", len(points)), uvs, ["Eyes"], levels=1)


def lashes(figure: Figure) -> Part:
    """Return the upper lashes as dark strips."""
    faces = np.concatenate([figure.body.quads(f"helper-{side}-eyelashes-2") for side in "lr"])
    used, compacted = compact(faces)
    points = figure.vertices[used]
    uvs = np.tile(np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]], np.float32), (len(faces), 1, 1))
    return Part("Lashes", points, compacted, figure.rigid("head", len(points)), uvs, ["Lashes"])
