"""The free forecasts: by hand, on oscillations of known period, and on the course's data."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lvray.core.errors import DataError
from lvray.series import predator_prey
from lvray.series.baselines import (
    BASELINES,
    Known,
    Unavailable,
    autoregression,
    baseline_forecasts,
    context_mean,
    equations,
    last_value,
    nearest_neighbours,
    periods,
    seasonal_naive,
)
from lvray.series.equations import ROSENZWEIG_MACARTHUR, forecast
from lvray.series.metrics import mae

HISTORY = np.array([[[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]]])
TIMES = predator_prey.times()

HARES = [30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1]
HARES += [40.3, 57.0, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6, 16.2, 24.7]
LYNXES = [4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4]
LYNXES += [8.0, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1, 8.6]
PELTS = np.stack([HARES, LYNXES], axis=1)
"""Thousands of pelts that the Hudson Bay Company took in each year from 1900 to 1920."""


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


@pytest.mark.parametrize("baseline", [last_value, context_mean, seasonal_naive, autoregression])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_shortest_histories_are_enough(baseline, steps):
    assert baseline(np.ones((2, steps, 3)), 5).tolist() == np.ones((2, 5, 3)).tolist()


@pytest.mark.parametrize(
    ("baseline", "at_40", "at_80", "known_to"),
    [
        (last_value, 0.457, 0.382, 0.0005),
        (context_mean, 0.353, 0.291, 0.0005),
        (seasonal_naive, 0.169, 0.107, 0.002),
    ],
)
def test_errors_on_the_course_are_the_known_ones(course, baseline, at_40, at_80, known_to):
    """Systems 850–999, 20 steps after contexts of 40 and 80, in original units; to the known digits.

    The known seasonal forecast has another rule for its periods, so ours is near it, not the same.
    """
    systems = course[850:].astype(np.float64)
    errors = [mae(baseline(systems[:, :40], 20), systems[:, 40:60])]
    errors += [mae(baseline(systems[:, :80], 20), systems[:, 80:])]
    assert errors == pytest.approx([at_40, at_80], abs=known_to)


def test_pelts_of_hudson_bay_are_forecast_one_year_ahead_as_known():
    ahead = [last_value(PELTS[None, :year], 1)[0, 0] for year in range(1, len(PELTS))]
    errors = np.abs(np.array(ahead) - PELTS[1:]).mean(axis=0)
    assert errors == pytest.approx([12.565, 9.800], abs=5e-4)


@pytest.mark.parametrize("length", range(1, 21))
def test_pelts_of_any_number_of_years_can_be_gone_on_with(length):
    made, _ = baseline_forecasts(Known(PELTS[None, :length], 30))
    assert set(made) == {"last value", "context mean", "seasonal naive", "autoregression"}
    for name, guess in made.items():
        assert guess.shape == (1, 30, 2), name
        assert np.abs(guess).max() < 10 * PELTS.max(), name


def test_autoregression_goes_on_with_waves_of_two_variables():
    steps = np.arange(60.0)
    wave = np.stack([3 + np.sin(steps / 3), 1 + np.cos(steps / 3 + 0.4)], axis=1)[None]
    np.testing.assert_allclose(autoregression(wave[:, :40], 20), wave[:, 40:], atol=1e-3)


@pytest.mark.parametrize("growth", [1.05, 1.5])
def test_autoregression_of_a_growing_swing_does_not_explode(growth):
    steps = np.arange(40.0)
    wave = (growth**steps * np.sin(steps))[None, :, None]
    assert np.abs(autoregression(wave, 1000)).max() < 3 * np.abs(wave).max()


def test_autoregression_with_more_variables_than_steps_takes_each_alone():
    history = np.random.default_rng(0).normal(size=(2, 12, 20))
    together = autoregression(history, 4)
    np.testing.assert_array_equal(together[:, :, [7]], autoregression(history[:, :, [7]], 4))


def test_neighbours_are_the_mean_of_what_followed_the_nearest():
    ramp = np.arange(8.0)[:, None]
    training = np.stack([ramp, ramp + 0.1, ramp + 0.2, ramp + 100])  # windows of 3, then 2 steps
    history = np.array([[[50.0], [2.1], [3.1], [4.1]]])
    made = nearest_neighbours(history, 2, training, matched=3)
    assert made.ravel() == pytest.approx([5.1, 6.1])
    one = nearest_neighbours(history, 2, training, matched=3, count=1)
    assert one.ravel() == pytest.approx([5.1, 6.1])
    two = nearest_neighbours(history + 0.06, 2, training, matched=3, count=2)
    assert two.ravel() == pytest.approx([5.15, 6.15])


def test_rescaled_neighbours_know_a_shape_of_another_size(course):
    systems = course[:40].astype(np.float64)
    units = np.array([7.0, 0.2])
    plain = nearest_neighbours(systems[20:, :40], 20, systems[:20], rescaled=True)
    larger = nearest_neighbours(systems[20:, :40] * units, 20, systems[:20], rescaled=True)
    np.testing.assert_allclose(larger, plain * units, rtol=1e-9)


def test_neighbours_need_training_series_that_are_long_enough():
    with pytest.raises(Unavailable, match="no window of 3 steps with 5 more"):
        nearest_neighbours(HISTORY, 5, np.ones((4, 7, 2)))
    with pytest.raises(Unavailable, match="no window"):
        nearest_neighbours(HISTORY, 5, np.ones((0, 100, 2)))
    assert (
        nearest_neighbours(HISTORY, 5, np.ones((1, 8, 2))).tolist() == np.ones((1, 5, 2)).tolist()
    )


@pytest.mark.parametrize(
    ("rescaled", "at_40", "at_80"), [(False, 0.154, 0.138), (True, 0.075, 0.058)]
)
def test_neighbours_on_the_course_err_as_known(course, rescaled, at_40, at_80):
    """Systems 850–999 among the other 850; three windows nearest as they stand are known to err .155 and .138."""
    systems = course.astype(np.float64)
    for steps, known in ((40, at_40), (80, at_80)):
        history, truth = systems[850:, :steps], systems[850:, steps : steps + 20]
        made = nearest_neighbours(history, 20, systems[:850], rescaled=rescaled)
        assert mae(made, truth) == pytest.approx(known, abs=0.001)


def test_autoregression_on_the_course_errs_as_measured(course):
    systems = course[850:]
    for steps, known in ((40, 0.095), (80, 0.084)):
        made = autoregression(systems[:, :steps], 20)
        assert mae(made, systems[:, steps : steps + 20]) == pytest.approx(known, abs=0.002)


@pytest.mark.parametrize("steps", [40, 80])
def test_the_true_equations_on_the_course_err_by_less_than_its_solver(course, steps):
    """Ten of the systems 850–999, of both kinds; all 150 err by 0.0021 after 40 steps and 0.0030 after 80."""
    systems = course[850::15]
    made = equations(systems[:, :steps], TIMES[: steps + 20], "coursework")
    assert mae(made, systems[:, steps : steps + 20]) < 0.005


@pytest.mark.parametrize("steps", [10, 40])
def test_the_true_equations_of_lotka_and_volterra_are_found(steps):
    systems = predator_prey.lotka_volterra(seed=3, systems=5)
    made = equations(systems[:, :steps], TIMES[: steps + 20], "lotka-volterra")
    np.testing.assert_allclose(made, systems[:, steps : steps + 20], rtol=1e-3, atol=1e-4)


def test_equations_do_without_even_steps_and_full_precision(course):
    systems = course[850:855].astype(np.float64)
    uneven = np.delete(np.arange(60), [3, 11, 12, 30])
    made = equations(systems[:, uneven[:-20]].round(2), TIMES[uneven], "coursework")
    assert mae(made, systems[:, 40:60]) < 0.02


def test_systems_that_no_orbit_fits_get_their_seasonal_naive_forecast(course):
    history = np.repeat(course[:1, :30].astype(np.float64), 3, axis=0)
    history[0, 4, 1] = -0.1
    history[1, :, 0] = 0.0
    made = equations(history, TIMES[:40], "coursework")
    fallback = seasonal_naive(history, 10)
    np.testing.assert_array_equal(made[:2], fallback[:2])
    assert not np.allclose(made[2], fallback[2])


def test_each_system_is_fitted_for_itself(course):
    systems = course[[3, 500, 851], :40].astype(np.float64)
    together = equations(systems, TIMES[:60], "coursework")
    alone = equations(systems[1:2], TIMES[:60], "coursework")
    np.testing.assert_allclose(together[1:2], alone, rtol=1e-6)


@settings(max_examples=25)
@given(
    arrays(np.float64, (2, 8, 2), elements=st.floats(-10, 1000).map(lambda x: round(x, 3))),
    st.sampled_from(["coursework", "lotka-volterra"]),
)
def test_no_history_makes_a_baseline_fail_or_give_nan(history, source):
    training = np.abs(np.random.default_rng(0).normal(size=(3, 20, 2)))
    made, missing = baseline_forecasts(Known(history, 6, training, TIMES[:14], source))
    assert missing == {}
    assert set(made) == set(BASELINES)
    for name, guess in made.items():
        assert guess.shape == (2, 6, 2), name
        assert np.isfinite(guess).all(), name


def test_what_cannot_be_had_for_a_file_is_left_out_with_its_reason():
    made, missing = baseline_forecasts(Known(HISTORY, 2))
    assert set(missing) == {"nearest windows", "nearest shapes", "true equations"}
    assert set(made) | set(missing) == set(BASELINES)
    assert "no training series" in missing["nearest shapes"]
    assert "generated series alone" in missing["true equations"]


@pytest.mark.parametrize(
    ("history", "source", "message"),
    [
        (np.ones((1, 9, 2)), "file", "the source 'file' are not known, only those of coursework"),
        (np.ones((1, 9, 3)), "coursework", "3 variables are not prey and predators"),
        (np.ones((1, 4, 2)), "coursework", "4 steps are too few"),
    ],
)
def test_equations_that_cannot_be_fitted_say_why(history, source, message):
    with pytest.raises(Unavailable, match=message):
        equations(history, TIMES[:12], source)


@pytest.mark.parametrize(
    "history", [np.ones((3, 2)), np.ones((1, 0, 2)), np.full((1, 3, 2), np.nan)]
)
def test_a_history_that_is_none_is_refused(history):
    with pytest.raises(DataError, match="a history"):
        Known(history, 3)


def test_the_fit_finds_most_systems_from_a_poor_start_too(course):
    """Without gradient matching, from the middle of the parameters' ranges: the damping has to do the work."""

    def poor(history, times):
        return np.tile(ROSENZWEIG_MACARTHUR.centre, (len(history), 1))

    family = replace(ROSENZWEIG_MACARTHUR, guess=poor)
    systems = course[850::15].astype(np.float64)
    made = forecast(family, systems[:, :40], TIMES[:60])
    errors = np.abs(made - systems[:, 40:60]).mean(axis=(1, 2))
    assert (errors < 0.02).sum() >= 9
