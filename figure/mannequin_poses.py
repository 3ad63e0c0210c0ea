"""The mannequin's pose library: which poses of the figure it knows, and the bone-local numbers that Blender stores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from figure.mannequin_parts import Figure
from figure.poses import POSES, SIDES, Limb, Matrix, Pose, pose_rotations, rotation, rotation_between

FOREARM_TURN, HAND_TURN = 22.0, 28.0  # degrees
TOGETHER = {"index": 0.55, "ring": 0.55, "pinky": 0.6, "thumb": 0.3}  # 0 as at rest, 1 along the middle finger
BETWEEN_KNEES: Limb = ((0.0, 0.75, -0.7), (-0.35, 0.75, -0.5))
POINTING_ARM: Limb = ((0.75, 0.8, 0.10), (0.7, 0.8, 0.14))
HIP_ARM: Limb = ((0.85, -0.25, -0.70), (-0.55, 0.28, -0.70))
RELAXED = 0.28  # how far a resting hand is closed: 0 is open, 1 is a fist


@dataclass(frozen=True)
class NamedPose:
    """A pose in the library; `height` is how far its lowest point is above the ground, metres."""

    pose: Pose
    height: float = 0.0
    props: tuple[str, ...] = ()


def _resting(name: str, **changes: object) -> Pose:
    """Return one of the figure's poses with resting hands, and with changes of its own."""
    return replace(POSES[name], **{"left_fist": RELAXED, "right_fist": RELAXED, **changes})  # type: ignore[arg-type]


LIBRARY: dict[str, NamedPose] = {
    "Standing": NamedPose(_resting("standing")),
    "Contrapposto": NamedPose(_resting("contrapposto", right_arm=HIP_ARM)),
    "Walking": NamedPose(_resting("walking")),
    "Running": NamedPose(POSES["running"]),
    "Sitting": NamedPose(_resting("sitting"), props=("Stool",)),
    "Kneeling": NamedPose(_resting("kneeling")),
    "Crouching": NamedPose(
        _resting("crouching", left_arm=BETWEEN_KNEES, right_arm=BETWEEN_KNEES, left_foot=None, right_foot=None)
    ),
    "Arms Raised": NamedPose(_resting("arms raised", left_fist=0.1, right_fist=0.1)),
    "Hands on Hips": NamedPose(_resting("hands on hips", left_arm=HIP_ARM, right_arm=HIP_ARM)),
    "Arms Crossed": NamedPose(_resting("arms crossed")),
    "Waving": NamedPose(_resting("waving", left_fist=0.05)),
    "Pointing": NamedPose(_resting("pointing", left_arm=POINTING_ARM, left_fist=0.0, turn=20)),
    "Thinking": NamedPose(POSES["thinking"]),
    "Dancing": NamedPose(_resting("dancing", left_fist=0.1, right_fist=0.1)),
    "Fighting": NamedPose(replace(POSES["fighting stance"], right_foot=None)),
    "Kicking": NamedPose(POSES["kicking"]),
    "Jumping": NamedPose(POSES["jumping"], height=0.18),
    "T-Pose": NamedPose(POSES["t-pose"]),
}


def world_rotations(figure: Figure, name: str) -> dict[str, Matrix]:
    """Return each bone's own turn (3×3, about the world's axes at rest) for one pose of the library."""
    pose = LIBRARY[name].pose
    turns = pose_rotations(figure.body, figure.vertices, pose)
    if name == "Pointing":  # the other fingers close behind the index finger
        closed = pose_rotations(figure.body, figure.vertices, replace(pose, left_fist=0.95))
        for bone, turn in closed.items():
            if bone.endswith("_l") and bone.startswith(("middle", "ring", "pinky")):
                turns[bone] = turn
    hang_hands(figure, LIBRARY[name].pose, turns)
    return turns


def hang_hands(figure: Figure, pose: Pose, turns: dict[str, Matrix]) -> None:
    """Turn the thumbs of hanging hands forward, and bring the fingers, spread at rest, together."""
    for name, tag, side in SIDES:
        lower = np.array(getattr(pose, f"{name}_arm")[1], float)
        if lower[2] / np.linalg.norm(lower) < -0.5:
            axis = figure.joint("hand" + tag) - figure.joint("lowerarm" + tag)
            turns["lowerarm" + tag] = turns["lowerarm" + tag] @ rotation(axis, -side * FOREARM_TURN)
            turns["hand" + tag] = turns.get("hand" + tag, np.eye(3)) @ rotation(axis, -side * HAND_TURN)
        middle = _finger(figure, "middle", tag)
        for finger, share in TOGETHER.items():
            bone = f"{finger}_01{tag}"
            way = _finger(figure, finger, tag)
            closer = rotation_between(way, way * (1 - share) + middle * share)
            turns[bone] = turns.get(bone, np.eye(3)) @ closer


def _finger(figure: Figure, finger: str, tag: str) -> Matrix:
    way = figure.joint(f"{finger}_03{tag}") - figure.joint(f"{finger}_01{tag}")
    return np.asarray(way / np.linalg.norm(way), float)
