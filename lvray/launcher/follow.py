"""What is a job seen to do, until it has ended? Its states and the new lines of its log, across requeues."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

from lvray.core.errors import LvrayError
from lvray.launcher.slurm import Seen

EVERY_SECONDS = 5
"""Between two looks; Slurm's controller serves everyone."""

ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
)  # fmt: skip
"""States that a job stays in, unless it is requeued at once (man squeue, JOB STATE CODES)."""


class Log:
    """A file that grows, from where it stood when it was first looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def more(self) -> str:
        """Gives what was added since it was last asked; "" while there is no file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                added = file.read()
        except FileNotFoundError:
            return ""
        self._at += len(added)
        return self._decoder.decode(added)


def follow(
    look: Callable[[], Seen | None],
    log: Log,
    *,
    say: Callable[[str], None],
    show: Callable[[str], None],
    runs_on: Callable[[str], str],
    wait: Callable[[float], None],
) -> Seen | None:
    """Tells what becomes of a job until it has ended, and gives how it was last seen; None where it never was.

    A state that ends a job must be seen twice: one that is requeued passes through some of them.

    Args:
        look: asks after the job; None where the scheduler knows it no more.
        log: what the job prints.
        say: told of each change, a line.
        show: told what the log has more, as it is.
        runs_on: what there is to say of a job that runs on a node.
        wait: passes so many seconds.
    """
    last: Seen | None = None
    silent = False
    while True:
        try:
            now = look()
        except LvrayError as error:
            if not silent:
                say(f"{error}; still trying")
            silent = True
            now = last
        else:
            if silent:
                say("the scheduler answers again")
            silent = False
            ended = now is None or (last is not None and now == last and now.state in ENDED)
            if now is not None and now != last:
                for line in _changes(last, now, runs_on):
                    say(line)
            if ended:
                if added := log.more():
                    show(added)
                return last
            last = now
        if added := log.more():
            show(added)
        wait(EVERY_SECONDS)


def _changes(last: Seen | None, now: Seen, runs_on: Callable[[str], str]) -> list[str]:
    lines = []
    if last is not None and now.restarts > last.restarts:
        lines.append(f"requeued, the {_ordinal(now.restarts)} time")
    if last is None or (now.state, now.reason) != (last.state, last.reason):
        because = f" ({now.reason})" if now.reason else ""
        lines.append(f"{now.state.lower().replace('_', ' ')}{because}")
    if (
        now.state == "RUNNING"
        and now.node
        and (
            last is None
            or (last.state, last.node, last.restarts) != ("RUNNING", now.node, now.restarts)
        )
    ):
        lines.append(runs_on(now.node))
    return lines


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in {11, 12, 13} else ending}"
