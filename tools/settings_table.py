"""Write the README's table of settings from their declarations: `python tools/settings_table.py`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.settings import OPERATIONS, Diffusion

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- settings -->", "<!-- /settings -->"


def row(item: dataclasses.Field[Any]) -> str:
    """Return one setting as a line of the table."""
    data = item.metadata
    extent = ""
    if data["choices"]:
        extent = ", ".join(data["choices"])
    elif data["minimum"] is not None:
        extent = f"{data['minimum']:.10g} to {data['maximum']:.10g}"
    default = f"`{item.default}`" if item.default != "" else ""
    return f"| {data['label']} | `--{item.name.replace('_', '-')}` | {extent} | {default} | {data['description']} |"


def table() -> str:
    """Return the tables of all operations."""
    shared = dataclasses.fields(Diffusion)
    groups = {"img2img, inpaint and outpaint": shared}
    seen = {item.name for item in shared}
    for name, cls in OPERATIONS.items():
        groups[name] = tuple(item for item in dataclasses.fields(cls) if item.name not in seen or name == "upscale")
        if name == "img2img":
            groups["img2img and inpaint"] = groups.pop(name)
            img2img = {item.name for item in dataclasses.fields(cls)}
        if name == "inpaint":
            groups[name] = tuple(item for item in groups[name] if item.name not in img2img)
    lines = []
    for title, fields in groups.items():
        lines += [f"**{title}**", "", "| Setting | Flag | Values | Default | What it does |", "|---|---|---|---|---|"]
        lines += [*map(row, fields), ""]
    return "\n".join(lines)


def updated(text: str) -> str:
    """Return the README's text with the tables made anew."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
