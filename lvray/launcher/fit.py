"""Does a plan fit into the wall time of a job, and what of it cannot be paused?

A sweep that takes longer is no mistake: it is told to pause before the time is up, requeued, and goes on. Trials pause at an
optimizer step; an evaluation, with the forecasts that follow it, is finished or lost. One that is longer than a whole job
would be begun again and again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lvray.core.trial import StagePlan, TrialPlan
from lvray.core.units import format_flops, format_seconds
from lvray.launcher.profile import as_wall_time

LAST_SECONDS = 60
"""Of the notice: what has not paused by then is ended (slurm/sweep.sbatch), so that nothing is left on the nodes."""

LEAST_SECONDS = 10
"""To pause in, however short the notice."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The longest piece of work of a plan that cannot be paused."""

    stage: str
    trial_id: str
    flops: int
    forecasts: bool
    """Whether forecasts are part of it."""


def longest_unpausable(plans: Sequence[StagePlan]) -> Stretch:
    """Gives the dearest milestone of all trials: its evaluation and, where it has some, its forecasts."""
    return max(
        (_at_milestones(trial) for plan in plans for trial in plan.trials),
        key=lambda stretch: stretch.flops,
    )


def _at_milestones(trial: TrialPlan) -> Stretch:
    forecasts = any(milestone.forecast for milestone in trial.milestones)
    flops = trial.prices.evaluation + forecasts * trial.prices.forecast
    return Stretch(trial.stage, trial.trial_id, flops, forecasts)


def requeues(seconds: float, *, wall: int, notice: int) -> int:
    """Gives how often a sweep of `seconds` is requeued in jobs of `wall` seconds that end `notice` seconds early."""
    return max(0, math.ceil(seconds / (wall - notice)) - 1)


def to_pause(notice: int) -> int:
    """Gives the seconds in which trials may pause once they are told to."""
    return max(notice - LAST_SECONDS, LEAST_SECONDS)


def refusal(stretch: Stretch, *, flops_per_second: int, wall: int, notice: int) -> str | None:
    """Gives why a job could never get past its longest unpausable piece; None where it can."""
    if stretch.flops <= flops_per_second * (wall - notice):
        return None
    return (
        f"{_described(stretch, flops_per_second)}, and a job has {format_seconds(wall - notice)} (--time {as_wall_time(wall)} "
        f"less the notice): it would never get past it; ask for more time{_or_less(stretch)}"
    )


def warning(stretch: Stretch, *, flops_per_second: int, wall: int, notice: int) -> str | None:
    """Gives a warning where the notice is too short for that piece to end in it; None where it is long enough."""
    if stretch.flops <= flops_per_second * to_pause(notice):
        return None
    return (
        f"{_described(stretch, flops_per_second)}, and a job that is told to pause has {format_seconds(to_pause(notice))}: "
        f"what has begun by then is lost and paid for again; raise notice_seconds in the profile{_or_less(stretch)}"
    )


def _described(stretch: Stretch, flops_per_second: int) -> str:
    what = "an evaluation with its forecasts" if stretch.forecasts else "an evaluation"
    time = format_seconds(stretch.flops / flops_per_second)
    return (
        f"stage {stretch.stage}: {what} costs {format_flops(stretch.flops)} FLOPs, about {time} at "
        f"{format_flops(flops_per_second)} FLOP/s, and cannot be paused"
    )


def _or_less(stretch: Stretch) -> str:
    if stretch.forecasts:
        return ", or forecast fewer systems (--set evaluation.forecast.systems=…)"
    return ", or evaluate fewer windows (--set evaluation.windows=…)"
