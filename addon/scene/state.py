"""Changing Blender's settings for a moment, and putting them back whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def changed(target: Any, **values: Any) -> Iterator[None]:
    """Set attributes of a Blender struct inside a with block, in order, and restore them in the reverse order."""
    before: list[tuple[str, Any]] = []
    try:
        for name, value in values.items():
            before.append((name, _copy(getattr(target, name))))
            setattr(target, name, value)
        yield
    finally:
        for name, value in reversed(before):
            setattr(target, name, value)


def _copy(value: Any) -> Any:
    """Return what an attribute holds now, rather than a view that changes with it."""
    return tuple(value) if type(value).__name__ in ("bpy_prop_array", "Color", "Vector") else value
