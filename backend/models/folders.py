"""Where models and what adds to them lie: in chosen folders, and of another tool's in its usual places alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

MODELS, LORAS, EMBEDDINGS, VAES, IP_ADAPTERS = "models", "LoRAs", "embeddings", "VAEs", "IP-Adapters"
# Where other tools keep them below their folder of models, which is "models" in their own.
TOOL_PLACES = {
    MODELS: ("Stable-diffusion", "checkpoints", "diffusers"),
    LORAS: ("Lora", "loras"),
    EMBEDDINGS: ("embeddings", "../embeddings"),
    VAES: ("VAE", "vae"),
    IP_ADAPTERS: ("ipadapter", "ip_adapter"),
}
TOOL_SIGNS = ("Lora", "loras", "VAE", "vae", "ControlNet", "controlnet")  # what tells such a folder of models


def split_folders(text: str) -> list[str]:
    """Return the folders of a preference that holds several, separated by ";" or as the system separates them."""
    return [part.strip() for part in re.split(f"[;{os.pathsep}]", text) if part.strip()]


def expanded(folder: str | Path) -> Path:
    """Return a folder with its "~" in full; one of no user stays as it is."""
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        return Path(folder)


def tool_places(folder: Path, kind: str) -> list[Path]:
    """Return where a folder has that kind of file if it is another tool's, nothing where it is not."""
    roots = [folder / "models"]
    if any((folder / name).is_dir() for name in TOOL_SIGNS):
        roots.append(folder)
    found = {(root / name).resolve(): root / name for root in roots for name in TOOL_PLACES[kind]}
    return [place for place in found.values() if place.is_dir()]


def places(kind: str, own: Iterable[str | Path], shared: Iterable[str | Path] = ()) -> tuple[str, ...]:
    """Return the folders to search for one kind of file.

    own: folders chosen for that kind, each looked into whole unless it is another tool's; shared: folders of models,
    where only other tools' places count.
    """
    found = [str(place) for folder in map(expanded, own) for place in tool_places(folder, kind) or [folder]]
    found += [str(place) for folder in map(expanded, shared) for place in tool_places(folder, kind)]
    return tuple(dict.fromkeys(found))
