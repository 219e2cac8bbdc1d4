"""What does a person see while a sweep runs?

On a terminal: the ledger as a bar, a line a trial with its milestone, loss, status, time left and the reason
for where it stands. Elsewhere (a log file, CI): a line an event. Both are folded from the sweep's history and
books, so they show nothing that is not written down.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lvray.core.trial import Status, Trial
from lvray.core.units import format_flops, format_seconds, format_share
from lvray.ledger.ledger import BUDGET, SOURCE, SPENT, Ledger, stage_account
from lvray.scheduler.replay import History

REFRESH_SECONDS = 0.25
MOST_ROWS = 20
RATE_SHARE = 0.03
"""Of the budget: what must have been spent before its rate says anything; the start of the workers is slow."""

COLOURS = {
    Status.RUNNING: "cyan",
    Status.PAUSED: "yellow",
    Status.COMPLETED: "green",
    Status.STOPPED: "bright_black",
    Status.FAILED: "red",
    Status.REFUSED: "bright_black",
    Status.PLANNED: "white",
}

ORDER = (
    Status.RUNNING,
    Status.COMPLETED,
    Status.PAUSED,
    Status.STOPPED,
    Status.FAILED,
    Status.PLANNED,
    Status.REFUSED,
)
"""Which trials of a stage are shown first where there are too many for the screen."""

LOOKS = {
    "spent": ("█", "green"),
    "reserved": ("▓", "cyan"),
    "held back": ("▒", "yellow"),
    "free": ("░", "bright_black"),
}
"""How a cell of each piece of the bar is drawn, and its colour."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to show: the sweep as told and the books as they stand."""

    history: History
    ledger: Ledger

    @property
    def sweep(self) -> str:
        """The sweep's name; empty before a driver has begun."""
        return str(self.history.sessions[-1]["spec"]["name"]) if self.history.sessions else ""

    @property
    def budget(self) -> int:
        """FLOPs granted in all."""
        return -self.ledger.balance(SOURCE)

    @property
    def spent(self) -> int:
        """FLOPs used, lost ones included."""
        return self.ledger.balance(SPENT)

    @property
    def reserved(self) -> int:
        """FLOPs that running trials hold."""
        return sum(
            flops for account, flops in self.ledger.balances.items() if account.startswith("trial:")
        )

    @property
    def held_back(self) -> int:
        """FLOPs set aside for stages that have not begun: no stage before them can touch these."""
        begun = {stage_account(self.sweep, stage) for stage in self.history.stages}
        return sum(
            flops
            for account, flops in self.ledger.balances.items()
            if account.startswith(stage_account(self.sweep, "")) and account not in begun
        )

    @property
    def pieces(self) -> dict[str, int]:
        """The budget in FLOPs, from left to right on the bar."""
        taken = {"spent": self.spent, "reserved": self.reserved, "held back": self.held_back}
        return {**taken, "free": self.budget - sum(taken.values())}

    @property
    def trials(self) -> list[Trial]:
        """Every trial: those of the latest stage first, and of a stage the running ones."""
        return [
            trial
            for stage in reversed(self.history.stages.values())
            for trial in sorted(stage.trials.values(), key=lambda trial: ORDER.index(trial.status))
        ]

    def seconds_left(self, *, elapsed: float, spent_before: int) -> float | None:
        """Seconds until the budget is spent at this session's rate; None before that rate is known."""
        done = self.spent - spent_before
        if done < self.budget * RATE_SHARE or done == 0:
            return None
        unspent = self.budget - self.spent - self.ledger.balance(BUDGET)
        return unspent * elapsed / done


def render(
    scene: Scene, *, elapsed: float, spent_before: int, width: int, note: str = ""
) -> RenderableType:
    """The whole view.

    Args:
        scene: what there is to show.
        elapsed: seconds since this session began.
        spent_before: FLOPs that were spent when it began.
        width: columns of the terminal.
        note: what else there is to say, at the foot.
    """
    left = scene.seconds_left(elapsed=elapsed, spent_before=spent_before)
    head = Text.assemble(
        (f"{format_flops(scene.spent)}", "bold"),
        f" of {format_flops(scene.budget)} FLOPs spent ({format_share(scene.spent, scene.budget)})   ",
        f"{format_seconds(elapsed)} gone",
        "" if left is None else f", about {format_seconds(left)} left",
    )
    foot = [Text(note, style="yellow")] if note else []
    return Group(head, bar(scene, width), legend(scene), trial_table(scene.trials), *foot)


def legend(scene: Scene) -> Text:
    """What the pieces of the bar are, in FLOPs; pieces of nothing are left out."""
    parts = [
        Text.assemble(LOOKS[name], f" {name} {format_flops(flops)}")
        for name, flops in scene.pieces.items()
        if flops
    ]
    return Text("   ").join(parts)


def bar(scene: Scene, width: int) -> Text:
    """The ledger as a bar of `width` cells: spent, reserved, held back, free."""
    drawn = Text()
    if not scene.budget:
        return drawn
    until = 0
    for name, flops in scene.pieces.items():
        until += flops
        cell, colour = LOOKS[name]
        # From where the bar ends to where this piece ends: rounding never adds up to another width.
        drawn.append(cell * (until * width // scene.budget - len(drawn)), colour)
    return drawn


def trial_table(trials: Sequence[Trial]) -> Table:
    """A row a trial, as many as fit, and a count of the rest."""
    table = Table(box=None, pad_edge=False, expand=True)
    for name in ("trial", "status"):
        table.add_column(name, no_wrap=True)
    for name in ("rung", "at", "step", "loss", "FLOPs", "left"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("why", ratio=1, no_wrap=True, overflow="ellipsis")
    for trial in trials[:MOST_ROWS]:
        # Text, not str: rich would read a path in brackets, as errors have them, for markup of its own.
        table.add_row(*map(Text, cells(trial)), style=COLOURS[trial.status])
    if len(trials) > MOST_ROWS:
        table.add_row(f"… {len(trials) - MOST_ROWS} more")
    return table


def cells(trial: Trial) -> tuple[str, ...]:
    """One trial as the columns of `trial_table`."""
    return (
        trial.plan.trial_id,
        trial.status.value,
        rung_of(trial),
        f"{trial.reached + 1}/{len(trial.plan.milestones)}",
        f"{trial.step}/{trial.plan.steps}",
        "" if trial.loss is None else f"{trial.loss:.4f}",
        format_flops(trial.flops_heard),
        "" if (left := trial_seconds_left(trial)) is None else format_seconds(left),
        " ".join(trial.reason.split()),
    )


def rung_of(trial: Trial) -> str:
    """The last rung that the trial reached, and the top one; empty where nobody judges at rungs."""
    rungs = [
        (index, milestone.rung)
        for index, milestone in enumerate(trial.plan.milestones)
        if milestone.rung is not None
    ]
    if not rungs:
        return ""
    reached = [rung for index, rung in rungs if index <= trial.reached]
    return f"{reached[-1] if reached else '–'}/{rungs[-1][1]}"


def trial_seconds_left(trial: Trial) -> float | None:
    """Seconds from the last milestone heard of to the end of what is granted, at the pace so far."""
    if trial.status is not Status.RUNNING or not trial.curve:
        return None
    ahead = trial.flops_until(trial.granted)
    heard = trial.curve[-1]
    return ahead * heard.seconds / heard.flops


class LiveView:
    """Shows a sweep while it runs. `changed` when something was heard, `tick` whenever there is time.

    The driver has one; whoever watches from elsewhere has one too, fed from the run folder (`reporting.watch`).
    """

    def __init__(
        self,
        history: History,
        ledger: Ledger,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = monotonic,
        note: Callable[[], str] = lambda: "",
    ) -> None:
        self._scene = Scene(history, ledger)
        self._console = console or Console(file=sys.stdout, highlight=False)
        self._clock = clock
        self._note = note
        self._shown = clock()
        self._told: dict[str, tuple[Status, int, str]] = {}
        self._live = (
            Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        )
        self.since(self._shown, ledger.balance(SPENT))

    def since(self, begun: float, spent: int) -> None:
        """Counts time and rate from `begun`, in seconds of the clock, when `spent` FLOPs were spent."""
        self._begun, self._spent_before = begun, spent

    def __enter__(self) -> LiveView:
        """Takes over the bottom of the terminal."""
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Shows the last state and gives the terminal back."""
        self.changed()
        if self._live:
            self._live.stop()

    def changed(self) -> None:
        """Shows what is new at once."""
        if self._live:
            self._refresh()
        else:
            self._tell_news()

    def heard(self) -> None:
        """Tells one event of many in a log; a terminal shows where they led, by `changed`."""
        if not self._live:
            self._tell_news()

    def tick(self) -> None:
        """Lets the clock go on, at most four times a second."""
        if self._live and self._clock() - self._shown >= REFRESH_SECONDS:
            self._refresh()

    def say(self, text: str) -> None:
        """Prints a line that stays: above the picture, or among the events."""
        self._console.print(text, soft_wrap=True, markup=False)

    def _refresh(self) -> None:
        assert self._live is not None, "only a terminal is refreshed"
        self._shown = self._clock()
        view = render(
            self._scene,
            elapsed=self._shown - self._begun,
            spent_before=self._spent_before,
            width=self._console.width,
            note=self._note(),
        )
        self._live.update(view, refresh=True)

    def _tell_news(self) -> None:
        for name, trial in self._scene.history.trials.items():
            news = (trial.status, trial.reached, trial.reason)
            if news != self._told.get(name) and (trial.status is not Status.PLANNED):
                self._told[name] = news
                _, status, _, at, step, loss, flops, _, why = cells(trial)
                share = format_share(self._scene.spent, self._scene.budget)
                line = f"{share:>6} spent  {name:<14} {status:<9} {at:>5} step {step:<11} loss {loss:<7} {flops:>8}  {why}"
                self.say(line.rstrip())
