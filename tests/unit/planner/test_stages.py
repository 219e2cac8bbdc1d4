"""What a sweep file asks for becomes trials, prices and allowances that fit the budget."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvray.core.errors import BudgetTooSmall, DataError, ModelError
from lvray.core.run_folder import RunFolder
from lvray.core.task import Task
from lvray.core.trial import StagePlan, TrialConfig
from lvray.planner.data import ensure_enough, prepare, variables_of
from lvray.planner.prices import price_trial
from lvray.planner.stages import Best, allowance, hold_back, outline, plan_stage, spare
from lvray.planner.tasks import task_of
from lvray.scheduler.scheduler import Grant
from lvray.spec.load import load

ROOT = Path(__file__).parents[3]
SMALL = ROOT / "tests" / "ray" / "small.yaml"


def sweep_of(*overrides: str, path: Path = SMALL):
    return load(path, overrides=overrides)


@settings(max_examples=40)
@given(budget=st.integers(6 * 10**10, 10**26))
def test_an_outline_never_plans_more_than_the_budget(budget):
    sweep = sweep_of(f"budget={budget}")
    plans = outline(sweep, variables=2)
    assert sum(plan.price for plan in plans) <= budget
    assert all(plan.price <= plan.allowance for plan in plans)


def test_the_search_cannot_have_what_is_held_back():
    sweep = sweep_of()
    baseline, search, final = outline(sweep, variables=2)
    held = hold_back(sweep, sweep.stages[2])
    assert held == 75_000_000_000
    assert baseline.price + search.allowance + held <= sweep.budget
    assert final.allowance >= held


def test_a_filling_stage_takes_whole_steps_until_less_than_one_is_left():
    sweep = sweep_of()
    final = outline(sweep, variables=2)[2]
    (trial,) = final.trials
    assert trial.fills
    assert 0 <= final.allowance - trial.price < trial.prices.train_step


def test_a_stage_from_another_takes_its_winners_config_and_weights():
    sweep = sweep_of()
    best = {
        "search": Best(
            "search-3", TrialConfig(learning_rate=0.02, context_length=64, stride=64, batch_size=2)
        )
    }
    plan = plan_stage(sweep, sweep.stages[2], allowed=10**11, best=best, variables=2)
    (trial,) = plan.trials
    assert trial.continues == "search-3"
    assert trial.config.learning_rate == 0.02
    assert trial.config.schedule == "wsd"


def test_candidates_are_the_whole_grid_each_once_in_an_order_that_the_seed_draws():
    plans = [outline(sweep_of(f"seed={seed}"), variables=2)[1] for seed in (0, 0, 1)]
    rates = [[trial.config.learning_rate for trial in plan.trials] for plan in plans]
    assert rates[0] == rates[1] != rates[2]
    assert sorted(rates[0]) == [0.001, 0.003, 0.01, 0.02]


def test_a_budget_that_is_too_small_is_told_with_one_that_would_do():
    with pytest.raises(BudgetTooSmall, match=r"a budget of \d\.\d\de10 would do") as caught:
        outline(sweep_of("budget=1e9"), variables=2)
    enough = str(caught.value).split("a budget of ")[1].split()[0]
    outline(sweep_of(f"budget={float(enough) * 1.01:.0f}"), variables=2)
    with pytest.raises(BudgetTooSmall):
        outline(sweep_of("budget=2e10"), variables=2)


def test_a_share_is_the_most_that_a_stage_takes():
    sweep = sweep_of("stages.search.share=0.4")
    search = outline(sweep, variables=2)[1]
    assert search.allowance == sweep.budget * 2 // 5


def test_a_stage_with_a_fixed_price_asks_for_that_and_no_more():
    sweep = sweep_of()
    stage = sweep.stages[0]
    asked = allowance(sweep, stage, free=10**11, held=0, best={}, variables=2)
    assert asked == outline(sweep, variables=2)[0].price


def test_what_a_stage_may_draw_for_lost_work_leaves_later_stages_their_own():
    sweep = sweep_of()
    baseline, search, final = sweep.stages
    rest = {"best": {}, "variables": 2}
    price = outline(sweep, variables=2)[0].price
    assert spare(sweep, baseline, free=10**11, held=0, **rest) == 10**11 - price
    assert spare(sweep, search, free=10**11, held=0, **rest) == 0, "it takes what there is"
    assert spare(sweep, final, free=0, held=10**10, **rest) == 0
    two = sweep_of("stages.search.policy=fixed", "stages.search.steps=4")
    claimed = outline(two, variables=2)[1].price
    assert spare(two, two.stages[0], free=10**11, held=0, **rest) == 10**11 - price - claimed
    assert spare(two, two.stages[0], free=claimed, held=0, **rest) == 0
    capped = sweep_of("stages.baseline.share=0.3")
    assert spare(capped, capped.stages[0], free=10**11, held=0, **rest) == 0


def test_an_adapter_for_a_layer_that_does_not_exist_is_refused_with_the_real_ones():
    with pytest.raises(ModelError, match=r"q_prj.*q_proj, k_proj"):
        outline(sweep_of("trial.lora.targets=[q_prj]"), variables=2)


def test_longer_contexts_larger_batches_and_ranks_cost_more():
    sweep = sweep_of()
    prices = [
        price_trial(sweep, config, 2).train_step
        for config in (
            TrialConfig(context_length=64, batch_size=1),
            TrialConfig(context_length=128, batch_size=1),
            TrialConfig(context_length=128, batch_size=2),
        )
    ]
    assert prices[1] > 2 * prices[0]
    assert prices[2] == 2 * prices[1]


def test_data_is_split_once_and_read_from_the_run_folder_afterwards(tmp_path):
    sweep = sweep_of()
    folder = RunFolder(tmp_path / "small")
    first = prepare(sweep, folder)
    assert prepare(sweep_of("data.split.seed=9"), folder, again=True) == first
    written = json.loads(folder.split.read_text())
    assert prepare(sweep_of("data.split.seed=9"), folder) != first, (
        "a folder that no driver began in"
    )
    assert sorted(written["train"] + written["validation"] + written["test"]) == list(range(40))
    assert variables_of(sweep) == 2


def test_series_too_short_for_the_forecast_are_refused(tmp_path):
    sweep = sweep_of("evaluation.forecast.context_steps=90", "evaluation.forecast.horizon=11")
    with pytest.raises(DataError, match="90 of context and 11 of horizon, 101 together"):
        prepare(sweep, RunFolder(tmp_path / "small"))


def test_plans_and_tasks_cross_process_borders_unchanged(tmp_path):
    sweep = sweep_of()
    for plan in outline(sweep, variables=2):
        assert StagePlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    folder = RunFolder(tmp_path / "small")
    trial = outline(sweep, variables=2)[1].trials[0]
    task = task_of(sweep, folder, prepare(sweep, folder), Grant(trial, 1, -1, 1, 10), threads=1)
    assert type(task).from_json(json.loads(json.dumps(task.to_json()))) == task


def test_a_worker_is_told_of_whole_paths_since_it_stands_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("my-model", "tiny"):
        (tmp_path / name).mkdir()
    values = np.random.default_rng(0).uniform(1, 5, size=(30, 40, 2))
    np.savez(tmp_path / "mine.npz", values=values)
    sweep = sweep_of("data={path: mine.npz}")
    folder = RunFolder(Path("runs") / "small")
    plans = outline(sweep, variables=2)
    trial = replace(plans[1].trials[0], continues="search-2")
    data = prepare(sweep, folder)

    def told(model: str) -> Task:
        asked = sweep.model_copy(update={"model": model})
        return task_of(asked, folder, data, Grant(trial, 1, -1, 1, 10), threads=1)

    task = told("my-model")
    assert task.model == str(tmp_path / "my-model")
    assert task.data.path == str(tmp_path / "mine.npz")
    assert task.folder == str(tmp_path / "runs" / "small" / "trials" / trial.trial_id)
    assert task.continues == str(tmp_path / "runs" / "small" / "trials" / "search-2")
    assert [told(name).model for name in ("tiny", "Qwen/Qwen2.5-0.5B")] == [
        "tiny",
        "Qwen/Qwen2.5-0.5B",
    ]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("evaluation.windows=200", "asks for 200 windows of 128 tokens, and the 4 validation systems give 32"),
        ("evaluation.forecast.systems=5", "asks for 5 test systems, and there are 4; ask for 4"),
        ("trial.context_length=5000", "no window of 5000 tokens is left with padding 'drop'"),
    ],
)  # fmt: skip
def test_what_is_paid_for_must_be_there(tmp_path, override, told):
    sweep = sweep_of(override, "budget=1e14")
    data = prepare(sweep, RunFolder(tmp_path / "small"))
    with pytest.raises(DataError) as error:
        ensure_enough(sweep, outline(sweep, variables=2), data)
    assert told in str(error.value)
    good = sweep_of("budget=1e14", "evaluation.windows=32", "evaluation.forecast.systems=4")
    ensure_enough(good, outline(good, variables=2), data)
