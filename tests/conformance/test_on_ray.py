"""What befalls a stage on real Ray alone, since virtual time has no workers that are slow."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from lvray.core.trial import LoraConfig, StagePlan, Status, StepPrices, TrialConfig, TrialPlan
from lvray.driver.accounts import Evidence, findings
from lvray.scheduler.milestones import unroll
from lvray.scheduler.replay import fold

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]

PRICES = StepPrices(train_step=1_000, evaluation=500, forecast=0)


@pytest.fixture
def backend(ray_with_a_made_up_trainer):
    return ray_with_a_made_up_trainer


@pytest.fixture(autouse=True)
def _never_hangs() -> Iterator[None]:
    """A stage that waits for ever is broken off."""

    def give_up(signum, frame):
        raise TimeoutError("the stage hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def stage() -> StagePlan:
    """Five trials of two milestones for two workers, and FLOPs to do one of them again."""
    milestones = unroll(PRICES, [(10, None), (20, None)], forecast=False)
    plans = tuple(
        TrialPlan(
            f"t{index}",
            "search",
            TrialConfig(LoraConfig(rank=index + 1), seed=index),
            milestones,
            PRICES,
        )
        for index in range(5)
    )
    price = sum(plan.price for plan in plans)
    return StagePlan("search", plans, price + plans[0].price, "fixed")


def test_a_worker_that_is_slow_to_leave_an_attempt_is_waited_for(backend, carried_out):
    outcome = carried_out(backend, stage(), lingers="long")
    assert (outcome.folder / "lingered").exists(), "no worker was slow"
    assert [row for row in outcome.records if row["event"] == "failure"] == []
    assert {trial.status for trial in outcome.trials.values()} == {Status.COMPLETED}


def test_an_attempt_that_tune_gives_up_without_a_word_is_lost_and_made_again(backend, carried_out):
    outcome = carried_out(backend, stage(), lingers="ever")
    (failure,) = [row for row in outcome.records if row["event"] == "failure"]
    assert failure["reason"].startswith("its worker did not leave the attempt before")
    assert failure["attempt"] == 1
    assert outcome.trials[failure["trial_id"]].attempt == 2
    assert {trial.status for trial in outcome.trials.values()} == {Status.COMPLETED}
    lost = stage().trials[0].milestones[0].flops
    assert outcome.ledger.lost == lost
    assert findings(Evidence(outcome.ledger, fold(outcome.records), "s")) == []
