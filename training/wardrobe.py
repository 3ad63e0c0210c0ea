"""What a figure wears, and which region each pixel of it belongs to, decided on the body's own coordinates.

Every pixel carries the place on the unshaped, unposed body that it shows (x, y, z in metres: the figure looks to -Y,
its middle is x = 0). Hems, necklines, patterns, brows and lips are drawn there, so their edges are smooth in any pose.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from training.regions import Region

Floats = NDArray[np.float32]
Ids = NDArray[np.uint8]

SHOULDER, ELBOW, WRIST = (
    np.array(p, np.float32) for p in ((0.168, -0.015, 0.525), (0.313, -0.013, 0.349), (0.431, -0.176, 0.245))
)
EYE = np.array((0.0311, -0.125, 0.728), np.float32)
ANKLE_Z, KNEE_Z, CROTCH_Z, WAIST_Z = -0.745, -0.369, -0.03, 0.17
PATTERNS = ("plain", "striped", "checked", "polka dot")
HAIR_STYLES = ("short", "spiky", "buzz cut", "afro", "bob", "long", "ponytail", "bun", "twintails", "bald")


class Part(IntEnum):
    """Which piece of geometry a pixel shows."""

    NOTHING = 0
    BODY = 1
    EYE = 2
    CLOTH = 3  # the tights around the body, which become any close garment
    SKIRT = 4
    HAIR = 5
    GROUND = 6
    WALL = 7
    SIDE_WALL = 8
    PROP = 16  # and on: two for each prop


@dataclass(frozen=True)
class Outfit:
    """Garments and their cut; lengths are heights (z, metres) on the unshaped body."""

    top: str
    bottom: str
    sleeve_end: float  # 0 none, 1 at the elbow, 2 at the wrist
    neck_depth: float  # how far the neckline dips below the collar bone
    neck_v: bool
    top_hem: float
    leg_end: float
    skirt_end: float
    top_pattern: str
    bottom_pattern: str
    pattern_scale: float
    jacket: bool
    jacket_gap: float
    jacket_sleeve: float
    shoes: str
    shoe_top: float
    socks_top: float | None
    gloves: bool
    belt: bool
    top_looseness: float  # metres off the skin
    bottom_looseness: float

    @property
    def skirted(self) -> bool:
        """Tell whether a skirt hangs from the waist."""
        return self.top == "dress" or self.bottom == "skirt"


def choose_outfit(rng: np.random.Generator, feminine: float) -> Outfit:
    """Draw clothes; dresses and skirts are likelier the more feminine (0-1) the figure is."""
    dressy = rng.random() < 0.05 + 0.45 * feminine
    top = str(rng.choice(("dress", "skirt"))) if dressy else ""
    bottom = "skirt" if top == "skirt" else ""
    sleeve = {"t-shirt": (0.5, 0.95), "long-sleeved shirt": (1.8, 2.0), "sweater": (1.85, 2.0), "tank top": (0, 0)}
    if top != "dress":
        top = str(
            rng.choice(
                ("t-shirt", "long-sleeved shirt", "tank top", "sweater", "jumpsuit"), p=(0.34, 0.24, 0.18, 0.14, 0.10)
            )
        )
        if bottom == "skirt" and top == "jumpsuit":
            top = "t-shirt"
    low, high = sleeve.get(top, ((0.0, 0.0), (0.5, 0.9), (1.8, 2.0))[int(rng.integers(3))])
    if not bottom:
        bottom = (
            top
            if top in ("dress", "jumpsuit")
            else str(rng.choice(("trousers", "shorts", "leggings"), p=(0.55, 0.28, 0.17)))
        )
    shoes = str(rng.choice(("shoes", "boots", "sneakers", "bare feet"), p=(0.42, 0.22, 0.26, 0.10)))
    legs = {
        "trousers": (-0.74, -0.66),
        "leggings": (-0.74, -0.55),
        "shorts": (-0.32, -0.14),
        "jumpsuit": (-0.74, -0.64),
    }
    leg_low, leg_high = legs.get(bottom, (-0.06, -0.05))
    bare = bottom in ("shorts", "skirt", "dress") and shoes != "bare feet"
    loose_top = {"sweater": (0.012, 0.024), "dress": (0.003, 0.012), "tank top": (0.002, 0.008)}.get(
        top, (0.004, 0.016)
    )
    loose_bottom = {"trousers": (0.006, 0.024), "shorts": (0.008, 0.03), "jumpsuit": (0.004, 0.018)}.get(
        bottom, (0.001, 0.004)
    )
    return Outfit(
        top=top,
        bottom=bottom,
        sleeve_end=float(rng.uniform(low, high)),
        neck_depth=float(rng.uniform(-0.02, 0.05)) if top != "tank top" else float(rng.uniform(0.02, 0.07)),
        neck_v=bool(rng.random() < 0.3),
        top_hem=float(rng.uniform(0.02, 0.16)) if bottom in ("trousers", "shorts", "leggings") else WAIST_Z - 0.01,
        leg_end=float(rng.uniform(leg_low, leg_high)),
        skirt_end=float(rng.uniform(-0.45, -0.12)) if rng.random() < 0.75 else float(rng.uniform(-0.70, -0.45)),
        top_pattern=str(rng.choice(PATTERNS, p=(0.64, 0.20, 0.08, 0.08))),
        bottom_pattern=str(rng.choice(PATTERNS, p=(0.82, 0.06, 0.08, 0.04))),
        pattern_scale=float(rng.uniform(0.035, 0.085)),
        jacket=bool(rng.random() < 0.2) and top not in ("sweater",),
        jacket_gap=float(rng.uniform(0.03, 0.075)),
        jacket_sleeve=2.0 if rng.random() < 0.75 else 0.1,
        shoes=shoes,
        shoe_top=float(rng.uniform(-0.62, -0.42)) if shoes == "boots" else float(rng.uniform(-0.775, -0.74)),
        socks_top=float(rng.uniform(-0.70, -0.40)) if bare and rng.random() < 0.4 else None,
        gloves=bool(rng.random() < 0.08),
        belt=bool(rng.random() < 0.25),
        top_looseness=float(rng.uniform(*loose_top)),
        bottom_looseness=float(rng.uniform(*loose_bottom)),
    )


def arm_place(place: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Tell for places (N×3) which are on an arm, and how far along it (0 shoulder, 1 elbow, 2 wrist)."""
    mirrored = place.copy()
    mirrored[:, 0] = np.abs(mirrored[:, 0])

    def along(start: Floats, end: Floats) -> Floats:
        way = end - start
        share: Floats = (mirrored - start) @ way / (way @ way)
        return share

    upper, lower = along(SHOULDER, ELBOW), along(ELBOW, WRIST)
    reach = np.where(lower > 0, 1 + lower, np.minimum(upper, 1.0)).astype(np.float32)
    arm = (mirrored[:, 0] > 0.163) & (upper > 0.08) & (place[:, 2] > 0.12)
    return arm, reach


def _second(pattern: str, scale: float, across: Floats, along: Floats) -> NDArray[np.bool_]:
    """Tell where a pattern shows its second colour; both coordinates in metres."""
    if pattern == "striped":
        return np.floor(along / scale) % 2 == 0
    if pattern == "checked":
        return (np.floor(along / scale) + np.floor(across / scale)) % 2 == 0
    if pattern == "polka dot":
        row = np.floor(along / scale)
        x = (across / scale + 0.5 * (row % 2)) % 1 - 0.5
        return np.hypot(x, along / scale % 1 - 0.5) < 0.28
    return np.zeros(len(along), bool)


def _bare_neck(place: Floats, outfit: Outfit) -> NDArray[np.bool_]:
    x, y, z = np.abs(place[:, 0]), place[:, 1], place[:, 2]
    front = y < -0.02
    if outfit.neck_v:
        dip = z > 0.53 - outfit.neck_depth * 1.6 + 1.3 * x
    else:
        dip = np.hypot(x * 0.9, z - 0.585) < 0.065 + max(outfit.neck_depth, -0.01)
    collar = 0.575 if outfit.top in ("sweater",) and outfit.neck_depth < 0 else 0.558
    bare = (front & dip & (z > 0.4)) | (z > collar + 0.02 * front)
    if outfit.top == "tank top" or (outfit.top in ("dress", "jumpsuit") and outfit.sleeve_end == 0):
        bare |= (x > 0.135) & (z > 0.40)
        bare |= (z > 0.50) & (x > 0.10)
    return bare


def cloth_regions(place: Floats, outfit: Outfit) -> Ids:
    """Return the region of each place (N×3) on the layer around the body: garment, sock, shoe or bare skin."""
    x, y, z = place.T
    arm, reach = arm_place(place)
    torso = ~arm & (z > outfit.top_hem)
    ids = np.full(len(place), Region.SKIN, np.uint8)
    legs = ~arm & (z <= outfit.top_hem)
    top = (torso & ~_bare_neck(place, outfit)) | (arm & (reach < outfit.sleeve_end))
    if outfit.sleeve_end == 0:
        top &= ~arm
    # under a skirt the legs wear its colour too, so that a knee that pokes through does not show
    low = legs & (z > (outfit.skirt_end + 0.04 if outfit.skirted else outfit.leg_end))
    across = np.where(arm, y, x)
    along = np.where(arm, 0.52 - reach * 0.23, z)
    ids[low] = Region.BOTTOM if outfit.bottom not in ("dress", "jumpsuit") else Region.TOP
    second = _second(outfit.bottom_pattern, outfit.pattern_scale, x, z)
    ids[low & second & (ids == Region.BOTTOM)] = Region.BOTTOM_SECOND
    if outfit.bottom == "jumpsuit":
        top |= low
    ids[top] = Region.TOP
    ids[top & _second(outfit.top_pattern, outfit.pattern_scale, across, along)] = Region.TOP_SECOND
    if outfit.belt and outfit.top != "sweater":
        height = max(outfit.top_hem, 0.06) if outfit.top not in ("dress", "jumpsuit") else WAIST_Z
        ids[~arm & (np.abs(z - height) < 0.017)] = Region.BELT
    if outfit.jacket:
        body = ~arm & (z > 0.06) & ((y > 0.0) | (np.abs(x) > outfit.jacket_gap))
        collar = z < 0.575
        ids[(body & collar) | (arm & (reach < outfit.jacket_sleeve))] = Region.JACKET
    foot = (z < ANKLE_Z + 0.03) | ((y < -0.06) & (z < -0.70)) | (z < outfit.shoe_top)
    if outfit.socks_top is not None:
        ids[legs & (z < outfit.socks_top)] = Region.SOCKS
    if outfit.shoes != "bare feet":
        shoe = foot & ((z < outfit.shoe_top) | (y < -0.075))
        trousers = outfit.bottom in ("trousers", "jumpsuit") and outfit.shoes != "boots"
        ids[shoe & ~(trousers & (z > outfit.leg_end) & (y > -0.06))] = Region.SHOES
    return ids


def skirt_regions(place: Floats, outfit: Outfit) -> Ids:
    """Return the region of each place (N×3) on the skirt."""
    main, other = (Region.TOP, Region.TOP_SECOND) if outfit.top == "dress" else (Region.BOTTOM, Region.BOTTOM_SECOND)
    pattern = outfit.top_pattern if outfit.top == "dress" else outfit.bottom_pattern
    ids = np.full(len(place), main, np.uint8)
    ids[_second(pattern, outfit.pattern_scale, place[:, 0], place[:, 2])] = other
    return ids


def hairline(place: Floats) -> Floats:
    """Return how far (metres) each place (N×3) on the head lies inside the hair: negative on the bare face."""
    front = np.array([-0.16, -0.13, -0.095, -0.07, -0.055, -0.03, -0.01, 0.03, 0.1])
    height = np.array([0.800, 0.795, 0.765, 0.735, 0.690, 0.715, 0.665, 0.625, 0.620])
    inside: Floats = (place[:, 2] - np.interp(place[:, 1], front, height)).astype(np.float32)
    return inside


def body_regions(place: Floats, outfit: Outfit, hair: str, brow_height: float, mouth_width: float) -> Ids:
    """Return the region of each place (N×3) on head, neck and hands."""
    x, y, z = np.abs(place[:, 0]), place[:, 1], place[:, 2]
    ids = np.full(len(place), Region.SKIN, np.uint8)
    head = z > 0.60
    if hair != "bald":
        ids[head & (hairline(place) > 0)] = Region.HAIR
    face = head & (y < -0.075)
    sag = 4.5 * (x - 0.030) ** 2 + 0.05 * np.maximum(0.025 - x, 0)
    brow = np.abs(z - (0.7505 + brow_height) + sag * 1.5) < 0.0036 * np.clip((0.062 - x) / 0.03, 0.3, 1)
    ids[face & brow & (x > 0.013) & (x < 0.056)] = Region.BROW
    half = 0.023 * mouth_width
    curve = 0.0075 * np.sqrt(np.clip(1 - (x / half) ** 2, 0, 1))
    ids[face & (x < half) & (np.abs(z - 0.6675) < curve) & (y < -0.125)] = Region.LIPS
    opening = np.sqrt(np.clip(1 - ((x - 0.0335) / 0.0195) ** 2, 0, 1))
    upper = z - (0.7275 + 0.0105 * opening)
    ids[face & (np.abs(x - 0.0335) < 0.0195) & (upper > -0.0035) & (upper < 0.0022)] = Region.LASH
    if outfit.gloves:
        ids[(z < 0.30) & (x > 0.36)] = Region.GLOVES
    return ids


def eye_regions(place: Floats, gaze: tuple[float, float]) -> Ids:
    """Return the region of each place (N×3) on the eyeballs; gaze (right, up) moves the iris, in metres."""
    side = np.sign(place[:, 0])
    right = (np.abs(place[:, 0]) - EYE[0]) * side - gaze[0]
    up = place[:, 2] - EYE[2] - gaze[1]
    distance = np.hypot(right, up)
    ids = np.full(len(place), Region.EYE_WHITE, np.uint8)
    ids[distance < 0.0078] = Region.IRIS
    ids[distance < 0.0042] = Region.PUPIL
    ids[np.hypot(right + 0.003, up - 0.003) < 0.0019] = Region.EYE_SHINE
    return ids


def hand_part(place: Floats) -> NDArray[np.bool_]:
    """Tell which places (N×3) are beyond the wrist."""
    arm, reach = arm_place(place)
    return arm & (reach > 1.93)
