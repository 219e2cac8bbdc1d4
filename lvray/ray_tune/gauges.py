"""Which figures of a sweep does Prometheus see?

Ledger and trials as gauges of Ray's own metrics, set by the driver. Ray exports them from the node that the driver
runs on, every ten seconds, each name with `ray_` before it; without `ray[default]` it exports nothing, and setting
them does nothing. They tell what the live view shows, so sweeps that share a ledger each tell all of it.

A gauge is a float. Here and nowhere else FLOPs are rounded: above 2^53 they no longer count by ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from time import monotonic

from ray.util.metrics import Gauge

from lvray.core.trial import Status
from lvray.ledger.ledger import Ledger
from lvray.reporting.live import Scene
from lvray.scheduler.replay import History, StageHistory

TELL_SECONDS = 5.0
"""Between two tellings of the same state: Ray exports every ten."""

METRICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "lvray_flops_budget": ("FLOPs granted to the ledger in all", ("sweep",)),
    "lvray_flops_spent": ("FLOPs used, lost ones included", ("sweep",)),
    "lvray_flops_reserved": ("FLOPs that running trials hold", ("sweep",)),
    "lvray_flops_held_back": ("FLOPs set aside for stages that have not begun", ("sweep",)),
    "lvray_flops_free": ("FLOPs neither spent, reserved nor held back", ("sweep",)),
    "lvray_flops_lost": ("FLOPs spent unheard, by crashes and interruptions", ("sweep",)),
    "lvray_accounted_flops_per_second": (
        "Accounted (not hardware) FLOPs a second of the running trials, each at its latest pace",
        ("sweep",),
    ),
    "lvray_trials": ("Trials by where they stand", ("sweep", "stage", "status")),
    "lvray_best_validation_loss_nats": (
        "Lowest of the trials' latest validation losses, nats per token",
        ("sweep", "stage"),
    ),
}
"""What each gauge says, and its labels. None has a trial's name: a sweep of thousands would be thousands of series."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one gauge."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those beside ``sweep``."""


def readings(scene: Scene) -> Iterator[Reading]:
    """Gives the value of every gauge, as the sweep stands."""
    yield Reading("lvray_flops_budget", float(scene.budget))
    for piece, flops in scene.pieces.items():
        yield Reading(f"lvray_flops_{piece.replace(' ', '_')}", float(flops))
    yield Reading("lvray_flops_lost", float(scene.ledger.lost))
    yield Reading("lvray_accounted_flops_per_second", _pace(scene.history))
    for stage in scene.history.stages.values():
        yield from _of_stage(stage)


def _of_stage(stage: StageHistory) -> Iterator[Reading]:
    name = stage.plan.name
    standing = [trial.status for trial in stage.trials.values()]
    for status in Status:  # each of them, zeros too: a gauge keeps its value until it gets another
        labels = {"stage": name, "status": status.value}
        yield Reading("lvray_trials", float(standing.count(status)), labels)
    losses = [trial.loss for trial in stage.trials.values() if trial.loss is not None]
    finite = [loss for loss in losses if isfinite(loss)]
    if finite:
        yield Reading("lvray_best_validation_loss_nats", min(finite), {"stage": name})


def _pace(history: History) -> float:
    """Accounted FLOPs a second of all running trials; one that reported nothing yet adds nothing."""
    latest = [
        trial.curve[-1]
        for trial in history.trials.values()
        if trial.status is Status.RUNNING and trial.curve
    ]
    return sum((heard.flops / heard.seconds for heard in latest if heard.seconds > 0), 0.0)


class Gauges:
    """The driver's gauges. `changed` when something was heard, `tick` whenever there is time."""

    def __init__(
        self, history: History, ledger: Ledger, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._scene = Scene(history, ledger)
        self._clock = clock
        self._gauges = {name: Gauge(name, *about) for name, about in METRICS.items()}
        self.changed()

    def changed(self) -> None:
        """Sets every gauge to what is so now."""
        self._told = self._clock()
        for reading in readings(self._scene):
            labels = {"sweep": self._scene.sweep, **reading.labels}
            self._gauges[reading.name].set(reading.value, tags=labels)

    def tick(self) -> None:
        """Tells what changed without a word, as trials that start do; every few seconds."""
        if self._clock() - self._told >= TELL_SECONDS:
            self.changed()
