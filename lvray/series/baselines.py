"""What does a forecast get that costs nothing?

Every baseline takes the history [N, T, V] of N systems and gives their next `horizon` steps, [N, H, V]. A
model that does not beat them has learnt nothing of use. `BASELINES` names them all, as functions of what is
known (`Known`); `baseline_forecasts` runs those that can be had. SciPy is imported only by those that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float64]

_LEAST_OVERLAP = 3
"""Pairs of values that a correlation is computed from, at least."""

_HIGHEST_ORDER = 6
"""Most steps that an autoregression looks back."""

_RIDGE = 1e-6
"""Its ridge, as a share of the variance of each predictor: enough to solve a constant or collinear history."""

_LEAST_MATCHED = 3
"""Steps that a neighbour is told from, at least."""


class Unavailable(DataError):
    """A baseline that cannot be had for this data; the message says why."""


@dataclass(frozen=True, slots=True)
class Known:
    """What may be known when a forecast is made.

    Raises:
        DataError: a history that is not [N, T, V] with a step at least, or not finite.
    """

    history: Floats
    """The systems to be forecast, [N, T, V]."""
    horizon: int
    """Steps that are asked for."""
    training: Floats | None = None
    """Series of other systems that may be learnt from, [M, S, V]."""
    times: Floats | None = None
    """Times of the history's steps and of those asked for, [T + H]."""
    source: str | None = None
    """The generated data set that the systems are from: `coursework` or `lotka-volterra`; None for a file."""

    def __post_init__(self) -> None:
        shape = self.history.shape
        if len(shape) != 3 or shape[1] == 0:
            raise DataError(f"a history is [systems, steps, variables], not of shape {shape}")
        if not np.isfinite(self.history).all():
            raise DataError("a history with NaN or infinite values has no forecast without a model")


def last_value(history: npt.ArrayLike, horizon: int) -> Floats:
    """Repeats the last value."""
    return np.repeat(_series(history)[:, -1:], horizon, axis=1)


def context_mean(history: npt.ArrayLike, horizon: int) -> Floats:
    """Repeats the mean of the history."""
    return np.repeat(_series(history).mean(axis=1, keepdims=True), horizon, axis=1)


def seasonal_naive(history: npt.ArrayLike, horizon: int) -> Floats:
    """Repeats the last period of every system and variable; the period is found by `periods`."""
    series = _series(history)
    period = periods(series)[:, None, :]
    steps = series.shape[1] - period + np.arange(horizon)[None, :, None] % period
    return np.take_along_axis(series, steps, axis=1)


def periods(history: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Gives the period of every system and variable in steps, [N, V].

    It is the lag of the first peak of the autocorrelation after it has first fallen below zero; half the
    history where there is no such peak (a trend, a constant, or less than one turn). The autocorrelation at
    lag k of the series less its mean, z, is cos of the angle between its end and its beginning,
    Σ z[t] z[t+k] / √(Σ z[t]² Σ z[t+k]²), so that a decaying oscillation still peaks at its period.
    """
    series = _series(history)
    correlation = _autocorrelation(series)  # [N, lags, V]
    peak = np.zeros(correlation.shape, dtype=bool)
    middle = correlation[:, 1:-1]
    peak[:, 1:-1] = (middle > correlation[:, :-2]) & (middle >= correlation[:, 2:])
    peak &= np.logical_or.accumulate(correlation < 0, axis=1)
    half = max(1, series.shape[1] // 2)
    found: npt.NDArray[np.int64] = np.where(peak.any(axis=1), peak.argmax(axis=1), half)
    return found


def autoregression(history: npt.ArrayLike, horizon: int) -> Floats:
    """Goes on with a linear autoregression of all variables together, fitted to each system's own history.

    The values z[t], standardised by their history, are A₁ z[t−1] + … + Aₚ z[t−p] (a VAR(p), Lütkepohl 2005,
    ch. 3) by least squares with a small ridge. The order p, from 1 to 6, is the one of least BIC, every order
    judged on the same steps; no order is tried that has fewer steps to fit than parameters of one variable
    plus two. Where the history is too short for any, each variable is fitted alone, and where that is too short
    too (fewer than 5 steps) its last value is repeated.

    A least-squares fit to a growing swing explodes when it is run on. If the largest eigenvalue ρ of the
    companion matrix is above 1, every Aᵢ is divided by ρⁱ, which divides each eigenvalue by ρ: all periods stay
    as fitted, and nothing grows but a trend.
    """
    series = _series(history)
    _, steps, variables = series.shape
    if _orders(steps, variables) > 0:
        return np.stack([_autoregress(system, horizon) for system in series])
    if variables > 1:
        alone = [autoregression(series[:, :, [v]], horizon) for v in range(variables)]
        return np.concatenate(alone, axis=2)
    return last_value(series, horizon)


def nearest_neighbours(
    history: npt.ArrayLike,
    horizon: int,
    training: npt.ArrayLike,
    *,
    count: int = 3,
    matched: int = 30,
    rescaled: bool = False,
) -> Floats:
    """Goes on with the mean of what followed the `count` most similar windows of the training series.

    Windows lie anywhere in the training series [M, S, V] that leaves room for the horizon. They are as long as
    `matched`, or as the history or the training series allow. Similar means a small Euclidean distance after
    each variable is divided by its standard deviation over the training series.

    With `rescaled`, each window and the history's end are divided by the mean of their absolute values, by
    variable, before they are compared, and what followed is multiplied back: a system of the same shape but
    another size is a neighbour too. The coursework's equations are closed under such a change of units, and its
    forecasts get twice as good.

    Raises:
        Unavailable: training series too short for the horizon and 3 steps before it, or none.
    """
    series, others = _series(history), np.asarray(training, dtype=np.float64)
    steps = _matched_steps(series.shape[1], others.shape, horizon, matched)
    windows = np.lib.stride_tricks.sliding_window_view(others, steps + horizon, axis=1)
    windows = np.swapaxes(windows.reshape(-1, others.shape[2], steps + horizon), 1, 2)
    before, after, end = windows[:, :steps], windows[:, steps:], series[:, -steps:]
    if rescaled:
        size, own = _size(before), _size(end)
        before, after, end = before / size, after / size, end / own
    else:
        own = np.ones((1, 1, others.shape[2]))
        spread = others.std(axis=(0, 1))
        unit = np.where(spread > 0, spread, 1.0)
        before, end = before / unit, end / unit
    nearest = _nearest(end.reshape(len(end), -1), before.reshape(len(before), -1), count)
    return np.asarray(after[nearest].mean(axis=1) * own)


def equations(history: npt.ArrayLike, times: npt.ArrayLike, source: str) -> Floats:
    """Fits the source's true equations to each history and integrates them on; see `lvray.series.equations`.

    Systems that no orbit fits (a value below zero, a variable that is 0 throughout, a sum of squares that is
    not finite) get their seasonal naive forecast, so that every value is finite.

    Args:
        history: [N, T, 2], prey and predators.
        times: increasing times of the history's steps and of those asked for, [T + H].
        source: `coursework` or `lotka-volterra`.

    Raises:
        Unavailable: a source whose equations are not known, more than two variables or fewer, or fewer than 5
            steps of history.
    """
    from lvray.series import equations as known

    families = {
        "coursework": known.ROSENZWEIG_MACARTHUR,
        "lotka-volterra": known.LOTKA_VOLTERRA,
    }
    series, clock = _series(history), np.asarray(times, dtype=np.float64)
    if source not in families:
        raise Unavailable(
            f"the equations of the source {source!r} are not known, only those of {', '.join(families)}"
        )
    if series.shape[2] != 2:
        raise Unavailable(f"{series.shape[2]} variables are not prey and predators")
    if series.shape[1] < known.FEWEST_STEPS:
        raise Unavailable(
            f"{series.shape[1]} steps are too few to fit equations to; {known.FEWEST_STEPS} would do"
        )
    made = known.forecast(families[source], series, clock)
    fallback = seasonal_naive(series, made.shape[1])
    return np.where(np.isfinite(made).all(axis=(1, 2), keepdims=True), made, fallback)


def _neighbours(known: Known, *, rescaled: bool) -> Floats:
    if known.training is None:
        raise Unavailable("there are no training series to look for neighbours in")
    return nearest_neighbours(known.history, known.horizon, known.training, rescaled=rescaled)


def _equations(known: Known) -> Floats:
    if known.source is None or known.times is None:
        raise Unavailable(
            "the equations are known of generated series alone, and their times are asked for"
        )
    return equations(
        known.history, known.times[: known.history.shape[1] + known.horizon], known.source
    )


BASELINES: Mapping[str, Callable[[Known], Floats]] = MappingProxyType(
    {
        "last value": lambda known: last_value(known.history, known.horizon),
        "context mean": lambda known: context_mean(known.history, known.horizon),
        "seasonal naive": lambda known: seasonal_naive(known.history, known.horizon),
        "autoregression": lambda known: autoregression(known.history, known.horizon),
        "nearest windows": lambda known: _neighbours(known, rescaled=False),
        "nearest shapes": lambda known: _neighbours(known, rescaled=True),
        "true equations": _equations,
    }
)
"""Every baseline by the name that a report gives it. Each may raise `Unavailable`."""


def baseline_forecasts(known: Known) -> tuple[dict[str, Floats], dict[str, str]]:
    """Gives the forecasts [N, H, V] of all baselines that can be had, by name, and why the others cannot."""
    made: dict[str, Floats] = {}
    missing: dict[str, str] = {}
    for name, baseline in BASELINES.items():
        try:
            made[name] = baseline(known)
        except Unavailable as reason:
            missing[name] = str(reason)
    return made, missing


def _autocorrelation(series: Floats) -> Floats:
    """Gives the autocorrelation [N, lags, V] of a series [N, T, V]; 0 where there is nothing to correlate."""
    steps = series.shape[1]
    centred = series - series.mean(axis=1, keepdims=True)
    lags = max(1, steps - _LEAST_OVERLAP + 1)
    result = np.zeros((series.shape[0], lags, series.shape[2]))
    for lag in range(lags):
        early, late = centred[:, : steps - lag], centred[:, lag:]
        size = np.sqrt((early**2).sum(axis=1) * (late**2).sum(axis=1))
        np.divide((early * late).sum(axis=1), size, out=result[:, lag], where=size > 0)
    return result


def _orders(steps: int, variables: int) -> int:
    """Gives the highest order of an autoregression that a history supports; 0 for none."""
    return min(_HIGHEST_ORDER, (steps - 2) // (variables + 2))


def _autoregress(system: Floats, horizon: int) -> Floats:
    """Goes on with one system, [T, V] → [H, V]."""
    centre, spread = system.mean(axis=0), system.std(axis=0)
    unit = np.where(spread > 0, spread, 1.0)
    values = (system - centre) / unit
    orders = _orders(*values.shape)
    order = min(range(1, orders + 1), key=lambda order: _bic(values, order, orders))
    factors = _stable(_regress(*_lagged(values, order, order)), values.shape[1])
    past, made = values[-order:][::-1], np.empty((horizon, values.shape[1]))  # the latest first
    for step in range(horizon):
        made[step] = past.reshape(-1) @ factors
        past = np.concatenate([made[step : step + 1], past[:-1]])
    return np.asarray(made * unit + centre)


def _lagged(values: Floats, order: int, skipped: int) -> tuple[Floats, Floats]:
    """Gives the values from step `skipped` on, [R, V], and the `order` steps before each, [R, order × V]."""
    steps = len(values)
    before = [values[skipped - lag : steps - lag] for lag in range(1, order + 1)]
    return np.concatenate(before, axis=1), values[skipped:]


def _regress(before: Floats, wanted: Floats) -> Floats:
    """Gives the factors [p × V, V] of a ridge regression."""
    ridge = _RIDGE * len(before) * np.eye(before.shape[1])
    normal: Floats = before.T @ before + ridge
    return np.asarray(np.linalg.solve(normal, before.T @ wanted), dtype=np.float64)


def _bic(values: Floats, order: int, orders: int) -> float:
    """Gives the Bayesian information criterion of an order, fitted without the first `orders` steps."""
    before, wanted = _lagged(values, order, orders)
    factors = _regress(before, wanted)
    missed = wanted - before @ factors
    covariance = missed.T @ missed / len(wanted) + 1e-12 * np.eye(wanted.shape[1])
    _, size = np.linalg.slogdet(covariance)
    return float(len(wanted) * size + factors.size * np.log(len(wanted)))


def _stable(factors: Floats, variables: int) -> Floats:
    """Divides the factors [p × V, V] of lag i by ρⁱ if the largest eigenvalue ρ is above 1."""
    width = len(factors)
    companion = np.eye(width, k=-variables)
    companion[:variables] = factors.T
    radius = float(np.abs(np.linalg.eigvals(companion)).max())
    lags = np.arange(width) // variables + 1
    return factors / (max(radius, 1.0) ** lags)[:, None]


def _matched_steps(steps: int, others: tuple[int, ...], horizon: int, wanted: int) -> int:
    """Gives the length of the windows that are compared."""
    room = others[1] - horizon if others[0] else 0
    if room < _LEAST_MATCHED:
        raise Unavailable(
            f"training series of shape {others} have no window of {_LEAST_MATCHED} steps with {horizon} more after it"
        )
    return min(wanted, steps, room)


def _size(windows: Floats) -> Floats:
    """Gives the mean absolute value of windows [N, L, V] by variable, [N, 1, V]; 1 where all is 0."""
    mean = np.abs(windows).mean(axis=1, keepdims=True)
    return np.where(mean > 0, mean, 1.0)


def _nearest(points: Floats, others: Floats, count: int) -> npt.NDArray[np.int64]:
    """Gives the rows of the `count` others [M, D] that are nearest to each point [N, D]."""
    from scipy.spatial.distance import cdist  # a third of a second, paid only by those who look

    count = min(count, len(others))
    found = [  # one point at a time: a table of all distances would be the largest thing in memory
        np.argsort(cdist(point[None], others, "sqeuclidean")[0], kind="stable")[:count]
        for point in points
    ]
    return np.array(found)


def _series(history: npt.ArrayLike) -> Floats:
    series = np.asarray(history, dtype=np.float64)
    assert series.ndim == 3, f"a history is [systems, steps, variables], not {series.shape}"
    assert series.shape[1] > 0, "a history without a step"
    return series
