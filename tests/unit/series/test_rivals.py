"""The record of forecasts without a model."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from lvray.core.errors import DataError
from lvray.series.baselines import BASELINES
from lvray.series.dataset import Dataset
from lvray.series.forecasts import Forecasts
from lvray.series.predator_prey import lotka_volterra, times
from lvray.series.rivals import COSTLY, MOST_COSTLY, Rivals, cheap_rivals, rivals_of


def dataset(systems: int, *, steps: int = 40) -> Dataset:
    values = lotka_volterra(0, systems).astype(np.float64)[:, :steps]
    return Dataset(values, times()[:steps], ("prey", "predator"), "invented")


def forecasts(data: Dataset, windows: list[tuple[int, int]]) -> Forecasts:
    series = np.stack([data.values[system, start : start + 14] for system, start in windows])
    return Forecasts(
        systems=np.array([system for system, _ in windows]),
        starts=np.array([start for _, start in windows]),
        history=series[:, :12],
        truth=series[:, 12:],
        point=series[:, 12:],
        samples=np.empty((len(windows), 0, 2, 2)),
        scale=np.ones((len(windows), 2)),
        floor=np.zeros(len(windows)),
        short=np.zeros(len(windows), dtype=np.int64),
    )


def test_what_is_written_is_read_again(tmp_path):
    data = dataset(3)
    made = forecasts(data, [(0, 0), (2, 4)])
    rivals = rivals_of([made], data=data, training=data.values, source=None)
    (tmp_path / "12+2.npz").write_bytes(rivals.to_npz())
    again = Rivals.from_npz(tmp_path / "12+2.npz")
    assert again.missing == rivals.missing != {}
    assert list(again.points) == list(rivals.points)
    for name, point in rivals.points.items():
        assert np.array_equal(again.points[name], point)
    assert again.systems.tolist() == [0, 2]
    assert again.starts.tolist() == [0, 4]


def test_a_file_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "12+2.npz", systems=np.arange(2))
    with pytest.raises(DataError, match="holds no starts, missing"):
        Rivals.from_npz(tmp_path / "12+2.npz")


def test_rows_come_in_the_order_asked_and_other_windows_are_refused():
    data = dataset(3)
    rivals = cheap_rivals(forecasts(data, [(0, 0), (1, 0), (2, 4)]))
    some = rivals.of(np.array([2, 0]), np.array([4, 0]))
    assert np.array_equal(some.points["last value"], rivals.points["last value"][[2, 0]])
    with pytest.raises(DataError, match="no forecast of system 2 from step 0"):
        rivals.of(np.array([2]), np.array([0]))


def test_the_cheap_ones_need_the_context_alone():
    rivals = cheap_rivals(forecasts(dataset(2), [(0, 0), (1, 3)]))
    assert set(rivals.points) == set(BASELINES) - COSTLY
    assert set(rivals.missing) == COSTLY


def test_windows_of_unevenly_spaced_times_are_fitted_with_their_own_times():
    even = dataset(3)
    kept = np.r_[0:15, 15:40:2]  # as if every other step had not been written down later on
    values, clock = even.values[:, kept].copy(), even.times[kept].copy()
    data = Dataset(values, clock, even.variables, "uneven")
    made = forecasts(data, [(0, 0), (1, 12), (2, 0)])
    rivals = rivals_of([made], data=data, training=None, source="lotka-volterra")
    assert np.abs(rivals.points["true equations"] - made.truth).max() < 1e-2
    assert set(rivals.missing) == {"nearest windows", "nearest shapes"}


def test_costly_ones_are_computed_on_some_of_many_windows_evenly():
    data = dataset(2)
    few = forecasts(data, [(0, 0), (1, 0)])
    many = MOST_COSTLY + 100
    repeated = replace(
        few,
        **{
            each.name: np.repeat(getattr(few, each.name), many // 2, axis=0) for each in fields(few)
        },
    )
    repeated = replace(repeated, starts=np.arange(many))  # told apart by their starts alone
    rivals = rivals_of([repeated], data=data, training=data.values, source=None)
    there = np.isfinite(rivals.points["nearest shapes"]).all(axis=(1, 2))
    assert there.sum() == MOST_COSTLY
    assert there[: many // 2].sum() == MOST_COSTLY // 2
    assert np.isfinite(rivals.points["autoregression"]).all()
