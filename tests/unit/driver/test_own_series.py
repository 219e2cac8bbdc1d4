"""Series of one's own, as far as no model is needed: who forecasts, from what, for how much, and what is written."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from lvray.core.errors import DataError, ModelError, RunFolderError, UsageError
from lvray.core.trial import LoraConfig
from lvray.driver import own_series
from lvray.driver.best import FACTS, FORMAT
from lvray.driver.own_series import (
    Forecaster,
    check_place,
    forecaster_from,
    history_of,
    notes,
    price,
    table,
    task,
    times_ahead,
    without_gaps,
    write_table,
)
from lvray.flops.price import generation
from lvray.flops.shape import TINY
from lvray.series.codec import Codec
from lvray.series.dataset import Dataset
from lvray.series.forecasts import Forecasts
from lvray.series.grammar import Grammar
from lvray.series.metrics import quantiles

NAN = float("nan")
LORA = LoraConfig(rank=2, alpha=4.0, targets=("all-linear",))
TRAINED = np.linspace(0.1, 9.8, 80).reshape(2, 20, 2)


def dataset(values, *, times=None, labels=(), variables=("hare", "lynx")) -> Dataset:
    array = np.array(values, dtype=np.float64)
    clock = np.arange(array.shape[1], dtype=np.float64) if times is None else np.array(times)
    return Dataset(array, clock, variables, "mine.csv", labels)


@pytest.fixture
def waves() -> Dataset:
    steps = np.arange(30)
    systems = [np.stack([3 + np.sin(steps + k), 5 + np.cos(steps + k)], axis=1) for k in range(3)]
    return dataset(systems)


def facts(**changes) -> dict:
    codec = Codec.fit(TRAINED, decimals=2, method="percentile")
    row = {
        "format": FORMAT,
        "model": "tiny",
        "quantization": "none",
        "convention": "palm-lora",
        "lora": LORA.to_json(),
        "variables": ["prey", "predator"],
        "codec": codec.to_json(),
    }
    return {**row, **changes}


@pytest.fixture
def adapter(tmp_path):
    """Makes the folder of an adapter, as far as it is read without torch."""

    def made(row, place="best"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        if row is not None:
            (folder / FACTS).write_text(row if isinstance(row, str) else json.dumps(row))
        return folder

    return made


def found(source, data: Dataset) -> Forecaster:
    return forecaster_from(str(source), data, data.values)


# Who forecasts


def test_an_adapter_says_how_its_series_are_written(adapter, waves):
    who = found(adapter(facts()), waves)
    assert (who.model, who.lora, who.convention) == ("tiny", LORA, "palm-lora")
    assert who.codec == Codec.fit(TRAINED, decimals=2, method="percentile")
    assert who.variables == ("prey", "predator")


def test_a_run_folder_stands_for_its_winner(adapter, waves, tmp_path):
    best = adapter(facts(), place="runs/grid/best")
    (best.parent / "journal.jsonl").touch()
    assert found(best.parent, waves) == found(best, waves)
    assert found(best.parent, waves).name == str(best)


def test_a_run_without_a_winner_is_refused(waves, tmp_path):
    (tmp_path / "journal.jsonl").touch()
    with pytest.raises(RunFolderError, match="no winner yet"):
        found(tmp_path, waves)


def test_an_adapter_from_elsewhere_is_refused(adapter, waves):
    with pytest.raises(ModelError, match=r"an adapter without lvray\.json"):
        found(adapter(None), waves)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        (b"\xff".decode("latin-1") + "{}", "is damaged"),
        (facts(lora=[2]), "is damaged"),
        (facts(codec={"decimals": 2}), "is damaged"),
        ({"format": FORMAT}, "is damaged: KeyError"),
        (facts(format="lvray-adapter/9"), "has the format 'lvray-adapter/9'"),
    ],
)
def test_a_damaged_adapter_is_refused(adapter, waves, row, message):
    with pytest.raises(ModelError, match=message):
        found(adapter(row), waves)


def test_an_adapter_forecasts_as_many_variables_as_it_was_trained_on(adapter, waves):
    three = dataset(np.ones((1, 9, 3)), variables=("a", "b", "c"))
    with pytest.raises(DataError, match=r"3 variables \(a, b, c\).*trained on 2"):
        found(adapter(facts()), three)


def test_a_base_model_takes_any_number_of_variables_in_units_of_their_own():
    who = found("tiny", dataset(np.ones((2, 9, 3)), variables=("a", "b", "c")))
    assert (who.model, who.adapter, who.codec.variables, who.codec.per) == (
        "tiny",
        None,
        3,
        "series",
    )


def test_a_falling_series_may_fall_on():
    fallen = found("tiny", dataset(np.linspace(9, 1, 20)[None, :, None], variables=("a",)))
    assert "-" in Grammar.of(fallen.codec).allowed(Grammar.of(fallen.codec).start)


def test_nothing_that_is_held_out_is_looked_at(monkeypatch):
    monkeypatch.setattr(own_series, "BASE_SCALING", "max")  # which would keep what it sees
    calm = np.sin(np.arange(30.0))[None, :, None]
    wild = calm.copy()
    wild[0, 25] = 1e6
    codecs = []
    for values in (calm, wild):
        mine = dataset(values, variables=("a",))
        history, _ = history_of(mine, context=None, horizon=10, held_out=True)
        codecs.append(forecaster_from("tiny", mine, history).codec)
    assert codecs[0] == codecs[1] != found("tiny", mine).codec


def test_what_is_not_there_is_told_with_what_may_have_been_meant(waves, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "grid").mkdir(parents=True)
    for source, told in (
        ("tinny", "did you mean tiny?"),
        ("runs/gird", "did you mean runs/grid?"),
        ("zzz", "those are Qwen/"),
    ):
        with pytest.raises(ModelError, match=f"--from {source}: no run folder.*{told}"):
            found(source, waves)


# From what


def test_the_last_steps_are_given_and_what_follows_is_unknown(waves):
    history, truth = history_of(waves, context=7, horizon=4, held_out=False)
    np.testing.assert_array_equal(history, waves.values[:, 23:])
    assert truth.shape == (3, 4, 2)
    assert np.isnan(truth).all()


def test_held_out_steps_are_the_last_ones(waves):
    history, truth = history_of(waves, context=None, horizon=4, held_out=True)
    np.testing.assert_array_equal(np.concatenate([history, truth], axis=1), waves.values)
    assert truth.shape[1] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 31, "horizon": 2, "held_out": False}, "a context of 31 is not.*30 is the lon"),
        ({"context": 29, "horizon": 2, "held_out": True}, "2 of them held out.*28 is the longest"),
        ({"context": None, "horizon": 30, "held_out": True}, "with 30 held out there is nothing"),
        ({"context": 1, "horizon": 99, "held_out": True}, "with 99 held out there is nothing"),
    ],
)
def test_series_that_are_too_short_are_refused(waves, options, message):
    with pytest.raises(DataError, match=message):
        history_of(waves, **options)


def test_single_values_may_be_missing_even_in_the_last_step():
    values = [[[1, 2], [NAN, 3], [4, NAN]]]
    history, _ = history_of(dataset(values), context=None, horizon=1, held_out=False)
    np.testing.assert_array_equal(history, values)


@pytest.mark.parametrize(
    ("values", "held_out", "message"),
    [
        ([[[1, 2], [3, 4], [NAN, NAN]]], False, "system Yukon has no value at time 1902"),
        ([[[1, NAN], [3, NAN], [4, NAN]]], False, "no value of 'lynx' in the 3 time steps"),
        ([[[1, 2], [3, 4], [4, NAN]]], True, "1 of the 2 values.*'lynx' of system Yukon at time 1"),
    ],
)
def test_gaps_of_which_nothing_can_be_said_are_refused(values, held_out, message):
    mine = dataset(values, times=[1900.0, 1901.0, 1902.0], labels=("Yukon",))
    with pytest.raises(DataError, match=message):
        history_of(mine, context=None, horizon=1, held_out=held_out)


def test_baselines_get_straight_lines_over_gaps():
    history = np.array([[[NAN, 1.0], [2.0, NAN], [NAN, NAN], [NAN, 4.0], [8.0, NAN]]])
    filled = without_gaps(history)
    assert filled[0, :, 0].tolist() == [2, 2, 4, 6, 8]
    assert filled[0, :, 1].tolist() == [1, 2, 3, 4, 4]
    assert np.isnan(history[0, 0, 0])


def test_nothing_is_noted_of_series_like_those_of_the_training(adapter):
    like = dataset(TRAINED, variables=("prey", "predator"))
    assert notes(found(adapter(facts()), like), like, like.values) == []


@pytest.mark.parametrize(
    ("factor", "message"), [(100.0, "foreign to it: they reach 980"), (0.01, "they reach 0.098")]
)
def test_series_of_another_size_are_foreign_to_a_fixed_scale(adapter, factor, message):
    codec = Codec.fit(TRAINED, decimals=2, method="fixed", alpha=1.0)
    mine = dataset(TRAINED * factor, variables=("prey", "predator"))
    who = found(adapter(facts(codec=codec.to_json())), mine)
    (note,) = notes(who, mine, mine.values)
    assert message in note


def test_no_size_is_foreign_to_a_scale_of_the_series_own():
    spike = np.ones((1, 300, 1))
    spike[0, 7] = 1e6
    mine = dataset(spike, variables=("a",))
    assert notes(found("tiny", mine), mine, mine.values) == []


def test_gaps_other_names_and_signs_are_noted(adapter):
    values = TRAINED.copy()
    values[0, 3, 1], values[1, 4, 0] = NAN, -5.0
    mine = dataset(values)
    told = notes(found(adapter(facts()), mine), mine, mine.values)
    assert "1 of 80 values of the history are missing" in told[0]
    assert "hare as prey, lynx as predator" in told[1]
    assert "never below zero" in told[2]
    assert len(told) == 3


# For how much


def test_no_forecast_can_be_longer_than_what_is_paid_for(waves):
    for options in ({}, {"point": False}, {"trailing_zeros": False}):
        for values in (TRAINED, TRAINED - 5, TRAINED * 40):
            codec = Codec.fit(values, decimals=3, method="fixed", alpha=1.0, **options)
            who = Forecaster("tiny", "none", None, None, codec, "coursework")
            asked = task(who, values, horizon=3, samples=0, temperature=1.0)
            grammar, place, text = Grammar.of(codec), Grammar.of(codec).start, ""
            while text.count(";") < 3:  # the longest way: a sign, and digits while there may be any
                allowed = grammar.allowed(place)
                character = next(each for each in "-9.,;" if each in allowed)
                place, text = grammar.after(place, character), text + character
            assert asked.new_tokens == len(text), (options, text)


def test_the_prompt_that_is_paid_for_is_the_longest(waves):
    who = found("tiny", waves)
    asked = task(who, waves.values, horizon=3, samples=5, temperature=0.7)
    texts = [who.codec.encode(each, who.codec.scale_of(each)) for each in waves.values]
    assert asked.prompt_tokens == max(map(len, texts))
    assert (asked.systems, asked.windows, asked.samples, asked.temperature) == (3, 1, 5, 0.7)
    assert (asked.context_steps, asked.horizon) == (30, 3)


@pytest.mark.parametrize(("samples", "paid"), [(0, 1), (1, 1), (20, 20)])
def test_the_price_is_that_of_the_head_that_is_computed(adapter, waves, samples, paid):
    who = found(adapter(facts()), waves)
    asked = task(who, waves.values, horizon=3, samples=samples, temperature=1.0)
    assert own_series.HEAD == "full"
    assert price(who, asked) == generation(
        TINY,
        lora=LORA,
        convention="palm-lora",
        prompt_tokens=asked.prompt_tokens,
        new_tokens=asked.new_tokens,
        batch_size=3,
        samples=paid,
        head="full",
    )


def test_a_convention_that_nobody_knows_is_told(adapter, waves):
    who = found(adapter(facts(convention="mine")), waves)
    with pytest.raises(UsageError, match="mine"):
        price(who, task(who, waves.values, horizon=1, samples=0, temperature=1.0))


# What is written


def test_years_go_on_as_years():
    years = dataset(np.ones((1, 4, 1)), times=[1917.0, 1918, 1919, 1920], variables=("a",))
    assert times_ahead(years, 3, held_out=False).tolist() == [1921, 1922, 1923]
    assert times_ahead(years, 2, held_out=True).tolist() == [1919, 1920]


def test_uneven_times_go_on_by_their_usual_distance():
    uneven = dataset(np.ones((1, 5, 1)), times=[0, 2.0, 4, 9, 11], variables=("a",))
    assert times_ahead(uneven, 2, held_out=False).tolist() == [13, 15]
    one = dataset(np.ones((1, 1, 1)), times=[7.0], variables=("a",))
    assert times_ahead(one, 2, held_out=False).tolist() == [8, 9]


def made(*, draws: int, known: bool = False) -> Forecasts:
    random = np.random.default_rng(1)
    point = random.normal(size=(2, 3, 2))
    return Forecasts(
        systems=np.arange(2),
        starts=np.zeros(2, dtype=np.int64),
        history=random.normal(size=(2, 5, 2)),
        truth=random.normal(size=(2, 3, 2)) if known else np.full((2, 3, 2), np.nan),
        point=point,
        samples=random.normal(size=(2, draws, 3, 2)),
        scale=np.ones((2, 2)),
        floor=np.full(2, 0.01),
        short=np.zeros(2, dtype=np.int64),
    )


def test_a_table_has_a_row_for_each_system_time_and_variable():
    forecasts = made(draws=20, known=True)
    rows = table(forecasts, dataset(np.ones((2, 9, 2))), np.array([7.0, 8.0, 9.0]))
    bands = ["q05", "q10", "q25", "q75", "q90", "q95"]
    assert rows.column_names == ["system", "time", "variable", "median", *bands, "truth"]
    assert rows["system"].to_pylist() == [0] * 6 + [1] * 6
    assert rows["time"].to_pylist() == [7, 7, 8, 8, 9, 9] * 2
    assert rows["variable"].to_pylist() == ["hare", "lynx"] * 6
    np.testing.assert_allclose(rows["median"], forecasts.point.ravel(), rtol=1e-11)
    np.testing.assert_array_equal(rows["truth"], forecasts.truth.ravel())
    wanted = quantiles(forecasts.samples, (0.05, 0.9))
    np.testing.assert_allclose(rows["q05"], wanted[:, 0].ravel(), rtol=1e-11)
    np.testing.assert_allclose(rows["q90"], wanted[:, 1].ravel(), rtol=1e-11)


def test_a_greedy_forecast_has_no_quantiles_and_an_unknown_truth_no_column():
    rows = table(made(draws=0), dataset(np.ones((2, 9, 2))), np.arange(3.0))
    assert rows.column_names == ["system", "time", "variable", "forecast"]


def test_systems_keep_their_labels():
    mine = dataset(np.ones((2, 9, 2)), labels=("Yukon", 'Hudson, "Bay"'))
    rows = table(made(draws=0), mine, np.arange(3.0))
    assert rows["system"].to_pylist() == ["Yukon"] * 6 + ['Hudson, "Bay"'] * 6


def test_numbers_are_shown_without_the_dust_of_arithmetic():
    forecasts = made(draws=0)
    forecasts.point[0, 0] = [0.1 + 0.2, 19.552500000000002]
    rows = table(forecasts, dataset(np.ones((2, 9, 2))), np.array([0.1 + 0.2, 1e12 + 1, 2e12]))
    assert rows["forecast"].to_pylist()[:2] == [0.3, 19.5525]
    assert rows["time"].to_pylist()[:3:2] == [0.3, 1e12 + 1]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_is_read_back_as_it_was_written(tmp_path, ending):
    path = tmp_path / "new" / f"mine{ending}"
    mine = dataset(np.ones((2, 9, 2)), labels=("a,b", 'c"d'))
    rows = table(made(draws=9), mine, np.array([1921.0, 1922.0, 1923.5]))
    write_table(path, rows)
    content = io.BytesIO(path.read_bytes())
    read = pyarrow.csv.read_csv if ending == ".csv" else pyarrow.parquet.read_table
    assert read(content).equals(rows)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_told_and_nothing_is_left(tmp_path):
    (tmp_path / "mine.csv").mkdir()
    rows = table(made(draws=0), dataset(np.ones((2, 9, 2))), np.arange(3.0))
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_table(tmp_path / "mine.csv", rows)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.csv"]


@pytest.mark.parametrize("name", ["f.txt", "f", "f.csv.gz", ".csv"])
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"ends in \.csv or \.parquet, not in"):
        check_place(tmp_path / name, tmp_path / "data.csv")


def test_the_data_are_never_overwritten(tmp_path):
    data = tmp_path / "data.csv"
    data.touch()
    with pytest.raises(UsageError, match="the data themselves"):
        check_place(tmp_path / "x" / ".." / "data.csv", data)


def test_a_folder_or_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "f.csv").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="it is a folder"):
        check_place(tmp_path / "f.csv", tmp_path / "data.csv")
    with pytest.raises(RunFolderError, match="file is no folder to write in"):
        check_place(tmp_path / "file" / "deep" / "f.csv", tmp_path / "data.csv")
    check_place(tmp_path / "new" / "deep" / "f.parquet", tmp_path / "data.csv")
