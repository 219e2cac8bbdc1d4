"""A trial is admitted when there is room for it and it is paid for."""

from __future__ import annotations

from threading import Event

import pytest

from lvray.core.trial import StagePlan, StepPrices, TrialConfig, TrialPlan
from lvray.ledger.books import Books
from lvray.ledger.ledger import Ledger
from lvray.ray_tune.searcher import Admission
from lvray.scheduler.milestones import unroll
from lvray.scheduler.registry import policy_of
from lvray.scheduler.scheduler import Scheduler

pytestmark = pytest.mark.ray

PRICES = StepPrices(10, 100, 0)


class Told:
    """What a worker is told of a grant; here nothing."""

    def to_json(self) -> dict:
        return {}


def admission(folder, trials: int) -> Admission:
    """Admission to a stage of so many trials, as long as `room` says how many may run."""
    milestones = unroll(PRICES, [(10, None)], forecast=False)
    plans = tuple(
        TrialPlan(f"t{number}", "s", TrialConfig(), milestones, PRICES) for number in range(trials)
    )
    stage = StagePlan("s", plans, max(1, sum(plan.price for plan in plans)), "fixed")
    books = Books(Ledger.open(folder / "ledger.jsonl", convention="coursework"), "sweep")
    books.open_sweep(stage.allowance)
    books.allow("s", stage.allowance, key="1")
    scheduler = Scheduler(stage, policy_of(stage), books, record=lambda row: None)
    room = [0]
    ending = Event()
    made = Admission(scheduler, lambda grant: Told(), lambda: room[0], ending.is_set)
    made.room, made.end = room, ending.set
    return made


def test_trials_wait_for_room_and_are_admitted_as_it_grows(tmp_path):
    stage = admission(tmp_path, trials=3)
    assert stage.suggest("a") is None
    stage.room[0] = 1
    assert stage.suggest("a") == {"task": "{}"}
    assert stage.suggest("b") is None
    stage.room[0] = 2
    assert stage.suggest("b") == {"task": "{}"}
    stage.room[0] = 1  # a node left, and what ran on it was not heard of yet
    assert stage.suggest("c") is None


def test_a_stage_with_nothing_more_to_grant_ends_though_no_node_is_left(tmp_path):
    assert admission(tmp_path, trials=0).suggest("a") == "FINISHED"


def test_nothing_more_is_admitted_once_the_session_is_to_end_though_no_node_is_left(tmp_path):
    """Tune asks again and again while nothing fits, and looks at nothing else."""
    stage = admission(tmp_path, trials=3)
    assert stage.suggest("a") is None
    stage.end()
    assert stage.suggest("a") == "FINISHED"
    stage.room[0] = 1
    assert stage.suggest("a") == "FINISHED"
