"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile(
    "lvray", deadline=None
)  # machines are shared: a slow example is no finding
settings.load_profile("lvray")
