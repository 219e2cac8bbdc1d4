"""An attempt fails: who is to blame decides whether there is another, and whether the trial or the session ends."""

from __future__ import annotations

import pytest

from lvray.core.errors import Blame
from lvray.core.trial import Measurement, StagePlan, Status, StepPrices, TrialConfig, TrialPlan
from lvray.driver.accounts import Evidence, findings
from lvray.scheduler.milestones import unroll
from lvray.scheduler.replay import fold
from lvray.scheduler.scheduler import Grant

PRICES = StepPrices(train_step=10, evaluation=100, forecast=0)
STRETCH = 10 * 10 + 100
MOST_FAILURES = 2


def stage_of_two() -> StagePlan:
    milestones = unroll(PRICES, [(10, None), (20, None)], forecast=False)
    plans = tuple(
        TrialPlan(name, "search", TrialConfig(), milestones, PRICES) for name in ("t0", "t1")
    )
    return StagePlan("search", plans, 10 * STRETCH, "fixed")


@pytest.fixture
def desk(desk_of):
    return desk_of(stage_of_two(), MOST_FAILURES)


def fail(desk, times: int = 1, **more) -> None:
    """Grants a stretch of t0 and lets it fail, so many times."""
    for _ in range(times):
        grant = desk.scheduler.next_grant()
        assert grant is not None
        assert grant.plan.trial_id == "t0"
        desk.scheduler.fail("t0", "gpu-q-7: no such device", **more)


def measured(grant: Grant, index: int) -> Measurement:
    step, flops = grant.plan.milestones[index].step, grant.flops_to(index)
    return Measurement(grant.plan.trial_id, grant.attempt, index, step, flops, 1.0, 1.0)


def test_what_was_asked_for_wrongly_fails_its_trial_at_once(desk):
    fail(desk, blame=Blame.TRIAL)
    assert desk.status("t0") is Status.FAILED
    assert desk.scheduler.next_grant().plan.trial_id == "t1"
    assert not desk.scheduler.breakdown


def test_a_crash_is_tried_again_until_it_happened_too_often(desk):
    fail(desk, MOST_FAILURES)
    assert desk.status("t0") is Status.PLANNED
    fail(desk)
    assert desk.status("t0") is Status.FAILED
    assert not desk.scheduler.breakdown


def test_where_the_machine_is_to_blame_too_often_the_session_ends_and_no_trial_does(desk):
    fail(desk, MOST_FAILURES, blame=Blame.MACHINE)
    assert not desk.scheduler.breakdown
    fail(desk, blame=Blame.MACHINE)
    assert {desk.status(name) for name in ("t0", "t1")} == {Status.PLANNED}
    assert desk.scheduler.next_grant() is None
    assert not desk.scheduler.finished, "there is more to do, on a machine that works"
    told = desk.scheduler.breakdown
    for words in ("t0", "3 times in a row", "gpu-q-7: no such device", "same command goes on"):
        assert words in told


def test_the_first_failure_for_the_machines_sake_ends_a_session_that_tries_nothing_again(desk_of):
    desk = desk_of(stage_of_two(), most_failures=0)
    fail(desk, blame=Blame.MACHINE)
    assert "t0 failed once" in desk.scheduler.breakdown
    assert desk.status("t0") is Status.PLANNED


def test_the_next_session_goes_on_with_every_trial_and_counts_anew(desk):
    fail(desk, MOST_FAILURES + 1, blame=Blame.MACHINE)
    before = repr(dict(desk.scheduler.trials))
    desk.next_session()
    assert repr(dict(desk.scheduler.trials)) == before, "the journal says what the scheduler knew"
    assert not desk.scheduler.breakdown
    fail(desk, MOST_FAILURES, blame=Blame.MACHINE)
    assert not desk.scheduler.breakdown
    fail(desk, MOST_FAILURES)
    assert desk.status("t0") is Status.PLANNED, "a machine's failures do not count as its own"
    grant = desk.scheduler.next_grant()
    desk.scheduler.hear(measured(grant, 0))
    desk.scheduler.hear(measured(grant, 1))
    assert desk.status("t0") is Status.COMPLETED


def test_the_machine_fails_no_trial_that_had_crashed_more_often_than_is_allowed_by_now(desk):
    fail(desk, MOST_FAILURES)
    desk.most_failures = 0
    desk.next_session()
    fail(desk, blame=Blame.MACHINE)
    assert desk.status("t0") is Status.PLANNED


def test_a_trial_that_was_heard_between_two_failures_has_not_failed_in_a_row(desk):
    fail(desk, MOST_FAILURES, blame=Blame.MACHINE)
    desk.scheduler.hear(measured(desk.scheduler.next_grant(), 0))
    desk.scheduler.fail("t0", "gpu-q-7: no such device", blame=Blame.MACHINE)
    fail(desk, MOST_FAILURES - 1, blame=Blame.MACHINE)
    assert not desk.scheduler.breakdown
    assert desk.status("t0") is Status.PAUSED
    fail(desk, blame=Blame.MACHINE)
    assert desk.scheduler.breakdown


def test_other_trials_pause_at_their_next_milestone_once_the_session_is_to_end(desk):
    first, other = desk.scheduler.next_grant(), desk.scheduler.next_grant()
    assert (first.plan.trial_id, other.plan.trial_id) == ("t0", "t1")
    desk.scheduler.fail("t0", "no room", blame=Blame.MACHINE)
    fail(desk, MOST_FAILURES, blame=Blame.MACHINE)
    assert desk.scheduler.breakdown
    desk.scheduler.hear(measured(other, 0))
    assert desk.status("t1") is Status.PAUSED
    assert "the machine fails its trials" in desk.scheduler.trials["t1"].reason


@pytest.mark.parametrize("blame", Blame)
def test_an_attempt_that_used_nothing_is_charged_nothing_and_any_other_its_stretch(desk, blame):
    desk.scheduler.next_grant()
    desk.scheduler.fail("t0", "no such device", blame=blame, unused=True)
    assert desk.books.available("search") == desk.stage.allowance
    assert desk.books.ledger.lost == 0
    grant = desk.scheduler.next_grant()
    desk.scheduler.fail(grant.plan.trial_id, "no room on the disk", blame=blame)
    assert desk.books.ledger.lost == STRETCH
    told = fold(desk.journal.replay())
    assert findings(Evidence(desk.books.ledger, told, "s")) == []


def test_failures_in_journals_that_blame_nobody_count_as_crashes(desk):
    fail(desk, MOST_FAILURES)
    old = [{k: v for k, v in row.items() if k != "blame"} for row in desk.journal.replay()]
    assert fold(old).trials["t0"].failures == MOST_FAILURES
