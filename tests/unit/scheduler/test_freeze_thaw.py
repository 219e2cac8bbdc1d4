"""Freeze-thaw, on a stage that is played in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from lvray.core.trial import Measurement, Status, StepPrices, Trial, TrialConfig, TrialPlan
from lvray.ledger.books import Books
from lvray.ledger.journal import MemoryJournal
from lvray.ledger.ledger import Ledger
from lvray.scheduler.freeze_thaw import FreezeThaw, plan_freeze_thaw
from lvray.scheduler.halving import plan_halving
from lvray.scheduler.milestones import unroll
from lvray.scheduler.registry import policy_of
from lvray.scheduler.roster import Roster
from lvray.scheduler.scheduler import Scheduler
from lvray.simulator.landscapes import Reading
from lvray.simulator.world import Conditions, World

PRICES = StepPrices(train_step=10, evaluation=20, forecast=0)
ALLOWANCE = 100_000


@dataclass(frozen=True)
class Laws:
    """Trial i falls towards its floor with its exponent: by its seed."""

    laws: tuple[tuple[float, float], ...]

    def read(self, config, *, steps, flops):
        floor, exponent = self.laws[config.seed]
        return Reading(floor + (1 - floor) * (1 + steps / 10) ** -exponent)


def plans(count: int) -> list[TrialPlan]:
    milestones = unroll(PRICES, [(1, None)], forecast=False)
    return [
        TrialPlan(f"t{i}", "search", TrialConfig(seed=i), milestones, PRICES) for i in range(count)
    ]


def stage(count: int, allowance: int = ALLOWANCE):
    return plan_freeze_thaw(
        "search", plans(count), allowance=allowance, final_run=60_000, reduction_factor=4.0
    )


def played(laws, *, workers: int = 2) -> tuple[Scheduler, str]:
    plan = stage(len(laws))
    ledger = Ledger.open(MemoryJournal("ledger", keep=False), convention="coursework")
    books = Books(ledger, "s")
    books.open_sweep(plan.allowance)
    books.allow("search", plan.allowance, key="all")
    scheduler = Scheduler(plan, policy_of(plan), books, lambda record: None)
    World(Laws(tuple(laws)), Conditions(workers=workers)).run_stage(scheduler)
    winner = scheduler.close()
    assert winner is not None
    return scheduler, winner.trial_id


CROSSING = [(0.5, 1.5), (0.1, 0.25), *[(0.8, 1.0)] * 7]
"""t0 falls fast to a high floor; t1 slowly to a low one, and is below t0 only after some 300 steps."""


def test_half_of_the_stage_is_planned_as_a_ladder_and_the_rest_is_open():
    plan = stage(9)
    ladder = plan_halving(
        "search", plans(9), allowance=ALLOWANCE // 2, final_run=60_000, reduction_factor=4.0
    )
    assert plan.rungs == ladder.rungs
    assert plan.price == plan.allowance == ALLOWANCE
    for fine, coarse in zip(plan.trials, ladder.trials, strict=True):
        judged = [milestone.step for milestone in fine.milestones if milestone.rung is not None]
        assert judged == [milestone.step for milestone in coarse.milestones]
        assert fine.milestones[-1].flops > 3 * coarse.milestones[-1].flops


def test_a_slow_curve_that_promises_more_is_thawed_and_wins():
    scheduler, winner = played(CROSSING)
    assert winner == "t1"
    left_behind = [scheduler.trials[f"t{number}"].step for number in range(2, len(CROSSING))]
    assert scheduler.trials["t1"].step > max(left_behind)


def frozen(name: str, losses: list[float], *, attempt: int) -> Trial:
    laid_out = replace(stage(9).trials[0], trial_id=name)
    curve = tuple(
        Measurement(name, 1, index, laid_out.milestones[index].step, 1, loss, 1.0)
        for index, loss in enumerate(losses)
    )
    return Trial(laid_out, Status.PAUSED, curve, attempt=attempt, granted=len(losses) - 1)


@pytest.mark.parametrize(
    ("attempts", "order"),
    [(1, ["falling", "flat"]), (2, ["flat", "falling"])],
    ids=["by what curves promise", "every fourth stretch by what was observed"],
)
def test_a_falling_curve_promises_more_than_a_flat_one_that_is_lower(attempts, order):
    flat = frozen("flat", [0.5, 0.5, 0.5, 0.5, 0.5], attempt=attempts)
    falling = frozen("falling", [0.95, 0.85, 0.75, 0.65, 0.55], attempt=2)
    policy = FreezeThaw(counts=(9, 3, 2), planned=1, horizon=60_000)
    assert list(policy.candidates(Roster([flat, falling]))) == order


@pytest.mark.parametrize("workers", [1, 4])
def test_the_stage_ends_with_little_left_and_everybody_told_why(workers):
    scheduler, _ = played(CROSSING, workers=workers)
    spent = sum(trial.flops_heard for trial in scheduler.trials.values())
    assert 0.8 * ALLOWANCE < spent <= ALLOWANCE
    assert all(trial.status.final and trial.reason for trial in scheduler.trials.values())
    frozen = [trial for trial in scheduler.trials.values() if "frozen at step" in trial.reason]
    assert frozen or any("its next stretch costs" in t.reason for t in scheduler.trials.values())


def test_the_winner_is_the_lowest_loss_observed_whatever_curves_promise():
    scheduler, winner = played(CROSSING)
    losses = {name: trial.loss for name, trial in scheduler.trials.items() if trial.curve}
    assert losses[winner] == min(losses.values())


def test_asking_changes_nothing():
    plan = stage(9)
    ledger = Ledger.open(MemoryJournal("ledger", keep=False), convention="coursework")
    books = Books(ledger, "s")
    books.open_sweep(plan.allowance)
    books.allow("search", plan.allowance, key="all")
    policy = FreezeThaw.of(plan)
    scheduler = Scheduler(plan, policy, books, lambda record: None)
    before = repr(scheduler.trials)
    asked = [list(policy.candidates(scheduler.trials)) for _ in range(3)]
    assert asked[0] == asked[1] == asked[2]
    assert repr(scheduler.trials) == before
    assert {trial.status for trial in scheduler.trials.values()} == {Status.PLANNED}
