"""Which systems play which part, and in which scale each is written."""

import json
from pathlib import Path

import numpy as np
import pytest

from lvray.core.errors import DataError
from lvray.core.run_folder import RunFolder
from lvray.planner.data import ensure_enough, prepare
from lvray.planner.stages import outline
from lvray.series.codec import Codec
from lvray.spec.load import load

SMALL = Path(__file__).parents[3] / "tests" / "ray" / "small.yaml"
PER_PART = (
    "data.split.order=file",
    "data.split.train=30",
    "data.split.validation=6",
    "data.split.test=4",
    "text.scaling={method: max, to: 10, above: 10, per: part}",
)


def file_of(path, scale, variables=2):
    """A file of 40 series; the parts have largest values of 20, 30 and 5, times `scale`."""
    values = np.random.default_rng(0).uniform(0.1, 1, size=(40, 101, variables))
    for start, stop, largest in ((0, 30, 20.0), (30, 36, 30.0), (36, 40, 5.0)):
        values[start:stop] *= largest
        values[stop - 1, 100, 0] = largest
    np.savez(path, values=values * scale)
    return str(path)


def prepared(tmp_path, *overrides):
    path = file_of(tmp_path / "mine.npz", 1.0)
    sweep = load(SMALL, overrides=[f"data.path={path}", *PER_PART, *overrides])
    return sweep, prepare(sweep, RunFolder(tmp_path / "run"))


def scales(data):
    codec = Codec.from_json(data.codec)
    return {
        part: codec.scale_of(np.ones((1, 2)), part=part).scale[0]
        for part in ("train", "validation", "test")
    }


def test_every_part_is_scaled_by_its_own_largest_value(tmp_path):
    _, data = prepared(tmp_path)
    assert scales(data) == {"train": 2.0, "validation": 3.0, "test": 1.0}


def test_the_test_part_of_another_file_is_scaled_by_that_file(tmp_path):
    other = file_of(tmp_path / "other.npz", 4.0)
    _, data = prepared(tmp_path, f"data.test_path={other}")
    assert scales(data) == {"train": 2.0, "validation": 3.0, "test": 12.0}
    assert data.test == tuple(range(40))


def test_forecasts_have_the_variables_names_of_the_file_that_is_forecast(tmp_path):
    other = tmp_path / "pelts.csv"
    rows = [f"{year},{year % 7},{year % 5}" for year in range(60)]
    other.write_text("\n".join(["year,hare,lynx", *rows]))
    sweep = load(SMALL, overrides=[f"data.test_path={other}", "evaluation.forecast.systems=1"])
    prepare(sweep, RunFolder(tmp_path / "run"))
    written = json.loads((tmp_path / "run" / "split.json").read_text())
    assert written["variables"] == ["prey", "predator"]
    assert written["forecast_variables"] == ["hare", "lynx"]


def test_validation_windows_are_counted_in_the_validation_systems_scale(tmp_path):
    """In their own scale only their largest value has two digits before the point; in another a third have."""
    sweep, data = prepared(tmp_path, "budget=1e14", "evaluation.windows=999")
    codec = Codec.from_json(data.codec)
    with np.load(data.path) as file:
        series = file["values"][30:36]
    own, other = (
        sum(-(-len(codec.encode(one, codec.scale_of(one, part=part))) // 128) for one in series)
        for part in ("validation", "train")
    )
    assert own < other, "or this test could not fail"
    plans = outline(sweep, variables=2)
    with pytest.raises(DataError, match=f"the 6 validation systems give {own};"):
        ensure_enough(sweep, plans, data)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("text.point=false", "400;"),
        ("text.trailing_zeros=false", "4.0;"),
        ("text.decimals=3", "4.000;"),
    ],
)
def test_the_format_of_the_sweep_file_is_the_codecs(tmp_path, override, text):
    sweep, data = prepared(tmp_path, override, "text.scaling={method: fixed, alpha: 1}")
    codec = Codec.from_json(data.codec)
    assert codec.encode([[4.0, 4.0]], codec.scale_of([[4.0, 4.0]])).endswith(f",{text}")
    assert sweep.text.decimals == codec.decimals


def test_steps_that_no_training_text_holds_decide_nothing_of_the_scale(tmp_path):
    """The largest value of every part stands in its last time step."""
    _, whole = prepared(tmp_path)
    _, data = prepared(tmp_path, "text.steps=100")
    assert scales(whole)["train"] == 2.0
    assert scales(data)["train"] < 2.0
    assert scales(data)["validation"] < 3.0
    assert scales(data)["test"] == 1.0, "what is forecast is scaled by all of its steps"


def refusal(tmp_path, *overrides):
    sweep, data = prepared(tmp_path, "budget=1e14", "evaluation.windows=1", *overrides)
    plans = outline(sweep, variables=2)
    with pytest.raises(DataError) as told:
        ensure_enough(sweep, plans, data)
    return str(told.value)


def test_a_sampler_may_not_come_to_choose_more_training_systems_than_there_are(tmp_path):
    told = refusal(
        tmp_path,
        "stages.search.sampler=tpe",
        "stages.search.samples=3",
        "stages.search.space={train_systems: {log: [10, 50]}}",
    )
    assert "train_systems asks for 50 training systems, and there are 30" in told


def test_too_many_forecasts_are_told_where_they_are_asked_for_and_what_would_do(tmp_path):
    told = refusal(tmp_path, "stages.final.forecast={systems: 9}")
    assert told == (
        "forecast of stage final asks for 9 test systems, and there are 4; ask for 4, or give data.split.test more"
    )
    told = refusal(tmp_path, "evaluation.forecast.systems=9", "data.split.test=validation")
    assert told.endswith("there are 6; ask for 6, or give data.split.validation more")
    other = file_of(tmp_path / "other.npz", 1.0)
    told = refusal(tmp_path, "evaluation.forecast.systems=99", f"data.test_path={other}")
    assert told.endswith(f"there are 40; ask for 40, all that {other} has")


def test_forecasts_longer_than_the_series_are_told_where_they_are_asked_for(tmp_path):
    with pytest.raises(DataError, match=r"101 time steps; forecast of stage final asks for 100 of"):
        prepared(tmp_path, "stages.final.forecast={context_steps: 100}")
