"""A session is asked to pause: nothing is granted, nothing is lost, and the next one goes on as if nothing had been."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvray.core.trial import (
    Action,
    Measurement,
    Pause,
    StagePlan,
    Status,
    StepPrices,
    Trial,
    TrialConfig,
    TrialPlan,
)
from lvray.scheduler.halving import Halving
from lvray.scheduler.milestones import fill, unroll
from lvray.scheduler.roster import Roster

PRICES = StepPrices(train_step=10, evaluation=100, forecast=0)


def plan(name="t0", stops=((10, None), (20, None)), **more) -> TrialPlan:
    return TrialPlan(
        name, "search", TrialConfig(), unroll(PRICES, stops, forecast=False), PRICES, **more
    )


@pytest.fixture
def desk(desk_of):
    plans = (plan("t0"), plan("t1"))
    return desk_of(StagePlan("search", plans, sum(each.price for each in plans), "fixed"))


def measured(grant, index: int, loss: float = 1.0) -> Measurement:
    step = grant.plan.milestones[index].step
    name, flops = grant.plan.trial_id, grant.flops_to(index)
    return Measurement(name, grant.attempt, index, step, flops, loss, 1.0)


def test_a_pause_spends_its_steps_returns_the_rest_and_the_next_grant_pays_for_the_rest_alone(desk):
    grant = desk.scheduler.next_grant()
    assert grant.flops == 10 * 10 + 100
    desk.scheduler.pause(Pause("t0", 1, step=7, flops=70, seconds=1.0))
    trial = desk.scheduler.trials["t0"]
    assert trial.status is Status.PLANNED
    assert trial.paused_at == 7
    assert trial.flops_heard == 70
    assert desk.books.held("t0") == 0
    assert desk.books.available("search") == desk.stage.allowance - 70

    again = desk.next_session().next_grant()
    assert (again.plan.trial_id, again.reached, again.paused_at) == ("t0", -1, 7)
    assert again.flops == 3 * 10 + 100
    assert again.flops_to(0) == again.flops
    assert desk.lost() == 0


def test_two_pauses_on_one_stretch_add_up(desk):
    desk.scheduler.next_grant()
    desk.scheduler.pause(Pause("t0", 1, step=4, flops=40, seconds=1.0))
    desk.next_session().next_grant()
    desk.scheduler.pause(Pause("t0", 2, step=9, flops=50, seconds=1.0))
    grant = desk.next_session().next_grant()
    assert (grant.paused_at, grant.flops) == (9, 10 + 100)
    decision = desk.scheduler.hear(measured(grant, 0))
    assert decision.action is Action.CONTINUE
    trial = desk.scheduler.trials["t0"]
    assert trial.paused_at is None
    assert trial.flops_heard == trial.plan.flops_at(0) == 200
    assert trial.seconds_heard == 3.0


def test_a_pause_where_a_milestone_was_just_heard_costs_nothing(desk):
    grant = desk.scheduler.next_grant()
    desk.scheduler.hear(measured(grant, 0))
    desk.scheduler.pause(Pause("t0", 1, step=10, flops=200, seconds=1.0))
    assert desk.scheduler.trials["t0"].paused_at is None
    assert desk.scheduler.trials["t0"].status is Status.PAUSED
    assert desk.next_session().next_grant().flops == 10 * 10 + 100
    assert desk.lost() == 0


def test_a_pause_heard_twice_or_of_an_attempt_that_is_over_changes_nothing(desk):
    desk.scheduler.next_grant()
    pause = Pause("t0", 1, step=7, flops=70, seconds=1.0)
    desk.scheduler.pause(pause)
    before = repr((desk.scheduler.trials, desk.books.ledger.balances))
    desk.scheduler.pause(pause)
    assert repr((desk.scheduler.trials, desk.books.ledger.balances)) == before
    desk.scheduler.next_grant()
    before = repr((desk.scheduler.trials, desk.books.ledger.balances))
    desk.scheduler.pause(replace(pause, step=8, flops=80))
    assert repr((desk.scheduler.trials, desk.books.ledger.balances)) == before


@pytest.mark.parametrize("written", [1, 2, 3])
def test_a_driver_killed_while_it_hears_a_pause_pays_and_returns_when_it_is_started_again(
    desk, written
):
    """Journal, ledger (spend), ledger (release), journal: dead after so many of these writes."""
    desk.scheduler.next_grant()
    writes = 0
    append, log = desk.scheduler._record, desk.ledger
    booked = log.append

    def counted(write):
        def once(row):
            nonlocal writes
            if writes == written:
                raise RuntimeError("killed")
            writes += 1
            write(row)

        return once

    desk.scheduler._record, log.append = counted(append), counted(booked)
    with pytest.raises(RuntimeError, match="killed"):
        desk.scheduler.pause(Pause("t0", 1, step=7, flops=70, seconds=1.0))
    log.append = booked
    desk.next_session()
    assert desk.lost() == 0
    assert desk.books.held("t0") == 0
    assert desk.scheduler.trials["t0"].paused_at == 7
    assert desk.books.available("search") == desk.stage.allowance - 70


def test_a_crash_after_a_pause_goes_on_from_the_pause(desk):
    desk.scheduler.next_grant()
    desk.scheduler.pause(Pause("t0", 1, step=7, flops=70, seconds=1.0))
    desk.scheduler.next_grant()
    desk.scheduler.fail("t0", "the worker died")
    assert desk.lost() == 3 * 10 + 100
    assert desk.scheduler.trials["t0"].paused_at == 7


def test_a_held_scheduler_grants_nothing_and_pauses_who_reports(desk):
    grant = desk.scheduler.next_grant()
    desk.scheduler.hold("the session was asked to pause")
    assert desk.scheduler.next_grant() is None
    assert not desk.scheduler.finished
    decision = desk.scheduler.hear(measured(grant, 0))
    assert decision.action is Action.PAUSE
    assert decision.reason.endswith("but the session was asked to pause")
    assert desk.books.held("t0") == 0
    assert desk.next_session().next_grant().reached == 0


def test_a_held_scheduler_lets_a_trial_end_that_is_at_its_end(desk):
    grant = desk.scheduler.next_grant()
    desk.scheduler.hear(measured(grant, 0))
    desk.scheduler.hold("the session was asked to pause")
    assert desk.scheduler.hear(measured(grant, 1)).action is Action.STOP
    assert desk.scheduler.trials["t0"].status is Status.COMPLETED


def test_one_that_paused_on_its_way_to_a_rung_goes_on_before_others_are_promoted():
    """It was promoted already: being asked to pause does not send it back to compete."""
    stops = ((10, 0), (20, None), (40, 1))
    plans = [plan(f"t{index}", stops) for index in range(4)]

    def at_rung(index: int, loss: float) -> Trial:
        heard = Measurement(f"t{index}", 1, 0, 10, 200, loss, 1.0)
        return Trial(plans[index], Status.PAUSED, (heard,), attempt=1, granted=0)

    waiting = [at_rung(index, loss) for index, loss in enumerate((1.0, 1.1, 1.2, 1.3))]
    pause = Pause("t1", 2, step=15, flops=50, seconds=1.0)
    paused = replace(waiting[1], attempt=2, pauses=(pause,))
    roster = Roster([waiting[0], paused, *waiting[2:]])
    assert list(roster.interrupted()) == ["t1"]
    assert list(roster.waiting(0)) == ["t0", "t2", "t3"]
    assert roster.gone(0) == 1
    assert roster.underway(1) == 1
    assert next(Halving((4, 1)).candidates(roster)) == "t1"
    ahead = sum(each.plan.price - 200 for each in waiting) - 5 * 10
    assert roster.ahead == ahead


def test_a_trial_that_fills_its_stage_and_paused_is_laid_out_from_the_pause_on():
    milestones = fill(PRICES, 1_000, evaluations=4, forecast=False)
    behind = milestones[:1]
    for flops in range(111, 1_000, 7):
        again = fill(PRICES, flops, evaluations=3, forecast=False, behind=behind, paused_at=50)
        assert again is not None
        assert all(milestone.step > 50 for milestone in again[1:])
        done = behind[0].flops + (50 - behind[0].step) * PRICES.train_step
        assert flops - 10 < again[-1].flops - done <= flops
    assert fill(PRICES, 109, evaluations=3, forecast=False, behind=behind, paused_at=50) is None


def test_one_that_fills_its_stage_paused_and_then_crashed_goes_on_with_what_is_left(desk_of):
    milestones = fill(PRICES, 2_000, evaluations=4, forecast=False)
    filling = TrialPlan("t0", "search", TrialConfig(), milestones, PRICES, fills=True)
    desk = desk_of(StagePlan("search", (filling,), 2_000, "fixed"))
    first = milestones[0].step
    desk.scheduler.next_grant()
    desk.scheduler.pause(Pause("t0", 1, first - 1, (first - 1) * 10, seconds=1.0))
    for attempt in (2, 3):
        desk.scheduler.next_grant()
        desk.scheduler.fail("t0", f"attempt {attempt} died")
    left = desk.books.available("search")
    grant = desk.scheduler.next_grant()
    ends = grant.plan.milestones
    assert ends[0].step > first - 1
    assert left - 10 < grant.flops_to(len(ends) - 1) <= left
