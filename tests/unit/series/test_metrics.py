"""Errors of a forecast by hand, against other people's code, and the refusal to measure what is not there."""

import numpy as np
import pytest
import scoringrules
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, mean_squared_error

from lvray.core.errors import DataError
from lvray.series.metrics import INTERVALS, LEVELS, Scores, mae, median, mse, quantiles, rmse

TRUTH = np.array([[[1.0, 2.0], [3.0, 4.0]]])
FORECAST = np.array([[[1.0, 4.0], [2.0, 4.0]]])
HISTORY = np.array([[[1.0, 5.0], [3.0, 5.0], [2.0, 9.0]]])  # moves 1.5 and 2 a step


def invented(seed=0, systems=6, samples=9, steps=4, variables=2):
    random = np.random.default_rng(seed)
    truth = random.gamma(2.0, size=(systems, steps, variables))
    drawn = random.gamma(2.0, size=(systems, samples, steps, variables))
    history = random.gamma(2.0, size=(systems, 12, variables))
    return truth, drawn, history, random.gamma(2.0, size=(systems, variables))


def energy_form(drawn, truth):
    """E|X − y| − ½ E|X − X′|, sample by sample in plain Python."""
    result = np.empty(truth.shape)
    for place in np.ndindex(truth.shape):
        system, step, variable = place
        xs, y = drawn[system, :, step, variable].tolist(), truth[place]
        near = sum(abs(x - y) for x in xs) / len(xs)
        apart = sum(abs(x - other) for x in xs for other in xs) / len(xs) ** 2
        result[place] = near - apart / 2
    return result


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


def test_errors_are_what_a_pencil_gives():
    assert mae(FORECAST, TRUTH) == 0.75
    assert mse(FORECAST, TRUTH) == 1.25
    assert rmse(FORECAST, TRUTH) == pytest.approx(1.25**0.5)


def test_a_point_forecast_is_scored_as_a_pencil_does():
    scores = Scores.of(FORECAST, TRUTH, HISTORY)
    assert scores.summary() == pytest.approx(
        {"mae": 0.75, "mse": 1.25, "rmse": 1.25**0.5, "mase": (1 / 1.5 + 2 / 2) / 4, "crps": 0.75}
    )
    assert scores.by_step()["mae"].tolist() == [1.0, 0.5]
    assert scores.by_variable()["mae"].tolist() == [0.5, 1.0]
    assert scores.by_variable()["rmse"] == pytest.approx([0.5**0.5, 2**0.5])
    assert scores.by_system()["mse"].tolist() == [1.25]


def test_errors_and_pinball_loss_are_those_of_scikit_learn():
    truth, drawn, history, _ = invented()
    point = median(drawn)
    scores = Scores.of(point, truth, history, samples=drawn)
    found = scores.summary()
    assert found["mae"] == pytest.approx(mean_absolute_error(truth.ravel(), point.ravel()), 1e-9)
    assert found["mse"] == pytest.approx(mean_squared_error(truth.ravel(), point.ravel()), 1e-9)
    for place, level in enumerate(LEVELS):
        told = mean_pinball_loss(truth.ravel(), scores.quantiles[:, place].ravel(), alpha=level)
        assert scores.pinball[:, place].mean() == pytest.approx(told, abs=1e-9)
    assert found["quantile_loss"] == pytest.approx(scores.pinball.mean(), abs=1e-12)


@pytest.mark.parametrize("samples", [1, 2, 9])
def test_crps_is_the_energy_form_and_the_library_s(samples):
    truth, drawn, history, _ = invented(samples=samples)
    crps = Scores.of(median(drawn), truth, history, samples=drawn).crps
    np.testing.assert_allclose(crps, energy_form(drawn, truth), rtol=0, atol=1e-9)
    told = scoringrules.crps_ensemble(truth, np.moveaxis(drawn, 1, -1), estimator="nrg")
    np.testing.assert_allclose(crps, told, rtol=0, atol=1e-9)


def test_crps_of_a_single_sample_and_of_none_is_the_absolute_error():
    truth, drawn, history, _ = invented(samples=1)
    one = Scores.of(drawn[:, 0], truth, history, samples=drawn)
    none = Scores.of(drawn[:, 0], truth, history, samples=drawn[:, :0])
    for scores in (one, none):
        np.testing.assert_allclose(scores.crps, np.abs(drawn[:, 0] - truth), rtol=0, atol=1e-12)
    assert one.sampled
    assert not none.sampled
    assert set(one.summary()) - set(none.summary()) == {
        "quantile_loss",
        "coverage_80",
        "coverage_50",
        "coverage_90",
        "interval_score_80",
    }


def test_coverage_counts_the_truths_between_the_quantiles():
    truth, drawn, history, _ = invented(samples=40)
    scores = Scores.of(median(drawn), truth, history, samples=drawn)
    for share in INTERVALS:
        tail = (1 - share / 100) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail], axis=1, method="weibull")
        inside = sum(
            bool(low[place] <= truth[place] <= high[place]) for place in np.ndindex(truth.shape)
        )
        assert scores.summary()[f"coverage_{share}"] == inside / truth.size


@pytest.mark.parametrize(("share", "samples"), [(50, 3), (80, 9), (90, 19), (80, 49), (50, 19)])
def test_an_honest_forecast_covers_what_it_says(share, samples):
    """Each of S + 1 values drawn alike is the truth once; the others are the samples."""
    values = np.arange(samples + 1.0)
    drawn = np.stack([np.delete(values, left) for left in range(len(values))])[:, :, None, None]
    truth = values[:, None, None]
    scores = Scores.of(truth, truth, np.zeros((len(values), 1, 1)), samples=drawn)
    assert scores.summary()[f"coverage_{share}"] == pytest.approx(share / 100)


def test_a_truth_on_the_end_of_an_interval_is_covered():
    scores = Scores.of([[[2.0]]], [[[2.0]]], [[[1.0]]], samples=[[[[2.0]]]])
    assert scores.covered.all()


def test_the_interval_score_is_the_width_and_a_fine_for_misses():
    drawn = np.arange(1.0, 20.0).reshape(1, 19, 1, 1)  # 80 % from 2 to 18
    history = np.zeros((1, 1, 1))
    inside = Scores.of([[[5.0]]], [[[5.0]]], history, samples=drawn)
    outside = Scores.of([[[5.0]]], [[[21.0]]], history, samples=drawn)
    assert inside.summary()["interval_score_80"] == pytest.approx(16)
    assert outside.summary()["interval_score_80"] == pytest.approx(16 + 2 / 0.2 * 3)


def test_quantiles_stand_where_weibull_puts_them():
    drawn = np.array([30.0, 10.0, 20.0, 40.0])[None, :, None, None]
    assert quantiles(drawn, (0.2, 0.3, 0.8, 0.01, 0.99)).ravel() == pytest.approx(
        [10, 15, 40, 10, 40]
    )
    assert median(drawn).tolist() == [[[25.0]]]


def test_a_scale_divides_every_error_and_squares_with_squares():
    truth, drawn, history, scale = invented()
    point = median(drawn)
    wide = scale[:, None]
    scaled = Scores.of(point, truth, history, samples=drawn, scale=scale)
    by_hand = Scores.of(point / wide, truth / wide, history / wide, samples=drawn / wide[:, None])
    assert scaled.summary() == pytest.approx(by_hand.summary(), rel=1e-12)
    plain = Scores.of(point, truth, history, samples=drawn)
    assert scaled.summary()["mae"] != pytest.approx(plain.summary()["mae"])
    np.testing.assert_allclose(scaled.squared, plain.squared / wide**2)
    for free in ("mase", "coverage_80"):
        assert scaled.summary()[free] == pytest.approx(plain.summary()[free])
    np.testing.assert_array_equal(scaled.quantiles, plain.quantiles)


def test_constant_histories_are_left_out_of_mase_and_counted():
    truth, drawn, history, _ = invented()
    point = median(drawn)
    history[2, :, 1] = 0.1 + 1e-14 * np.arange(12)  # constant but for rounding
    scores = Scores.of(point, truth, history)
    assert scores.constant == 1
    moves = np.abs(np.diff(history, axis=1)).mean(axis=1, keepdims=True)
    ratios = np.abs(point - truth) / moves
    ratios[2, :, 1] = np.nan
    assert scores.summary()["mase"] == pytest.approx(np.nanmean(ratios))
    assert scores.by_system()["mase"][2] == pytest.approx(np.nanmean(ratios[2]))


@pytest.mark.parametrize("steps", [1, 5])
def test_where_no_history_moves_there_is_no_mase(steps):
    scores = Scores.of(FORECAST, TRUTH, np.ones((1, steps, 2)))
    assert "mase" not in scores.summary()
    assert scores.constant == 2
    assert np.isnan(scores.by_variable()["mase"]).all()


def test_every_average_is_of_its_own_axis():
    truth, drawn, history, _ = invented()
    scores = Scores.of(median(drawn), truth, history, samples=drawn)
    for found, axes in (
        (scores.by_step(), (0, 2)),
        (scores.by_variable(), (0, 1)),
        (scores.by_system(), (1, 2)),
    ):
        np.testing.assert_allclose(found["mae"], scores.absolute.mean(axis=axes))
        np.testing.assert_allclose(found["rmse"], scores.squared.mean(axis=axes) ** 0.5)
        np.testing.assert_allclose(found["crps"], scores.crps.mean(axis=axes))
        np.testing.assert_allclose(found["coverage_80"], scores.covered[:, 0].mean(axis=axes))
        np.testing.assert_allclose(found["coverage_90"], scores.covered[:, 2].mean(axis=axes))
        np.testing.assert_allclose(
            found["quantile_loss"], scores.pinball.mean(axis=1).mean(axis=axes)
        )


@given(st.randoms(use_true_random=False), st.integers(0, 12), st.floats(-6, 6))
def test_the_order_of_systems_changes_no_metric(random, samples, size):
    truth, drawn, history, scale = invented(seed=1, systems=8, samples=samples)
    drawn = drawn * 10.0**size
    history[3, :, 0] = 1.0
    point = drawn.mean(axis=1) if samples else truth + 10.0**size
    order = random.sample(range(8), 8)

    def told(rows):
        return Scores.of(
            point[rows], truth[rows], history[rows], samples=drawn[rows], scale=scale[rows]
        )

    straight, mixed = told(range(8)), told(order)
    assert mixed.summary() == straight.summary()  # sums are exact, so to the last bit
    for name, values in straight.by_step().items():
        np.testing.assert_allclose(mixed.by_step()[name], values, rtol=1e-12)
    for name, values in straight.by_system().items():
        np.testing.assert_allclose(mixed.by_system()[name], values[order], rtol=1e-12)


@given(st.integers(0, 1000), st.integers(1, 12))
def test_crps_is_between_nothing_and_the_mean_error_of_the_samples(seed, samples):
    truth, drawn, history, _ = invented(seed, systems=2, samples=samples, steps=2)
    crps = Scores.of(median(drawn), truth, history, samples=drawn).crps
    assert (crps >= -1e-12).all()
    assert (crps <= np.abs(drawn - truth[:, None]).mean(axis=1) + 1e-12).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.full((1, 3, 2, 2), np.nan)}, "12 of 12 values of the samples"),
        ({"samples": np.zeros((1, 3, 2, 1))}, r"samples of shape \(1, 3, 2, 1\) does not fit"),
        ({"samples": np.zeros((1, 2, 2))}, "does not fit"),
        ({"history": np.zeros((2, 3, 2))}, "a history of shape"),
        ({"history": np.full((1, 3, 2), np.inf)}, "values of the history"),
        ({"scale": np.zeros((1, 2))}, "a scale of 0.0 measures nothing"),
        ({"scale": np.ones((1, 1))}, "a scale of shape"),
        ({"point": FORECAST[0], "truth": TRUTH[0]}, "systems, steps, variables"),
        ({"point": FORECAST[:, :1]}, "is no forecast of"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given_ = {"point": FORECAST, "truth": TRUTH, "history": HISTORY, **change}
    with pytest.raises(DataError, match=message):
        Scores.of(**given_)


def test_no_samples_have_no_median():
    with pytest.raises(DataError, match="have no quantiles"):
        median(np.zeros((1, 0, 2, 2)))
