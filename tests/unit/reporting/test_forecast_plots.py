"""What the figures of forecasts show."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from lvray.reporting.compared import Kind, compare
from lvray.reporting.facts import read_facts
from lvray.reporting.forecast_plots import coverage, phase_figure
from lvray.reporting.page import write
from lvray.series.forecasts import Forecasts


@pytest.fixture
def drawn(finished):
    """Gives the texts of a figure, as matplotlib notes them beside their outlines."""
    write(finished)

    def texts(name: str) -> list[str]:
        return re.findall(r"<!-- (.*?) -->", (finished / "figures" / f"{name}.svg").read_text())

    return texts


def test_errors_by_step_have_a_panel_for_each_context_and_name_every_line(drawn):
    told = drawn("horizon")
    assert [text for text in told if text.startswith("from ")] == [
        "from 15 time steps",
        "from 30 time steps",
    ]
    for name in ("baseline (base)", "default", "final", "last value", "seasonal naive"):
        assert told.count(name) == 2
    assert (
        told.count("nearest shapes") == told.count("autoregression") == 1
    )  # the best of the others


def test_an_easy_a_middling_and_a_hard_window_are_drawn(drawn):
    told = drawn("forecasts")
    systems = [text for text in told if text.startswith("system")]
    assert sorted(systems) == ["system 0", "system 2", "system 4"]
    assert {"prey", "predator", "what happened", "final", "baseline (base)"} <= set(told)


def test_paths_are_drawn_of_two_variables_alone(finished):
    facts = read_facts(finished)
    each = compare(facts)[1]
    assert phase_figure([each], facts.variables) is not None
    one = {
        name: getattr(each.made, name)[..., :1]
        for name in ("history", "truth", "point", "samples", "scale")
    }
    assert phase_figure([replace(each, made=replace(each.made, **one))], ("prey",)) is None


def test_samples_from_where_the_truth_comes_from_cover_what_they_should(finished):
    each = compare(read_facts(finished))[1]
    chance = np.random.default_rng(0)
    shape = (2000, 9, 2)
    made = Forecasts(
        systems=np.arange(2000),
        starts=np.zeros(2000, dtype=np.int64),
        history=np.zeros((2000, 5, 2)),
        truth=chance.normal(size=shape),
        point=np.zeros(shape),
        samples=chance.normal(size=(2000, 19, 9, 2)),
        scale=np.ones((2000, 2)),
        floor=np.zeros(2000),
        short=np.zeros(2000, dtype=np.int64),
    )
    shares, covered = coverage(replace(each.first(Kind.WINNER), made=made))
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert covered == pytest.approx(shares, abs=0.02)


def test_bands_that_so_few_samples_cannot_span_are_left_out(finished):
    winner = compare(read_facts(finished))[1].first(Kind.WINNER)
    few = replace(winner.made, samples=winner.made.samples[:, :9])
    shares, _ = coverage(replace(winner, made=few))
    assert max(shares) == pytest.approx(0.8)
