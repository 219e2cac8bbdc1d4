"""What does a forecast get that costs nothing?

Every baseline takes the history [N, T, V] of N systems and gives their next `horizon` steps, [N, H, V]. A
model that does not beat them has learnt nothing of use.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

_LEAST_OVERLAP = 3
"""Pairs of values that a correlation is computed from, at least."""


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


def _series(history: npt.ArrayLike) -> Floats:
    series = np.asarray(history, dtype=np.float64)
    assert series.ndim == 3, f"a history is [systems, steps, variables], not {series.shape}"
    assert series.shape[1] > 0, "a history without a step"
    return series
