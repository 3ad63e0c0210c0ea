"""Changing Blender's settings for a moment, and putting them back whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def changed(target: Any, **values: Any) -> Iterator[None]:
    """Set attributes of a Blender struct inside a with block, and restore them all, both in the order given.

    Give what others depend on first, as a file format before its colour depth: setting it may change those, and only
    under the old one can they be what they were.
    """
    before = {name: _copy(getattr(target, name)) for name in values}
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)


def _copy(value: Any) -> Any:
    """Return what an attribute holds now, rather than a view that changes with it."""
    return tuple(value) if type(value).__name__ in ("bpy_prop_array", "Color", "Vector") else value
