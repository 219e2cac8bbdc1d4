"""The free forecasts: by hand, on oscillations of known period, and on the course's data."""

import numpy as np
import pytest

from lvray.series.baselines import context_mean, last_value, periods, seasonal_naive
from lvray.series.metrics import mae

HISTORY = np.array([[[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]]])


def test_last_value_and_context_mean_by_hand():
    assert last_value(HISTORY, 2).tolist() == [[[6, 60], [6, 60]]]
    assert context_mean(HISTORY, 2).tolist() == [[[3, 30], [3, 30]]]


@pytest.mark.parametrize("period", [7, 12, 20])
@pytest.mark.parametrize("damping", [0.0, 0.03])
def test_a_clean_oscillation_shows_its_period(period, damping):
    steps = np.arange(50)
    wave = 3 + np.exp(-damping * steps) * np.sin(2 * np.pi * steps / period)
    assert periods(wave[None, :, None])[0, 0] == pytest.approx(period, abs=1)


def test_seasonal_naive_goes_on_with_a_periodic_series():
    wave = np.tile([0.0, 1.0, 4.0, 1.0, 0.0], 12)[None, :, None]
    np.testing.assert_array_equal(seasonal_naive(wave[:, :40], 20), wave[:, 40:])


def test_every_variable_has_its_own_period():
    steps = np.arange(60)
    waves = np.stack([np.sin(2 * np.pi * steps / period) for period in (10, 15)], axis=1)
    assert periods(waves[None]).tolist() == [[10, 15]]


def test_a_ripple_before_the_first_zero_is_no_period():
    steps = np.arange(120)
    wave = np.sin(2 * np.pi * steps / 40) + 0.3 * np.sin(2 * np.pi * steps / 3)
    assert periods(wave[None, :, None])[0, 0] > 10  # a quarter of the slow wave


@pytest.mark.parametrize("series", [[5.0] * 9, list(range(9))])
def test_without_a_turn_the_second_half_is_repeated(series):
    history = np.array(series)[None, :, None]
    assert periods(history).tolist() == [[4]]
    assert seasonal_naive(history, 3)[0, :, 0].tolist() == series[5:8]


@pytest.mark.parametrize("baseline", [last_value, context_mean, seasonal_naive])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_shortest_histories_are_enough(baseline, steps):
    assert baseline(np.ones((2, steps, 3)), 5).tolist() == np.ones((2, 5, 3)).tolist()


@pytest.mark.parametrize(
    ("baseline", "at_40", "at_80"),
    [
        (last_value, 0.457, 0.382),
        (context_mean, 0.353, 0.291),
        (seasonal_naive, 0.169, 0.107),
    ],
)
def test_errors_on_the_course_are_the_known_ones(course, baseline, at_40, at_80):
    """Systems 850–999, 20 steps after contexts of 40 and 80, in original units; as known, to 0.003."""
    systems = course[850:]
    errors = [mae(baseline(systems[:, :40], 20), systems[:, 40:60])]
    errors += [mae(baseline(systems[:, :80], 20), systems[:, 80:])]
    assert errors == pytest.approx([at_40, at_80], abs=0.003)
