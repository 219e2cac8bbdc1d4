"""How others would spend the same FLOPs: policies and plans that `policies.py` compares lvray's with.

Each contender is a function from a `Setting` to the stages of its search. All of them run on lvray's own scheduler and
ledger, so all pay for every evaluation, none can overdraw, and each one's winner is continued by the same final run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from lvray.core.errors import BudgetTooSmall
from lvray.core.trial import Action, Decision, StagePlan, Status, Trial, TrialPlan
from lvray.scheduler.fixed import Fixed
from lvray.scheduler.freeze_thaw import FreezeThaw, plan_freeze_thaw
from lvray.scheduler.halving import Halving, Ladder, on_ladder, plan_halving
from lvray.scheduler.milestones import evenly, fill, price, unroll
from lvray.scheduler.policy import REDUCTION_FACTOR, Policy, Winner, diverged, lowest
from lvray.scheduler.roster import Roster, rung_of

ETA = 3.0
"""η of the rivals that have one, as in Ray Tune's examples and the papers of Hyperband and ASHA."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a contender has to work with."""

    candidates: Sequence[TrialPlan]
    """Configurations in the order in which they were drawn; their milestones are replaced."""
    allowance: int
    """FLOPs of the search (E)."""
    final_run: int
    """FLOPs of the final run (R)."""
    neighbours: Callable[[int, int], Sequence[TrialPlan]]
    """So many of the candidates after the ninth, the nearest to a configuration, by its number, first."""

    @property
    def floor(self) -> int:
        """The least FLOPs at which the dearest candidate can be judged: six steps and one evaluation."""
        return max(
            price(plan.prices, steps=6, evaluations=1, forecast=False) for plan in self.candidates
        )


Stage = tuple[StagePlan, Policy]
Stages = Generator[Stage, int | None, None]
"""The stages of a search, each yielded once the winner of the one before is sent."""


def grid(setting: Setting) -> Stages:
    """Nine configurations for the same number of steps each, then three neighbours of the best: what people do by hand."""
    nine = setting.candidates[:9]
    first = _equal_steps("grid", nine, setting.allowance * 3 // 4)
    winner = yield first, Fixed()
    three = setting.candidates[9:12] if winner is None else setting.neighbours(winner, 3)
    steps = first.trials[0].steps
    stage = _equal_steps("contexts", three, setting.allowance // 4, most=steps)
    yield stage, Fixed()


def equal_flops(setting: Setting) -> Stages:
    """27 configurations, or as many as can be judged, each for the same FLOPs."""
    count = min(27, len(setting.candidates), setting.allowance // setting.floor)
    each = setting.allowance // count
    yield _filled("equal", setting.candidates[:count], each), Fixed()


def random_search(setting: Setting) -> Stages:
    """Configurations for a third of the final run's FLOPs each, as many as the allowance buys."""
    each = max(setting.floor, setting.final_run // 3)
    count = max(3, min(setting.allowance // each, len(setting.candidates)))
    each = min(each, setting.allowance // count)
    yield _filled("random", setting.candidates[:count], each), Fixed()


def asha(setting: Setting) -> Stages:
    """Asynchronous successive halving as Ray Tune has it: trials are stopped at rungs, never paused or promoted."""
    levels = _levels(setting)
    trials = [on_ladder(plan, Ladder((1,) * len(levels), levels)) for plan in setting.candidates]
    plan = StagePlan("asha", tuple(trials), setting.allowance, "asha", (len(trials),) * len(levels))
    yield plan, Asha(len(levels))


def hyperband(setting: Setting) -> Stages:
    """Brackets of successive halving, from many short trials to few long ones, each with its share of the FLOPs."""
    levels, begun = _levels(setting), 0
    share = setting.allowance // len(levels)
    for first in range(len(levels)):
        above = levels[first:]
        count = _affordable(above, share, len(setting.candidates) - begun)
        counts = tuple(max(1, math.ceil(count / ETA**rung)) for rung in range(len(above)))
        chosen = setting.candidates[begun : begun + count]
        begun += count
        if not chosen:
            return
        trials = tuple(on_ladder(plan, Ladder(counts, above)) for plan in chosen)
        name = f"bracket-{first}"
        yield StagePlan(name, trials, share, "halving", counts), Halving(counts)


def halving(setting: Setting) -> Stages:
    """Planned asynchronous halving with the defaults that a sweep file gets."""
    plan = plan_halving(
        "search",
        setting.candidates,
        allowance=setting.allowance,
        final_run=setting.final_run,
        reduction_factor=REDUCTION_FACTOR,
    )
    yield plan, Halving(plan.rungs)


def freeze_thaw(setting: Setting) -> Stages:
    """The policy `freeze-thaw` with the defaults that a sweep file gets."""
    plan = plan_freeze_thaw(
        "search",
        setting.candidates,
        allowance=setting.allowance,
        final_run=setting.final_run,
        reduction_factor=REDUCTION_FACTOR,
    )
    yield plan, FreezeThaw.of(plan)


CONTENDERS: dict[str, Callable[[Setting], Stages]] = {
    "grid": grid,
    "equal-FLOP": equal_flops,
    "random": random_search,
    "ASHA": asha,
    "Hyperband": hyperband,
    "halving": halving,
    "freeze-thaw": freeze_thaw,
}


@dataclass(frozen=True, slots=True)
class Asha:
    """Ray Tune's rule: at a rung a trial goes on if it is among the best 1/η of those heard there so far, else it ends."""

    rungs: int

    def judge(self, trial: Trial, trials: Roster) -> Decision:
        """Goes on or ends; nobody waits."""
        if stop := diverged(trial):
            return stop
        rung = trial.plan.milestones[trial.reached].rung
        if rung is None:
            return Decision(Action.CONTINUE, f"on the way to rung {rung_of(trial) + 1}")
        rank = trials.rank(trial, rung)
        heard = trials.standing(rung)
        if rung == self.rungs - 1 or rank is None or rank >= math.ceil(heard / ETA):
            return Decision(Action.STOP, f"rung {rung}: rank {rank} of {heard}")
        return Decision(Action.CONTINUE, f"rung {rung}: rank {rank} of {heard}")

    def candidates(self, trials: Roster) -> Iterator[str]:
        """Interrupted trials, then new ones, for as long as there are FLOPs."""
        yield from trials.with_status(Status.PAUSED)
        yield from trials.with_status(Status.PLANNED)

    def reserve_until(self, trial: Trial) -> int:
        """The way to the next rung."""
        ahead = range(trial.reached + 1, len(trial.plan.milestones))
        return next(index for index in ahead if trial.plan.milestones[index].rung is not None)

    def parting(self, trial: Trial, trials: Roster) -> str:
        """Nobody waits, so only the FLOPs can have ended."""
        return "the FLOPs ended"

    def winner(self, trials: Roster) -> Winner | None:
        """The lowest loss of all, wherever it was heard."""
        return lowest(trials)


def _levels(setting: Setting) -> tuple[int, ...]:
    """Rungs by factors of η from the floor to a third of the final run, as the plan of `halving` has them."""
    rungs = 1 + max(0, round(math.log(max(1.0, setting.final_run / 3 / setting.floor), ETA)))
    return tuple(round(setting.floor * ETA**rung) for rung in range(rungs))


def _affordable(levels: Sequence[int], share: int, most: int) -> int:
    """The most trials with which a bracket can begin."""
    count = 0
    while count < most:
        counts = [max(1, math.ceil((count + 1) / ETA**rung)) for rung in range(len(levels))]
        stretches = zip(counts, levels, (0, *levels), strict=False)
        if sum(n * (high - low) for n, high, low in stretches) > share:
            return count
        count += 1
    return count


def _equal_steps(
    name: str, plans: Sequence[TrialPlan], allowance: int, *, most: int | None = None
) -> StagePlan:
    """As many steps as all of `plans` can take alike, evaluated four times."""
    evaluations = 4 * sum(plan.prices.evaluation for plan in plans)
    steps = (allowance - evaluations) // sum(plan.prices.train_step for plan in plans)
    if steps < 4:
        raise BudgetTooSmall(f"{name}: {steps} steps for each of {len(plans)} trials")
    stops = [(step, None) for step in evenly(min(steps, most or steps), 4)]
    trials = tuple(
        replace(
            plan,
            milestones=unroll(plan.prices, stops, forecast=False),
        )
        for plan in plans
    )
    return StagePlan(name, trials, allowance, "fixed")


def _filled(name: str, plans: Sequence[TrialPlan], each: int) -> StagePlan:
    """Every trial takes the steps that `each` FLOPs buy it, evaluated four times."""
    trials = []
    for plan in plans:
        milestones = fill(plan.prices, each, evaluations=4, forecast=False)
        if milestones is None:
            raise BudgetTooSmall(f"{name}: {each} FLOPs buy no step")
        trials.append(replace(plan, milestones=milestones))
    return StagePlan(name, tuple(trials), each * len(trials), "fixed")
