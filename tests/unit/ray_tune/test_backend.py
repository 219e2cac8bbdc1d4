"""What a stage does of the signals and reports that come at odd moments."""

from __future__ import annotations

import json

import pytest

from lvray.core.errors import Preempted
from lvray.core.preemption import Preemption
from lvray.core.trial import Pause, StagePlan, Status, StepPrices, TrialConfig, TrialPlan
from lvray.ledger.books import Books
from lvray.ledger.ledger import Ledger
from lvray.ray_tune import backend
from lvray.ray_tune.capacity import Workers
from lvray.ray_tune.scheduler import Relay
from lvray.ray_tune.trainable import PAUSE
from lvray.scheduler.milestones import unroll
from lvray.scheduler.registry import policy_of
from lvray.scheduler.scheduler import Scheduler

pytestmark = pytest.mark.ray

PRICES = StepPrices(10, 100, 0)


@pytest.fixture
def scheduler(tmp_path) -> Scheduler:
    milestones = unroll(PRICES, [(10, None)], forecast=False)
    plans = tuple(
        TrialPlan(f"t{number}", "s", TrialConfig(), milestones, PRICES) for number in range(2)
    )
    stage = StagePlan("s", plans, 400, "fixed")
    books = Books(Ledger.open(tmp_path / "ledger.jsonl", convention="coursework"), "sweep")
    books.open_sweep(stage.allowance)
    books.allow("s", stage.allowance, key="1")
    return Scheduler(stage, policy_of(stage), books, record=lambda row: None)


class TuneThatHeardTheSignal:
    """Tune whose own handler of SIGUSR1 was called before ours stood: its loop takes no step."""

    def __init__(self, *arguments, **more) -> None:
        pass

    def fit(self) -> None:
        pass


def test_a_signal_that_tune_heard_in_our_place_pauses_the_sweep_and_refuses_no_trial(
    scheduler, tmp_path, monkeypatch
):
    monkeypatch.setattr(backend, "Tuner", TuneThatHeardTheSignal)
    with pytest.raises(Preempted):
        backend.run_stage(
            scheduler,
            lambda grant: pytest.fail("nothing is granted"),
            workers=Workers(1, 0),
            capacity=lambda: 1,
            changed=lambda: None,
            tick=lambda: None,
            preemption=Preemption(tmp_path / "pause"),
        )
    assert {trial.status for trial in scheduler.trials.values()} == {Status.PLANNED}


def test_a_trial_that_paused_though_this_driver_was_not_asked_ends_the_session(scheduler, tmp_path):
    """Somebody made the file by hand, or a file server still shows an old one: granting again would never end."""
    preemption = Preemption(tmp_path / "pause")
    scheduler.next_grant()
    relay = Relay(
        scheduler,
        {"tune": "t0"},
        lambda: None,
        asked=preemption.ask,
    )
    pause = Pause("t0", 1, step=0, flops=0, seconds=0.0)

    class TuneTrial:
        trial_id = "tune"

    assert relay.on_trial_result(None, TuneTrial(), {PAUSE: json.dumps(pause.to_json())}) == "STOP"
    assert preemption
    assert scheduler.trials["t0"].status is Status.PLANNED
