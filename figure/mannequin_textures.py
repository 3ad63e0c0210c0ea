"""The mannequin's textures, painted where the figure stands: a texel's colour is a function of its place on the body.

Every painter returns uint8 H×W×3 sRGB, top row first.
"""

# numpy types its arithmetic as Any:
# mypy: disable-error-code="no-any-return,arg-type"

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom

from figure.mannequin_parts import SLEEVE_END, Figure, Part, normals

Picture = NDArray[np.uint8]
Plane = NDArray[np.float32]
Colour = tuple[float, float, float]

SKIN: Colour = (0.93, 0.72, 0.59)
BLUSH: Colour = (0.90, 0.47, 0.42)
LIP: Colour = (0.82, 0.40, 0.38)
HAIR: Colour = (0.52, 0.23, 0.10)
HAIR_LIGHT: Colour = (0.86, 0.50, 0.22)
SHIRT: Colour = (0.84, 0.17, 0.15)
CREAM: Colour = (0.97, 0.92, 0.80)
DENIM: Colour = (0.22, 0.40, 0.76)
THREAD: Colour = (0.92, 0.62, 0.22)
SHOE: Colour = (0.95, 0.76, 0.16)
IRIS: Colour = (0.16, 0.50, 0.48)
SOLE_TOP = 0.045  # metres; the laces stay above it
TOE_CAP = 0.036  # metres from the ball of the foot to the toe cap
STOOL: Colour = (0.72, 0.46, 0.25)


def flat(colour: Colour, size: int) -> Plane:
    """Return one colour all over (size×size×3)."""
    return np.tile(np.array(colour, np.float32), (size, size, 1))


def mix(base: Plane, colour: Colour | Plane, amount: Plane | float) -> Plane:
    """Return base (H×W×3) with a colour laid over it by amount (H×W, 0–1)."""
    share = np.asarray(amount, np.float32)
    share = share[..., None] if share.ndim == 2 else share
    mixed: Plane = base * (1 - share) + np.asarray(colour, np.float32) * share
    return mixed


def band(values: Plane, middle: float, half: float, soft: float) -> Plane:
    """Return 1 within `half` of `middle`, falling to 0 over `soft`."""
    return np.clip((half - np.abs(values - middle)) / soft + 0.5, 0, 1).astype(np.float32)


def noise(size: int, scale: float, rng: np.random.Generator, stretch: float = 1.0) -> Plane:
    """Return smooth noise (size×size, deviation 1) that tiles; `stretch` draws it out along the rows."""
    plane = gaussian_filter(rng.standard_normal((size, size)), (scale * stretch, scale), mode="wrap")
    return (plane / plane.std()).astype(np.float32)


def picture(colours: Plane) -> Picture:
    """Return colours (0–1) as bytes."""
    return (np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8)


def laid_out(part: Part, slots: tuple[int, ...], size: int) -> tuple[Plane, Plane]:
    """Return the place and the normal on the body (size×size×3 each) of every texel of some of a part's materials."""
    chosen = np.isin(part.slots, slots)
    faces, uvs = part.faces[chosen], part.uvs[chosen]
    data = np.concatenate([part.vertices, normals(part.vertices, part.faces)], 1)
    plane = np.zeros((size, size, 6), np.float32)
    filled = np.zeros((size, size), bool)
    for corners in ((0, 1, 2), (0, 2, 3)):
        for face, uv in zip(faces[:, corners], uvs[:, corners], strict=True):
            x, y = uv[:, 0] * size - 0.5, (1 - uv[:, 1]) * size - 0.5
            area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
            if abs(area) < 1e-9:
                continue
            columns = np.arange(int(np.floor(x.min())), int(np.ceil(x.max())) + 1)
            rows = np.arange(int(np.floor(y.min())), int(np.ceil(y.max())) + 1)
            px, py = np.meshgrid(columns, rows)
            b = ((px - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (py - y[0])) / area
            c = ((x[1] - x[0]) * (py - y[0]) - (px - x[0]) * (y[1] - y[0])) / area
            inside = (b >= -0.02) & (c >= -0.02) & (b + c <= 1.02)
            share = np.stack([1 - b - c, b, c], -1)[inside]
            at = (py[inside] % size, px[inside] % size)  # garments wrap round: their textures tile sideways
            plane[at] = share @ data[face]
            filled[at] = True
    nearest = distance_transform_edt(~filled, return_distances=False, return_indices=True)
    plane = plane[nearest[0], nearest[1]]
    return plane[..., :3], plane[..., 3:]


def _pits(normal: Plane) -> Plane:
    """Return a soft shade for what looks down."""
    return np.clip(-normal[..., 2] - 0.1, 0, 1)


def paint_skin(figure: Figure, part: Part, rng: np.random.Generator, size: int = 512) -> Picture:
    """Paint arms and neck: rosier at elbows and finger tips."""
    place, normal = laid_out(part, (0,), size)
    base = flat(SKIN, size)
    rosy = np.zeros((size, size), np.float32)
    for tag in ("_l", "_r"):
        elbow = np.linalg.norm(place - figure.joint("lowerarm" + tag), axis=-1)
        rosy += np.exp(-((elbow / 0.05) ** 2)) * (normal[..., 1] > 0)
        for finger in ("index", "middle", "ring", "pinky", "thumb"):
            for joint, radius in (("01", 0.011), ("03", 0.012)):
                knuckle = np.linalg.norm(place - figure.joint(f"{finger}_{joint}{tag}"), axis=-1)
                rosy += 0.8 * np.exp(-((knuckle / radius) ** 2))
    base = mix(base, BLUSH, 0.35 * np.clip(rosy, 0, 1) + 0.12 * _pits(normal))
    base *= 1 + 0.010 * noise(size, 1.2, rng)[..., None] + 0.012 * noise(size, 14, rng)[..., None]
    return picture(base)


def paint_face(
    figure: Figure, part: Part, lips: Picture, lids: Picture, rng: np.random.Generator, size: int = 1024
) -> Picture:
    """Paint the head: cheeks, nose, lips, lids, and the scalp under the hair."""
    place, normal = laid_out(part, (1, 2), size)
    eye = figure.body.centre("joint-l-eye", figure.vertices)
    mouth = part.vertices[part.faces[part.slots == 2]].mean((0, 1))
    base = flat(SKIN, size)
    across, high, deep = np.abs(place[..., 0]), place[..., 2], place[..., 1]
    front = deep < eye[1] + 0.03

    def spot(x: float, z: float, wide: float, tall: float) -> Plane:
        """Return a soft round spot on either side of the face."""
        return np.exp(-(((across - x) / wide) ** 2) - ((high - z) / tall) ** 2).astype(np.float32) * front

    cheek = spot(eye[0] + 0.013, (eye[2] + mouth[2]) / 2 + 0.003, 0.020, 0.013)
    base = mix(base, BLUSH, 0.45 * cheek)
    tip = spot(0.0, (eye[2] + mouth[2]) / 2 - 0.004, 0.012, 0.010)
    base = mix(base, BLUSH, 0.30 * tip)
    base = mix(base, (0.72, 0.42, 0.34), 0.22 * _pits(normal) + 0.16 * spot(eye[0], eye[2] + 0.014, 0.020, 0.008))
    ear = np.clip((deep - eye[1] - 0.055) / 0.01, 0, 1) * np.clip((across - 0.062) / 0.008, 0, 1)
    base = mix(base, BLUSH, 0.35 * ear)
    head = part.slots > 0
    base = mix(base, LIP, 0.92 * _masked(part, figure, lips, head, size, 1.6))
    base = mix(base, (0.33, 0.17, 0.13), 0.62 * _masked(part, figure, lids, head, size, 1.2))
    scalp = np.clip((high - eye[2] - 0.062) / 0.004, 0, 1) + np.clip((deep - eye[1] - 0.085) / 0.006, 0, 1)
    scalp *= np.clip((high - mouth[2] + 0.01) / 0.006, 0, 1)
    base = mix(base, HAIR, np.clip(scalp, 0, 1) * (1 - np.clip(ear * 2, 0, 1)))
    base *= 1 + 0.008 * noise(size, 1.5, rng)[..., None]
    return picture(base)


def _masked(part: Part, figure: Figure, mask: Picture, chosen: NDArray[np.bool_], size: int, soft: float) -> Plane:
    """Return one of MakeHuman's masks, given on the base mesh's UVs, on the head's own enlarged UVs."""
    faces = figure.body.quads("body")
    head = figure.carried_by(faces, "head")
    base = figure.body.uvs[np.array(figure.body.uv_faces["body"])][head].reshape(-1, 2)
    low, high = base.min(0), base.max(0)
    steps = ((np.arange(size) + 0.5) / size - 0.005) / 0.99
    u, v = low[0] + steps * (high[0] - low[0]), low[1] + (1 - steps) * (high[1] - low[1])
    columns = np.clip((u * mask.shape[1]).astype(int), 0, mask.shape[1] - 1)
    rows = np.clip(((1 - v) * mask.shape[0]).astype(int), 0, mask.shape[0] - 1)
    plane = mask[np.ix_(rows, columns)].astype(np.float32) / 255
    return gaussian_filter(plane, soft)


def paint_hair(rng: np.random.Generator, size: int = 512) -> Picture:
    """Paint strands along v, with a ring of light near the crown and darker tips."""
    strands = 0.6 * noise(size, 1.0, rng, 90) + 0.6 * noise(size, 3.5, rng, 60)
    down = np.linspace(0, 1, size, dtype=np.float32)[:, None] + 0.018 * noise(size, 5, rng, 30)
    base = flat(HAIR, size) * (1 + 0.20 * strands[..., None])
    base = mix(base, HAIR_LIGHT, 0.62 * band(down, 0.40, 0.05, 0.10) * np.clip(0.75 + 0.4 * strands, 0, 1))
    base = mix(base, HAIR_LIGHT, 0.22 * np.clip(strands - 0.8, 0, 1))
    base = mix(base, (0.27, 0.09, 0.06), 0.45 * np.clip((down - 0.78) / 0.22, 0, 1) + 0.4 * band(down, 0.0, 0.10, 0.12))
    return picture(base)


def paint_brows(rng: np.random.Generator, size: int = 128) -> Picture:
    """Paint the brows' hairs."""
    base = flat((0.30, 0.12, 0.06), size) * (1 + 0.16 * noise(size, 1.0, rng, 8)[..., None])
    return picture(base)


def paint_eyes(size: int = 256) -> Picture:
    """Paint one eye from the front: white, iris with a dark rim, pupil and two lights."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / (size - 1) * 2 - 1
    radius, turn = np.hypot(x, y), np.arctan2(y, x)
    base = flat((0.97, 0.97, 0.96), size)
    base = mix(base, (0.78, 0.80, 0.86), np.clip(-y * 1.6 - 0.05, 0, 0.6))
    ray = 1 + 0.12 * np.sin(turn * 23) * np.clip(radius * 2, 0, 1)
    glow = np.clip(0.75 + 0.75 * y / 0.5, 0.35, 1.5) * ray
    base = mix(base, np.array(IRIS, np.float32) * glow[..., None], np.clip((0.53 - radius) / 0.02 + 0.5, 0, 1))
    base = mix(base, (0.05, 0.13, 0.15), band(radius, 0.50, 0.035, 0.03))
    base = mix(base, (0.03, 0.04, 0.05), np.clip((0.24 - radius) / 0.03 + 0.5, 0, 1))
    for sx, sy, size_ in ((-0.17, -0.22, 0.13), (0.18, 0.20, 0.06)):
        base = mix(base, (1, 1, 1), np.clip((size_ - np.hypot(x - sx, y - sy)) / 0.03 + 0.5, 0, 1))
    return picture(base)


def _weave(size: int, rng: np.random.Generator, amount: float, period: int) -> Plane:
    rows, columns = np.mgrid[0:size, 0:size]
    thread = np.sin(2 * np.pi * rows / period) * np.sin(2 * np.pi * columns / period)
    return (1 + amount * thread + 0.5 * amount * noise(size, 0.8, rng))[..., None].astype(np.float32)


def paint_shirt(figure: Figure, part: Part, rng: np.random.Generator, size: int = 1024) -> Picture:
    """Paint knitted cotton: two cream stripes on the chest, cream collar and cuffs, soft folds at the waist."""
    place, normal = laid_out(part, (0,), size)
    base = flat(SHIRT, size)
    rows = np.arange(size)[:, None] / size
    sleeve = np.broadcast_to(rows < 0.40, (size, size))
    chest = figure.joint("spine_03")[2] + 0.045
    sag = place[..., 2] + 0.010 * np.cos(place[..., 0] / 0.05)
    fold = np.sin(place[..., 2] / 0.0125 + 2.2 * np.sin(place[..., 0] / 0.05) + 1.5 * noise(size, 40, rng))
    waist = np.exp(-(((place[..., 2] - figure.joint("spine_01")[2] + 0.02) / 0.06) ** 2)) * ~sleeve
    stripes = (band(sag, chest, 0.017, 0.002) + band(sag, chest - 0.046, 0.007, 0.002)) * ~sleeve
    base = mix(base, CREAM, stripes)
    below = figure.below_neckline(place)
    base = mix(base, CREAM, np.clip((0.014 - below) / 0.0015, 0, 1) * ~sleeve)
    base = mix(base, (0.50, 0.07, 0.08), 0.5 * band(below, 0.0155, 0.0015, 0.0015) * ~sleeve)
    along = figure.along_arm(place)
    cuff = band(along, SLEEVE_END, 0.065, 0.008) * sleeve
    base = mix(base, CREAM, cuff)
    base = mix(base, (0.50, 0.07, 0.08), 0.5 * band(along, SLEEVE_END - 0.075, 0.006, 0.006) * sleeve)
    hem = place[..., 2] - part.vertices[:, 2].min()
    base = mix(base, (0.50, 0.07, 0.08), 0.6 * band(hem, 0.020, 0.0012, 0.0012) * ~sleeve)
    base = mix(base, (0.45, 0.05, 0.09), 0.22 * np.clip(fold, 0, 1) * waist + 0.20 * _pits(normal))
    return picture(base * _weave(size, rng, 0.022, 6))


def paint_trousers(figure: Figure, part: Part, rng: np.random.Generator, size: int = 1024) -> Picture:
    """Paint denim: faded thighs, seams with orange stitches, pockets, fly, waistband and dark hems."""
    place, normal = laid_out(part, (0,), size)
    base = flat(DENIM, size)
    hip, knee = figure.joint("thigh_l")[2], figure.joint("calf_l")[2]
    across, high = np.abs(place[..., 0]), place[..., 2]
    ahead = np.clip(-normal[..., 1], 0, 1)
    share = (high - figure.joint("foot_l")[2]) / (hip - figure.joint("foot_l")[2])
    axis = figure.joint("foot_l")[0] + share * (figure.joint("thigh_l")[0] - figure.joint("foot_l")[0])
    fade = np.exp(-(((across - axis) / 0.045) ** 2)) * np.exp(-(((high - (hip + knee) / 2) / 0.16) ** 2)) * ahead
    base = mix(base, (0.44, 0.60, 0.86), 0.50 * fade)
    base = mix(base, (0.44, 0.60, 0.86), 0.35 * np.exp(-(((high - knee) / 0.07) ** 2)) * ahead)
    side = np.abs(normal[..., 1]) < 0.9
    outside = band(place[..., 1] - (figure.joint("calf_l")[1] + 0.012), 0, 0.0016, 0.0015) * (across > axis) * side
    dark = (0.08, 0.15, 0.36)
    base = mix(base, dark, 0.8 * outside)
    stitched = (np.sin(high / 0.0011) > -0.2).astype(np.float32)
    seam = band(np.abs(place[..., 1] - (figure.joint("calf_l")[1] + 0.012)), 0.0055, 0.0009, 0.001)
    base = mix(base, THREAD, 0.85 * seam * stitched * (across > axis))
    band_low = part.vertices[:, 2].max() - 0.035
    for height in (band_low, part.vertices[:, 2].min() + 0.022):
        base = mix(base, dark, 0.45 * band(high, height, 0.0022, 0.002))
        base = mix(base, THREAD, 0.8 * band(high, height + 0.004, 0.0010, 0.001))
    pocket = band(np.hypot(across - 0.150, high - hip - 0.035), 0.070, 0.0012, 0.0012) * (normal[..., 1] < 0)
    base = mix(base, THREAD, 0.85 * pocket)
    rear = np.maximum(np.abs(across - 0.075) / 0.048, np.abs(high - hip + 0.010) / 0.055)
    base = mix(base, THREAD, 0.8 * band(rear, 1.0, 0.022, 0.02) * (normal[..., 1] > 0.2))
    base = mix(base, dark, 0.6 * band(across, 0.0, 0.0016, 0.0016) * (high > hip - 0.07))
    fold = np.sin(high / 0.011 + 3 * np.sin(place[..., 0] / 0.03) + 1.6 * noise(size, 30, rng))
    creased = np.exp(-(((high - knee) / 0.035) ** 2)) * (1 - ahead) + np.exp(
        -(((high - part.vertices[:, 2].min() - 0.05) / 0.035) ** 2)
    )
    base = mix(base, dark, 0.28 * np.clip(fold, 0, 1) * np.clip(creased, 0, 1) + 0.18 * _pits(normal))
    rows, columns = np.mgrid[0:size, 0:size]
    twill = np.sin(2 * np.pi * (rows + columns) / 6)
    return picture(base * (1 + 0.035 * twill + 0.025 * noise(size, 0.9, rng, 2))[..., None])


def paint_shoes(figure: Figure, part: Part, rng: np.random.Generator, size: int = 512) -> Picture:
    """Paint canvas uppers: a white toe cap, a laced tongue and a dark heel tab."""
    place, normal = laid_out(part, (0,), size)
    base = flat(SHOE, size)
    across, deep, high = np.abs(place[..., 0]), place[..., 1], place[..., 2]
    ball, ankle = figure.joint("ball_l"), figure.joint("foot_l")
    middle = ankle[0] + (deep - ankle[1]) / (ball[1] - ankle[1]) * (ball[0] - ankle[0])
    off = np.abs(across - middle)
    tongue = (off < 0.016) & (deep < ankle[1] - 0.02) & (deep > ball[1] - TOE_CAP + 0.012) & (normal[..., 2] > -0.2)
    base = mix(base, (0.86, 0.60, 0.10), 0.9 * tongue.astype(np.float32))
    lace = band(np.mod(deep, 0.017), 0.0085, 0.0028, 0.001) * (off < 0.021) * (deep < ankle[1] - 0.018)
    base = mix(base, (0.98, 0.98, 0.96), lace * (deep > ball[1] - TOE_CAP + 0.014) * (high > SOLE_TOP))
    toe = np.clip((ball[1] - TOE_CAP - deep) / 0.002, 0, 1)
    base = mix(base, (0.97, 0.96, 0.93), toe)
    base = mix(base, (0.60, 0.40, 0.06), 0.6 * band(deep, ball[1] - TOE_CAP + 0.001, 0.0012, 0.001))
    heel = np.clip((deep - ankle[1] - 0.042) / 0.003, 0, 1) * (off < 0.02)
    base = mix(base, SHIRT, heel)
    return picture(base * _weave(size, rng, 0.025, 4))


def paint_soles(part: Part, size: int = 256) -> Picture:
    """Paint white rubber with a red line round it, and a grey tread."""
    place, normal = laid_out(part, (1,), size)
    base = flat((0.97, 0.96, 0.93), size)
    base = mix(base, SHIRT, band(place[..., 2], 0.0165, 0.0018, 0.001))
    tread = (normal[..., 2] < -0.7) & (np.sin(place[..., 1] / 0.0016) > 0)
    return picture(mix(base, (0.55, 0.52, 0.48), 0.7 * tread.astype(np.float32)))


def paint_wood(rng: np.random.Generator, size: int = 256) -> Picture:
    """Paint planed wood."""
    grain = np.sin(14 * noise(size, 18, rng, 6) * 0.35 + np.arange(size)[None, :] / 5.0)
    shade = 1 + 0.10 * grain + 0.03 * noise(size, 1, rng)
    return picture(flat(STOOL, size) * shade[..., None])


def paint_backdrop(rng: np.random.Generator, size: int = 512) -> Picture:
    """Paint the backdrop: warm sand on the ground (bottom rows) that rises into a pale sky blue."""
    up = np.linspace(1, 0, size, dtype=np.float32)[:, None] * np.ones((1, size), np.float32)
    cloud = zoom(noise(64, 6, rng), size / 64, order=1, mode="wrap")
    base = flat((0.98, 0.91, 0.78), size)
    base = mix(base, (0.72, 0.87, 0.93), np.clip((up - 0.42) / 0.10, 0, 1))
    base = mix(base, (0.55, 0.77, 0.90), np.clip((up - 0.55) / 0.45, 0, 1))
    return picture(base * (1 + 0.012 * cloud)[..., None])


def read_mask(figure: Figure, name: str) -> Picture:
    """Return one of MakeHuman's masks on the base mesh's UVs (2048×2048)."""
    with Image.open(figure.body.folder / "textures" / f"mpfb_{name}.jpg") as image:
        return np.array(image.convert("L"))
