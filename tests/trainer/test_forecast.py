"""The verb `forecast`, end to end: series of one's own, by a base model, a run's winner and an adapter."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from lvray import forecast, train
from lvray.driver import own_series
from lvray.driver.own_series import forecaster_from, history_of, task
from lvray.series.baselines import Known, baseline_forecasts
from lvray.series.metrics import Scores
from lvray.series.readers import read

pytestmark = pytest.mark.torch

SMALL = Path(__file__).parents[1] / "ray" / "small.yaml"
STEPS = 24


def series(phase: float, *, steps: int = STEPS) -> np.ndarray:
    clock = np.arange(steps)
    prey, predators = 4 + 3 * np.sin(phase + clock / 3), 3 + 2 * np.cos(phase + clock / 3)
    return np.stack([prey, predators], axis=1).round(2)


def write_csv(path: Path, systems: dict[str, np.ndarray], *, names=("hare", "lynx")) -> Path:
    lines = ["year," + ("system," if len(systems) > 1 else "") + ",".join(names)]
    for label, values in systems.items():
        for year, row in enumerate(values.tolist(), start=1900):
            cells = ["" if np.isnan(value) else f"{value:g}" for value in row]
            lines.append(",".join([str(year), *([label] if len(systems) > 1 else []), *cells]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    return write_csv(tmp_path / "mine.csv", {"": series(0.0)})


@pytest.fixture
def command(tmp_path, capsys):
    """Runs the verb; gives its exit code, and what it wrote to standard output and standard error."""

    def run(*words: object, out: str = "out.csv") -> tuple[int, list[str], list[str]]:
        code = forecast.main([*map(str, words), "--out", str(tmp_path / out), "--device", "cpu"])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The run folder of a trial of two steps."""
    runs = tmp_path_factory.mktemp("runs")
    asked = ["--steps", "2", "--evaluations", "1", "--set", "trial.learning_rate=2e-2"]
    assert train.main([str(SMALL), "--runs", str(runs), *asked]) == 0
    return runs / "small-train"


def columns(path: Path) -> dict[str, list]:
    found: dict[str, list] = pyarrow.csv.read_csv(path).to_pydict()
    return found


def figures(lines: list[str], name: str) -> list[float]:
    """The figures of one row of the table of errors."""
    row = next(line for line in lines if line.startswith(f"{name} "))
    return [float(word) for word in row.removeprefix(name).replace("%", "").split()]


def refused(answer, code: int = 1) -> str:
    """The one sentence that a refusal is, and nothing else."""
    assert answer[0] == code
    assert answer[1] == []
    (line,) = answer[2]
    assert line.startswith("lvray forecast: ")
    return line


def test_a_base_model_forecasts_the_years_to_come(command, data, tmp_path):
    code, told, complaints = command(data, "--from", "tiny", "--horizon", 3, "--samples", 5)
    assert (code, complaints) == (0, [])
    assert told[0].startswith("1 system of hare, lynx: 3 steps ahead of 24, median of 5 draws; ")
    assert told[1:] == [f"table: {tmp_path / 'out.csv'}", f"figure: {tmp_path / 'out.svg'}"]
    rows = columns(tmp_path / "out.csv")
    assert rows["time"] == [1924, 1924, 1925, 1925, 1926, 1926]
    assert rows["variable"] == ["hare", "lynx"] * 3
    assert np.isfinite(rows["median"]).all()
    assert "truth" not in rows
    assert (tmp_path / "out.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("samples", [0, 6])
def test_the_errors_of_a_check_are_those_of_the_numbers_in_the_table(
    command, data, tmp_path, samples
):
    code, told, _ = command(
        data, "--from", "tiny", "--horizon", 4, "--check", "--samples", samples, "--context", 15
    )
    assert code == 0
    dataset = read(data)
    history, truth = history_of(dataset, context=15, horizon=4, held_out=True)
    who = forecaster_from("tiny", dataset, history)
    asked = task(who, history, horizon=4, samples=samples, temperature=1.0)
    made = own_series.forecast(who, history, truth, asked, device="cpu", seed=0)
    wanted = Scores.of(made.point, truth, history, samples=made.samples).summary()
    names = ["mae", "rmse", "mase", "crps"]
    figure = figures(told, "tiny")
    assert figure[:4] == pytest.approx([wanted[name] for name in names], rel=1e-3)
    assert figure[4:] == ([] if samples == 0 else [round(100 * wanted["coverage_80"])])
    rows = columns(tmp_path / "out.csv")
    assert rows["truth"] == truth.ravel().tolist()
    assert rows["time"][::2] == [1920, 1921, 1922, 1923]
    np.testing.assert_allclose(rows["median" if samples else "forecast"], made.point.ravel())
    rivals, _ = baseline_forecasts(Known(history, 4))
    for name, point in rivals.items():
        scores = Scores.of(point, truth, history).summary()
        assert figures(told, name) == pytest.approx([scores[each] for each in names], rel=1e-3)
    errors = [figures(told, name)[0] for name in [*rivals, "tiny"]]
    order = [line.split("  ")[0] for line in told[4:9]]
    assert sorted([*rivals, "tiny"], key=lambda name: figures(told, name)[0]) == order, errors


def test_a_course_file_is_forecast_greedily_into_another_folder(command, tmp_path):
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w") as file:
        file["trajectories"] = np.stack([series(0.0), series(1.0), series(2.0)])
        file["time"] = 0.5 * np.arange(STEPS)
        file["trajectories"].attrs["variables"] = ["prey", "predator"]
    asked = ("--from", "tiny", "--horizon", 2, "--samples", 0, "--context", 10)
    code, told, _ = command(path, *asked, out="new/deep/f.parquet")
    assert code == 0
    assert told[0].startswith("3 systems of prey, predator: 2 steps ahead of 10, greedy; ")
    rows = pyarrow.parquet.read_table(tmp_path / "new" / "deep" / "f.parquet").to_pydict()
    assert rows["system"] == [0] * 4 + [1] * 4 + [2] * 4
    assert rows["time"][:4] == [12.0, 12.0, 12.5, 12.5]
    names = {each.name for each in (tmp_path / "new" / "deep").iterdir()}
    assert names == {"f.parquet", "f.svg"}


def test_systems_are_called_what_the_file_calls_them(command, tmp_path):
    path = write_csv(tmp_path / "mine.csv", {"Yukon": series(0.0), "Hudson": series(1.0)})
    assert command(path, "--from", "tiny", "--horizon", 1, "--samples", 2)[0] == 0
    assert columns(tmp_path / "out.csv")["system"] == ["Yukon"] * 2 + ["Hudson"] * 2


def test_the_same_seed_draws_the_same_forecast(command, data, tmp_path):
    asked = (data, "--from", "tiny", "--horizon", 2, "--samples", 3)
    drawn = []
    for seed in (1, 1, 2):
        assert command(*asked, "--seed", seed)[0] == 0
        drawn.append((tmp_path / "out.csv").read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_run_folder_and_its_adapter_forecast_alike_and_leave_the_base_model_as_it_was(
    command, data, tmp_path, trained
):
    asked = ("--horizon", 3, "--samples", 0)
    texts, told = {}, {}
    for name, source in (
        ("before", "tiny"),
        ("run", trained),
        ("adapter", trained / "best"),
        ("after", "tiny"),
    ):
        code, told[name], complaints = command(data, "--from", source, *asked)
        assert (code, complaints) == (0, [])
        texts[name] = (tmp_path / "out.csv").read_text()
    assert texts["run"] == texts["adapter"]
    assert texts["before"] == texts["after"] != texts["run"]
    assert any("hare as prey, lynx as predator" in line for line in told["run"])
    assert len(told["before"]) == 3


def test_the_adapter_is_in_the_table_of_errors(command, data, trained):
    asked = ("--horizon", 3, "--samples", 3, "--check")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what others have to mend is not told a user
        code, told, _ = command(data, "--from", trained, *asked)
    assert code == 0
    assert len(figures(told, str(trained / "best"))) == 5


def test_gaps_in_a_history_are_forecast_over_and_told(command, tmp_path):
    values = series(0.0)
    values[5, 0] = values[6, 0] = values[19, 1] = np.nan
    path = write_csv(tmp_path / "mine.csv", {"": values})
    code, told, _ = command(path, "--from", "tiny", "--horizon", 4, "--check", "--samples", 3)
    assert code == 0
    assert "note: 3 of 40 values of the history are missing" in told[1]
    assert np.isfinite(columns(tmp_path / "out.csv")["median"]).all()
    assert len(figures(told, "last value")) == 4


@pytest.mark.parametrize(
    ("lost", "more", "message"),
    [
        ((slice(-1, None), slice(None)), (), "has no value at time 1923"),
        ((slice(None), 1), (), "has no value of 'lynx'"),
        ((slice(-1, None), 1), ("--check",), "values that are held out are missing"),
    ],
)
def test_gaps_that_leave_nothing_to_say_are_refused(command, tmp_path, lost, more, message):
    values = series(0.0)
    values[lost] = np.nan
    path = write_csv(tmp_path / "mine.csv", {"": values})
    answer = command(path, "--from", "tiny", "--horizon", 2, *more)
    assert message in refused(answer)
    assert not (tmp_path / "out.csv").exists()


def test_an_adapter_refuses_series_of_another_number_of_variables(command, tmp_path, trained):
    three = np.concatenate([series(0.0), series(1.0)[:, :1]], axis=1)
    path = write_csv(tmp_path / "mine.csv", {"": three}, names=("a", "b", "c"))
    told = refused(command(path, "--from", trained, "--horizon", 2))
    assert "3 variables (a, b, c)" in told


def test_series_of_unequal_length_are_refused(command, tmp_path):
    systems = {"Yukon": series(0.0), "Hudson": series(1.0, steps=9)}
    path = write_csv(tmp_path / "mine.csv", systems)
    told = refused(command(path, "--from", "tiny", "--horizon", 2))
    assert "all must have the same times" in told


def test_more_context_than_there_is_is_refused(command, data):
    told = refused(command(data, "--from", "tiny", "--horizon", 2, "--context", 25))
    assert "a context of 25 is not to be had, 24 is the longest" in told
    assert "with 24 held out" in refused(
        command(data, "--from", "tiny", "--horizon", 24, "--check")
    )


def test_more_context_than_the_model_reads_is_refused_with_one_that_fits(command, tmp_path):
    path = write_csv(tmp_path / "mine.csv", {"": series(0.0, steps=300)})
    asked = (path, "--from", "tiny", "--horizon", 2, "--samples", 0)
    told = refused(command(*asked))
    assert "tiny reads 2048" in told
    fits = told.split("--context ")[1].split()[0]
    assert command(*asked, "--context", fits)[0] == 0
    hopeless = refused(command(path, "--from", "tiny", "--horizon", 500))
    assert "a shorter --horizon" in hopeless


def test_what_cannot_be_written_is_refused_before_anything_is_read(command, data, tmp_path):
    nowhere = tmp_path / "no.csv"
    for out, code in (("f.txt", 2), ("mine.csv/f.csv", 1)):
        told = refused(command(nowhere, "--from", "nothing", out=out), code)
        assert out in told
    before = data.read_bytes()
    assert "the data themselves" in refused(command(data, "--from", "tiny", out="mine.csv"), 2)
    assert data.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tinny", "did you mean tiny"),
        ("runs/nowhere", "no run folder or adapter is there"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_sentence(command, data, source, message):
    assert message in refused(command(data, "--from", source, "--horizon", 2))


def test_a_folder_without_anything_in_it_is_one_sentence(command, data, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "config.json" in refused(command(data, "--from", tmp_path / "empty"))


def test_a_run_that_has_not_ended_and_damaged_adapters_are_one_sentence(
    command, data, tmp_path, trained
):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    weights = run / "best" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "no adapter for this model" in refused(command(data, "--from", run))
    facts = json.loads((run / "best" / "lvray.json").read_text())
    (run / "best" / "lvray.json").write_text(json.dumps({**facts, "lora": None}))
    assert "damaged" in refused(command(data, "--from", run))
    shutil.rmtree(run / "best")
    assert "no winner yet" in refused(command(data, "--from", run))


@pytest.mark.parametrize(
    "words",
    [
        ("--horizon", 0),
        ("--samples", -1),
        ("--temperature", 0),
        ("--temperature", "nan"),
        ("--context", 0),
    ],
)
def test_numbers_that_cannot_be_are_usage_errors(command, data, words):
    with pytest.raises(SystemExit, match="2"):
        command(data, "--from", "tiny", *words)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--horizon", "x is no whole number"),
        ("--samples", "x is no whole number"),
        ("--temperature", "x is no number"),
    ],
)
def test_an_option_that_is_no_number_is_told_in_words(data, capsys, option, told):
    with pytest.raises(SystemExit) as left:
        forecast.main([str(data), "--from", "tiny", option, "x"])
    assert left.value.code == 2
    assert capsys.readouterr().err.endswith(f"argument {option}: {told}\n")
