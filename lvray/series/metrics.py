"""How far is a forecast from the truth, and does it know how far?

Shapes: a point forecast and the truth are [N, H, V], samples [N, S, H, V], the history before them [N, T, V], a
scale [N, V]; N systems, S samples, H steps of horizon, T steps of history, V variables. Every value counts
alike. A missing value on either side is refused, not left out: leaving out the forecasts that failed is how
bad ones come to look good.

CRPS, pinball loss and interval score are the `scoringrules` library's, which is imported only when a
forecast is scored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float64]
Booleans: TypeAlias = npt.NDArray[np.bool_]

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Levels of the quantiles that are scored: the median, and the ends of the central intervals."""

INTERVALS: Mapping[int, tuple[int, int]] = MappingProxyType({80: (1, 5), 50: (2, 4), 90: (0, 6)})
"""Central intervals by their percentage: where in `LEVELS` their lower and upper ends stand."""

_CONSTANT = 1e-9
"""A history that moves less than this share of its largest value a step is constant but for rounding."""


def mae(forecast: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Gives the mean absolute error.

    Raises:
        DataError: shapes that differ, nothing to compare, or values that are not finite.
    """
    return float(np.abs(_errors(forecast, truth)).mean())


def mse(forecast: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Gives the mean squared error.

    Raises:
        DataError: shapes that differ, nothing to compare, or values that are not finite.
    """
    return float(np.square(_errors(forecast, truth)).mean())


def rmse(forecast: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Gives the root of the mean squared error.

    Raises:
        DataError: shapes that differ, nothing to compare, or values that are not finite.
    """
    return float(np.sqrt(mse(forecast, truth)))


def median(samples: npt.ArrayLike) -> Floats:
    """Gives the median of the samples at every step, [N, H, V]: the point that has the least absolute error.

    Raises:
        DataError: samples that are not [N, S, H, V] with S > 0, or not finite.
    """
    return quantiles(samples, (0.5,))[:, 0]


def quantiles(samples: npt.ArrayLike, levels: tuple[float, ...] = LEVELS) -> Floats:
    """Gives the quantiles of the samples at every step, [N, len(levels), H, V].

    The k-th smallest of S samples stands for the level k / (S + 1) (Weibull's rule, type 6 of Hyndman and Fan
    1996), since the truth lies below it with just that probability if it comes from where the samples come
    from. NumPy's usual rule, (k − 1) / (S − 1), would make an honest forecast look overconfident: of 10 samples
    its central 80 % interval holds the truth 65 times in 100. Levels beyond the outermost samples get those,
    so an interval is full only from S = (1 + share) / (1 − share) samples on: 3 for 50 %, 9 for 80 %, 19 for 90 %.

    Raises:
        DataError: samples that are not [N, S, H, V] with S > 0, or not finite.
    """
    drawn = _finite("samples", samples)
    if drawn.ndim != 4 or drawn.shape[1] == 0:
        raise DataError(
            f"samples of shape {drawn.shape} have no quantiles; they are [systems, samples, steps, variables] with a sample at least"
        )
    found: Floats = np.quantile(drawn, levels, axis=1, method="weibull")
    return np.moveaxis(found, 0, 1)


@dataclass(frozen=True, slots=True)
class Scores:
    """What a forecast gets, value by value; `of` measures, the other methods average.

    Errors are in data units, or in scaled units if `of` was given a scale. Fields that need samples are
    empty along their second axis where there are none.
    """

    absolute: Floats
    """Absolute error of the point forecast, [N, H, V]."""
    squared: Floats
    """Its square, in squared units, [N, H, V]."""
    relative: Floats
    """Absolute error over the history's mean absolute one-step difference, [N, H, V]; NaN if that is 0."""
    crps: Floats
    """Continuous ranked probability score, [N, H, V]; without samples the absolute error, which it then is."""
    quantiles: Floats
    """Quantiles of the samples at `LEVELS`, always in data units, [N, Q, H, V]."""
    pinball: Floats
    """Pinball loss of these quantiles, [N, Q, H, V]."""
    covered: Booleans
    """Whether the truth is within each of `INTERVALS`, ends included, [N, I, H, V]."""
    interval: Floats
    """Interval score of each of `INTERVALS`, [N, I, H, V]."""

    @classmethod
    def of(
        cls,
        point: npt.ArrayLike,
        truth: npt.ArrayLike,
        history: npt.ArrayLike,
        *,
        samples: npt.ArrayLike | None = None,
        scale: npt.ArrayLike | None = None,
    ) -> Self:
        """Measures a forecast.

        The CRPS is that of the samples' own distribution, E|X − y| − ½ E|X − X′| with X, X′ drawn from the
        samples with replacement (Gneiting and Raftery 2007, eq. 21): `scoringrules`' default estimator, quantile
        decomposition ("qd"), equal to the energy form ("nrg") and not the "fair" one, which has no value for a
        single sample. For a single sample it is the absolute error, as it is without samples, where the point is
        the only one. It is biased against few samples: an honest
        forecast pays a share of 1 / S more than it would with very many.

        The pinball loss of a quantile q at level α is (1{y < q} − α)(q − y) (Koenker and Bassett 1978), without
        the factor of 2 that some add. The interval score adds to the width 2/(1 − share) times what the truth is
        beyond it (Gneiting and Raftery 2007, eq. 43).

        Args:
            point: the forecast, [N, H, V].
            truth: what came, [N, H, V].
            history: what the forecast was made from, [N, T, V].
            samples: possible futures, [N, S, H, V]; S may be 0.
            scale: data units per scaled unit, [N, V]; errors are divided by it, squared ones by its square.

        Raises:
            DataError: shapes that do not fit, nothing to compare, values that are not finite, or a scale that is
                not above zero.
        """
        guess, real = _finite("forecast", point), _finite("truth", truth)
        errors = _errors(guess, real)
        if real.ndim != 3:
            raise DataError(f"a truth is [systems, steps, variables], not of shape {real.shape}")
        systems, steps, variables = real.shape
        unit = _scale(scale, (systems, variables))
        drawn = np.empty((systems, 0, steps, variables))
        if samples is not None:
            drawn = _finite("samples", samples)
            _fits("samples", drawn.shape, (systems, *drawn.shape[1:2], steps, variables))
        absolute = np.abs(errors)
        if drawn.shape[1]:
            crps, levels, pinball, covered, interval = _probabilistic(drawn, real)
        else:
            crps, covered = absolute, np.empty(drawn.shape, dtype=np.bool_)
            levels = pinball = interval = drawn
        return cls(
            absolute=absolute / unit,
            squared=np.square(errors / unit),
            relative=absolute / _one_step(history, (systems, variables)),
            crps=crps / unit,
            quantiles=levels,
            pinball=pinball / unit[:, None],
            covered=covered,
            interval=interval / unit[:, None],
        )

    @property
    def sampled(self) -> bool:
        """Whether there were samples, hence quantiles and coverage."""
        return self.quantiles.shape[1:2] != (0,)

    @property
    def constant(self) -> int:
        """How many pairs of system and variable have a constant history, and so no part in `mase`."""
        return int(np.isnan(self.relative[:, 0]).sum())

    def summary(self) -> dict[str, float]:
        """Gives each score's mean over all systems, steps and variables.

        `mae`, `mse`, `rmse`, `mase`, `crps`; with samples also `quantile_loss` (the mean pinball loss over `LEVELS`),
        `coverage_80`, `coverage_50`, `coverage_90` (shares) and `interval_score_80`.

        `mase` (Hyndman and Koehler 2006) is the mean of absolute errors over the mean absolute one-step
        difference (m = 1) of that system's and variable's history. Pairs whose history is constant, or of one
        step, have no such scale: they are left out and counted in `constant`. If no pair is left, `mase` is
        not in the summary. It is free of units, so a scale does not change it.

        Sums are exact before they are rounded (`math.fsum`), so the order of systems changes nothing.
        """
        means = {name: float(values) for name, values in self._means(None).items()}
        return {name: value for name, value in means.items() if not math.isnan(value)}

    def by_step(self) -> dict[str, Floats]:
        """Gives the summary's scores at each step of the horizon, [H]; `mase` is NaN where it has no value."""
        return self._means(-2)

    def by_variable(self) -> dict[str, Floats]:
        """Gives the summary's scores of each variable, [V]; `mase` is NaN where it has no value."""
        return self._means(-1)

    def by_system(self) -> dict[str, Floats]:
        """Gives the summary's scores of each system, [N]; `mase` is NaN where it has no value."""
        return self._means(0)

    def _means(self, axis: int | None) -> dict[str, Floats]:
        squares = _mean(self.squared, axis)
        means = {
            "mae": _mean(self.absolute, axis),
            "mse": squares,
            "rmse": np.sqrt(squares),
            "mase": _mean(self.relative, axis),
            "crps": _mean(self.crps, axis),
        }
        if self.sampled:
            means["quantile_loss"] = _mean(self.pinball, axis)
            for place, share in enumerate(INTERVALS):
                means[f"coverage_{share}"] = _mean(self.covered[:, place], axis)
            means["interval_score_80"] = _mean(self.interval[:, list(INTERVALS).index(80)], axis)
        return means


def _probabilistic(
    samples: Floats, truth: Floats
) -> tuple[Floats, Floats, Floats, Booleans, Floats]:
    """Gives CRPS [N, H, V], quantiles and pinball loss [N, Q, H, V], coverage and interval score [N, I, H, V]."""
    import scoringrules  # with scipy.special behind it: a quarter of a second, paid only by those who score

    crps = scoringrules.crps_ensemble(truth, samples, m_axis=1, estimator="qd", backend="numpy")
    found = quantiles(samples)
    alpha = np.array(LEVELS)[None, :, None, None]
    pinball = scoringrules.quantile_score(truth[:, None], found, alpha, backend="numpy")
    covered, interval = [], []
    for share, (low, high) in INTERVALS.items():
        lower, upper = found[:, low], found[:, high]
        covered.append((lower <= truth) & (truth <= upper))
        missed = 1 - share / 100
        score = scoringrules.interval_score(truth, lower, upper, missed, backend="numpy")
        interval.append(np.reshape(score, truth.shape))  # of a single value it drops all axes
    return crps, found, pinball, np.stack(covered, axis=1), np.stack(interval, axis=1)


def _one_step(history: npt.ArrayLike, shape: tuple[int, int]) -> Floats:
    """Gives the history's mean absolute one-step difference, [N, 1, V]; NaN where it is constant."""
    past = _finite("history", history)
    _fits("a history", past.shape, (shape[0], *past.shape[1:2], shape[1]))
    if past.shape[1] < 2:
        return np.full((shape[0], 1, shape[1]), np.nan)
    moves = np.abs(np.diff(past, axis=1)).mean(axis=1, keepdims=True)
    largest = np.abs(past).max(axis=1, keepdims=True)
    return np.where(moves > _CONSTANT * largest, moves, np.nan)


def _scale(scale: npt.ArrayLike | None, shape: tuple[int, int]) -> Floats:
    """Gives data units per unit of error, [N, 1, V]."""
    if scale is None:
        return np.ones((shape[0], 1, shape[1]))
    unit = _finite("scale", scale)
    _fits("a scale", unit.shape, shape)
    if (unit <= 0).any():
        raise DataError(f"a scale of {unit.min()} measures nothing; it is above zero")
    return unit[:, None]


def _mean(values: npt.NDArray[np.generic], axis: int | None) -> Floats:
    """Gives the mean of what is not NaN, over all axes but one, from exact sums; NaN where nothing is left."""
    rows = values.reshape(1, -1)
    if axis is not None:
        rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    means = []
    for row in rows.astype(np.float64):
        there = row[~np.isnan(row)]
        means.append(math.fsum(there) / there.size if there.size else math.nan)
    return np.array(means) if axis is not None else np.array(means[0])


def _errors(forecast: npt.ArrayLike, truth: npt.ArrayLike) -> Floats:
    guess, real = np.asarray(forecast, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if guess.shape != real.shape:
        raise DataError(f"a forecast of shape {guess.shape} is no forecast of {real.shape}")
    if guess.size == 0:
        raise DataError(f"there is no value to compare in arrays of shape {guess.shape}")
    errors: Floats = _finite("forecast", guess) - _finite("truth", real)
    return errors


def _finite(name: str, given: npt.ArrayLike) -> Floats:
    values = np.asarray(given, dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        raise DataError(
            f"{bad.sum()} of {bad.size} values of the {name} are NaN or infinite, the first at "
            f"{place}; an error is measured on finite values alone"
        )
    return values


def _fits(what: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if shape != wanted:
        raise DataError(
            f"{what} of shape {shape} does not fit the forecast, which asks for {wanted}"
        )
