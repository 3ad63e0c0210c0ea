"""How many inputs hypothesis tries: a hundred as a rule, 10,000 a test with --hypothesis-profile=long."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("long", max_examples=10_000)
