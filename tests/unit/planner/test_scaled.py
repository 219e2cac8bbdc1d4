"""A sweep file at a fraction of its budget keeps what it was made for."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvray import plan
from lvray.core.errors import ModelError, UsageError
from lvray.planner.scaled import FLOOR, factor_from_text, scaled, told
from lvray.planner.stages import outline
from lvray.spec.load import dump, load

ROOT = Path(__file__).parents[3]
REPLICAS = ROOT / "sweeps" / "replicas"
GRID = ROOT / "sweeps" / "grid.yaml"


def scaled_from(path: Path, factor: str, *overrides: str):
    asked = load(path, overrides=overrides)
    return scaled(asked, factor_from_text(factor), made_for=load(path), variables=2)


def shares(sweep):
    plans = outline(sweep, variables=2)
    return {stage.name: stage.price / sweep.budget for stage in plans}


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("replicas/at2128", "2e-4"),
        ("replicas/ym429", "2e-4"),
        ("replicas/mondal", "1e-4"),
        ("replicas/mcconkey", "2e-5"),
        ("coursework", "2e-4"),
    ],
)
def test_every_stage_keeps_its_share_on_a_model_of_other_proportions(name, factor):
    path = ROOT / "sweeps" / f"{name}.yaml"
    # The embedded model has no chat template.
    raw = ["stages.zero-shot-chat.forecast.prompt=raw"] if "mondal" in name else []
    before, after = shares(load(path)), shares(scaled_from(path, factor, "model=tiny", *raw))
    for stage, share in before.items():
        assert after[stage] == pytest.approx(share, abs=0.02), stage


def test_shares_are_kept_over_lengths_of_context_that_became_dearer_by_different_factors():
    sweep = scaled_from(REPLICAS / "ym429.yaml", "1e-3", "model=tiny")
    before, after = shares(load(REPLICAS / "ym429.yaml")), shares(sweep)
    assert after["final"] == pytest.approx(before["final"], rel=0.01)  # 768 tokens
    assert after["grid"] == pytest.approx(before["grid"], rel=0.01)  # 512 tokens


def test_without_another_model_steps_are_the_same_fraction_as_the_budget():
    sweep = scaled_from(REPLICAS / "at2128.yaml", "0.1")
    assert sweep.budget == 10**16
    steps = {stage.name: stage.steps for stage in sweep.stages}
    assert steps == {"zero-shot": None, "initial": 108, "grid": 88, "contexts": 88, "final": 249}
    assert sweep.evaluation.windows == 15
    assert sweep.evaluation.forecast.systems == 15


def test_a_scale_of_one_changes_nothing():
    for path in (GRID, REPLICAS / "at2128.yaml"):
        assert scaled_from(path, "1") == load(path)


def test_counts_never_pass_those_of_the_file_save_steps():
    sweep = scaled_from(REPLICAS / "at2128.yaml", "10", "model=tiny")
    assert sweep.evaluation.windows == 150
    assert sweep.evaluation.forecast.systems == 150
    assert [stage.evaluations for stage in sweep.stages] == [4, 5, 1, 1, 12]
    assert sweep.stages[1].steps > 10 * 1085


def test_a_tiny_budget_leaves_one_step_and_enough_windows_to_tell_trials_apart():
    sweep = scaled_from(REPLICAS / "at2128.yaml", "1e-9")
    assert {stage.steps for stage in sweep.stages} == {None, 1}
    assert sweep.evaluation.windows == sweep.evaluation.forecast.systems == FLOOR


def test_fewer_windows_than_the_floor_stay_as_they_are():
    sweep = scaled_from(REPLICAS / "at2128.yaml", "1e-3", "evaluation.windows=3")
    assert sweep.evaluation.windows == 3


def test_where_windows_stand_on_their_floor_a_stage_evaluates_less_often():
    path = REPLICAS / "ym429.yaml"
    often = [
        scaled_from(path, factor, "model=tiny").stages[-1].evaluations
        for factor in ("1e-3", "1e-4", "1e-5")
    ]
    assert often[0] == 64
    assert often == sorted(often, reverse=True)
    sweep = scaled_from(path, "1e-5", "model=tiny")
    final = outline(sweep.model_copy(update={"budget": 10**15}), variables=2)[-1].trials[0]
    evaluation = len(final.milestones) * final.prices.evaluation
    assert evaluation / final.price < 0.3  # it is 0.18 in the file; 64 times would be 0.9


def test_what_a_stage_changes_of_forecasts_and_warm_up_is_scaled_too():
    overrides = ("stages.final.forecast={systems: 100}", "stages.final.trial.warmup_steps=20")
    sweep = scaled_from(REPLICAS / "at2128.yaml", "0.1", *overrides, "trial.warmup_steps=40")
    assert sweep.stages[-1].forecast.given() == {"systems": 10}
    assert sweep.stages[-1].trial.given()["warmup_steps"] == 2
    assert sweep.trial.warmup_steps == 4
    assert sweep.stages[1].trial.given() == {}


def test_no_warm_up_stays_none_and_a_short_one_stays():
    assert scaled_from(GRID, "1e-3").trial.warmup_steps == 1
    assert scaled_from(REPLICAS / "at2128.yaml", "1e-3").trial.warmup_steps == 0


def test_systems_that_are_trained_on_a_share_and_a_space_stay():
    path = REPLICAS / "at2128.yaml"
    before, after = load(path), scaled_from(path, "1e-3", "model=tiny")
    assert after.stages[2].trial == before.stages[2].trial
    assert after.stages[2].space == before.stages[2].space
    grid = scaled_from(GRID, "0.1")
    assert (grid.stages[-1].hold_back, grid.stages[-1].steps) == (0.6, "fill")


def test_a_shared_ledgers_budget_is_scaled_with_the_sweeps():
    ledger = "ledger={path: team.jsonl, budget: 3e14}"
    assert scaled_from(GRID, "0.1", ledger).ledger.budget == 3 * 10**13
    assert scaled_from(GRID, "0.1", "ledger=team.jsonl").ledger.budget is None


def test_the_budget_is_scaled_exactly():
    assert scaled_from(GRID, "1e-3", "budget=99999999999999999000").budget == 99999999999999999


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(1e-5, 1), name=st.sampled_from(["at2128", "ym429"]))
def test_a_scaled_sweep_is_one_that_a_file_may_hold(factor, name, tmp_path_factory):
    sweep = scaled_from(REPLICAS / f"{name}.yaml", str(factor), "model=tiny")
    file = tmp_path_factory.mktemp("scaled") / "resolved.yaml"
    file.write_text(dump(sweep), encoding="utf-8")
    assert load(file) == sweep


@pytest.mark.parametrize(
    "text", ["0", "-1", "0.0", "a lot", "", "nan", "inf", "1e-13", "1e13", "1e999999999"]
)
def test_a_factor_that_is_none_is_told_in_one_line(text, capsys):
    with pytest.raises(UsageError, match="must be a number above 0"):
        factor_from_text(text)
    assert plan.main([str(GRID), f"--scale={text}"]) == 2
    told_of = capsys.readouterr()
    assert told_of.out == ""
    assert told_of.err.count("\n") == 1
    assert f"--scale {text}: must be" in told_of.err


def test_a_factor_is_read_exactly():
    assert factor_from_text(" 2e-4 ") == Fraction(1, 5000)


def test_a_budget_that_is_none_any_more_is_refused():
    with pytest.raises(UsageError, match="is no budget"):
        scaled_from(GRID, "1e-3", "budget=100")
    with pytest.raises(UsageError, match="is no budget"):
        scaled_from(GRID, "1e12", "budget=1e20")


def test_a_model_whose_price_is_not_known_cannot_be_scaled_to():
    with pytest.raises(ModelError, match="nowhere"):
        scaled_from(GRID, "0.1", "model=nowhere")


def test_what_was_scaled_is_told_in_a_line():
    path = REPLICAS / "at2128.yaml"
    line = told(load(path), scaled_from(path, "0.1"), "0.1")
    assert line == (
        "scaled by 0.1: budget 1.00e17 → 1.00e16; steps initial 1085 → 108, grid 880 → 88, contexts 880 → 88, "
        "final 2499 → 249; validation windows 150 → 15; forecast systems 150 → 15"
    )


def test_the_verb_plans_the_scaled_sweep_and_keeps_its_json_clean(capsys):
    arguments = [str(REPLICAS / "at2128.yaml"), "--set", "model=tiny", "--scale", "2e-4", "--json"]
    assert plan.main(arguments) == 0
    printed = capsys.readouterr()
    told_of = json.loads(printed.out)
    assert told_of["budget"] == str(2 * 10**13)
    assert told_of["stages"][-1]["plans"][0]["milestones"][-1]["step"] == 163  # of 2499
    assert printed.err.startswith("scaled by 2e-4: budget 1.00e17 → 2.00e13")
