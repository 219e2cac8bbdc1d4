"""Models and baselines on the same windows."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from lvray.core.errors import RunFolderError
from lvray.reporting.compared import Kind, compare, mean_errors, standing
from lvray.reporting.facts import read_facts
from lvray.reporting.page import write
from lvray.series.forecasts import Forecasts
from lvray.series.rivals import Rivals


@pytest.fixture
def copy(retold):
    return retold(lambda row: None)


def rewrite(path, change):
    """Writes the forecasts of a file anew, changed."""
    path.write_bytes(change(Forecasts.from_npz(path)).to_npz())


def rows(made: Forecasts, places: list[int]) -> Forecasts:
    return Forecasts(**{each.name: getattr(made, each.name)[places] for each in fields(made)})


def test_there_is_a_comparison_for_each_context_the_shortest_first(finished):
    compared = compare(read_facts(finished))
    assert [each.name for each in compared] == ["15+10", "30+10"]
    for each in compared:
        assert each.first(Kind.WINNER).name == "final"
        assert each.first(Kind.BASE).name == "baseline"
        assert [row.name for row in each.shown] == ["baseline", "default", "final"]


def test_everyone_is_scored_on_the_windows_that_all_forecast(copy):
    for name, places in (("final", [4, 1, 3]), ("baseline", [0, 1, 2, 3])):
        path = copy / "trials" / name / "forecasts" / "30+10.npz"
        rewrite(path, lambda made, places=places: rows(made, places))
    each = compare(read_facts(copy))[1]
    for row in each.rows:
        assert row.made.systems.tolist() == [1, 3]
        assert np.array_equal(row.made.truth, each.made.truth)


def test_who_forecast_other_windows_is_left_out_and_named(copy):
    path = copy / "trials" / "default" / "forecasts" / "30+10.npz"
    rewrite(path, lambda made: replace(made, starts=made.starts + 50))
    each = compare(read_facts(copy))[1]
    assert each.left_out == ("default",)
    assert each.row("default") is None
    markdown, _ = write(copy)
    assert "since they forecast other windows: default." in markdown.read_text()


def test_without_the_file_the_cheap_baselines_are_computed_and_the_report_says_so(copy):
    wanted = {row.name: row.mae for row in compare(read_facts(copy))[1].rows}
    (copy / "baselines" / "30+10.npz").unlink()
    each = compare(read_facts(copy))[1]
    found = {row.name: row.mae for row in each.rows if row.kind is Kind.BASELINE}
    assert set(found) == {"last value", "context mean", "seasonal naive", "autoregression"}
    assert found == pytest.approx({name: wanted[name] for name in found})
    markdown, _ = write(copy)
    assert "the others are computed when a sweep has ended" in markdown.read_text()


def test_baselines_of_other_windows_are_refused(copy):
    path = copy / "baselines" / "30+10.npz"
    held = Rivals.from_npz(path)
    path.write_bytes(replace(held, starts=held.starts + 1).to_npz())
    with pytest.raises(
        RunFolderError, match=r"30\+10\.npz holds no forecast of system 0 from step 0"
    ):
        compare(read_facts(copy))


def test_a_baseline_of_fewer_windows_is_scored_on_those_and_the_report_says_so(copy):
    path = copy / "baselines" / "30+10.npz"
    held = Rivals.from_npz(path)
    point = held.points["nearest shapes"].copy()
    point[::2] = np.nan
    path.write_bytes(replace(held, points={**held.points, "nearest shapes": point}).to_npz())
    row = compare(read_facts(copy))[1].row("nearest shapes")
    assert row.made.systems.tolist() == [1, 3, 5]
    markdown, _ = write(copy)
    assert "nearest shapes on 3." in markdown.read_text()


def test_a_winner_that_is_behind_is_told_so(copy):
    for context in (15, 30):
        path = copy / "trials" / "final" / "forecasts" / f"{context}+10.npz"
        rewrite(path, lambda made: replace(made, point=made.truth + 0.3))
    told = standing(compare(read_facts(copy)))
    assert told.startswith("behind nearest shapes (0.2047), nearest windows (0.2289) and ")
    assert told.endswith("which need no model, ahead of 3 other forecasts without a model")


def test_the_mean_over_contexts_counts_each_alike_and_only_those_the_winner_is_in(copy):
    path = copy / "trials" / "final" / "forecasts" / "15+10.npz"
    rewrite(path, lambda made: rows(replace(made, point=made.truth + 0.5), [0, 1]))
    assert mean_errors(compare(read_facts(copy)))["final"] == pytest.approx((0.5 + 0.06) / 2)
    path.unlink()
    errors = mean_errors(compare(read_facts(copy)))
    assert errors["final"] == pytest.approx(0.06)
    assert errors["baseline"] == pytest.approx(0.3)


def test_equations_that_nobody_could_know_are_no_rival(copy):
    for context in (15, 30):
        path = copy / "baselines" / f"{context}+10.npz"
        held = Rivals.from_npz(path)
        made = Forecasts.from_npz(copy / "trials" / "final" / "forecasts" / f"{context}+10.npz")
        path.write_bytes(
            replace(held, points={**held.points, "true equations": made.truth}).to_npz()
        )
    compared = compare(read_facts(copy))
    assert compared[1].rows[0].kind is Kind.BOUND
    assert "ahead of every forecast without a model" in standing(compared)
    markdown, _ = write(copy)
    assert "a bound rather than a rival" in markdown.read_text()
