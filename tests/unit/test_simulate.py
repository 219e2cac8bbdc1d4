"""The simulator: the same walk in virtual time."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lvray.audit import main as audit
from lvray.core.errors import DataError
from lvray.core.trial import LoraConfig, TrialConfig
from lvray.planner.stages import outline
from lvray.report import main as report
from lvray.simulate import main, simulate, to_json
from lvray.simulator.landscapes import Invented, Tabulated
from lvray.simulator.world import Conditions, World
from lvray.spec.load import load

GRID = Path(__file__).parents[2] / "sweeps" / "grid.yaml"
STORM = Conditions(
    workers=3, spread=0.5, straggling=0.2, crashes=0.1, repeats=0.3, kills=0.02, seed=5
)


def told(conditions: Conditions, *overrides: str) -> dict:
    sweep = load(GRID, overrides=overrides)
    world = World(Invented(windows=3, scale=sweep.budget / 100), conditions)
    run = simulate(sweep, world, keep=False)
    return to_json(run, world)


def test_in_fair_weather_a_sweep_spends_what_its_plan_says():
    fair = told(Conditions(workers=2))
    assert fair["ok"], fair["findings"]
    assert (fair["lost"], fair["crashes"], fair["kills"], fair["sessions"]) == ("0", 0, 0, 1)
    assert [stage["name"] for stage in fair["stages"]] == ["baseline", "search", "final"]
    assert int(fair["spent"]) > 0.99 * int(fair["budget"])
    search = fair["stages"][1]
    assert sum(search["trials"].values()) == 9
    assert search["trials"]["completed"] == 2


def test_where_nothing_is_stopped_early_each_stage_spends_its_plan_to_the_flop():
    overrides = (
        "stages.search.policy=fixed",
        "stages.search.steps=40",
        "stages.search.space={learning_rate: [1e-5, 2e-5, 4e-5]}",
    )
    sweep = load(GRID, overrides=overrides)
    planned = {plan.name: plan.price for plan in outline(sweep, variables=2)}
    fair = told(Conditions(workers=2), *overrides)
    heard = {stage["name"]: int(stage["heard"]) for stage in fair["stages"]}
    assert heard == planned
    assert int(fair["spent"]) == sum(planned.values())


def test_in_a_storm_the_books_hold_and_the_sweep_ends():
    storm = told(STORM)
    assert storm["ok"], storm["findings"]
    assert storm["kills"] > 0
    assert storm["crashes"] > 0
    assert storm["sessions"] > 1
    assert int(storm["spent"]) <= int(storm["budget"])
    assert int(storm["lost"]) > 0
    assert storm["stages"][-1]["best"] == "final"


def test_more_workers_take_less_time_and_faster_ones_too():
    one, four = told(Conditions(workers=1)), told(Conditions(workers=4))
    assert four["seconds"] < one["seconds"]
    fast = told(Conditions(workers=1, flops_per_second=2e12))
    assert fast["seconds"] == pytest.approx(one["seconds"] / 2, rel=1e-3)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_sweep(capsys):
    line = [str(GRID), "--json", "--crashes", "0.1", "--kills", "0.01", "--spread", "0.3"]
    outputs = []
    for seed in ("1", "1", "2"):
        assert main([*line, "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


def test_a_simulated_run_is_a_run_folder_that_can_be_audited_and_reported(tmp_path, capsys):
    assert main([str(GRID), "--runs", str(tmp_path), "--crashes", "0.1"]) == 0
    assert audit([str(tmp_path / "grid")]) == 0
    assert report([str(tmp_path / "grid")]) == 0
    assert "simulated" in (tmp_path / "grid" / "report.md").read_text()
    assert main([str(GRID), "--runs", str(tmp_path)]) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--crashes", "1.5"], "--crashes 1.5: must be a probability"),
        (["--workers", "0"], "--workers 0: must be a whole number from 1"),
        (["--curves", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
    ],
)
def test_conditions_that_cannot_be_are_told(option, message, capsys):
    assert main([str(GRID), *option]) in {1, 2}
    assert message in capsys.readouterr().err


# Landscapes.

CONFIG = TrialConfig(lora=LoraConfig(rank=4), learning_rate=0.01)


def table(path: Path, *rows: dict) -> Path:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def point(step: int, loss: float) -> dict:
    return {
        "step": step,
        "validation_loss": loss,
        "test_loss": loss + 1,
        "window_losses": [loss, loss],
    }


def test_a_table_is_read_between_its_points_and_stays_at_its_last(tmp_path):
    row = {"config": CONFIG.to_json(), "points": [point(0, 0.8), point(9, 0.6), point(99, 0.2)]}
    curves = Tabulated.load(table(tmp_path / "curves.jsonl.gz", row))

    def loss(steps: int) -> float:
        return curves.read(CONFIG, steps=steps, flops=0).validation_loss

    assert [loss(steps) for steps in (0, 9, 99, 10_000)] == [0.8, 0.6, 0.2, 0.2]
    assert 0.2 < loss(30) < 0.6
    reading = curves.read(replace(CONFIG, schedule="wsd", seed=3), steps=9, flops=0)
    assert (reading.test_loss, reading.window_losses) == (1.6, (0.6, 0.6))


def test_a_curve_that_diverged_is_no_number_after_its_last_point(tmp_path):
    row = {"config": CONFIG.to_json(), "points": [point(0, 0.8), point(9, 0.6)], "diverged": True}
    curves = Tabulated.load(table(tmp_path / "curves.jsonl", row))
    assert curves.read(CONFIG, steps=9, flops=0).validation_loss == 0.6
    assert curves.read(CONFIG, steps=10, flops=0).validation_loss != 0.6


def test_a_config_without_a_curve_is_told_what_sets_it_apart(tmp_path):
    row = {"config": CONFIG.to_json(), "points": [point(0, 0.8)]}
    curves = Tabulated.load(table(tmp_path / "curves.jsonl", row))
    other = replace(CONFIG, lora=LoraConfig(rank=8), learning_rate=0.02)
    with pytest.raises(DataError, match=r"none of its 1 curves .* lora\.rank 8 \(there it is 4\)"):
        curves.read(other, steps=0, flops=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no learning curve"),
        ("{}\n", "line 1: not a learning curve"),
        ("not json\n", "line 1: not a learning curve"),
        (
            json.dumps({"config": CONFIG.to_json(), "points": [point(5, 1.0), point(5, 1.0)]})
            + "\n",
            "line 1: not a learning curve: its points are not in order",
        ),
    ],
)
def test_what_is_no_table_is_told(tmp_path, text, message):
    (tmp_path / "curves.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        Tabulated.load(tmp_path / "curves.jsonl")


def test_invented_curves_fall_and_say_the_same_when_asked_again():
    landscape = Invented(seed=1, noise=0.0, scale=1e12)
    config = replace(CONFIG, learning_rate=landscape.traits["best_rate"])
    losses = [
        landscape.read(config, steps=1, flops=flops).validation_loss
        for flops in (0, 10**11, 10**12, 10**13)
    ]
    assert losses == sorted(losses, reverse=True)
    assert landscape.read(config, steps=7, flops=1) == Invented(seed=1, noise=0.0, scale=1e12).read(
        config, steps=7, flops=1
    )
    wild = replace(config, learning_rate=1.0)
    assert landscape.read(wild, steps=9, flops=10**12).validation_loss != 0
