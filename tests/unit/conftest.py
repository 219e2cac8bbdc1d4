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
from lvray.series.baselines import Known, baseline_forecasts
from lvray.series.forecasts import Forecasts
from lvray.series.rivals import Rivals

BUDGET = 1_000_000
PRICES = StepPrices(train_step=100, evaluation=400, forecast=5000)
RANKS, RATES = (2, 4, 8), (0.001, 0.003, 0.01)
CONTEXTS, HORIZON, WINDOWS, DRAWS = (15, 30), 10, 6, 20
OFF = {"baseline": 0.5, "default": 0.3, "final": 0.1}
"""How far forecasts of a stage are off, at their last step."""
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
    "data": {"source": "coursework", "path": None, "split": {"test": 0.1}},
    "evaluation": {
        "forecast": {
            "systems": WINDOWS,
            "context_steps": list(CONTEXTS),
            "horizon": HORIZON,
            "samples": 0,
            "temperature": 1.0,
            "prompt": "raw",
        }
    },
    "stages": [
        {"name": "baseline", "space": {}, "forecast": True},
        {"name": "default", "space": {}, "forecast": {"samples": DRAWS}},
        {"name": "search", "space": {"lora.rank": list(RANKS), "learning_rate": list(RATES)}},
        {"name": "final", "space": {}, "forecast": {"samples": DRAWS, "temperature": 0.8}},
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
        "forecast_mae": OFF[plan.stage] * 0.6,
        "forecast_rmse": OFF[plan.stage] * 0.7,
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
        folder = self.root / "trials" / plan.trial_id / "forecasts"
        folder.mkdir(parents=True)
        for context in CONTEXTS:
            made = forecasts(context, OFF[plan.stage], draws=DRAWS if plan.steps else 0)
            (folder / f"{context}+{HORIZON}.npz").write_bytes(made.to_npz())

    def baselines(self) -> None:
        """What a driver writes when the sweep has ended."""
        folder = self.root / "baselines"
        folder.mkdir()
        for context in CONTEXTS:
            made = forecasts(context, 0.0, draws=0)
            known = Known(made.history, HORIZON, waves(np.arange(20, 30), 60))
            rivals = Rivals(made.systems, made.starts, *baseline_forecasts(known))
            (folder / f"{context}+{HORIZON}.npz").write_bytes(rivals.to_npz())


def waves(systems: np.ndarray, steps: int) -> np.ndarray:
    """Two variables that swing and slowly change their pace [N, T, 2]."""
    time = np.arange(steps)[None, :, None]
    phase = systems[:, None, None] + 1.7 * np.arange(2)
    return 2 + np.sin(time / 3 + phase + 0.4 * np.sin(time / (5 + systems[:, None, None] / 7)))


def forecasts(context: int, off: float, *, draws: int) -> Forecasts:
    """Forecasts that drift away from the truth, some windows' more than others', in samples that spread alike."""
    wave = waves(np.arange(WINDOWS), context + HORIZON)
    truth = wave[:, context:]
    growing = np.linspace(0.2, 1, HORIZON)[:, None]
    point = truth + off * np.linspace(0.4, 1.6, WINDOWS)[:, None, None] * growing
    spread = np.linspace(-0.15, 0.15, draws)[:, None, None] * growing
    return Forecasts(
        systems=np.arange(WINDOWS),
        starts=np.zeros(WINDOWS, dtype=np.int64),
        history=wave[:, :context],
        truth=truth,
        point=point,
        samples=point[:, None] + spread,
        scale=np.full((WINDOWS, 2), 0.5),
        floor=np.full(WINDOWS, 0.0025),
        short=np.zeros(WINDOWS, dtype=np.int64),
    )


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
    default = trial("default", "default", TrialConfig(lora=LoraConfig(rank=4)))
    default = TrialPlan(
        "default", "default", default.config, unroll(PRICES, [(50, None)], forecast=True), PRICES
    )
    run.stage(StagePlan("default", (default,), default.price, "fixed"))
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
    run.baselines()
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
