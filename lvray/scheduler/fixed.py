"""Every trial to its end, in the order of the plan: what a grid is, and a baseline, and a final run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lvray.core.trial import Action, Decision, Status, Trial
from lvray.scheduler.policy import Registered, Winner, diverged, lowest
from lvray.scheduler.roster import Roster


@dataclass(frozen=True, slots=True)
class Fixed:
    """The policy `fixed`: nobody is compared, nobody is stopped early unless it diverges."""

    def judge(self, trial: Trial, trials: Roster) -> Decision:
        """Continues to the last milestone."""
        if stop := diverged(trial):
            return stop
        if trial.reached == len(trial.plan.milestones) - 1:
            return Decision(Action.STOP, f"ran to its end at step {trial.step}")
        return Decision(Action.CONTINUE, f"step {trial.step} of {trial.plan.steps}")

    def candidates(self, trials: Roster) -> Iterator[str]:
        """Those that were interrupted first, then the planned ones."""
        yield from trials.with_status(Status.PAUSED)
        yield from trials.with_status(Status.PLANNED)

    def reserve_until(self, trial: Trial) -> int:
        """One milestone at a time: what a crash loses is one stretch."""
        return trial.reached + 1

    def parting(self, trial: Trial, trials: Roster) -> str:
        """Every trial that is not final is a candidate of this policy, so there is none to speak of."""
        return f"left at step {trial.step} of {trial.plan.steps}"

    def winner(self, trials: Roster) -> Winner | None:
        """The lowest validation loss among the trials that ran to their end, or else among all heard of."""
        return lowest(trials)


POLICY = Registered(make=lambda stage: Fixed())
