"""Which policies are there? A new one is a file in `lvray/scheduler` and a line here.

A sweep file may name every policy of this list, whether or not the code behind it was ever imported: the words stand on
the lowest floor, and `scheduler.registry` finds the file that belongs to each. docs/adding_a_policy.md tells how to write one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """One policy."""

    module: str
    """Its file in `lvray/scheduler`."""
    plans_steps: bool
    """Whether it decides itself how far trials go and where they are measured; else the stage's `steps` and `evaluations` do."""


POLICIES: Mapping[str, Entry] = {
    "fixed": Entry("fixed", plans_steps=False),
    "halving": Entry("halving", plans_steps=True),
    "freeze-thaw": Entry("freeze_thaw", plans_steps=True),
}
"""Every policy, by the name that a sweep file gives it."""
