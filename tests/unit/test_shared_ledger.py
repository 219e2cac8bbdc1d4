"""Several sweeps on one ledger, in virtual time: what each may draw, and what the file says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lvray.audit import main as audit
from lvray.core.errors import BudgetTooSmall, RunFolderError
from lvray.core.run_folder import RunFolder
from lvray.driver.walk import draw, open_run
from lvray.ledger.ledger import BUDGET, SOURCE, Ledger
from lvray.spec.schema import Sweep


def sweep_of(name: str, ledger: Path, *, budget: str = "4e11", total: str | None = "1e12") -> Sweep:
    return Sweep.model_validate(
        {
            "name": name,
            "budget": budget,
            "ledger": {"path": str(ledger), "budget": total},
            "data": {"systems": 20, "split": {"train": 10, "validation": 5, "test": 5}},
            "evaluation": {"windows": 2, "context_length": 250, "forecast": {"systems": 2}},
            "trial": {"context_length": 250, "stride": 250, "batch_size": 1},
            "stages": [{"name": "only", "steps": 20}],
        }
    )


@pytest.fixture
def opened(tmp_path):
    def open_sweep(name: str, **changes):
        sweep = sweep_of(name, tmp_path / "team.jsonl", **changes)
        return open_run(sweep, RunFolder(tmp_path / "runs" / name))

    return open_sweep


def test_each_sweep_draws_its_own_budget_and_the_last_one_what_is_left(opened, tmp_path):
    budgets = [opened(name).sweep.budget for name in ("one", "two", "three")]
    assert budgets == [400_000_000_000, 400_000_000_000, 200_000_000_000]
    ledger = Ledger.read(tmp_path / "team.jsonl")
    assert (-ledger.balance(SOURCE), ledger.balance(BUDGET)) == (10**12, 0)


def test_what_is_left_must_pay_for_the_plan_and_is_given_back_if_it_does_not(opened, tmp_path):
    opened("one", budget="9.9e11")
    with pytest.raises(BudgetTooSmall) as told:
        opened("two")
    assert "has 1.00e10 FLOPs left for sweep two, which asks for 4.00e11" in str(told.value)
    assert "one took 9.90e11" in str(told.value)
    assert Ledger.read(tmp_path / "team.jsonl").balance(BUDGET) == 10**10


def test_a_driver_that_comes_again_has_what_was_drawn_the_first_time(opened):
    opened("one", budget="9e11")
    first = opened("two")
    assert first.sweep.budget == 10**11
    again = opened("two")
    assert again.sweep.budget == 10**11
    assert again.session == 2
    draw(again)
    assert again.books.drawn == 10**11


def test_two_sweeps_of_one_name_are_refused(opened, tmp_path):
    opened("one")
    other = sweep_of("one", tmp_path / "team.jsonl")
    with pytest.raises(RunFolderError, match="give one of them another name"):
        open_run(other, RunFolder(tmp_path / "elsewhere" / "one"))


def test_the_audit_of_a_shared_ledger_tells_each_sweep(opened, tmp_path, capsys):
    for name in ("one", "two"):
        run = opened(name)
        run.books.allow("only", 1000, key="1")
    assert audit([str(tmp_path / "team.jsonl")]) == 0
    text = capsys.readouterr().out
    assert "one: took 4.00e11" in text
    assert "two: took 4.00e11" in text
    assert audit([str(tmp_path / "runs" / "two"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {stage["sweep"] for stage in told["stages"]} == {"one", "two"}
