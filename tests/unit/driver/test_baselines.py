"""What the driver writes beside a sweep's forecasts when it has ended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lvray.core.errors import RunFolderError
from lvray.core.run_folder import RunFolder
from lvray.driver.baselines import write_baselines
from lvray.planner.data import prepare
from lvray.series.baselines import BASELINES, nearest_neighbours, seasonal_naive
from lvray.series.forecasts import Forecasts
from lvray.series.readers import read
from lvray.series.rivals import Rivals
from lvray.spec.load import load

SMALL = Path(__file__).parents[2] / "ray" / "small.yaml"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LVRAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def swept(tmp_path):
    """Gives a sweep, its folder and data, and what makes a trial's forecasts of some windows."""

    def prepared(*changes: str):
        sweep = load(SMALL, overrides=changes)
        folder = RunFolder(tmp_path / "runs" / "small")
        data = prepare(sweep, folder)
        values = read(data.path).values

        def forecast(trial: str, windows: list[tuple[int, int]], context: int = 20) -> Forecasts:
            series = np.stack(
                [values[system, start : start + context + 2] for system, start in windows]
            )
            made = Forecasts(
                systems=np.array([system for system, _ in windows]),
                starts=np.array([start for _, start in windows]),
                history=series[:, :context],
                truth=series[:, context:],
                point=series[:, context:],
                samples=np.empty((len(windows), 0, *series[:, context:].shape[1:])),
                scale=np.ones((len(windows), 2)),
                floor=np.zeros(len(windows)),
                short=np.zeros(len(windows), dtype=np.int64),
            )
            place = folder.trial(trial) / "forecasts"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{context}+2.npz").write_bytes(made.to_npz())
            return made

        return sweep, folder, data, forecast

    return prepared


def test_every_baseline_is_there_for_every_window_that_some_trial_forecast(swept):
    sweep, folder, data, forecast = swept()
    forecast("baseline", [(3, 0), (7, 0)])
    made = forecast("final", [(7, 0), (9, 5)])
    forecast("final", [(7, 0)], context=30)
    write_baselines(sweep, folder, data, ["baseline", "search-0", "final"])
    assert sorted(path.name for path in folder.baselines.iterdir()) == ["20+2.npz", "30+2.npz"]
    rivals = Rivals.from_npz(folder.baselines / "20+2.npz")
    windows = list(zip(rivals.systems.tolist(), rivals.starts.tolist(), strict=True))
    assert sorted(windows) == [(3, 0), (7, 0), (9, 5)]
    assert list(rivals.points) == list(BASELINES)
    assert rivals.missing == {}
    theirs = rivals.of(made.systems, made.starts)
    assert np.array_equal(theirs.points["seasonal naive"], seasonal_naive(made.history, 2))
    assert np.abs(theirs.points["true equations"] - made.truth).max() < 1e-3


def test_where_nobody_forecast_nothing_is_written(swept):
    sweep, folder, data, _ = swept()
    write_baselines(sweep, folder, data, ["baseline", "search-0"])
    assert not folder.baselines.exists()


def test_the_equations_behind_a_file_are_known_to_nobody(swept):
    _, _, generated, _ = swept()
    sweep, folder, data, forecast = swept("data.source=file", f"data.path={generated.path}")
    forecast("final", [(3, 0)])
    write_baselines(sweep, folder, data, ["final"])
    rivals = Rivals.from_npz(folder.baselines / "20+2.npz")
    assert list(rivals.missing) == ["true equations"]
    assert set(rivals.points) == set(BASELINES) - {"true equations"}


def test_neighbours_are_looked_for_where_trials_train_and_nowhere_else(swept):
    sweep, folder, data, forecast = swept("text.steps=40")
    made = forecast("final", [(data.test[0], 0), (data.test[1], 0)])
    write_baselines(sweep, folder, data, ["final"])
    rivals = Rivals.from_npz(folder.baselines / "20+2.npz")
    seen = read(data.path).values[list(data.train), :40]
    wanted = nearest_neighbours(made.history, 2, seen)
    assert np.allclose(rivals.points["nearest windows"], wanted)


def test_a_damaged_file_of_forecasts_is_told_by_its_name(swept):
    sweep, folder, data, forecast = swept()
    forecast("final", [(3, 0)])
    (path,) = folder.forecasts("final")
    path.write_bytes(b"PK torn")
    with pytest.raises(RunFolderError, match=r"20\+2\.npz is damaged"):
        write_baselines(sweep, folder, data, ["final"])
