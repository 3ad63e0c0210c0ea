"""Write the README's tables of settings from their declarations: `python tools/settings_table.py`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.settings import OPERATIONS, Diffusion, Settings

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- settings -->", "<!-- /settings -->"
LONGEST_LIST = 8  # choices that are written out; more are only counted: --help lists them


def row(item: dataclasses.Field[Any]) -> str:
    """Return one setting as a line of the table."""
    data = item.metadata
    extent = ""
    if data["choices"]:
        names = list(data["choices"])
        extent = ", ".join(names) if len(names) <= LONGEST_LIST else f"{len(names)} names, see `--help`"
    elif data["minimum"] is not None:
        extent = f"{data['minimum']:.10g} to {data['maximum']:.10g}"
    default = f"`{item.default}`" if item.default != "" else ""
    description = data["description"].replace("|", "\\|")
    return f"| {data['label']} | `--{item.name.replace('_', '-')}` | {extent} | {default} | {description} |"


def own_fields(cls: type[Settings]) -> list[dataclasses.Field[Any]]:
    """Return the settings of a class that stand in no table of the classes that it builds on."""
    shown = [base for base in cls.__mro__[1:] if base in (Diffusion, *OPERATIONS.values())]
    known = {id(item) for base in shown for item in dataclasses.fields(base)}
    return [item for item in dataclasses.fields(cls) if id(item) not in known]


def table(title: str, fields: list[dataclasses.Field[Any]]) -> list[str]:
    """Return one table, closed until it is clicked on."""
    head = ["| Setting | Flag | Values | Default | What it does |", "|---|---|---|---|---|"]
    return [f"<details><summary>{title}</summary>", "", *head, *map(row, fields), "", "</details>", ""]


def tables() -> str:
    """Return the tables of all operations."""
    lines = table("<b>What all that run a model share</b>", list(dataclasses.fields(Diffusion)))
    for name, cls in OPERATIONS.items():
        above = next((base for base in cls.__mro__[1:] if base in OPERATIONS.values()), None)
        too = f", and all of {above.operation}" if above is not None and issubclass(above, Settings) else ""
        summary = (cls.__doc__ or "").splitlines()[0].rstrip(".")
        lines += table(f"<b>{name}</b>: {summary[0].lower()}{summary[1:]}{too}", own_fields(cls))
    return "\n".join(lines)


def updated(text: str) -> str:
    """Return the README's text with the tables made anew."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
