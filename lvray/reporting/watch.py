"""What does a person see of a sweep that runs elsewhere?

What its driver shows, made from the run folder alone. No lock is taken and nothing is written: a driver on
another node cannot tell that it is watched. A folder that is not there yet is waited for, since a queued job
makes it when it starts; a driver that goes on after another is followed like the first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from lvray.core.errors import LvrayError, RunFolderError
from lvray.core.run_folder import RunFolder, is_there
from lvray.core.trial import Status
from lvray.core.units import format_flops, format_seconds, format_share
from lvray.ledger.journal import Clock, Journal, wall_clock
from lvray.ledger.ledger import SPENT, Ledger
from lvray.reporting.live import LiveView, Scene, trial_seconds_left
from lvray.scheduler.replay import History, take

POLL_SECONDS = 2.0
"""Between two looks: two small reads, which no file server feels, and soon enough for a person."""

QUIET_SECONDS = 60.0
"""After which the picture says how long ago the sweep was last heard of."""

LOG_QUIET_SECONDS = 600.0
"""After which a log says it; then after twice as long, and so on."""

LATE = 3.0
"""Times what the running trials' stretches take at their pace: later than that is not only slow."""

EVENTS = frozenset({"decision", "failure", "interruption", "close"})
"""Records after which a driver shows something new."""

Taken = Callable[[Mapping[str, Any]], None]
"""Hears of each record once the history has taken it."""


class Followed:
    """A sweep as its run folder tells it so far; `look` reads what was written since."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.folder = RunFolder(root)
        self.history = History()
        self.ledger: Ledger | None = None
        """None until a driver has begun."""
        self.replaced = False
        """Whether the run folder is no longer the one that was followed: begin again with what is there."""
        self._clock = clock
        self._journal = Journal(self.folder.journal)
        self._unread: list[Mapping[str, Any]] = []
        self._identity = _identity(root)
        self._written = self._heard = self._now
        self._interrupted = False
        self._trouble = ""

    def look(self, taken: Taken = lambda record: None) -> None:
        """Reads what is new, journal first, so that the books are never older than what is told of them.

        Raises:
            LvrayError: something cannot be read or is damaged, now and at the look before. Once may be a file
                server that shows a write half done.
        """
        try:
            self._read(taken)
        except LvrayError as error:
            if str(error) == self._trouble:
                raise
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _read(self, taken: Taken) -> None:
        if _identity(self.folder.root) != self._identity:
            self.replaced = True
            return
        self._unread += self._journal.news()
        if self.ledger is not None:
            self.ledger.refresh()
        if self._unread:
            self._note_time(self._unread[-1])
        while self._unread:
            record = self._unread.pop(0)
            take(self.history, record)
            if record["event"] in {"interruption", "start"}:
                self._interrupted = record["event"] == "interruption"
            taken(record)
        if self.ledger is None and self.history.sessions:
            self.ledger = Ledger.read(Path(self.history.shared_ledger or self.folder.ledger))

    def _note_time(self, latest: Mapping[str, Any]) -> None:
        """Once a sweep is followed, its news is dated by our clock: the driver's may go differently."""
        self._written = _seconds_of(latest)
        self._heard = min(self._written, self._now) if self.ledger is None else self._now

    @property
    def _now(self) -> float:
        return self._clock().timestamp()

    def seconds(self) -> float:
        """The time that the sweep has come to, in seconds since 1970: now, or when it ended."""
        return self._written if self.history.ended else self._now

    @property
    def began(self) -> float:
        """When the latest driver began, on the same clock."""
        return min(_seconds_of(self.history.sessions[-1]), self.seconds())

    @property
    def spent_before(self) -> int:
        """FLOPs that were spent when the latest driver began, by all who draw on the ledger."""
        assert self.ledger is not None, "no driver has begun"
        begun = datetime.fromisoformat(self.history.sessions[-1]["at"])
        _, *transactions = Journal(self.ledger.path).replay()
        return sum(
            int(transfer["flops"])
            for transaction in transactions
            if datetime.fromisoformat(transaction["at"]) <= begun
            for transfer in transaction["transfers"]
            if transfer["taker"] == SPENT
        )

    @property
    def quiet(self) -> float:
        """Seconds since the journal last said something."""
        return max(0.0, self._now - self._heard)

    def note(self) -> str:
        """How long nothing was heard, and what that may mean; nothing while there is news."""
        asked = is_there(self.folder.pause)
        if self.history.ended:
            return ""
        running = [
            trial for trial in self.history.trials.values() if trial.status is Status.RUNNING
        ]
        if self.quiet < QUIET_SECONDS and not (asked and running):
            return ""
        told = f"last heard of {format_seconds(self.quiet)} ago"
        if asked and running:
            return f"{told}; it is asked to pause: its trials stop at their next step"
        if not running and self._interrupted:
            return f"{told}; its driver was interrupted and left all in order: the same command goes on, or its job is queued again"
        if not running:
            return f"{told}; no trial is running: its driver is between stages, queued again, paused or gone"
        expected = [left for trial in running if (left := trial_seconds_left(trial)) is not None]
        if expected and self.quiet > LATE * max(expected):
            return f"{told}, and a stretch takes {format_seconds(max(expected))}: its driver may be queued again, paused or dead"
        return told


def watch(
    root: Path,
    *,
    console: Console | None = None,
    clock: Clock = wall_clock,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Shows the sweep of a run folder until it has ended, whichever drivers carry it there.

    Args:
        root: the run folder; one that is not there yet is waited for.
        console: where to show it; on a terminal as a picture, elsewhere a line an event.
        clock: tells the time.
        sleep: waits for some seconds.

    Raises:
        RunFolderError: what is there is no run folder, or cannot be read.
        JournalCorrupt: its journal or ledger is damaged.
    """
    console = console or Console(file=sys.stdout, highlight=False)
    while True:
        followed = _wait(root, console, clock, sleep)
        if _follow(followed, console, sleep):
            break
        console.print(
            f"{root} was put aside; what comes in its place is next", soft_wrap=True, markup=False
        )
    _say_end(followed, console)


def _wait(root: Path, console: Console, clock: Clock, sleep: Callable[[float], None]) -> Followed:
    """Waits until a driver has begun in a run folder."""
    told = ""
    followed = Followed(root, clock)
    while True:
        followed.look()
        if followed.replaced:
            followed = Followed(root, clock)
            continue
        if followed.ledger is not None:
            return followed
        missing = "no driver has begun in it" if root.is_dir() else f"nothing is there{_near(root)}"
        if missing != told:
            told = missing
            console.print(
                f"{root}: {missing}. Waiting for a driver to begin, as a queued job will; Ctrl-C ends the watch",
                soft_wrap=True,
                markup=False,
            )
        sleep(POLL_SECONDS)


def _follow(followed: Followed, console: Console, sleep: Callable[[float], None]) -> bool:
    """Shows a sweep until it has ended (True), or its run folder is another one (False)."""
    assert followed.ledger is not None, "no driver has begun"
    view = LiveView(
        followed.history,
        followed.ledger,
        console=console,
        clock=followed.seconds,
        note=followed.note,
    )
    view.since(followed.began, followed.spent_before)
    say_after = LOG_QUIET_SECONDS

    def taken(record: Mapping[str, Any]) -> None:
        if record["event"] == "session":
            view.since(followed.began, followed.spent_before)
            view.say(f"driver {len(followed.history.sessions)} goes on with the sweep")
        elif record["event"] in EVENTS:
            view.heard()

    with view:
        while not followed.history.ended:
            view.changed()
            if followed.quiet < LOG_QUIET_SECONDS:
                say_after = LOG_QUIET_SECONDS
            elif followed.quiet >= say_after and not console.is_terminal:
                view.say(followed.note())
                say_after *= 2
            sleep(POLL_SECONDS)
            followed.look(taken)
            if followed.replaced:
                return False
    return True


def _say_end(followed: Followed, console: Console) -> None:
    assert followed.ledger is not None, "no driver has begun"
    scene, page = Scene(followed.history, followed.ledger), followed.folder.root / "report.html"
    spent = f"{format_flops(scene.spent)} of {format_flops(scene.budget)} FLOPs spent ({format_share(scene.spent, scene.budget)})"
    console.print(f"the sweep has ended: {spent}", soft_wrap=True)
    made = "" if page.exists() else " (its driver is making it)"
    console.print(f"report: {page}{made}", soft_wrap=True, markup=False)


def _identity(root: Path) -> tuple[int, int] | None:
    """What tells a folder from another one of its name; None where there is none.

    Raises:
        RunFolderError: it is no folder, or may not be looked at.
    """
    try:
        found = root.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunFolderError(f"{root}: cannot be read: {error.strerror}") from error
    if not root.is_dir():
        raise RunFolderError(f"{root}: no run folder: a file is there")
    return found.st_dev, found.st_ino


def _near(root: Path) -> str:
    """Which run folders stand where one is expected: a name may be mistyped."""
    if not root.parent.is_dir():
        return f", nor is {root.parent}"
    names = sorted(path.parent.name for path in root.parent.glob("*/journal.jsonl"))
    return f"; beside it: {', '.join(names)}" if names else ""


def _seconds_of(record: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(record["at"]).timestamp()
