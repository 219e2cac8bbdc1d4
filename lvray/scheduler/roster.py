"""Who stands where? The trials of one stage by id, and the lists that a policy asks for again and again.

A policy is a pure function of the trials, and is asked whenever a worker is free or a trial reports. So that
it need not look at every trial each time, the roster keeps, and brings up to date with each change of a
trial: the trials of every status in the order of the plan, and at every rung who was judged there, who
waits there, how many left it upwards and how many are still on their way to it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from sortedcontainers import SortedKeyList, SortedList

from lvray.core.trial import Status, Trial

Judged: TypeAlias = tuple[float, str]
"""Validation loss at a rung (nats per token) and the trial's id: as tuples they sort best first."""


class Roster(Mapping[str, Trial]):
    """The trials of one stage in the order of the plan; changed by `put` alone."""

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        """Takes up trials, in the order of the plan."""
        self._trials: dict[str, Trial] = {}
        self._places: dict[str, int] = {}
        self._by_status: dict[Status, SortedKeyList] = {
            status: SortedKeyList(key=self._places.__getitem__) for status in Status
        }
        self._between: SortedKeyList = SortedKeyList(key=self._places.__getitem__)
        self._standing: defaultdict[int, SortedList] = defaultdict(SortedList)
        self._waiting: defaultdict[int, SortedList] = defaultdict(SortedList)
        self._gone: Counter[int] = Counter()
        self._underway: Counter[int] = Counter()
        self._ahead = 0
        self._granted = 0
        self._attempts = 0
        for trial in trials:
            self.put(trial)

    def __getitem__(self, trial_id: str) -> Trial:
        return self._trials[trial_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._trials)

    def __len__(self) -> int:
        return len(self._trials)

    def __repr__(self) -> str:
        return f"Roster({self._trials!r})"

    def put(self, trial: Trial) -> None:
        """Takes in a trial, or what became of one."""
        name = trial.plan.trial_id
        before = self._trials.get(name)
        if before is None:
            self._places[name] = len(self._places)
        else:
            self._count(before, -1)
        self._trials[name] = trial
        self._count(trial, 1)

    # What policies ask.

    def with_status(self, status: Status) -> Iterator[str]:
        """Trials of one status, in the order of the plan."""
        return iter(self._by_status[status])

    def count(self, status: Status) -> int:
        """How many trials have a status."""
        return len(self._by_status[status])

    def interrupted(self) -> Iterator[str]:
        """Paused trials that stopped on their way from one rung to the next, in the order of the plan."""
        return iter(self._between)

    def standing(self, rung: int) -> int:
        """How many trials were judged at `rung` with a finite loss and have not failed since."""
        return len(self._standing[rung])

    def best_at(self, rung: int, count: int) -> list[str]:
        """The best `count` of those that were judged at `rung`."""
        return [name for _, name in self._standing[rung][:count]]

    def rank(self, trial: Trial, rung: int) -> int | None:
        """The trial's place, from 0, among those judged at `rung`; None if it is not one of them."""
        judged = (score(trial, milestone_of(trial, rung)), trial.plan.trial_id)
        standing = self._standing[rung]
        place = int(standing.bisect_left(judged))
        return place if place < len(standing) and standing[place] == judged else None

    def waiting(self, rung: int) -> Iterator[str]:
        """Trials that stand at `rung` and hold nothing for their way on, best first."""
        return (name for _, name in self._waiting[rung])

    def gone(self, rung: int) -> int:
        """How many of those judged at `rung` were promoted from it, whatever became of them."""
        return self._gone[rung]

    def underway(self, rung: int) -> int:
        """How many trials may still come to be judged at `rung`: promoted to it, or for the first rung begun."""
        return self._underway[rung]

    def highest(self) -> int:
        """The highest rung at which a trial was judged with a finite loss; -1 if none was."""
        return max((rung for rung, judged in self._standing.items() if judged), default=-1)

    @property
    def ahead(self) -> int:
        """FLOPs that all trials which are not final would cost to their end, beyond what is granted."""
        return self._ahead

    @property
    def granted(self) -> int:
        """FLOPs of all stretches that trials were granted, from each one's start."""
        return self._granted

    @property
    def attempts(self) -> int:
        """How often trials were started or resumed in a worker."""
        return self._attempts

    # How the lists are kept: each trial counts in them as `_count` says, and no more once it has changed.

    def _count(self, trial: Trial, sign: int) -> None:
        name = trial.plan.trial_id
        _change(self._by_status[trial.status], name, sign)
        self._granted += sign * trial.plan.flops_at(trial.granted)
        self._attempts += sign * trial.attempt
        if not trial.status.final:
            paid = max(trial.plan.flops_at(trial.granted), trial.flops_done)
            self._ahead += sign * (trial.plan.price - paid)
        highest = -1
        for rung, index in rungs_of(trial):
            if index > trial.reached:
                break
            highest = rung
            paused_beyond = index == trial.reached and trial.paused_at is not None
            judged = (score(trial, index), name)
            if trial.status is Status.FAILED or not math.isfinite(judged[0]):
                continue
            _change(self._standing[rung], judged, sign)
            if max(trial.granted, trial.reached) > index or paused_beyond:
                self._gone[rung] += sign
            elif not trial.status.final:
                _change(self._waiting[rung], judged, sign)
        if trial.status.final:
            return
        at_rung = (
            highest >= 0
            and milestone_of(trial, highest) == trial.reached
            and trial.paused_at is None
        )
        if highest < 0 or not at_rung or trial.granted > trial.reached:
            self._underway[highest + 1] += sign
        if trial.status is Status.PAUSED and not at_rung:
            _change(self._between, name, sign)


def _change(entries: SortedList, entry: Judged | str, sign: int) -> None:
    if sign > 0:
        entries.add(entry)
    else:
        entries.remove(entry)


def rungs_of(trial: Trial) -> Iterator[tuple[int, int]]:
    """The rungs of a trial's plan, lowest first, each with the index of its milestone."""
    return (
        (milestone.rung, index)
        for index, milestone in enumerate(trial.plan.milestones)
        if milestone.rung is not None
    )


def milestone_of(trial: Trial, rung: int) -> int:
    """Index of the milestone at which a trial is judged for `rung`."""
    return next(index for number, index in rungs_of(trial) if number == rung)


def rung_of(trial: Trial) -> int:
    """The highest rung at which the trial was heard, or -1."""
    return max((rung for rung, index in rungs_of(trial) if index <= trial.reached), default=-1)


def score(trial: Trial, index: int) -> float:
    """What a trial is ranked by at milestone `index`: the validation loss that was heard there, nats per token."""
    return next(heard.validation_loss for heard in trial.curve if heard.milestone == index)
