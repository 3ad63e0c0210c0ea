"""Captions in the field's own prompt language, from a scene's facts: shuffled, shortened and salted with junk."""

from __future__ import annotations

import re
import string
from collections import defaultdict
from dataclasses import asdict
from typing import Any

import numpy as np

from training.stylist import PLAIN, Hand

STYLE_WORDS: dict[str, tuple[str, ...]] = {
    "render": ("3d render", "plain 3d render", "cg render", "viewport render"),
    "anime": ("anime illustration", "anime style", "anime, cel shading", "anime screencap", "cel shaded anime art"),
    "ink": (
        "ink line drawing",
        "black ink drawing",
        "lineart, ink",
        "monochrome ink illustration",
        "manga ink drawing",
    ),
    "watercolor": ("watercolor painting", "watercolor", "watercolour painting", "watercolor illustration"),
    "pencil": ("pencil sketch", "pencil drawing", "graphite pencil sketch", "graphite drawing"),
    "flat": ("flat vector illustration", "flat illustration", "vector art, flat colors", "flat design"),
    "comic": ("comic book art", "comic halftone", "comic book panel, halftone dots", "pop art comic"),
    "oil": ("oil painting", "oil on canvas", "impasto oil painting", "oil paint"),
    "pixel": ("pixel art", "16-bit pixel art", "pixel art sprite", "retro game pixel art"),
}
WITHOUT_COLOUR = ("ink", "pencil")
HAND_WORDS = {
    ("line", -1): ("thin lines", "fine lines", "delicate"),
    ("line", 1): ("bold lines", "thick lines", "bold outlines"),
    ("colour", -1): ("muted colors", "pale colors", "desaturated"),
    ("colour", 1): ("vivid colors", "saturated colors", "bright colors"),
}
JUNK = (
    "masterpiece",
    "best quality",
    "high quality",
    "detailed",
    "highly detailed",
    "beautiful",
    "artwork",
    "trending on artstation",
    "4k",
    "8k",
    "sharp focus",
    "professional",
    "simple",
    "clean",
    "soft light",
    "dramatic lighting",
    "cinematic",
    "blurry",
    "low quality",
    "worst quality",
    "bad anatomy",
    "bad hands",
    "extra limbs",
    "deformed",
    "ugly",
    "watermark",
    "text",
    "signature",
    "jpeg artifacts",
    "photo",
    "photograph",
    "realistic",
    "character",
    "full color",
    "concept art",
    "picture",
    "drawing",
    "image",
    "scene",
    "studio",
    "vibrant",
    "aesthetic",
    "absurdres",
    "highres",
    "intricate",
    "volumetric light",
    "by a famous artist",
    "award winning",
    "trending",
    "sketchy",
    "painting",
    "illustration",
    "style",
    "art",
    "digital art",
    "solo",
    "looking at viewer",
    "smile",
    "cropped",
    "lowres",
    "error",
)
TOP_WORDS = {
    "long-sleeved shirt": ("long-sleeved shirt", "long sleeve shirt", "shirt"),
    "t-shirt": ("t-shirt", "shirt"),
}
POSE_WORDS = {
    "dynamic pose": ("dynamic pose", "posing"),
    "arms raised": ("arms raised", "arms up", "hands up"),
    "kneeling": ("kneeling", "on one knee"),
    "kneeling on both knees": ("kneeling on both knees", "kneeling"),
    "lying": ("lying", "lying down", "lying on back"),
    "contrapposto": ("contrapposto", "standing, one hand on hip"),
    "crouching": ("crouching", "squatting"),
    "ballet": ("ballet", "ballet dancing"),
}
COMPLETE = 0.15  # share of captions that say all there is, in order
PALE_JUNK = 0.75  # the share of junk that is real words; the rest is letters at random


def article(words: str) -> str:
    """Return the words with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def recolourable(facts: dict[str, Any]) -> tuple[str, ...]:
    """Return the parts of a scene whose colour can be named and is seen: keys of a palette's names."""
    outfit = facts["outfit"]
    parts = ["top"]
    if facts["framing"] != "portrait" and outfit["bottom"] not in ("dress", "jumpsuit"):
        parts.append("bottom")
    if outfit["jacket"]:
        parts.append("jacket")
    if facts["hair"] != "bald":
        parts.append("hair")
    parts.append("wall" if facts["setting"] == "room" else "sky")
    return tuple(parts)


def clothes(facts: dict[str, Any], colours: dict[str, str]) -> dict[str, str]:
    """Return what is worn, with colours and patterns, by the key of the colour."""
    outfit = facts["outfit"]

    def worn(garment: str, key: str, pattern: str) -> str:
        if pattern == "plain":
            return f"{colours[key]} {garment}"
        return f"{colours[key]} and {colours[key + ' second']} {pattern} {garment}"

    said = {"top": worn(outfit["top"], "top", outfit["top_pattern"])}
    if outfit["bottom"] not in ("dress", "jumpsuit") and facts["framing"] != "portrait":
        said["bottom"] = worn(outfit["bottom"], "bottom", outfit["bottom_pattern"])
    if outfit["jacket"]:
        said["jacket"] = f"open {colours['jacket']} jacket"
    if outfit["shoes"] != "bare feet" and facts["framing"] == "full body":
        said["shoes"] = f"{colours['shoes']} {outfit['shoes']}"
    if outfit["gloves"]:
        said["gloves"] = f"{colours['gloves']} gloves"
    return said


def _junk(rng: np.random.Generator) -> str:
    if rng.random() < PALE_JUNK:
        return JUNK[int(rng.integers(len(JUNK)))]
    return "".join(rng.choice(list(string.ascii_lowercase), int(rng.integers(2, 9))))


def junk(rng: np.random.Generator, count: int) -> list[str]:
    """Return words that say nothing about the picture."""
    return [_junk(rng) for _ in range(count)]


def view(facts: dict[str, Any]) -> str:
    """Return from where the figure is seen, or nothing from the front."""
    azimuth = abs(facts["azimuth"])
    return "" if azimuth < 50 else "from the side" if azimuth < 125 else "from behind"


def forms(facts: dict[str, Any], said: str) -> dict[str, str]:
    """Return what a caption says of a picture's forms: pose, framing, view, hair and what legs wear, where it does."""
    found = {}
    of = {"pose": facts["pose"], "framing": facts["framing"], "view": view(facts), "hair": facts["hair"]}
    for form, value in (of | {"bottom": facts["outfit"]["bottom"]}).items():
        words = "|".join(map(re.escape, POSE_WORDS.get(value, (value,))))
        if value and re.search(rf"\b(?:{words})\b", said):
            found[form] = value
    return found


def background(facts: dict[str, Any], colours: dict[str, str]) -> str:
    """Return the words for the surroundings."""
    if facts["setting"] == "plain":
        return f"{colours['sky']} background"
    if facts["setting"] == "room":
        return f"room with {colours['wall']} walls, {colours['ground']} floor"
    return f"{colours['ground']} ground, {colours['sky']} sky"


def full_caption(facts: dict[str, Any], colours: dict[str, str], style: str) -> str:
    """Return the plain caption with everything said, as evaluation uses it."""
    parts = [
        f"{STYLE_WORDS[style][0]} of {article(facts['subject'])}",
        facts["pose"],
        *clothes(facts, colours).values(),
    ]
    if facts["hair"] == "bald":
        parts.append("bald")
    else:
        parts.append(f"{colours['hair']} {facts['hair']}" + ("" if facts["hair"] in ("afro", "bob") else " hair"))
    parts.append(background(facts, colours))
    parts += [article(f"{colours[f'prop {i}']} {kind}") for i, kind in enumerate(facts["props"][:2])]
    return ", ".join([*parts, facts["framing"], *filter(None, [view(facts)])])


def colourless_caption(facts: dict[str, Any], style: str) -> str:
    """Return the plain caption of a picture without colours: all that is said but those."""
    nameless: dict[str, str] = defaultdict(str)
    place = {"plain": "", "room": "room"}.get(facts["setting"], "ground, sky")
    parts = full_caption(facts, nameless, style).replace(background(facts, nameless), place).split(",")
    said = (re.sub(r"^(an? )?(and )?", r"\1", " ".join(part.split())) for part in parts)
    return ", ".join(filter(None, said))


def phrases(facts: dict[str, Any], colours: dict[str, str], said: str) -> dict[str, tuple[int, int]]:
    """Return where a caption gives a part its colour, from the colour's first letter to behind the part's word."""
    outfit = facts["outfit"]
    nouns = {
        "top": (outfit["top"], *TOP_WORDS.get(outfit["top"], ())),
        "bottom": (outfit["bottom"],),
        "jacket": ("jacket",),
        "hair": ("hair", "afro", "bob"),
        "sky": ("background", "sky"),
        "wall": ("walls",),
        "ground": ("ground", "floor"),
    }
    found = {}
    for part, words in nouns.items():
        ends = "|".join(map(re.escape, words))
        match = re.search(rf"\b{re.escape(colours[part])}\b[^,]*?\b(?:{ends})\b", said)
        if match:
            found[part] = match.span()
    return found


def caption(
    facts: dict[str, Any],
    colours: dict[str, str],
    style: str,
    rng: np.random.Generator,
    must: tuple[str, ...] = (),
    hand: Hand = PLAIN,
) -> str:
    """Return a caption as an artist might write it; the hand and the colours of the parts in `must` are always said."""

    def keep(chance: float) -> bool:
        return bool(rng.random() < chance)

    def one_of(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    of_hand = [one_of(HAND_WORDS[aspect, value]) for aspect, value in asdict(hand).items() if value]
    if keep(COMPLETE):
        return ", ".join([full_caption(facts, colours, style), *of_hand])
    style_words = one_of(STYLE_WORDS[style])
    short = not must and keep(0.12)
    parts: list[str] = []
    for key, words in clothes(facts, colours).items():
        if key in must or (not short and keep(0.3 if key == "shoes" else 0.85)):
            said = words
            if key == "top":
                garment = facts["outfit"]["top"]
                said = words.replace(garment, one_of(TOP_WORDS.get(garment, (garment,))))
            parts.append(said if keep(0.8) else f"wearing {article(said)}")
    if facts["hair"] == "bald":
        if keep(0.5):
            parts.append("bald")
    elif "hair" in must or (not short and keep(0.75)):
        cut = facts["hair"] if keep(0.6) else ""
        parts.append(
            f"{colours['hair']} {cut} hair".replace("  ", " ").replace("afro hair", "afro").replace("bob hair", "bob")
        )
    if "sky" in must or "wall" in must or (not short and keep(0.7)):
        parts.append(background(facts, colours))
    if not short and keep(0.85):
        parts.insert(0, one_of(POSE_WORDS.get(facts["pose"], (facts["pose"],))))
    if not short:
        for i, kind in enumerate(facts["props"][:2]):
            if keep(0.6):
                parts.append(article(f"{colours[f'prop {i}']} {kind}"))
        if keep(0.15):
            parts.append(f"{colours['eyes']} eyes")
        if keep(0.15):
            parts.append(f"{facts['skin']} skin")
        if keep(0.4):
            parts.append(facts["framing"])
        if view(facts) and keep(0.7):
            parts.append(view(facts))
    if keep(0.3):
        parts += junk(rng, int(rng.integers(1, 4)))
    parts += of_hand
    subject = article(facts["subject"]) if keep(0.8) else ("1girl" if facts["subject"] in ("girl", "woman") else "1boy")
    if keep(0.35):
        rng.shuffle(parts)
    if keep(0.65):
        return ", ".join([f"{style_words} of {subject}", *parts])
    if keep(0.5):
        return ", ".join([subject, *parts, style_words])
    return ", ".join([style_words, subject, *parts])
