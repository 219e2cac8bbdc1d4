"""Virtual time: workers that train nothing, at their own speeds, and break as real ones do.

A heap of events, each the arrival of a worker's next report, stands for the machines. What the scheduler
is asked and told is what a real driver asks and tells, in the same order; only the clock is made up. All
chance comes from one seed, so the same conditions give the same sweep, to the byte.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lvray.core.trial import Action, Measurement
from lvray.ledger.journal import MemoryJournal
from lvray.scheduler.scheduler import Grant, Scheduler
from lvray.simulator.landscapes import Landscape, Reading

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""When virtual time begins."""

LATEST = 2.5e11
"""Seconds after it, nearly 8,000 years: dates have no more."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The machines, and what goes wrong with them."""

    workers: int = 4
    """Trials at once."""
    flops_per_second: float = 1e12
    """Accounted FLOP/s of a worker."""
    spread: float = 0.0
    """How far workers differ: standard deviation of the logarithm of their speeds."""
    straggling: float = 0.0
    """Probability that a stretch between two milestones takes ten times as long."""
    crashes: float = 0.0
    """Probability that the worker breaks on its way to a milestone."""
    repeats: float = 0.0
    """Probability that a report arrives once more, at any later time."""
    kills: float = 0.0
    """Probability, at each write to ledger or journal, that the driver dies just before or just after it."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Holds the figures to what they can be."""
        assert self.workers >= 1, f"{self.workers} workers"
        assert self.flops_per_second > 0, f"{self.flops_per_second} FLOP/s"


STRAGGLING = 10.0
"""Times as long as usual."""

RESTART_SECONDS = 10.0
"""From a worker's crash to its next trial."""


class DriverKilled(BaseException):
    """The driver died here, as by `kill -9`: what is written stands, everything else is gone."""


@dataclass(slots=True)
class Tally:
    """What happened, counted."""

    grants: int = 0
    reports: int = 0
    crashes: int = 0
    kills: int = 0
    busy_seconds: float = 0.0
    """Of all workers together."""


@dataclass(slots=True)
class World:
    """The machines of one sweep, and its clock."""

    landscape: Landscape
    conditions: Conditions
    tally: Tally = field(default_factory=Tally)
    now: float = 0.0
    """Virtual seconds since the sweep began."""
    _chance: random.Random = field(init=False)
    _speeds: tuple[float, ...] = field(init=False)
    _disk: dict[str, MemoryJournal] = field(default_factory=dict)
    _steps: dict[str, int] = field(default_factory=dict)
    """Steps behind the weights that a trial had when it was last heard, those of trials it continues included."""

    def __post_init__(self) -> None:
        """Draws the workers' speeds."""
        self._chance = random.Random(f"world {self.conditions.seed}")
        rate, spread = self.conditions.flops_per_second, self.conditions.spread
        self._speeds = tuple(
            rate * self._chance.lognormvariate(0.0, spread) if spread else rate
            for _ in range(self.conditions.workers)
        )

    def clock(self) -> datetime:
        """The virtual time, for the stamps of records; it stands still where a calendar ends."""
        return BEGINNING + timedelta(seconds=min(self.now, LATEST))

    def log(self, name: str, *, keep: bool = True) -> MemoryJournal:
        """The log of that name on the virtual disk, made when it is first asked for.

        Args:
            name: ``journal`` or ``ledger``.
            keep: whether it holds on to what was read. Where drivers die, at its writes, it always does.
        """
        if name not in self._disk:
            fragile = self.conditions.kills > 0
            self._disk[name] = (
                FragileJournal(name, self._dies) if fragile else MemoryJournal(name, keep=keep)
            )
        return self._disk[name]

    def run_stage(self, scheduler: Scheduler, heard: Callable[[], None] = lambda: None) -> None:
        """Runs the trials of a stage until its scheduler has nothing more to grant.

        Raises:
            DriverKilled: the driver died; what the workers were at is lost.
            DataError: the landscape does not know a trial's config.
        """
        _Shift(self, scheduler, heard).work()

    def measure(self, grant: Grant, index: int, seconds: float) -> Measurement:
        """What a trial reports at milestone `index` of its plan."""
        plan = grant.plan
        milestone = plan.milestones[index]
        steps = self.steps_behind(grant, index)
        reading = self.landscape.read(
            plan.config, steps=steps, flops=steps * plan.prices.train_step
        )
        return Measurement(
            trial_id=plan.trial_id,
            attempt=grant.attempt,
            milestone=index,
            step=milestone.step,
            flops=grant.flops_to(index),
            validation_loss=reading.validation_loss,
            seconds=round(seconds, 3),
            device="simulated",
            metrics=_metrics(reading),
            window_losses=reading.window_losses,
        )

    def steps_behind(self, grant: Grant, index: int) -> int:
        """Optimizer steps behind a trial's weights at milestone `index`, those of the trial it continues included."""
        plan = grant.plan
        before = self._steps.get(plan.continues, 0) if plan.continues else 0
        return before + plan.milestones[index].step

    def arrived(self, grant: Grant, index: int) -> None:
        """Notes that a trial came to milestone `index`."""
        self.tally.reports += 1
        self._steps[grant.plan.trial_id] = self.steps_behind(grant, index)

    def draw(self, probability: float) -> bool:
        """Whether what has this probability happens now."""
        return probability > 0 and self._chance.random() < probability

    def share(self) -> float:
        """A share between 0 and 1, drawn evenly."""
        return self._chance.random()

    def speed(self, worker: int) -> float:
        """Accounted FLOP/s of a worker."""
        return self._speeds[worker]

    def _dies(self) -> bool | None:
        """Whether the driver dies at a write: after it (True), before it (False), or not at all (None)."""
        if not self.draw(self.conditions.kills):
            return None
        self.tally.kills += 1
        return self._chance.random() < 0.5


def _metrics(reading: Reading) -> Mapping[str, float]:
    return {} if reading.test_loss is None else {"test_loss": reading.test_loss}


class FragileJournal(MemoryJournal):
    """A journal at whose writes the driver may die."""

    def __init__(self, name: str, dies: Callable[[], bool | None]) -> None:
        super().__init__(name)
        self._dies = dies

    def append(self, record: Mapping[str, Any]) -> None:
        """Takes one record, if the driver lives so long.

        Raises:
            DriverKilled: it died just before the write, or just after it.
        """
        dies = self._dies()
        if dies is not False:
            super().append(record)
        if dies is not None:
            raise DriverKilled


@dataclass(slots=True)
class _Job:
    """What a worker is at: the way to the next milestone of a grant."""

    grant: Grant
    index: int
    worker: int
    begun: float
    """When the attempt began, virtual seconds."""


class _Shift:
    """One driver's work at one stage."""

    def __init__(self, world: World, scheduler: Scheduler, heard: Callable[[], None]) -> None:
        self._world = world
        self._scheduler = scheduler
        self._told = heard
        self._idle = list(range(world.conditions.workers))
        self._arrivals: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def work(self) -> None:
        """Grants, waits for the next arrival, and so on until nothing is left to do."""
        self._employ()
        while self._arrivals:
            time, _, happen = heapq.heappop(self._arrivals)
            self._world.now = max(self._world.now, time)
            happen()
            self._told()
            self._employ()

    def _employ(self) -> None:
        while self._idle and (grant := self._scheduler.next_grant()) is not None:
            self._world.tally.grants += 1
            worker = heapq.heappop(self._idle)
            self._go_on(_Job(grant, grant.reached + 1, worker, self._world.now))

    def _go_on(self, job: _Job) -> None:
        """Sends a worker to its next milestone; whether it gets there is drawn now."""
        world, conditions = self._world, self._world.conditions
        plan = job.grant.plan
        flops = plan.flops_at(job.index) - plan.flops_at(job.index - 1)
        seconds = flops / world.speed(job.worker)
        if world.draw(conditions.straggling):
            seconds *= STRAGGLING
        if world.draw(conditions.crashes):
            seconds *= world.share()
            self._after(seconds, lambda: self._crash(job))
        else:
            self._after(seconds, lambda: self._report(job))
        world.tally.busy_seconds += seconds

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._arrivals, (self._world.now + seconds, self._count, happen))

    def _report(self, job: _Job) -> None:
        world = self._world
        world.arrived(job.grant, job.index)
        measurement = world.measure(job.grant, job.index, world.now - job.begun)
        if world.draw(world.conditions.repeats):
            self._after(
                world.share() * 2 * (world.now - job.begun), lambda: self._again(measurement)
            )
        if self._scheduler.hear(measurement).action is Action.CONTINUE:
            job.index += 1
            self._go_on(job)
        else:
            heapq.heappush(self._idle, job.worker)

    def _again(self, measurement: Measurement) -> None:
        """A report that was heard before: whatever the answer, no worker is listening."""
        self._scheduler.hear(measurement)

    def _crash(self, job: _Job) -> None:
        world = self._world
        world.tally.crashes += 1
        if world.draw(
            world.conditions.repeats
        ):  # it was only cut off, and its report comes too late
            late = world.measure(job.grant, job.index, world.now - job.begun)
            self._after(RESTART_SECONDS, lambda: self._again(late))
        self._scheduler.fail(job.grant.plan.trial_id, "the worker crashed")
        self._after(RESTART_SECONDS, lambda: heapq.heappush(self._idle, job.worker))
