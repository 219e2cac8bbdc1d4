"""Freeze-thaw: after a first half by halving, each next stretch goes to the trial whose curve promises most.

After Swersky, Snoek and Adams (arXiv:1406.3896), with plain curve fits in the place of their Gaussian process. Half of the
allowance is spent as planned asynchronous halving would spend it. Then all trials are frozen where they stand, and
one is thawed for one more stretch whenever a worker is free: the one with the largest expected improvement, at the FLOPs
of the final run, for each FLOP of the stretch. Every fourth stretch still goes to whom halving would promote next, so
that a bad extrapolation cannot take everything. The winner is chosen by what was observed, never by what is expected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from lvray.core.trial import Action, Decision, Milestone, StagePlan, Status, Trial, TrialPlan
from lvray.curves.power_law import Outlook, outlook
from lvray.scheduler.halving import Halving, plan_halving
from lvray.scheduler.milestones import steps_within, unroll
from lvray.scheduler.policy import Registered, Winner, diverged, finite_loss, lowest
from lvray.scheduler.roster import Roster

PLANNED_SHARE = 2
"""One in so many FLOPs of the stage is planned for halving."""

NEARLY = Fraction(9, 10)
"""So much of what is planned for halving is spent when curves begin to be asked: the last promotions need not be waited for."""

STILL_HALVING = 4
"""One in so many stretches after that goes to whom halving would promote next."""


def plan_freeze_thaw(
    name: str,
    trials: Sequence[TrialPlan],
    *,
    allowance: int,
    final_run: int,
    reduction_factor: float,
    most_steps: int | None = None,
) -> StagePlan:
    """Lays out a ladder that half of `allowance` pays for, with a milestone halfway to each rung, and goes on above it.

    Arguments and errors are those of `policy.LayOut`.
    """
    first = plan_halving(
        name,
        trials,
        allowance=allowance // PLANNED_SHARE,
        final_run=final_run,
        reduction_factor=reduction_factor,
        most_steps=most_steps,
    )
    levels = [milestone.flops for milestone in first.trials[0].milestones]
    highest = max(final_run, 4 * levels[-1])
    return replace(
        first,
        trials=tuple(_finer(plan, highest, most_steps) for plan in first.trials),
        allowance=allowance,
        policy="freeze-thaw",
        horizon=final_run or highest,
        spends_all=True,
        notes=(
            *first.notes,
            "that takes half of the stage's FLOPs; the rest goes where the curves promise most",
        ),
    )


def _finer(plan: TrialPlan, highest: int, most_steps: int | None) -> TrialPlan:
    """The plan with one more evaluation on the way to each rung but the first, and doublings above the last."""
    stops: list[tuple[int, int | None]] = []
    before: Milestone | None = None
    for milestone in plan.milestones:
        if before is not None and milestone.step - before.step > 1:
            stops.append(((before.step + milestone.step) // 2, None))
        stops.append((milestone.step, milestone.rung))
        before = milestone
    flops = unroll(plan.prices, stops, forecast=False)[-1].flops
    while flops < highest:
        flops = min(2 * flops, highest)
        step = steps_within(plan.prices, flops, evaluations=len(stops) + 1, forecast=False)
        step = step if most_steps is None else min(step, most_steps)
        if step <= stops[-1][0]:
            break
        stops.append((step, None))
    return replace(plan, milestones=unroll(plan.prices, stops, forecast=False))


@dataclass(frozen=True, slots=True)
class FreezeThaw:
    """The policy `freeze-thaw`, for a stage that `plan_freeze_thaw` laid out."""

    counts: tuple[int, ...]
    """n_j of the ladder: how many trials halving lets reach rung j."""
    planned: int
    """FLOPs that are spent by halving before curves are asked."""
    horizon: int
    """FLOPs at which trials are compared: those of the final run."""

    @classmethod
    def of(cls, stage: StagePlan) -> FreezeThaw:
        """The policy of a stage."""
        return cls(stage.rungs, int(stage.allowance // PLANNED_SHARE * NEARLY), stage.horizon)

    def judge(self, trial: Trial, trials: Roster) -> Decision:
        """Goes on if it is what its worker would take up next, else freezes; up to the rung it is on its way to by halving."""
        if stop := diverged(trial):
            return stop
        if trial.reached == len(trial.plan.milestones) - 1:
            return Decision(Action.STOP, f"reached its last milestone with loss {trial.loss:.4f}")
        rung = trial.plan.milestones[trial.reached].rung
        if self._halves(trials) and (rung is None or rung < len(self.counts) - 1):
            return Halving(self.counts).judge(trial, trials)
        told = f"loss {trial.loss:.4f} at step {trial.step}"
        if next(self.candidates(trials, also=trial), None) == trial.plan.trial_id:
            return Decision(Action.CONTINUE, f"{told}: promises most")
        return Decision(Action.PAUSE, f"{told}: frozen")

    def candidates(self, trials: Roster, *, also: Trial | None = None) -> Iterator[str]:
        """Halving's first; once its half is spent, or it has nothing to offer and nobody works, the most promising.

        `also` is a trial that is being judged, and is as free to go on as a frozen one.
        """
        if self._halves(trials):
            yield from Halving(self.counts).candidates(trials)
            if trials.count(Status.RUNNING) > (also is not None):
                return
        frozen = [trials[name] for name in trials.with_status(Status.PAUSED)]
        if also is not None:
            frozen.append(also)
        able = [trial for trial in frozen if trial.reached < len(trial.plan.milestones) - 1]
        by_promise = self._by_promise(able, trials)
        if trials.attempts % STILL_HALVING == 0:
            by_promise.sort(key=_by_rank)
        yield from (trial.plan.trial_id for trial in by_promise)

    def reserve_until(self, trial: Trial) -> int:
        """One milestone at a time: after each, another trial may promise more."""
        return trial.reached + 1

    def parting(self, trial: Trial, trials: Roster) -> str:
        """Frozen where it stood."""
        if trial.loss is None:
            return "never judged: the stage's FLOPs ended before its first milestone"
        return f"frozen at step {trial.step} with loss {trial.loss:.4f}; others promised more"

    def winner(self, trials: Roster) -> Winner | None:
        """The lowest loss that was observed, wherever that was."""
        return lowest(trials, whole_first=False)

    def _halves(self, trials: Roster) -> bool:
        return trials.granted < self.planned

    def _by_promise(self, able: Sequence[Trial], trials: Roster) -> list[Trial]:
        """Those who can go on, by expected improvement for each FLOP of their next stretch; the most promising first.

        Curves too short to extrapolate come after the rest, the best loss first.
        """
        seen = [trial for trial in trials.values() if finite_loss(trial) is not None]
        if not seen:
            return list(able)
        best = min(self._expected(trial) for trial in seen)

        def merit(trial: Trial) -> tuple[float, float, str]:
            told = self._outlook(trial)
            stretch = trial.flops_until(trial.reached + 1)
            gain = 0.0 if told is None else told.improvement(best) / stretch
            return -gain, trial.loss or 0.0, trial.plan.trial_id

        return sorted(able, key=merit)

    def _expected(self, trial: Trial) -> float:
        told = self._outlook(trial)
        assert trial.loss is not None, "asked of a trial that was never heard"
        return trial.loss if told is None else told.mean

    def _outlook(self, trial: Trial) -> Outlook | None:
        """Where a trial would be after the final run."""
        milestones = trial.plan.milestones
        flops = tuple(float(milestones[heard.milestone].flops) for heard in trial.curve)
        losses = tuple(heard.validation_loss for heard in trial.curve)
        return _asked(flops, losses, at=flops[-1] + self.horizon) if flops else None


_asked = lru_cache(maxsize=100_000)(outlook)
"""Frozen curves are asked about again and again."""


def _by_rank(trial: Trial) -> tuple[int, float, str]:
    """Who climbed highest, and there the lowest loss: whom halving would promote next."""
    return -trial.reached, trial.loss or 0.0, trial.plan.trial_id


POLICY = Registered(make=FreezeThaw.of, lay_out=plan_freeze_thaw)
