"""Has somebody asked this session to pause, because its time on the machine is up?

A batch system says so with a signal a few minutes ahead of the end. The driver then grants nothing more,
and a file in the run folder asks the trials, on whichever nodes they run: each pauses at its next step
with a checkpoint, and the session ends with exit code 75. The same command goes on from there.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic
from types import FrameType

from lvray.core.errors import Preempted
from lvray.core.run_folder import is_there

SIGNAL = signal.SIGUSR1
"""Asks a driver to pause."""

LOOK_EVERY = 1.0
"""Seconds between two looks of a trial at the file: a look at a shared file system takes milliseconds, a step may too."""

REASON = "the session was asked to pause"


@dataclass(frozen=True, slots=True)
class Preemption:
    """What a driver knows of it; False until the signal came."""

    file: Path
    """Asks the trials."""
    _asked: Event = field(default_factory=Event)
    _told: Event = field(default_factory=Event)

    def __bool__(self) -> bool:
        return self._asked.is_set()

    def ask(self, signum: int = 0, frame: FrameType | None = None) -> None:
        """Asks this session to pause: a signal handler, so it does as little as can be."""
        self._asked.set()

    def tell_trials(self) -> None:
        """Asks the trials, wherever they run. Where the file cannot be made now (a full disk), the next call tries again."""
        if not self._told.is_set():
            try:
                self.file.touch()
            except OSError:
                return
            self._told.set()

    def ensure_not_asked(self) -> None:
        """Ends the session here if it was asked to pause.

        Raises:
            Preempted: it was.
        """
        if self:
            raise Preempted(
                "paused as asked: every trial waits at a checkpoint and the books are in order. "
                "The same command goes on from here."
            )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens for the signal; what an earlier session was asked is forgotten."""
        self.file.unlink(missing_ok=True)
        before = signal.signal(SIGNAL, self.ask)
        try:
            yield
        finally:
            signal.signal(SIGNAL, before)
            self.file.unlink(missing_ok=True)


def asked_by(
    file: str | None, *, clock: Callable[[], float] = monotonic, every: float = LOOK_EVERY
) -> Callable[[], bool]:
    """Gives what a trial asks before each step: whether `file` is there, looked at once in `every` seconds of `clock`."""
    if file is None:
        return lambda: False
    place, asked, next_look = Path(file), False, clock()

    def look() -> bool:
        nonlocal asked, next_look
        now = clock()
        if not asked and now >= next_look:
            asked, next_look = is_there(place), now + every
        return asked

    return look
