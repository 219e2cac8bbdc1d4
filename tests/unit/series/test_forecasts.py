"""The record of forecasts that files, tables and figures share."""

from dataclasses import fields

import numpy as np
import pytest

from lvray.core.errors import DataError
from lvray.series.codec import Codec
from lvray.series.forecasts import Forecasts

CODEC = Codec.fit(np.ones((1, 2, 2)), decimals=2, method="offset-quantile")
HISTORY = np.array([[[1.0, 10.0], [3.0, 90.0], [2.0, 50.0]], [[5.0, 1.0], [9.0, 2.0], [6.0, 1.5]]])


@pytest.fixture
def made() -> Forecasts:
    scales = [CODEC.scale_of(history) for history in HISTORY]
    return Forecasts(
        systems=np.array([3, 8]),
        starts=np.array([0, 20]),
        history=HISTORY,
        truth=np.ones((2, 4, 2)),
        point=np.zeros((2, 4, 2)),
        samples=np.full((2, 5, 4, 2), 0.5),
        scale=np.array([scale.scale for scale in scales]),
        floor=np.array([CODEC.rounding_floor(scale) for scale in scales]),
        short=np.array([0, 1]),
    )


def test_a_file_holds_all_of_it(made, tmp_path):
    path = tmp_path / "4+4.npz"
    path.write_bytes(made.to_npz())
    again = Forecasts.from_npz(path)
    for each in fields(Forecasts):
        np.testing.assert_array_equal(getattr(again, each.name), getattr(made, each.name))


def test_a_file_of_something_else_is_told_by_what_it_lacks(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, systems=[1], truth=[1.0])
    with pytest.raises(DataError, match=r"other\.npz: holds no starts, history, point"):
        Forecasts.from_npz(path)


def test_each_variable_has_the_rounding_floor_of_its_own_scale(made):
    """Rounding to hundredths errs by a quarter of a hundredth of a scaled unit."""
    np.testing.assert_allclose(made.floors, 0.0025 * made.scale)
    assert made.floors[0, 1] > 20 * made.floors[0, 0], "or the scales would not matter"
