"""Which policies are there? A new one is a file in `lvray/scheduler` and a line here.

A sweep file may name every policy of this list, whether or not the code behind it was ever imported: the words stand on
the lowest floor, and `scheduler.registry` finds the file that belongs to each. docs/adding_a_policy.md tells how to write one.
"""

from __future__ import annotations

from collections.abc import Mapping

POLICIES: Mapping[str, str] = {
    "fixed": "fixed",
    "halving": "halving",
    "freeze-thaw": "freeze_thaw",
}
"""The module in `lvray.scheduler` of each, by the name that a sweep file gives it."""
