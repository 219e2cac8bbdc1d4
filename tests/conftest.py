"""Settings of all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

# Commands that are started here get Ctrl-C as at a terminal, also where the tests themselves run in the background, which
# a shell tells to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "lvray", deadline=None
)  # machines are shared: a slow example is no finding
settings.load_profile("lvray")
