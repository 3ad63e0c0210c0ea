"""Presets as Blender writes them, Python files of assignments, read as data: a stranger's preset can't run code."""

from __future__ import annotations

import ast
from typing import Any

from ..errors import InvalidRequest

HEAD = ("import bpy", "settings = bpy.context.scene.viewport_diffusion")
AGAIN = "Choose the settings by hand, and keep them with the preset menu's plus button."


def read_preset(text: str) -> dict[tuple[str, str], Any]:
    """Return what a preset assigns, as (group, setting) → a literal, in its order.

    Raises InvalidRequest for a text that holds anything but `settings.GROUP.SETTING = LITERAL` below the two lines that
    Blender puts above.
    """
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidRequest("The preset is damaged: it can't be read.", AGAIN) from error
    values: dict[tuple[str, str], Any] = {}
    for statement in statements:
        match statement:
            case ast.Assign([ast.Attribute(ast.Attribute(ast.Name("settings"), group), name)], value):
                try:
                    values[group, name] = ast.literal_eval(value)
                except (ValueError, TypeError, RecursionError, MemoryError) as error:
                    raise _not_a_setting(statement) from error
            case ast.Import() | ast.Assign() if ast.unparse(statement) in HEAD:
                pass
            case _:
                raise _not_a_setting(statement)
    return values


def _not_a_setting(statement: ast.stmt) -> InvalidRequest:
    return InvalidRequest(f"Line {statement.lineno} of the preset is no setting, and presets are never run.", AGAIN)
