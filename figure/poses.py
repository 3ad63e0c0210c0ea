"""Named poses of the figure, and the bone rotations and vertices that they give on a body of any shape.

A pose says where limbs point, not how far joints turn, so that one pose reads the same on a child and on an old giant.
Directions are (out, forward, up) in the frame of the part that carries the limb: the chest for arms, the pelvis for
legs; "out" is away from the body's middle on either side. Angles are degrees.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from figure.makehuman import Body, Floats

Direction = tuple[float, float, float]
Limb = tuple[Direction, Direction]
Matrix = NDArray[np.float64]

RIGHT, BACK, UP = np.eye(3)  # the world's axes as the figure has them: its own left hand is on +X, its face looks to −Y
LIMBS = ("left_arm", "right_arm", "left_leg", "right_leg")
SIDES = (("left", "_l", 1.0), ("right", "_r", -1.0))
DIRECTION_JITTER = 0.07  # deviation of each component of a unit direction
ANGLE_JITTER = 4.0  # degrees
FINGERS = ("index", "middle", "ring", "pinky")
CURL = (70.0, 85.0, 50.0)  # degrees of a closed fist, from the knuckle outwards

RELAXED_ARM: Limb = ((0.28, 0.02, -1.0), (0.16, 0.28, -1.0))
STRAIGHT_LEG: Limb = ((0.10, 0.0, -1.0), (0.06, -0.02, -1.0))


@dataclass(frozen=True)
class Pose:
    """Where the limbs point (upper and lower part of each), and how spine, head, hands and the whole body turn."""

    left_arm: Limb = RELAXED_ARM
    right_arm: Limb = RELAXED_ARM
    left_leg: Limb = STRAIGHT_LEG
    right_leg: Limb = STRAIGHT_LEG
    bend: float = 0.0  # spine forward, degrees
    lean: float = 0.0  # spine to the figure's left
    twist: float = 0.0  # spine about the vertical, chest towards the figure's left
    nod: float = 0.0  # head down
    turn: float = 0.0  # head towards the figure's left
    pitch: float = 0.0  # whole body forward about the hips
    left_foot: float | None = None  # toes down from a right angle with the shin; None stands flat on the ground
    right_foot: float | None = None
    left_fist: float = 0.15  # 0 an open hand, 1 a fist
    right_fist: float = 0.15


POSES: dict[str, Pose] = {
    "standing": Pose(),
    "t-pose": Pose(left_arm=((1, 0, 0), (1, 0, 0)), right_arm=((1, 0, 0), (1, 0, 0)), left_fist=0, right_fist=0),
    "contrapposto": Pose(
        left_arm=((0.3, 0, -1), (0.1, 0.3, -1)),
        right_arm=((0.5, -0.2, -0.9), (-0.5, 0.5, -0.5)),
        left_leg=((0.15, 0.25, -1), (0.1, -0.25, -1)),
        right_leg=((0.02, -0.05, -1), (0.02, 0, -1)),
        lean=6,
        twist=6,
        turn=-15,
    ),
    "arms raised": Pose(
        left_arm=((0.5, 0.05, 1), (0.25, 0.05, 1)), right_arm=((0.5, 0.05, 1), (0.25, 0.05, 1)), left_fist=0
    ),
    "arms crossed": Pose(
        left_arm=((0.25, 0.35, -1), (-0.8, 0.55, 0.15)), right_arm=((0.25, 0.4, -1), (-0.8, 0.65, -0.02))
    ),
    "hands on hips": Pose(
        left_arm=((0.8, -0.15, -0.7), (-0.75, 0.35, -0.55)),
        right_arm=((0.8, -0.15, -0.7), (-0.75, 0.35, -0.55)),
        left_leg=((0.22, 0, -1), (0.18, 0, -1)),
        right_leg=((0.22, 0, -1), (0.18, 0, -1)),
    ),
    "waving": Pose(left_arm=((0.9, 0.15, 0.25), (0.25, 0.2, 1)), left_fist=0, turn=8),
    "pointing": Pose(left_arm=((0.3, 1, 0.05), (0.2, 1, 0.08)), left_fist=0.0, turn=6),
    "saluting": Pose(left_arm=((0.95, 0.3, 0.1), (-0.8, 0.35, 0.75)), left_fist=0),
    "thinking": Pose(
        left_arm=((0.15, 0.55, -0.8), (-0.35, 0.4, 0.95)),
        right_arm=((0.2, 0.35, -1), (-0.85, 0.6, -0.05)),
        left_fist=0.7,
        nod=8,
    ),
    "praying": Pose(
        left_arm=((0.3, 0.45, -0.9), (-0.55, 0.6, 0.5)),
        right_arm=((0.3, 0.45, -0.9), (-0.55, 0.6, 0.5)),
        left_fist=0,
        right_fist=0,
        nod=14,
    ),
    "walking": Pose(
        left_arm=((0.15, -0.35, -1), (0.1, -0.1, -1)),
        right_arm=((0.15, 0.35, -1), (0.1, 0.75, -0.9)),
        left_leg=((0.04, 0.5, -1), (0.03, 0.1, -1)),
        right_leg=((0.04, -0.3, -1), (0.03, -0.75, -1)),
        right_foot=25,
        bend=4,
    ),
    "running": Pose(
        left_arm=((0.2, -0.85, -0.65), (0.05, 0.55, -0.8)),
        right_arm=((0.2, 0.6, -0.85), (-0.15, 0.75, 0.65)),
        left_leg=((0.04, 1, -0.5), (0.03, -0.45, -1)),
        right_leg=((0.04, -0.55, -1), (0.03, -1, -0.1)),
        left_foot=5,
        right_foot=30,
        bend=14,
        left_fist=0.8,
        right_fist=0.8,
    ),
    "jumping": Pose(
        left_arm=((0.7, 0, 0.8), (0.4, 0.1, 1)),
        right_arm=((0.7, 0, 0.8), (0.4, 0.1, 1)),
        left_leg=((0.25, 0.75, -0.8), (0.1, -0.8, -0.75)),
        right_leg=((0.2, 0.1, -1), (0.1, -0.9, -0.7)),
        left_foot=35,
        right_foot=35,
        nod=-8,
    ),
    "sitting": Pose(
        left_arm=((0.2, 0.3, -1), (0.0, 0.85, -0.5)),
        right_arm=((0.2, 0.3, -1), (0.0, 0.85, -0.5)),
        left_leg=((0.16, 1, -0.05), (0.06, 0.02, -1)),
        right_leg=((0.16, 1, -0.05), (0.06, 0.02, -1)),
        bend=4,
    ),
    "sitting cross-legged": Pose(
        left_arm=((0.35, 0.3, -1), (0.1, 0.75, -0.65)),
        right_arm=((0.35, 0.3, -1), (0.1, 0.75, -0.65)),
        left_leg=((0.8, 0.75, -0.12), (-1, 0.25, -0.1)),
        right_leg=((0.8, 0.65, -0.12), (-1, 0.05, -0.1)),
        left_foot=30,
        right_foot=30,
        bend=8,
    ),
    "kneeling": Pose(
        left_arm=((0.2, 0.2, -1), (0.05, 0.5, -0.9)),
        right_arm=((0.2, 0.1, -1), (0.1, 0.3, -1)),
        left_leg=((0.12, 1, -0.05), (0.05, 0, -1)),
        right_leg=((0.1, 0.03, -1), (0.06, -1, -0.02)),
        right_foot=15,
    ),
    "kneeling on both knees": Pose(
        left_arm=((0.2, 0.3, -1), (-0.1, 0.8, -0.7)),
        right_arm=((0.2, 0.3, -1), (-0.1, 0.8, -0.7)),
        left_leg=((0.12, 0.12, -1), (0.05, -1, -0.02)),
        right_leg=((0.12, 0.12, -1), (0.05, -1, -0.02)),
        left_foot=55,
        right_foot=55,
        nod=6,
    ),
    "crouching": Pose(
        left_arm=((0.3, 0.8, -0.7), (0.0, 0.75, -0.75)),
        right_arm=((0.3, 0.6, -0.8), (0.0, 0.5, -0.9)),
        left_leg=((0.35, 1, 0.12), (0.1, -0.55, -1)),
        right_leg=((0.35, 1, 0.0), (0.1, -0.65, -1)),
        left_foot=5,
        right_foot=5,
        bend=26,
        nod=-18,
    ),
    "lunging": Pose(
        left_arm=((0.35, 0.3, -0.9), (0.1, 0.7, -0.6)),
        right_arm=((0.35, -0.3, -0.9), (0.2, 0.1, -1)),
        left_leg=((0.12, 1, -0.35), (0.05, 0.02, -1)),
        right_leg=((0.12, -0.6, -1), (0.06, -0.75, -0.8)),
        right_foot=-10,
        bend=8,
    ),
    "bowing": Pose(
        left_arm=((0.15, 0.6, -1), (0.02, 0.7, -1)), right_arm=((0.15, 0.6, -1), (0.02, 0.7, -1)), bend=55, nod=12
    ),
    "dancing": Pose(
        left_arm=((0.9, 0.1, 0.55), (0.1, 0.15, 1)),
        right_arm=((1, 0.2, -0.15), (0.6, 0.7, 0.25)),
        left_leg=((0.1, 0.05, -1), (0.05, -0.05, -1)),
        right_leg=((0.75, 0.55, -0.75), (-0.35, -0.45, -0.9)),
        right_foot=45,
        lean=-10,
        twist=15,
        turn=20,
        left_fist=0,
        right_fist=0,
    ),
    "ballet": Pose(
        left_arm=((0.55, 0.2, 0.9), (-0.35, 0.15, 1)),
        right_arm=((1, 0.25, 0.05), (0.85, 0.5, 0.0)),
        left_leg=((0.03, 0.02, -1), (0.02, 0, -1)),
        right_leg=((0.2, -0.95, -0.35), (0.1, -1, -0.3)),
        left_foot=50,
        right_foot=60,
        bend=10,
        nod=-8,
        left_fist=0,
        right_fist=0,
    ),
    "punching": Pose(
        left_arm=((0.15, 1, 0.02), (-0.05, 1, 0.02)),
        right_arm=((0.4, -0.35, -0.85), (-0.3, 0.8, 0.55)),
        left_leg=((0.2, 0.55, -1), (0.1, -0.15, -1)),
        right_leg=((0.25, -0.35, -1), (0.15, -0.6, -1)),
        right_foot=-5,
        bend=10,
        twist=-18,
        left_fist=1,
        right_fist=1,
    ),
    "fighting stance": Pose(
        left_arm=((0.35, 0.65, -0.75), (-0.15, 0.6, 0.9)),
        right_arm=((0.35, 0.3, -0.95), (-0.35, 0.65, 0.85)),
        left_leg=((0.2, 0.5, -1), (0.1, -0.25, -1)),
        right_leg=((0.3, -0.25, -1), (0.2, -0.6, -1)),
        right_foot=0,
        bend=10,
        twist=-20,
        turn=15,
        left_fist=1,
        right_fist=1,
    ),
    "kicking": Pose(
        left_arm=((0.45, 0.5, -0.8), (-0.2, 0.7, 0.7)),
        right_arm=((0.7, -0.3, -0.6), (0.1, 0.5, -0.6)),
        left_leg=((0.3, 1, 0.15), (0.25, 1, 0.25)),
        right_leg=((0.08, -0.1, -1), (0.05, -0.2, -1)),
        left_foot=25,
        bend=-14,
        left_fist=1,
        right_fist=1,
    ),
    "throwing": Pose(
        left_arm=((0.8, -0.35, 0.35), (0.3, -0.2, 1)),
        right_arm=((0.5, 0.85, 0.15), (0.3, 1, 0.2)),
        left_leg=((0.2, -0.35, -1), (0.12, -0.6, -1)),
        right_leg=((0.15, 0.5, -1), (0.1, 0.1, -1)),
        left_foot=5,
        twist=22,
        bend=-8,
        left_fist=0.9,
    ),
    "flying": Pose(
        left_arm=((0.15, 0.15, 1), (0.05, 0.1, 1)),
        right_arm=((0.3, -0.1, -1), (0.2, 0.0, -1)),
        left_leg=((0.06, -0.1, -1), (0.04, -0.2, -1)),
        right_leg=((0.08, 0.35, -1), (0.05, -0.55, -1)),
        left_foot=55,
        right_foot=55,
        pitch=58,
        bend=-12,
        nod=-35,
        left_fist=1,
    ),
    "lying": Pose(
        left_arm=((0.55, 0.05, -0.9), (0.35, 0.1, -1)),
        right_arm=((0.6, 0.0, 0.75), (-0.6, 0.1, 0.6)),
        left_leg=((0.12, 0.02, -1), (0.08, 0, -1)),
        right_leg=((0.15, 0.7, -0.8), (0.05, -0.75, -0.7)),
        left_foot=35,
        right_foot=20,
        pitch=-90,
    ),
    "stretching": Pose(
        left_arm=((0.35, 0.05, 1), (-0.25, 0.0, 1)),
        right_arm=((0.7, -0.1, -0.75), (-0.7, 0.3, -0.6)),
        left_leg=((0.3, 0, -1), (0.25, 0, -1)),
        right_leg=((0.3, 0, -1), (0.25, 0, -1)),
        lean=-26,
    ),
}


def rotation(axis: NDArray[np.floating[Any]], degrees: float) -> Matrix:
    """Return the 3×3 rotation by an angle about an axis through the origin (Rodrigues' formula)."""
    x, y, z = np.asarray(axis, np.float64) / max(float(np.linalg.norm(axis)), 1e-9)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    turn: Matrix = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turn


def rotation_between(start: NDArray[np.floating[Any]], end: NDArray[np.floating[Any]]) -> Matrix:
    """Return the smallest 3×3 rotation that takes one direction to another."""
    a = np.asarray(start, np.float64) / np.linalg.norm(start)
    b = np.asarray(end, np.float64) / np.linalg.norm(end)
    axis = np.cross(a, b)
    if np.linalg.norm(axis) < 1e-8:  # the same way, or straight back: then any axis across it serves
        return np.eye(3) if a @ b > 0 else rotation(np.cross(a, RIGHT + 0.3 * UP), 180)
    return rotation(axis, float(np.degrees(np.arctan2(np.linalg.norm(axis), a @ b))))


def mirrored(pose: Pose) -> Pose:
    """Return the pose with left and right exchanged."""
    swapped = {
        field.name: getattr(pose, field.name.replace("left", "#").replace("right", "left").replace("#", "right"))
        for field in fields(pose)
        if field.name.startswith(("left", "right"))
    }
    return replace(pose, lean=-pose.lean, twist=-pose.twist, turn=-pose.turn, **swapped)


def varied(pose: Pose, rng: np.random.Generator, amount: float = 1.0) -> Pose:
    """Return the pose, or its mirror image, with every direction and angle moved a little at random."""
    pose = mirrored(pose) if rng.random() < 0.5 else pose
    changes: dict[str, object] = {}
    for name in LIMBS:
        parts = np.array(getattr(pose, name), float)
        parts /= np.linalg.norm(parts, axis=1, keepdims=True)
        parts += rng.normal(0, DIRECTION_JITTER * amount, parts.shape)
        changes[name] = (tuple(parts[0]), tuple(parts[1]))
    for name, scale in (("bend", 1.0), ("lean", 0.8), ("twist", 1.5), ("nod", 1.5), ("turn", 4.0)):
        changes[name] = getattr(pose, name) + float(rng.normal(0, ANGLE_JITTER * amount * scale))
    return replace(pose, **changes)  # type: ignore[arg-type]


def random_pose(rng: np.random.Generator) -> Pose:
    """Return a pose drawn within what joints can do: arms anywhere before the body, knees and elbows bent one way."""

    def arm() -> Limb:
        upper = np.array([rng.uniform(0.15, 1), rng.uniform(-0.3, 1), rng.uniform(-1, 0.8)])
        elbow = rng.uniform(0, 1) ** 1.5
        lower = upper / np.linalg.norm(upper) * (1 - elbow) + elbow * np.array(
            [rng.uniform(-0.6, 0.4), rng.uniform(0.3, 1), rng.uniform(-0.3, 1)]
        )
        return tuple(upper), tuple(lower)  # type: ignore[return-value]

    def leg(reach: float) -> Limb:
        forward = rng.uniform(-0.35, 1) * reach
        upper = np.array([rng.uniform(0.02, 0.15 + 0.45 * reach), forward, -1 + 0.6 * max(forward, 0)])
        knee = rng.uniform(0, 1) * reach
        lower = upper / np.linalg.norm(upper) * (1 - knee) + knee * np.array([0.05, -0.8, -0.7])
        return tuple(upper), tuple(lower)  # type: ignore[return-value]

    pose = Pose(
        left_arm=arm(),
        right_arm=arm(),
        left_leg=leg(float(rng.uniform(0.2, 1))),
        right_leg=leg(float(rng.uniform(0, 0.3))),
        bend=float(rng.uniform(-8, 20)),
        lean=float(rng.uniform(-14, 14)),
        twist=float(rng.uniform(-25, 25)),
        nod=float(rng.uniform(-12, 16)),
        turn=float(rng.uniform(-35, 35)),
        left_fist=float(rng.random() ** 2),
        right_fist=float(rng.random() ** 2),
    )
    return mirrored(pose) if rng.random() < 0.5 else pose


def pose_rotations(
    body: Body, vertices: Floats, pose: Pose, rng: np.random.Generator | None = None
) -> dict[str, Matrix]:
    """Return each bone's own rotation (3×3) about the WORLD's axes at rest, for a body of any shape.

    `vertices` (N×3, metres) is the shaped body at rest; with `rng` the pose is varied first. Composed down the rig,
    a bone's whole turn is that of its parent times its own; bones that are left out do not turn.
    """
    pose = varied(pose, rng) if rng is not None else pose
    heads, tails = body.joints(vertices)
    index = {bone.name: i for i, bone in enumerate(body.bones)}

    def along(bone: str, towards: str | None = None) -> NDArray[np.float32]:
        return (tails[index[bone]] if towards is None else heads[index[towards]]) - heads[index[bone]]

    whole = rotation(RIGHT, pose.pitch)
    third = rotation(UP, pose.twist / 3) @ rotation(BACK, pose.lean / 3) @ rotation(RIGHT, pose.bend / 3)
    chest = whole @ third @ third @ third
    own: dict[str, Matrix] = {"pelvis": whole, "spine_01": third, "spine_02": third, "spine_03": third}
    half = rotation(UP, pose.turn / 2) @ rotation(RIGHT, pose.nod / 2)
    own |= {"neck_01": half, "head": half}

    def aim(upper: str, lower: str, end: str, carrier: Matrix, limb: Limb, side: float) -> Matrix:
        """Point both parts of a limb; the lower part turns on from the upper, as a hinge does."""
        ways = [carrier @ np.array([side * out, -forward, up]) for out, forward, up in limb]
        upper_turn = rotation_between(carrier @ along(upper, lower), ways[0]) @ carrier
        lower_turn = rotation_between(upper_turn @ along(lower, end), ways[1]) @ upper_turn
        own[upper], own[lower] = carrier.T @ upper_turn, upper_turn.T @ lower_turn
        return lower_turn

    for name, tag, side in SIDES:
        raised = max(0.0, getattr(pose, f"{name}_arm")[0][2] / np.linalg.norm(getattr(pose, f"{name}_arm")[0]))
        own["clavicle" + tag] = rotation(BACK, -side * 22 * raised)  # a raised arm lifts its shoulder
        shoulder = chest @ own["clavicle" + tag]
        arm = [chest @ np.array([side * o, -f, u]) for o, f, u in getattr(pose, f"{name}_arm")]
        in_shoulder = tuple(
            (side * float(way[0]), -float(way[1]), float(way[2])) for way in (shoulder.T @ np.array(arm).T).T
        )
        aim("upperarm" + tag, "lowerarm" + tag, "hand" + tag, shoulder, in_shoulder, side)  # type: ignore[arg-type]
        shin = aim("thigh" + tag, "calf" + tag, "foot" + tag, whole, getattr(pose, f"{name}_leg"), side)
        point = getattr(pose, f"{name}_foot")
        if point is None:
            heading = shin @ -BACK  # flat on the ground, the toes where the shin sends them
            flat = rotation_between(-BACK, np.array([heading[0], heading[1] - 1.0, 0]))
            own["foot" + tag] = shin.T @ flat
        else:
            own["foot" + tag] = rotation(RIGHT, float(point))
        across = heads[index["pinky_01" + tag]] - heads[index["index_01" + tag]]
        for finger in FINGERS:
            for joint, angle in enumerate(CURL, 1):
                own[f"{finger}_0{joint}{tag}"] = rotation(across, side * angle * getattr(pose, f"{name}_fist"))
    return own


def posed_joints(body: Body, vertices: Floats, rotations: dict[str, Matrix]) -> NDArray[np.float64]:
    """Return each bone's movement from rest as bones × 3×4 matrices (turn and shift, metres), in the rig's order."""
    heads, _ = body.joints(vertices)
    index = {bone.name: i for i, bone in enumerate(body.bones)}
    moves = np.zeros((len(body.bones), 3, 4))
    for i, bone in enumerate(body.bones):
        turn = rotations.get(bone.name, np.eye(3))
        shift = heads[i] - turn @ heads[i]
        if bone.parent is None:
            moves[i] = np.column_stack([turn, shift])
        else:
            parent = moves[index[bone.parent]]
            moves[i] = np.column_stack([parent[:, :3] @ turn, parent[:, :3] @ shift + parent[:, 3]])
    return moves


def posed(body: Body, vertices: Floats, rotations: dict[str, Matrix]) -> Floats:
    """Return the vertices (N×3, metres) after linear blend skinning by the body's own weights."""
    moves = posed_joints(body, vertices, rotations).astype(np.float32)
    blended = (body.weights @ moves.reshape(len(moves), 12)).reshape(-1, 3, 4)
    moved: Floats = np.einsum("vij,vj->vi", blended[:, :, :3], vertices) + blended[:, :, 3]
    return moved
