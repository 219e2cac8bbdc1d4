"""What is a policy?

Pure functions of the trials of one stage: a policy keeps no memory, draws no random numbers and
writes nothing, so that asking is free and a replay decides the same again. What it needs to know it
gets as fields when it is made from the stage's plan (`scheduler.registry`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lvray.core.trial import Action, Decision, StagePlan, Status, Trial, TrialPlan
from lvray.scheduler.roster import Roster

REDUCTION_FACTOR = 4.0
"""η unless a sweep file says otherwise, chosen on tabulated curves (docs/choosing_a_policy.md)."""


@dataclass(frozen=True, slots=True)
class Winner:
    """The best trial of a stage, and why in words."""

    trial_id: str
    reason: str


class Policy(Protocol):
    """Who goes on, who waits, who is done, who won."""

    def judge(self, trial: Trial, trials: Roster) -> Decision:
        """What `trial` does after the milestone it just reported; `trials` holds it in that state."""
        ...

    def candidates(self, trials: Roster) -> Iterator[str]:
        """Trials that a free worker should take up, best first: planned ones to start, paused ones to promote.

        The scheduler grants the first whose next stretch it can pay for. Nothing to offer now is an
        empty iterator; the stage ends when nothing can be granted and nothing runs.
        """
        ...

    def reserve_until(self, trial: Trial) -> int:
        """Index of the milestone up to which the next stretch is reserved, in one grant."""
        ...

    def parting(self, trial: Trial, trials: Roster) -> str:
        """Why a trial that is not final when its stage ends was left behind, in words.

        Only of trials that are no candidates: what the others lack is FLOPs, and the scheduler says so.
        """
        ...

    def winner(self, trials: Roster) -> Winner | None:
        """The best trial of the stage when it ends; None where no trial has a finite loss."""
        ...


class LayOut(Protocol):
    """Gives every trial of a stage its milestones."""

    def __call__(
        self,
        name: str,
        trials: Sequence[TrialPlan],
        *,
        allowance: int,
        final_run: int,
        reduction_factor: float,
        most_steps: int | None = None,
    ) -> StagePlan:
        """Lays a stage out within its allowance.

        Args:
            name: the stage.
            trials: the candidates, in the order in which they start; their milestones are replaced.
            allowance: FLOPs of the stage.
            final_run: FLOPs of the run that the winner gets afterwards; 0 if none follows.
            reduction_factor: η, for policies that promote one in so many.
            most_steps: the most optimizer steps a trial takes; None for no such cap.

        Raises:
            BudgetTooSmall: the allowance pays for no search.
        """
        ...


@dataclass(frozen=True, slots=True)
class Registered:
    """What a policy's file registers as its `POLICY`."""

    make: Callable[[StagePlan], Policy]
    """The policy of a stage, from the stage's plan alone."""
    lay_out: LayOut | None = None
    """Who decides where trials are measured; None where the sweep file does, with its steps and evaluations."""


def finite_loss(trial: Trial) -> float | None:
    """The latest validation loss if it is a finite number, nats per token."""
    return trial.loss if trial.loss is not None and math.isfinite(trial.loss) else None


def diverged(trial: Trial) -> Decision | None:
    """Stops a trial whose latest loss is not a finite number; None for any other."""
    if trial.loss is None or math.isfinite(trial.loss):
        return None
    return Decision(Action.STOP, f"diverged: validation loss is {trial.loss} at step {trial.step}")


def lowest(trials: Roster, *, whole_first: bool = True) -> Winner | None:
    """The lowest validation loss of all heard of; `whole_first`, of those that ran to their end if any did."""
    heard = [trial for trial in trials.values() if finite_loss(trial) is not None]
    whole = [trial for trial in heard if whole_first and trial.status is Status.COMPLETED]
    ranked = sorted(whole or heard, key=lambda trial: (finite_loss(trial), trial.plan.trial_id))
    if not ranked:
        return None
    best = ranked[0]
    rivals = f", the lowest of {len(ranked)}" if len(ranked) > 1 else ""
    return Winner(
        best.plan.trial_id, f"validation loss {best.loss:.4f} at step {best.step}{rivals}"
    )
