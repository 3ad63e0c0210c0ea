"""A picture's settings as infotext, and settings out of any infotext."""

from __future__ import annotations

from .keys import SCRIPT, SOURCE
from .reading import ParsedParameters, settings_from_text
from .writing import describe

__all__ = ["SCRIPT", "SOURCE", "ParsedParameters", "describe", "settings_from_text"]
