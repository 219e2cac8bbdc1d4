"""Every sweep file that is shipped loads and plans, and the replicas are what they say they are."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lvray.core.run_folder import RunFolder
from lvray.flops.price import train_step
from lvray.flops.shape import shape_of
from lvray.planner.data import ensure_enough, prepare, split_of, variables_of
from lvray.planner.stages import outline
from lvray.series.dataset import Dataset
from lvray.series.windows import cut
from lvray.spec.load import dump, load

ROOT = Path(__file__).parents[2]
SWEEPS = ROOT / "sweeps"
FILES = sorted(SWEEPS.rglob("*.yaml"))
QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
GRID = [(rate, rank) for rate in (1e-5, 5e-5, 1e-4) for rank in (2, 4, 8)]


def of(name: str):
    return load(SWEEPS / f"{name}.yaml")


def plans_of(name: str):
    return {plan.name: plan.trials for plan in outline(of(f"replicas/{name}"), variables=2)}


def steps_of(name: str):
    return {
        stage: sorted({trial.steps for trial in trials}) for stage, trials in plans_of(name).items()
    }


def split(name: str):
    systems = Dataset(np.zeros((1000, 100, 2)), np.arange(100.0), ("x", "y"), "zeros")
    return split_of(of(f"replicas/{name}"), systems)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_loads_plans_within_its_budget_and_asks_a_question(path, monkeypatch):
    monkeypatch.chdir(ROOT)  # data files are named from there
    sweep = load(path)
    plans = outline(sweep, variables=variables_of(sweep))
    assert sum(plan.price for plan in plans) <= sweep.budget
    assert sweep.question.endswith("?")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_can_be_written_down_resolved_and_read_again(path, tmp_path):
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump(load(path)), encoding="utf-8")
    assert load(resolved) == load(path)


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if "Qwen" in path.read_text(encoding="utf-8")],
    ids=lambda path: path.stem,
)
def test_the_files_for_large_models_find_the_windows_and_systems_that_they_ask_for(path, tmp_path):
    sweep = load(path)
    data = prepare(sweep, RunFolder(tmp_path))
    ensure_enough(sweep, outline(sweep, variables=2), data)


def test_at2128_scales_training_and_validation_systems_by_their_own_largest_values(tmp_path):
    codec = prepare(of("replicas/at2128"), RunFolder(tmp_path)).codec
    scales = {part: row["scale"][0] for part, row in codec["parts"].items()}
    assert scales["train"] == pytest.approx(13.7401 / 9.9, abs=1e-5)
    assert scales["validation"] == scales["test"] == pytest.approx(10.4971 / 9.9, abs=1e-5)


@pytest.mark.parametrize("name", ["mcconkey", "at2128", "mondal", "ym429"])
def test_replicas_have_the_skeletons_adapter_and_the_courses_grid(name):
    sweep, plans = of(f"replicas/{name}"), plans_of(name)
    assert (sweep.model, sweep.convention) == (QWEN, "coursework")
    grid = [trial.config for trial in plans["grid"]]
    assert sorted((config.learning_rate, config.lora.rank) for config in grid) == GRID
    for config in [trial.config for trials in plans.values() for trial in trials if trial.steps]:
        assert config.lora.alpha == config.lora.rank  # scale 1
        assert config.lora.targets == ("q_proj", "v_proj")
        assert (config.lora.init, config.lora.head_bias) == ("kaiming-normal", True)
        assert (config.batch_size, config.schedule, config.warmup_steps) == (4, "constant", 0)


@pytest.mark.parametrize(("rank", "weights"), [(2, 287_104), (4, 422_272), (8, 692_608)])
def test_the_skeletons_adapter_trains_as_many_weights_as_it_did(rank, weights):
    trials = plans_of("at2128")["grid"]
    lora = next(trial.config.lora for trial in trials if trial.config.lora.rank == rank)
    shape = shape_of(QWEN)
    adapter = shape.adapter_weights(replace(lora, head_bias=False))
    assert adapter + lora.head_bias * shape.vocabulary == weights


def test_mcconkey_takes_ten_times_the_courses_budget():
    sweep, steps = of("replicas/mcconkey"), steps_of("mcconkey")
    assert steps["default"] == steps["grid"] == [10_000]
    assert (steps["contexts"], steps["final"]) == ([2_000], [30_000])
    assert sweep.text.scaling.model_dump() == {"method": "fixed", "alpha": 10, "per": "data"}
    training = sum(
        trial.steps * trial.prices.train_step
        for stage, trials in plans_of("mcconkey").items()
        if stage != "overfit"
        for trial in trials
    )
    assert training == pytest.approx(1.03e18, rel=0.01)


def test_at2128_made_eleven_tuning_runs_of_880_steps_on_170_systems_and_a_final_one_on_850():
    plans = plans_of("at2128")
    tuning = [*plans["grid"], *plans["contexts"]]
    assert len(tuning) == 11
    assert {trial.steps for trial in tuning} == {880}
    assert {trial.config.train_systems for trial in tuning} == {170}
    (final,) = plans["final"]
    assert (final.config.train_systems, final.steps) == (850, 2499)
    assert (len(final.milestones), len(plans["initial"][0].milestones)) == (12, 5)
    assert (plans["initial"][0].steps, plans["initial"][0].config.learning_rate) == (1085, 1e-5)
    assert [(t.config.context_length, t.config.stride) for t in plans["contexts"]] == [
        (128, 128),
        (768, 256),
    ]


def test_at2128_forecasts_the_systems_that_it_chose_on():
    parts, forecast = split("at2128"), of("replicas/at2128").evaluation.forecast
    assert parts.train == tuple(range(850))
    assert parts.validation == parts.test == tuple(range(850, 1000))
    assert (forecast.systems, forecast.context_steps, forecast.horizon) == (150, (40, 80), 20)


def test_at2128s_text_gives_four_windows_of_512_tokens_of_which_one_in_seven_is_padding():
    config = plans_of("at2128")["grid"][0].config
    windows = cut([range(1000)], length=512, stride=config.stride, padding="pad", pad_id=0)
    assert (config.padding, config.pad_loss, len(windows)) == ("pad", True, 4)
    assert 1 - windows.lengths.sum() / (4 * 512) == pytest.approx(0.149, abs=0.002)


def test_mondal_reads_80_points_at_three_decimals_and_is_asked_twice_untrained():
    sweep, steps = of("replicas/mondal"), steps_of("mondal")
    assert (sweep.text.steps, sweep.text.decimals, sweep.text.trailing_zeros) == (80, 3, False)
    assert steps["default"] == [5_000]
    assert steps["grid"] == steps["contexts"] == [500]
    assert steps["final"] == [10_000]
    chat, raw = sweep.stages[:2]
    assert chat.forecast.given() == {"prompt": "chat"}
    assert raw.forecast.given() == {}
    forecast = sweep.evaluation.forecast
    assert (forecast.samples, forecast.temperature, forecast.systems) == (1, 0.1, 100)
    assert (len(split("mondal").train), len(split("mondal").test)) == (800, 200)


@pytest.mark.parametrize("name", ["mcconkey", "mondal"])
def test_windows_overlap_by_half_at_every_context(name):
    contexts = [trial.config for trial in plans_of(name)["contexts"]]
    assert [(config.context_length, config.stride) for config in contexts] == [
        (128, 64),
        (512, 256),
        (768, 384),
    ]


def test_ym429_forecasts_400_200_and_100_windows_of_100_systems():
    forecast = of("replicas/ym429").evaluation.forecast
    assert [count * forecast.systems for count in forecast.windows] == [400, 200, 100]
    assert (forecast.context_steps, forecast.every, forecast.horizon) == ((12, 51, 76), 26, 5)
    for context, count in zip(forecast.context_steps, forecast.windows, strict=True):
        assert context + (count - 1) * 26 + 5 <= 100


def test_ym429_takes_whole_windows_decay_and_clipping_and_a_final_run_of_3221_steps():
    plans, parts = plans_of("ym429"), split("ym429")
    config = plans["grid"][0].config
    assert (config.padding, config.weight_decay, config.gradient_clip) == ("drop", 0.01, 1.0)
    assert len(cut([range(1000)], length=512, stride=256, padding="drop", pad_id=0)) == 2
    assert steps_of("ym429")["final"] == [3221]
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (800, 100, 100)
    assert not set(parts.test) & set(parts.validation)


def test_the_coursework_keeps_to_the_courses_numbers_as_ceilings():
    sweep = of("coursework")
    default, search, contexts = sweep.stages[1:4]
    assert (sweep.model, sweep.budget) == (QWEN, 10**17)
    assert default.steps <= 10_000
    assert (search.steps, contexts.steps) == (10_000, 2_000)
    assert search.space["learning_rate"].choices == (1e-5, 5e-5, 1e-4)
    assert search.space["lora.rank"].choices == (2, 4, 8)
    assert contexts.space["context_length"].choices == (128, 512, 768)
    assert outline(sweep, variables=2)[-1].trials[0].steps <= 30_000


def printed() -> str:
    script = [sys.executable, "benchmarks/replica_prices.py"]
    return subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_page_on_replicas_has_the_prices_that_are_charged():
    page = (ROOT / "docs" / "replicas.md").read_text(encoding="utf-8")
    assert printed().strip() in page, "run benchmarks/replica_prices.py --write docs/replicas.md"


def test_the_steps_on_the_page_are_those_of_the_price_list():
    page = (ROOT / "docs" / "replicas.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if "| 4 × " in line]
    assert len(rows) == 8
    lora = plans_of("at2128")["initial"][0].config.lora
    for row in rows:
        priced = train_step(
            shape_of(QWEN),
            lora=lora,
            convention="coursework",
            context_length=int(row[2].replace("4 × ", "")),
            batch_size=4,
        )
        assert int(row[3].replace(",", "")) == priced
