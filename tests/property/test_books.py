"""What is promised: however many workers, however they crash, the budget is never overdrawn.

A stage is driven by a made-up driver in which anything may happen in any order that chance draws:
workers report, die, report twice or too late, and the driver itself is killed between two writes and
started again from its files.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvray.core.errors import Blame, BudgetTooSmall
from lvray.core.trial import (
    Action,
    Measurement,
    Pause,
    StagePlan,
    Status,
    StepPrices,
    TrialConfig,
    TrialPlan,
)
from lvray.ledger.books import Books
from lvray.ledger.journal import Journal
from lvray.ledger.ledger import SOURCE, SPENT, Ledger
from lvray.scheduler.halving import plan_halving
from lvray.scheduler.milestones import evenly, fill, unroll
from lvray.scheduler.policy import finite_loss
from lvray.scheduler.registry import policy_of
from lvray.scheduler.replay import fold
from lvray.scheduler.scheduler import Grant, Scheduler

GENEROUS = 100
"""Times its allowance that a stage can draw, so that no series of crashes exhausts it."""


class Killed(Exception):
    """The driver died here."""


@dataclass
class World:
    """A stage, its files, and the workers' grants; `chance` decides what happens next."""

    stage: StagePlan
    folder: Path
    chance: random.Random
    kills: bool = True
    grants: list[tuple[Grant, int]] = field(default_factory=list)
    """Grants being worked on, with the next milestone each will report."""
    old: list[Measurement | Pause] = field(default_factory=list)
    sessions: int = 0
    writes_left: int | None = None

    def start(self) -> None:
        self.sessions += 1
        self.grants.clear()
        journal = Journal(self.folder / "journal.jsonl")
        ledger = Ledger.open(self.folder / "ledger.jsonl", convention="coursework")
        self.books = Books(ledger, "s")
        self.books.open_sweep(self.stage.allowance + self.stage.spare)
        self.books.allow(self.stage.name, self.stage.allowance, key="all")
        history = fold(journal.replay())
        if not history.stages:
            journal.append({"event": "stage", **self.stage.to_json()})
            history = fold(journal.replay())
        told = history.stages[self.stage.name]
        self.scheduler = Scheduler(
            told.plan,
            policy_of(told.plan),
            self.books,
            self._recorder(journal),
            session=self.sessions,
            trials=told.trials,
        )
        self.scheduler.recover()

    def _recorder(self, journal: Journal):
        def record(row) -> None:
            if self.writes_left is not None:
                self.writes_left -= 1
                if self.writes_left == -1:
                    if self.chance.random() < 0.5:  # dead just before the write, or just after it
                        journal.append(row)
                    raise Killed
            journal.append(row)

        return record

    def measure(self, grant: Grant, index: int) -> Measurement:
        milestone = grant.plan.milestones[index]
        loss = float("nan") if self.chance.random() < 0.03 else self.chance.random()
        used = grant.flops_to(index)
        if loss != loss:  # a diverged trial ends before its milestone
            used -= self.chance.randrange(used - self._spent_before(grant, index))
        return Measurement(
            grant.plan.trial_id, grant.attempt, index, milestone.step, used, loss, 1.0
        )

    def paused(self, grant: Grant, index: int) -> Pause | None:
        """A pause at any step on the way to milestone `index`; None where there is no step to take."""
        plan = grant.plan
        begun = plan.milestones[index - 1].step if index else 0
        if index == grant.reached + 1 and grant.paused_at is not None:
            begun = grant.paused_at
        steps = plan.milestones[index].step - begun
        if not steps:
            return None
        done = self.chance.randrange(steps)
        used = self._spent_before(grant, index) + done * plan.prices.train_step
        return Pause(plan.trial_id, grant.attempt, begun + done, used, 1.0)

    def _spent_before(self, grant: Grant, index: int) -> int:
        return max(0, grant.flops_to(index - 1))

    def event(self, workers: int) -> None:
        if len(self.grants) < workers and (grant := self.scheduler.next_grant()) is not None:
            self.grants.append((grant, grant.reached + 1))
            return
        if not self.grants:
            return
        grant, index = self.grants.pop(self.chance.randrange(len(self.grants)))
        fate = self.chance.random()
        if fate < 0.08:
            blame, unused = self.chance.choice(list(Blame)), self.chance.random() < 0.5
            self.scheduler.fail(grant.plan.trial_id, "it died", blame=blame, unused=unused)
            return
        if fate < 0.16 and (pause := self.paused(grant, index)) is not None:
            self.scheduler.pause(pause)
            self.old.append(pause)
            return
        if fate < 0.17:
            self.scheduler.hold("its time is up")  # of this driver: the next one grants again
        measurement = self.measure(grant, index)
        decision = self.scheduler.hear(measurement)
        self.old.append(measurement)
        if decision.action is Action.CONTINUE:
            assert self.scheduler.trials[grant.plan.trial_id].granted > index, "goes on unpaid"
            self.grants.append((grant, index + 1))
        if fate > 0.85:
            again = self.chance.choice(self.old)
            before = repr((self.scheduler.trials, self.books.ledger.balances))
            tell = self.scheduler.pause if isinstance(again, Pause) else self.scheduler.hear
            tell(again)
            assert before == repr((self.scheduler.trials, self.books.ledger.balances)), (
                "heard twice"
            )

    def check(self) -> None:
        balances = self.books.ledger.balances
        assert sum(balances.values()) == 0
        assert all(flops >= 0 for account, flops in balances.items() if account != SOURCE)
        assert balances[SPENT] <= self.stage.allowance + self.stage.spare
        for name, trial in self.scheduler.trials.items():
            if trial.status is not Status.RUNNING:
                assert self.books.held(name) == 0, f"{name} is {trial.status} and holds FLOPs"

    def run(self, workers: int) -> None:
        self.start()
        while not self.scheduler.finished:
            self.writes_left = self.chance.randrange(1, 40) if self.kills else None
            try:
                while not self.scheduler.finished:
                    self.event(workers)
                    self.check()
                    if self.scheduler.held and not self.scheduler.running:
                        self.start()
                self.writes_left = None
            except Killed:
                self.writes_left = None
                self.kills = self.sessions < 12
                self.start()
                self.check()
        self.winner = self.scheduler.close()


def plan_of(index: int, prices: StepPrices, steps: int) -> TrialPlan:
    stops = [(step, None) for step in evenly(steps, 4)]
    milestones = unroll(prices, stops, forecast=False)
    return TrialPlan(f"t{index}", "search", TrialConfig(), milestones, prices)


@st.composite
def stages(draw) -> StagePlan:
    budget = draw(st.sampled_from([10**4, 10**9, 10**17, 10**26])) + draw(st.integers(0, 999))
    count = draw(st.integers(1, 30))
    kind = draw(st.sampled_from(["fixed", "halving", "fill"]))
    unit = max(1, budget // 5000)
    prices = [
        StepPrices(draw(st.integers(1, 3)) * max(1, unit // 20), max(1, unit // 10), 0)
        for _ in range(count)
    ]
    if kind == "fill":
        milestones = fill(prices[0], budget, evaluations=6, forecast=False)
        plan = TrialPlan("t0", "search", TrialConfig(), milestones, prices[0], fills=True)
        return StagePlan("search", (plan,), budget, "fixed")
    plans = [plan_of(index, prices[index], 40) for index in range(count)]
    if kind == "halving" and count >= 3:
        return plan_halving(
            "search", plans, allowance=budget, final_run=budget // 3, reduction_factor=3.0
        )
    allowance = draw(st.sampled_from([budget, sum(plan.price for plan in plans)]))
    spare = draw(st.sampled_from([0, allowance // 3, GENEROUS * allowance]))
    return StagePlan("search", tuple(plans), allowance, "fixed", spare=spare)


@settings(max_examples=30)
@given(stage=stages(), seed=st.integers(0, 10**6), workers=st.integers(1, 8), kills=st.booleans())
def test_whatever_happens_the_books_hold_and_the_stage_ends(stage, seed, workers, kills):
    with TemporaryDirectory() as folder:
        world = World(stage, Path(folder), random.Random(seed), kills)
        world.run(workers)
        world.check()
        replayed = Ledger.open(Path(folder) / "ledger.jsonl", convention="coursework")
        assert replayed.balances == world.books.ledger.balances
        told = fold(Journal(Path(folder) / "journal.jsonl").replay()).stages["search"]
        assert repr(told.trials) == repr(dict(world.scheduler.trials))  # NaN is not equal to itself
        assert told.ended
        assert all(trial.status.final for trial in told.trials.values())
        if stage.spare >= GENEROUS * stage.allowance and stage.price <= stage.allowance:
            for trial in told.trials.values():
                diverged = bool(trial.curve) and finite_loss(trial) is None
                ends = {Status.STOPPED} if diverged else {Status.COMPLETED, Status.FAILED}
                assert trial.status in ends, f"a crash took the FLOPs of {trial.plan.trial_id}"
        heard = sum(trial.flops_heard for trial in told.trials.values())
        spends = [t for t in replayed.transfers if t.kind == "spend"]
        assert sum(transfer.flops for transfer in spends) == heard


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), workers=st.integers(1, 8))
def test_the_same_chance_writes_the_same_journal(seed, workers):
    prices = StepPrices(10, 100, 0)
    try:
        stage = plan_halving(
            "search",
            [plan_of(index, prices, 1) for index in range(9)],
            allowance=100_000,
            final_run=0,
            reduction_factor=3.0,
        )
    except BudgetTooSmall:
        pytest.fail("100,000 FLOPs pay for nine candidates")
    texts = []
    for _ in range(2):
        with TemporaryDirectory() as folder:
            World(stage, Path(folder), random.Random(seed)).run(workers)
            texts.append((Path(folder) / "journal.jsonl").read_text())
    assert texts[0] == texts[1]


def three_trials() -> StagePlan:
    """A stage that pays for three trials to their ends, and for nothing more."""
    plans = tuple(plan_of(index, StepPrices(10, 100, 0), 40) for index in range(3))
    return StagePlan("search", plans, 3 * plans[0].price, "fixed")


def test_nothing_is_lost_or_stopped_when_nothing_goes_wrong(tmp_path):
    stage = three_trials()

    class Calm(random.Random):
        def random(self) -> float:
            return 0.5

    world = World(stage, tmp_path, Calm(0), kills=False)
    world.run(2)
    assert world.books.ledger.balance(SPENT) == stage.price == stage.allowance
    assert {trial.status for trial in world.scheduler.trials.values()} == {Status.COMPLETED}


def test_a_stage_whose_trials_all_pause_again_and_again_costs_what_was_planned(tmp_path):
    """Nothing is lost, nothing is paid for twice, and every trial comes to its end."""
    stage = three_trials()

    class Restless(random.Random):
        """Half of all attempts pause, somewhere on their way."""

        def random(self) -> float:
            return 0.1 if super().random() < 0.5 else 0.5

    world = World(stage, tmp_path, Restless(0), kills=False)
    world.run(2)
    trials = world.scheduler.trials.values()
    assert sum(len(trial.pauses) for trial in trials) > 5
    assert {trial.status for trial in trials} == {Status.COMPLETED}
    assert world.books.ledger.balance(SPENT) == stage.price == stage.allowance
    assert not [row for row in world.books.ledger.transfers if row.kind == "lose"]
