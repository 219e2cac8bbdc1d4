"""Errors of a forecast, by hand, and the refusal to measure what is not there."""

import numpy as np
import pytest

from lvray.core.errors import DataError
from lvray.series.metrics import mae, mse, rmse

TRUTH = np.array([[[1.0, 2.0], [3.0, 4.0]]])
FORECAST = np.array([[[1.0, 4.0], [2.0, 4.0]]])


def test_errors_are_what_a_pencil_gives():
    assert mae(FORECAST, TRUTH) == 0.75
    assert mse(FORECAST, TRUTH) == 1.25
    assert rmse(FORECAST, TRUTH) == pytest.approx(1.25**0.5)


@pytest.mark.parametrize("metric", [mae, mse, rmse])
def test_the_order_of_systems_does_not_matter(metric):
    random = np.random.default_rng(0)
    truth, forecast = random.normal(size=(2, 7, 3, 2))
    order = random.permutation(7)
    assert metric(forecast[order], truth[order]) == pytest.approx(metric(forecast, truth))


@pytest.mark.parametrize("metric", [mae, mse, rmse])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_values_are_refused_on_either_side(metric, bad):
    holed = TRUTH.copy()
    holed[0, 1, 0] = bad
    with pytest.raises(DataError, match=r"1 of 4 values of the forecast .* at \[0, 1, 0\]"):
        metric(holed, TRUTH)
    with pytest.raises(DataError, match="1 of 4 values of the truth"):
        metric(FORECAST, holed)


@pytest.mark.parametrize("metric", [mae, mse, rmse])
def test_what_cannot_be_compared_is_refused(metric):
    with pytest.raises(DataError, match="is no forecast of"):
        metric(FORECAST[:, :1], TRUTH)
    with pytest.raises(DataError, match="no value to compare"):
        metric(np.zeros((0, 2, 2)), np.zeros((0, 2, 2)))
