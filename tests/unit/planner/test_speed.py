"""How long a plan takes, on what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lvray.core.errors import RunFolderError
from lvray.core.trial import StagePlan, StepPrices, TrialConfig, TrialPlan
from lvray.plan import main
from lvray.planner.speed import Pace, measured, seconds
from lvray.scheduler.halving import plan_halving
from lvray.scheduler.milestones import unroll

GRID = Path(__file__).parents[3] / "sweeps" / "grid.yaml"
PRICES = StepPrices(10, 100, 0)


def plans(count: int, steps: int) -> list[TrialPlan]:
    milestones = unroll(PRICES, [(steps, None)], forecast=False)
    return [TrialPlan(f"t{i}", "s", TrialConfig(), milestones, PRICES) for i in range(count)]


def test_a_run_is_measured_by_its_trials_seconds(finished):
    speed = measured(finished)
    assert speed.of("search").flops_per_second == pytest.approx(1000)  # as the invented run has it
    assert speed.of("search").workers == 2
    assert speed.of("never run") == speed.usual


def test_what_is_no_run_folder_is_told(tmp_path):
    with pytest.raises(RunFolderError, match="no run folder"):
        measured(tmp_path)


def test_trials_run_side_by_side_but_no_stage_is_quicker_than_its_longest_trial():
    stage = StagePlan("s", tuple(plans(4, 90)), 4000, "fixed")
    assert [seconds(stage, Pace(100.0, workers)) for workers in (1, 2, 8)] == [40, 20, 10]


def test_the_rungs_of_a_ladder_come_one_after_the_other():
    stage = plan_halving(
        "s", plans(9, 1), allowance=100_000, final_run=60_000, reduction_factor=3.0
    )
    alone, both = seconds(stage, Pace(1.0, 1)), seconds(stage, Pace(1.0, 2))
    assert alone == pytest.approx(stage.price)
    assert alone / 2 < both < alone


def test_plan_tells_the_time_from_a_run_or_a_rate_and_refuses_what_is_neither(finished, capsys):
    assert main([str(GRID), "--speed", str(finished)]) == 0
    assert "time: as in" in capsys.readouterr().out
    assert main([str(GRID), "--speed", "1e11", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["stages"]
    final = next(row for row in rows if row["name"] == "final")
    assert final["seconds"] == pytest.approx(int(final["flops"]) / 1e11, abs=0.1)
    assert main([str(GRID), "--speed", "fast"]) == 2
    assert "--speed fast: no FLOP/s such as 1e11, and no run folder" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m lvray.plan {GRID} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("grid: ")
    assert done.stderr == ""
