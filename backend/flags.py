"""Command-line flags made from the settings' own declarations, for every command line there is."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from .settings import Settings


def add_setting_flags(parser: argparse.ArgumentParser, *classes: type[Settings]) -> None:
    """Give a parser one flag a setting, such as --cfg-scale; a flag that isn't given is left out of the result.

    A setting that several classes have gets one flag, described as in the first.
    """
    items: dict[str, dataclasses.Field[Any]] = {}
    for cls in classes:
        for item in dataclasses.fields(cls):
            items.setdefault(item.name, item)
    for item in items.values():
        flag = "--" + item.name.replace("_", "-")
        if isinstance(item.default, bool):
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=_help(item)
            )
        else:
            kind = type(item.default)
            metavar = {int: "N", float: "X", str: "TEXT"}[kind]
            parser.add_argument(flag, type=kind, metavar=metavar, default=argparse.SUPPRESS, help=_help(item))


def given_settings(arguments: argparse.Namespace, cls: type[Settings]) -> dict[str, Any]:
    """Return the settings of that class that were given as flags."""
    names = {item.name for item in dataclasses.fields(cls)}
    return {name: value for name, value in vars(arguments).items() if name in names}


def _help(item: dataclasses.Field[Any]) -> str:
    minimum, maximum, choices = (item.metadata[name] for name in ("minimum", "maximum", "choices"))
    extent = f"; {minimum:.10g} to {maximum:.10g}" if minimum is not None and maximum is not None else ""
    options = f"; one of: {', '.join(choices)}" if choices else ""
    return f"{item.metadata['description']}{extent}{options} (default {item.default})".replace("%", "%%")
