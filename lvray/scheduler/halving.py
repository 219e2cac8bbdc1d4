"""Planned asynchronous halving: try many trials for little, promote the best, never wait without need.

Successive halving (arXiv:1502.07943) with the asynchronous promotions of ASHA (arXiv:1810.05934), and
three things of our own. *Planned*: rungs are levels of FLOPs, not steps, laid out as a table that the
stage can pay for whole before anything runs. *As late as it costs nothing*: a promotion is decided when there is
no trial left to start and none to promote further down, so that it is judged among as many as can be; what the
budget buys is the same in any order. A worker that would idle promotes early, but not before half of a rung has
reported, since a promotion judged among two or three is nearly drawn by lot. *Promotion, not stopping*: a
trial pauses at its rung and resumes from its checkpoint if it is promoted, then or later. What losses and divergence leave over
goes to those next in line, unless a paired comparison over the validation windows finds them clearly worse.

Symbols: E the stage's allowance, R the price of the final run, n_j the trials that may reach rung j,
F_j the FLOPs of a trial at rung j (from its start, evaluations included), η the reduction factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice

from lvray.core.errors import BudgetTooSmall
from lvray.core.trial import (
    Action,
    Decision,
    Measurement,
    StagePlan,
    Status,
    StepPrices,
    Trial,
    TrialPlan,
)
from lvray.core.units import format_flops
from lvray.scheduler.comparison import gap
from lvray.scheduler.milestones import price, steps_within, unroll
from lvray.scheduler.policy import Registered, Winner, diverged, finite_loss, lowest
from lvray.scheduler.roster import Roster, milestone_of, rung_of

FEWEST = 3
"""A search among fewer candidates is no search: it is refused."""

LARGEST_JUMP = Fraction(4)
"""Between two rungs, and into the final run: beyond 4 × the FLOPs, a short run's ranking misleads."""

LEAST_FACTOR = 2.0
"""The smallest η that a budget beyond the candidates' needs leads to."""

MOST_SEEDS = 16
"""With so many seeds of each config a search has said all that it can; what is left buys a longer final run."""

SEED_STEP = 1_000_003
"""Between the seeds of one config: further apart than the seeds that people list."""

LEAST_STEPS = 6
"""Optimizer steps before a trial can be judged at all."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """The schedule of one halving stage: `counts[j]` trials may reach `levels[j]` FLOPs each; one that fails leaves its place to another."""

    counts: tuple[int, ...]
    levels: tuple[int, ...]

    @property
    def price(self) -> int:
        """FLOPs of the whole ladder when every rung is filled: Σ n_j (F_j − F_{j−1})."""
        steps = zip(self.counts, self.levels, (0, *self.levels), strict=False)
        return sum(count * (level - below) for count, level, below in steps)


def ladder(
    *, candidates: int, floor: int, top: int, allowance: int, reduction_factor: float
) -> Ladder:
    """Lays out the rungs that `allowance` pays for.

    Args:
        candidates: how many trials there are to try.
        floor: the least FLOPs at which the dearest candidate can be judged (F_0).
        top: FLOPs of the last rung at least, so that the jump into the final run is not too wide (R/3);
            0 where no final run follows.
        allowance: FLOPs of the stage (E).
        reduction_factor: η, the share of a rung that is promoted is 1/η.

    Raises:
        BudgetTooSmall: fewer than three candidates can be paid for.
    """
    eta = Fraction(reduction_factor).limit_denominator(1000)
    by_range: float = (
        1 + max(0, round(math.log(max(top, floor) / floor) / math.log(eta))) if top else math.inf
    )
    for started in range(candidates, FEWEST - 1, -1):
        # Below two trials a rung decides nothing, so the ladder ends where n/η^j comes down to two.
        by_count = 1 + max(0, math.ceil(round(math.log(started / 2) / math.log(eta), 9)))
        rungs = int(min(by_range, by_count))
        counts = _counts(started, rungs, eta)
        widest = _growth(floor, top, rungs, eta)
        # Rather than leave a candidate out that was asked for, rungs stand closer together.
        growths = _narrower(widest) if started == candidates else [widest]
        for growth in growths:
            weight = sum(count * _widths(growth, rung) for rung, count in enumerate(counts))
            if weight * floor <= allowance:
                lowest = Fraction(allowance) / weight  # what is left over raises every rung
                levels = tuple(math.floor(lowest * growth**rung) for rung in range(rungs))
                return Ladder(counts, levels)
    least = min(candidates, FEWEST)
    raise BudgetTooSmall(
        f"{format_flops(allowance)} FLOPs do not pay for a search among {least} candidates that cost "
        f"{format_flops(floor)} FLOPs each before they can be judged"
    )


def _counts(started: int, rungs: int, eta: Fraction) -> tuple[int, ...]:
    """n_j = ⌈n_0 / η^j⌉, two at the least: 9, 3, 2 for nine trials and η = 3."""
    return tuple(max(min(2, started), math.ceil(started / eta**rung)) for rung in range(rungs))


def _growth(floor: int, top: int, rungs: int, eta: Fraction) -> Fraction:
    """F_{j+1} / F_j: what leads from the floor to the top in even ratios, but no jump over 4 × or under 2 ×."""
    if rungs == 1 or not top:
        return eta
    even = Fraction((top / floor) ** (1 / (rungs - 1))).limit_denominator(1000)
    return min(max(even, Fraction(2)), min(LARGEST_JUMP, eta))


def _narrower(widest: Fraction) -> list[Fraction]:
    """From a growth down to three quarters of it, 2 × at the least: nearer rungs end lower, which costs more than it gains."""
    narrowest = max(Fraction(2), widest * Fraction(3, 4))
    return [widest] if widest <= narrowest else [widest, (widest + narrowest) / 2, narrowest]


def _widths(growth: Fraction, rung: int) -> Fraction:
    """(F_j − F_{j−1}) / F_0."""
    return growth**rung - (growth ** (rung - 1) if rung else 0)


def plan_halving(
    name: str,
    trials: Sequence[TrialPlan],
    *,
    allowance: int,
    final_run: int,
    reduction_factor: float,
    most_steps: int | None = None,
) -> StagePlan:
    """Gives every trial its milestones on a ladder that `allowance` pays for.

    Arguments and errors are those of `policy.LayOut`.
    """
    if len(trials) < FEWEST:
        raise BudgetTooSmall(
            f"stage {name}: halving needs at least {FEWEST} candidates, its space has {len(trials)}; "
            "widen the space or use policy: fixed"
        )
    seeds, eta = 1, reduction_factor
    stage = _within(name, trials, allowance, final_run, eta, most_steps)
    # More FLOPs than the candidates need raise every rung. No trial of a search is worth more than the final run: beyond
    # that more of them are promoted, and then each config is tried with further seeds.
    while final_run and _top(stage) > final_run and not most_steps and seeds < MOST_SEEDS:
        if eta > LEAST_FACTOR:
            eta = LEAST_FACTOR
        elif any(plan.open for plan in trials):
            break
        else:
            seeds += 1
        stage = _within(name, _with_seeds(trials, seeds), allowance, final_run, eta, most_steps)
    if seeds == 1:
        return stage
    more = f"each config is tried with {seeds} seeds: the budget pays for more than its {len(trials)} configs need"
    return replace(stage, notes=(*stage.notes, more))


def _top(stage: StagePlan) -> int:
    """FLOPs of the dearest trial that climbs to the last rung."""
    return max(plan.price for plan in stage.trials)


def _with_seeds(trials: Sequence[TrialPlan], seeds: int) -> list[TrialPlan]:
    """The candidates, then all of them again with other seeds."""
    return [
        plan
        if number == 0
        else replace(
            plan,
            trial_id=f"{plan.trial_id}-seed{number + 1}",
            config=replace(plan.config, seed=(plan.config.seed + SEED_STEP * number) % 2**32),
        )
        for number in range(seeds)
        for plan in trials
    ]


def _within(
    name: str,
    trials: Sequence[TrialPlan],
    allowance: int,
    final_run: int,
    reduction_factor: float,
    most_steps: int | None,
) -> StagePlan:
    """The stage on the highest ladder that `allowance` pays for."""
    spare = 0
    while True:
        stage = _laid_out(
            name,
            trials,
            allowance,
            spare,
            final_run=final_run,
            reduction_factor=reduction_factor,
            most_steps=most_steps or 0,
        )
        # A rung's steps are whole, so one trial's stretch may be a step dearer than the ladder has it.
        excess = stage.price - allowance
        if excess <= 0:
            return stage
        spare += excess


def _laid_out(
    name: str,
    trials: Sequence[TrialPlan],
    allowance: int,
    spare: int,
    *,
    final_run: int,
    reduction_factor: float,
    most_steps: int,
) -> StagePlan:
    """The stage on a ladder that costs at most `allowance` less `spare`; `most_steps` 0 is no cap."""
    rungs = ladder(
        candidates=len(trials),
        floor=max(_floor(plan.prices, plan.config.warmup_steps) for plan in trials),
        top=final_run // 3,
        allowance=allowance - spare,
        reduction_factor=reduction_factor,
    )
    if most_steps:
        rungs = _capped(
            rungs, max(_price_at_top(plan.prices, most_steps, len(rungs.counts)) for plan in trials)
        )
    started = trials[: rungs.counts[0]]
    notes = [
        f"{len(started)} of {len(trials)} candidates start"
        + ("" if len(started) == len(trials) else ": the budget pays for no more")
    ]
    return StagePlan(
        name=name,
        trials=tuple(on_ladder(plan, rungs, most_steps) for plan in started),
        allowance=allowance,
        policy="halving",
        rungs=rungs.counts,
        notes=tuple(notes),
    )


def _floor(prices: StepPrices, warmup_steps: int) -> int:
    """The least FLOPs at which a trial can be judged: twice its warm-up (six steps at least), and its evaluation."""
    steps = max(LEAST_STEPS, 2 * warmup_steps)
    return price(prices, steps=steps, evaluations=1, forecast=False)


def _price_at_top(prices: StepPrices, steps: int, rungs: int) -> int:
    return price(prices, steps=steps, evaluations=rungs, forecast=False)


def _capped(rungs: Ladder, top: int) -> Ladder:
    """Lowers the whole ladder so that its last rung costs at most `top`."""
    if rungs.levels[-1] <= top:
        return rungs
    return replace(rungs, levels=tuple(level * top // rungs.levels[-1] for level in rungs.levels))


def on_ladder(plan: TrialPlan, rungs: Ladder, most_steps: int = 0) -> TrialPlan:
    """The most whole steps that fit each rung, with one evaluation there."""
    stops: list[tuple[int, int | None]] = []
    begun = 0
    for rung, level in enumerate(rungs.levels):
        end = steps_within(plan.prices, level, evaluations=rung + 1, forecast=False)
        end = min(end, most_steps) if most_steps else end
        if end <= begun:
            raise BudgetTooSmall(
                f"stage {plan.stage}: at most {most_steps} steps leave no room for {len(rungs.levels)} rungs; "
                "raise its steps, or use policy: fixed"
            )
        stops.append((end, rung))
        begun = end
    return replace(plan, milestones=unroll(plan.prices, stops, forecast=False))


@dataclass(frozen=True, slots=True)
class Halving:
    """The policy `halving`, for a stage that `plan_halving` laid out."""

    counts: tuple[int, ...]
    """n_j: how many trials may reach rung j."""

    def judge(self, trial: Trial, trials: Roster) -> Decision:
        """At a rung: goes on if it is what its worker would take up next, else pauses there; between rungs it goes on."""
        if stop := diverged(trial):
            return stop
        milestone = trial.plan.milestones[trial.reached]
        if milestone.rung is None:
            return Decision(
                Action.CONTINUE, f"step {trial.step}, on the way to rung {rung_of(trial) + 1}"
            )
        if milestone.rung == len(self.counts) - 1:
            return Decision(Action.STOP, f"reached the last rung with loss {trial.loss:.4f}")
        standing = _standing(trial, milestone.rung, trials)
        if next(self.candidates(trials), None) == trial.plan.trial_id:
            return Decision(Action.CONTINUE, f"{standing}: goes on")
        return Decision(Action.PAUSE, f"{standing}: waits at rung {milestone.rung}")

    def candidates(self, trials: Roster) -> Iterator[str]:
        """Interrupted trials, then new starts, then promotions from the lowest rung up."""
        yield from trials.interrupted()
        yield from trials.with_status(Status.PLANNED)
        full = True
        for rung in range(len(self.counts) - 1):
            full = self._full(rung, trials, below=full)
            none_waits = True
            for name in self._promotable(rung, trials, full=full):
                none_waits = False
                yield name
            full = full and none_waits
        if full:
            yield from self._spill(trials)

    def reserve_until(self, trial: Trial) -> int:
        """The whole way to the next rung."""
        ahead = range(trial.reached + 1, len(trial.plan.milestones))
        return next(index for index in ahead if trial.plan.milestones[index].rung is not None)

    def parting(self, trial: Trial, trials: Roster) -> str:
        """The rank at the rung where the trial was left."""
        rung = rung_of(trial)
        if rung < 0:
            return "never judged: the stage's FLOPs ended before its first rung"
        gone, rank = trials.gone(rung), trials.rank(trial, rung)
        late = rank is not None and rank < gone
        return (
            f"{_standing(trial, rung, trials)}; {gone} went on"
            f"{', promoted before this one was heard' if late else ''}"
        )

    def winner(self, trials: Roster) -> Winner | None:
        """The lowest loss of those that climbed highest; among those not clearly worse, window by window, the highest rank.

        Adapters of different ranks have nearly the same losses early and part late, the higher rank below; so where
        chance may have made the difference, the rank decides, since the winner is to be trained further.
        """
        highest = trials.highest()
        climbed = trials.best_at(highest, trials.standing(highest)) if highest >= 0 else []
        # One that was promoted from here and then diverged has nothing left to go on with.
        sound = [trials[name] for name in climbed if finite_loss(trials[name]) is not None]
        if not sound:
            return lowest(trials)
        first, *others = sound
        tied = [trial for trial in others if not _clearly_worse(trial, first, highest)]
        best = max((first, *tied), key=_rank)  # the first of equals, which has the lowest loss
        reason = f"validation loss {_at(best, highest).validation_loss:.4f} at rung {highest}"
        if best is not first:
            between = gap(_at(best, highest), _at(first, highest))
            reason += (
                f", of higher rank than the lowest, {first.plan.trial_id} with "
                f"{_at(first, highest).validation_loss:.4f}, and not clearly worse ({between})"
            )
        elif others:
            reason += f", the lowest of {len(sound)}; {_beside(others[0], first, highest)}"
        return Winner(best.plan.trial_id, reason)

    def _promotable(self, rung: int, trials: Roster, *, full: bool) -> Iterator[str]:
        """Trials that may leave `rung` now, best first."""
        heard, wide, narrow = trials.standing(rung), self.counts[rung], self.counts[rung + 1]
        if full:
            quota = narrow
        elif 2 * heard >= wide:
            quota = heard * narrow // wide
        else:
            return
        for name in islice(trials.waiting(rung), max(0, narrow - trials.gone(rung))):
            rank = trials.rank(trials[name], rung)
            if rank is None or rank >= quota:
                return
            yield name

    def _spill(self, trials: Roster) -> Iterator[str]:
        """What losses and divergence have left over goes to those next in line, at the highest rungs first.

        Not to one that is clearly worse than the best there: then more search cannot pay, and the rest buys a longer
        final run.
        """
        for rung in reversed(range(len(self.counts) - 1)):
            for name in trials.waiting(rung):
                (best,) = trials.best_at(rung, 1)
                if name != best and _clearly_worse(trials[name], trials[best], rung):
                    return
                yield name

    def _full(self, rung: int, trials: Roster, *, below: bool) -> bool:
        """Whether every trial that can still come to be judged at `rung` has been.

        Args:
            rung: the rung.
            trials: the stage.
            below: whether the rung below is full and promotes nobody more.
        """
        if trials.underway(rung):
            return False
        return rung == 0 or below or trials.gone(rung - 1) >= self.counts[rung]


def _at(trial: Trial, rung: int) -> Measurement:
    """What was heard of a trial at a rung."""
    index = milestone_of(trial, rung)
    return next(heard for heard in trial.curve if heard.milestone == index)


def _clearly_worse(trial: Trial, leader: Trial, rung: int) -> bool:
    """Whether a trial's loss at `rung` is clearly above the leader's; without windows to compare by, any loss above is."""
    between = gap(_at(trial, rung), _at(leader, rung))
    return between is None or (between.clear and between.mean > 0)


def _rank(trial: Trial) -> int:
    """LoRA rank; 0 for the base model as it is."""
    return trial.plan.config.lora.rank if trial.plan.config.lora else 0


def _beside(trial: Trial, leader: Trial, rung: int) -> str:
    """The next best trial beside the leader, in words."""
    told = f"next {trial.plan.trial_id} with {_at(trial, rung).validation_loss:.4f}"
    between = gap(_at(trial, rung), _at(leader, rung))
    if between is None:
        return told
    worse = "clearly worse" if between.clear and between.mean > 0 else "which may be chance"
    return f"{told}, {worse} ({between})"


def _standing(trial: Trial, rung: int, trials: Roster) -> str:
    rank = trials.rank(trial, rung)
    if rank is None:
        return f"rung {rung}: not ranked"
    score = _at(trial, rung).validation_loss
    return f"rung {rung}: loss {score:.4f}, rank {rank + 1} of {trials.standing(rung)}"


POLICY = Registered(make=lambda stage: Halving(stage.rungs), lay_out=plan_halving)
