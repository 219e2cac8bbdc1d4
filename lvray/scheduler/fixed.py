"""Every trial to its end, in the order of the plan: what a grid is, and a baseline, and a final run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lvray.core.trial import Action, Decision, Status, Trial
from lvray.scheduler.policy import Trials, Winner, diverged, finite_loss


@dataclass(frozen=True, slots=True)
class Fixed:
    """The policy `fixed`: nobody is compared, nobody is stopped early unless it diverges."""

    def judge(self, trial: Trial, trials: Trials) -> Decision:
        """Continues to the last milestone."""
        if stop := diverged(trial):
            return stop
        if trial.reached == len(trial.plan.milestones) - 1:
            return Decision(Action.STOP, f"ran to its end at step {trial.step}")
        return Decision(Action.CONTINUE, f"step {trial.step} of {trial.plan.steps}")

    def candidates(self, trials: Trials) -> Iterator[str]:
        """Those that were interrupted first, then the planned ones."""
        for wanted in (Status.PAUSED, Status.PLANNED):
            yield from (name for name, trial in trials.items() if trial.status is wanted)

    def reserve_until(self, trial: Trial) -> int:
        """One milestone at a time: what a crash loses is one stretch."""
        return trial.reached + 1

    def parting(self, trial: Trial, trials: Trials) -> str:
        """Only an empty account leaves a trial of this policy behind."""
        return f"the stage's FLOPs end at step {trial.step} of {trial.plan.steps}: the next stretch cannot be paid"

    def winner(self, trials: Trials) -> Winner | None:
        """The lowest validation loss among the trials that ran to their end, or else among all heard of."""
        heard = [trial for trial in trials.values() if finite_loss(trial) is not None]
        whole = [trial for trial in heard if trial.status is Status.COMPLETED]
        ranked = sorted(whole or heard, key=lambda trial: (finite_loss(trial), trial.plan.trial_id))
        if not ranked:
            return None
        best = ranked[0]
        rivals = f", the lowest of {len(ranked)}" if len(ranked) > 1 else ""
        return Winner(
            best.plan.trial_id, f"validation loss {best.loss:.4f} at step {best.step}{rivals}"
        )
