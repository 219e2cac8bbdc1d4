"""What a sweep file may ask of forecasts."""

import re
from pathlib import Path

import pytest

from lvray.core.errors import SpecError
from lvray.spec.load import dump, load
from lvray.spec.space import forecast_of

FILE = """
budget: 1e13
model: Qwen/Qwen2.5-0.5B-Instruct
evaluation:
  forecast: {systems: 7, context_steps: [40, 80], horizon: 20, samples: 5}
stages:
  - {name: zero, zero_shot: true, forecast: true}
  - {name: chat, zero_shot: true, forecast: {prompt: chat, context_steps: 60, samples: 0}}
  - {name: none, zero_shot: true, forecast: false}
"""


@pytest.fixture
def file(tmp_path) -> Path:
    place = tmp_path / "sweep.yaml"
    place.write_text(FILE)
    return place


def test_a_stage_changes_what_it_names_and_nothing_else(file):
    sweep = load(file)
    zero, chat, none = sweep.stages
    assert forecast_of(sweep, zero) == sweep.evaluation.forecast
    changed = forecast_of(sweep, chat)
    assert (changed.prompt, changed.context_steps, changed.samples) == ("chat", (60,), 0)
    assert (changed.systems, changed.horizon) == (7, 20)
    assert (zero.forecasts, chat.forecasts, none.forecasts) == (True, True, False)


def test_forecasts_are_written_back_as_they_were_read(file, tmp_path):
    sweep = load(file)
    again = tmp_path / "again.yaml"
    again.write_text(dump(sweep))
    assert load(again) == sweep
    row = sweep.to_json()
    assert row["evaluation"]["forecast"]["context_steps"] == [40, 80]
    assert [stage["forecast"] for stage in row["stages"]] == [
        True,
        {"context_steps": 60, "samples": 0, "prompt": "chat"},
        False,
    ]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("evaluation.forecast.context_steps=[40, 40]", "has a length twice"),
        ("evaluation.forecast.windows=[1, 2, 3]", "has 3 numbers for 2 lengths of context"),
        ("evaluation.forecast.context_steps=[]", "must be a whole number from 1, or a list"),
        ("evaluation.forecast.context_steps=[40, yes]", "must be a whole number from 1, or a list"),
        ("stages.chat.forecast.windows=[1, 2]", "has 2 numbers for 1 length of context"),
        ("stages.chat.forecast.promt=chat", "did you mean prompt"),
        ("stages.chat.forecast=7", "must be true, false, or keys"),
        ("text={point: false, trailing_zeros: false}", "needs the point"),
    ],
)
def test_what_cannot_be_is_told(file, override, told):
    with pytest.raises(SpecError, match=re.escape(told)) as error:
        load(file, overrides=[override])
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        ((), "stages.chat.forecast.prompt"),
        (("stages.chat.forecast.prompt=raw",), None),
        (("stages.chat.forecast=false", "evaluation.forecast.prompt=chat"), "evaluation.forecast"),
        (("evaluation.forecast.prompt=chat", "stages.zero.forecast=false"), "stages.chat"),
        (
            (
                "evaluation.forecast.prompt=chat",
                "stages.zero.forecast={prompt: raw}",
                "stages.chat.forecast=false",
            ),
            None,
        ),
    ],
)
def test_the_embedded_model_is_not_asked_to_chat(file, overrides, path):
    asked = ["model=tiny", *overrides]
    if path is None:
        assert load(file, overrides=asked).model == "tiny"
        return
    with pytest.raises(SpecError) as error:
        load(file, overrides=asked)
    (line,) = str(error.value).splitlines()
    assert f"{path}" in line
    assert "the model tiny has no chat template; raw would do" in line
