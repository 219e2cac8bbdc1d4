"""The figure of series of one's own, for one system and for many."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from lvray.reporting.own_figure import draw
from lvray.series.dataset import Dataset
from lvray.series.forecasts import Forecasts


def invented(systems: int, variables: int, *, steps: int = 20, draws: int = 9, labels=()):
    """A data set of waves, and forecasts of the five steps after it."""
    clock = np.arange(1900.0, 1900.0 + steps)
    waves = np.sin(clock[None, :, None] + np.arange(variables)) + np.arange(systems)[:, None, None]
    names = tuple(f"kind {number}" for number in range(variables))
    random = np.random.default_rng(0)
    point = random.normal(size=(systems, 5, variables))
    made = Forecasts(
        systems=np.arange(systems),
        starts=np.zeros(systems, dtype=np.int64),
        history=waves,
        truth=np.full(point.shape, np.nan),
        point=point,
        samples=random.normal(size=(systems, draws, 5, variables)),
        scale=np.ones((systems, variables)),
        floor=np.zeros(systems),
        short=np.zeros(systems, dtype=np.int64),
    )
    return made, Dataset(waves, clock, names, "mine", labels), clock[-1] + np.arange(1.0, 6.0)


def words(picture: str) -> list[str]:
    """What is written in a figure; matplotlib notes each text before its glyphs."""
    return re.findall(r"<!-- (.*?) -->", picture)


def test_one_system_has_its_variables_below_each_other():
    picture, left_out = draw(*invented(1, 2))
    assert {"kind 0", "kind 1", "time", "given", "forecast", "80 % band"} <= set(words(picture))
    assert "what happened" not in words(picture)
    assert "system 0" not in words(picture)
    assert left_out == ""


def test_years_are_whole():
    years = [
        word for word in words(draw(*invented(1, 1, steps=16))[0]) if re.match("19[0-9]{2}", word)
    ]
    assert len(years) >= 3
    assert all(re.fullmatch("[0-9]{4}", year) for year in years)


def test_several_systems_are_named():
    labels = ("Hudson", "Yukon", "Mackenzie")
    assert set(labels) <= set(words(draw(*invented(3, 2, labels=labels))[0]))
    assert {"system 0", "system 2"} <= set(words(draw(*invented(3, 2))[0]))


@pytest.mark.parametrize(
    ("systems", "variables", "left_out"),
    [
        (40, 9, "the first 6 of 40 systems and 4 of 9 variables"),
        (7, 1, "the first 6 of 7 systems"),
        (1, 5, "the first 4 of 5 variables"),
    ],
)
def test_what_is_not_drawn_is_told(systems, variables, left_out):
    assert draw(*invented(systems, variables))[1] == left_out


def test_what_happened_is_drawn_where_it_is_known():
    made, data, _ = invented(2, 2)
    known = replace(made, history=made.history[:, :15], truth=made.history[:, 15:])
    picture, _ = draw(known, data, data.times[15:])
    assert "what happened" in words(picture)


def test_gaps_and_greedy_forecasts_can_be_drawn():
    made, data, times = invented(1, 2, draws=0)
    gaps = made.history.copy()
    gaps[0, 3, 0] = gaps[0, -1, 1] = np.nan
    picture, _ = draw(replace(made, history=gaps), data, times)
    assert "80 % band" not in words(picture)


def test_a_long_history_is_drawn_from_near_its_end():
    long, data, times = invented(1, 1, steps=5000)
    picture, _ = draw(long, data, times)
    assert {"6880", "6900"} <= set(words(picture))
    assert "2000" not in words(picture)


def test_the_same_forecasts_make_the_same_figure():
    assert draw(*invented(2, 2)) == draw(*invented(2, 2))
