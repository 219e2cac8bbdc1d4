"""A small finished run folder, made by the real scheduler and ledger from invented losses; no torch, no Ray."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lvray.core.trial import (
    Action,
    LoraConfig,
    Measurement,
    StagePlan,
    StepPrices,
    TrialConfig,
    TrialPlan,
)
from lvray.ledger.books import Books
from lvray.ledger.journal import Journal
from lvray.ledger.ledger import Ledger
from lvray.scheduler.halving import plan_halving
from lvray.scheduler.milestones import fill, unroll
from lvray.scheduler.registry import policy_of
from lvray.scheduler.replay import fold, take
from lvray.scheduler.scheduler import Scheduler
from lvray.series.forecasts import Forecasts

BUDGET = 1_000_000
PRICES = StepPrices(train_step=100, evaluation=400, forecast=5000)
RANKS, RATES = (2, 4, 8), (0.001, 0.003, 0.01)
ENVIRONMENT = {
    "lvray": "0.1.0",
    "commit": "abc",
    "python": "3.11.7",
    "system": "Linux",
    "processor": "a processor",
    "cores": 2,
    "packages": {"torch": "2.13.0"},
}
SPEC = {
    "name": "invented",
    "question": "Which rank & learning rate <is> best?",
    "budget": str(BUDGET),
    "convention": "coursework",
    "model": "tiny",
    "data": {"source": "coursework", "path": None},
    "evaluation": {"forecast": {"systems": 4, "context_steps": 30, "horizon": 10}},
    "stages": [
        {"name": "baseline", "space": {}},
        {"name": "search", "space": {"lora.rank": list(RANKS), "learning_rate": list(RATES)}},
        {"name": "final", "space": {}},
    ],
    "ledger": None,
}


def loss_of(config: TrialConfig, step: int) -> float:
    """An invented learning curve: larger rates and ranks learn faster."""
    if config.lora is None:
        return 1.0
    speed = config.learning_rate**0.5 * config.lora.rank**0.25
    return 0.4 + 0.6 / (1 + 0.02 * speed * step)


def metrics_of(plan: TrialPlan, milestone: int) -> dict[str, float]:
    if not plan.milestones[milestone].forecast:
        return {}
    return {
        "forecast_mae": loss_of(plan.config, plan.steps) / 2,
        "forecast_rmse": 0.7,
        "forecast_short": 0,
    }


class Invented:
    """Writes a run folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        self.journal = Journal(root / "journal.jsonl")
        self.history = fold([])
        self.books = Books(Ledger.open(root / "ledger.jsonl", convention="coursework"), "invented")
        self.books.open_sweep(BUDGET)
        (root / "environment.json").write_text(json.dumps(ENVIRONMENT))
        (root / "split.json").write_text(json.dumps({"variables": ["prey", "predator"]}))
        self.record({"event": "session", "spec": SPEC, "budget": str(BUDGET)})

    def record(self, row) -> None:
        row = {"at": "2026-01-01T00:00:00+00:00", **row}
        self.journal.append(row)
        take(self.history, row)

    def stage(self, plan: StagePlan, *, crash: str | None = None) -> str:
        self.books.allow(plan.name, plan.allowance, key="1")
        self.record({"event": "stage", **plan.to_json()})
        self.record({"event": "workers", "stage": plan.name, "count": 2})
        scheduler = Scheduler(plan, policy_of(plan), self.books, self.record)
        while (grant := scheduler.next_grant()) is not None:
            if grant.plan.trial_id == crash and grant.attempt == 1:
                scheduler.fail(crash, "RuntimeError: out of memory")
                continue
            index, action = grant.reached, Action.CONTINUE
            while action is Action.CONTINUE:
                index += 1
                milestone = grant.plan.milestones[index]
                used = milestone.flops - grant.plan.flops_at(grant.reached)
                loss = loss_of(
                    grant.plan.config, milestone.step + (200 if grant.plan.continues else 0)
                )
                heard = Measurement(
                    grant.plan.trial_id,
                    grant.attempt,
                    index,
                    milestone.step,
                    used,
                    loss,
                    used / 1000,
                    0,
                    "CPU",
                    metrics_of(grant.plan, index),
                )
                action = scheduler.hear(heard).action
            if milestone.forecast:
                self.forecast(grant.plan)
        winner = scheduler.close()
        return winner.trial_id

    def forecast(self, plan: TrialPlan) -> None:
        wave = (
            np.sin(np.arange(40)[None, :, None] / 3 + np.arange(4)[:, None, None] + np.arange(2))
            + 2
        )
        folder = self.root / "trials" / plan.trial_id / "forecasts"
        folder.mkdir(parents=True)
        off = 0.5 if plan.config.lora is None else 0.1
        made = Forecasts(
            systems=np.arange(4),
            starts=np.zeros(4, dtype=np.int64),
            history=wave[:, :30],
            truth=wave[:, 30:],
            point=wave[:, 30:] + off,
            samples=np.empty((4, 0, 10, 2)),
            scale=np.ones((4, 2)),
            floor=np.full(4, 0.0025),
            short=np.zeros(4, dtype=np.int64),
        )
        (folder / "30+10.npz").write_bytes(made.to_npz())


def trial(name: str, stage: str, config: TrialConfig, **more) -> TrialPlan:
    return TrialPlan(
        name, stage, config, unroll(PRICES, [(1, None)], forecast=False), PRICES, **more
    )


def write_run(root: Path, *, until: str = "end") -> Path:
    run = Invented(root)
    zero = trial("baseline", "baseline", TrialConfig(lora=None))
    zero = TrialPlan(
        zero.trial_id, zero.stage, zero.config, unroll(PRICES, [(0, None)], forecast=True), PRICES
    )
    run.stage(StagePlan("baseline", (zero,), zero.price, "fixed"))
    if until == "baseline":
        return root
    grid = [
        trial(
            f"search-{i}{j}", "search", TrialConfig(lora=LoraConfig(rank=rank), learning_rate=rate)
        )
        for i, rank in enumerate(RANKS)
        for j, rate in enumerate(RATES)
    ]
    search = plan_halving(
        "search", grid, allowance=500_000, final_run=400_000, reduction_factor=3.0
    )
    best = run.stage(search, crash="search-11")
    left = run.books.free
    milestones = fill(PRICES, left, evaluations=4, forecast=True)
    config = run.history.trials[best].plan.config
    final = TrialPlan("final", "final", config, milestones, PRICES, continues=best, fills=True)
    run.stage(StagePlan("final", (final,), left, "fixed"))
    run.books.close_sweep()
    run.record({"event": "sweep_end", "best": "final", "reason": "winner of stage final"})
    return root


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("finished") / "runs" / "invented")


@pytest.fixture
def unfinished(tmp_path) -> Path:
    return write_run(tmp_path / "runs" / "invented", until="baseline")


@pytest.fixture
def invented(tmp_path) -> Invented:
    """A run in which nothing has happened yet."""
    return Invented(tmp_path / "runs" / "invented")


@pytest.fixture
def retold(finished, tmp_path):
    """Gives a copy of the finished run with each record of its journal changed by a function."""

    def retell(change) -> Path:
        copy = tmp_path / "runs" / "invented"
        shutil.copytree(finished, copy)
        journal = copy / "journal.jsonl"
        rows = [json.loads(line) for line in journal.read_text().splitlines()]
        for row in rows:
            change(row)
        journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return copy

    return retell
