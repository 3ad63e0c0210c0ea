"""How a setting is declared: once, with its default, label, description and range, and how values are checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from ..errors import InvalidRequest


def setting(
    default: Any,
    label: str,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
    choices: Mapping[str, tuple[str, str]] | None = None,
    is_path: bool = False,
    suggestions: tuple[str, ...] = (),
) -> Any:
    """Declare one setting: its default, label, one-sentence description, and range or choices.

    is_path: the text can name a file or folder. suggestions: texts that a field offers, beside any other.
    """
    metadata = {
        "label": label,
        "description": description,
        "minimum": minimum,
        "maximum": maximum,
        "step": step,
        "choices": choices,
        "is_path": is_path,
        "suggestions": suggestions,
    }
    return field(default=default, metadata=metadata)


def named(names: Mapping[str, Any] | tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Return choices whose labels and descriptions are their own names."""
    return {name: (name, name) for name in names}


@dataclass(frozen=True)
class Settings:
    """What every operation shares: its name, the images that it takes, and the checking of ranges."""

    operation: ClassVar[str] = ""
    label: ClassVar[str] = ""
    images: ClassVar[tuple[str, ...]] = ("init",)
    optional_images: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        """Raise InvalidRequest for the first setting that is of the wrong kind, out of range or not a choice."""
        for item in dataclasses.fields(self):
            _check_field(item, getattr(self, item.name))


AnySettings = TypeVar("AnySettings", bound=Settings)


def make_settings(cls: type[AnySettings], values: Mapping[str, Any]) -> AnySettings:
    """Return checked settings of that class from names and values; an unknown name raises InvalidRequest."""
    known = {item.name: item for item in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            raise InvalidRequest(f"{cls.label} has no setting called {name!r}.", f"It has: {', '.join(known)}.")
    floats = {
        name: float(value)
        for name, value in values.items()
        if isinstance(known[name].default, float) and type(value) is int
    }
    settings = cls(**{**values, **floats})
    settings.check()
    return settings


def as_settings(cls: type[AnySettings], settings: Settings, **changes: Any) -> AnySettings:
    """Return settings of one class with the values of another's that both have, some of them changed."""
    shared = {item.name for item in dataclasses.fields(cls)} & {item.name for item in dataclasses.fields(settings)}
    return cls(**{**{name: getattr(settings, name) for name in shared}, **changes})


_KINDS = {bool: "on or off", int: "a whole number", float: "a number", str: "text"}


def _check_field(item: dataclasses.Field[Any], value: Any) -> None:
    label, minimum, maximum = item.metadata["label"], item.metadata["minimum"], item.metadata["maximum"]
    choices = item.metadata["choices"]
    kind = type(item.default)
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) if kind is float else type(value) is kind
    if not fits:
        raise InvalidRequest(f"{label} must be {_KINDS[kind]}, not {value!r}.")
    if kind is float and not math.isfinite(value):
        raise InvalidRequest(f"{label} must be a finite number, not {value}.")
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        raise InvalidRequest(f"{label} is {value}; it must lie between {minimum} and {maximum}.")
    if choices and value not in choices:
        raise InvalidRequest(f"{label} can't be “{value}”.", f"Choose one of: {', '.join(choices)}.")
    if kind is str and "\0" in value:
        raise InvalidRequest(f"{label} holds a null character.", "Remove it.")
