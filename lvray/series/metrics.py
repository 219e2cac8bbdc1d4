"""How far is a forecast from the truth?

Forecast and truth are [N, H, V]; every value counts alike, and the result is in the units of the arrays
(squared for `mse`). A missing value on either side is refused, not left out: leaving out the forecasts that
failed is how bad ones come to look good.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float64]


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


def _errors(forecast: npt.ArrayLike, truth: npt.ArrayLike) -> Floats:
    guess, real = np.asarray(forecast, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if guess.shape != real.shape:
        raise DataError(f"a forecast of shape {guess.shape} is no forecast of {real.shape}")
    if guess.size == 0:
        raise DataError(f"there is no value to compare in arrays of shape {guess.shape}")
    for name, values in (("forecast", guess), ("truth", real)):
        bad = ~np.isfinite(values)
        if bad.any():
            place = np.argwhere(bad)[0].tolist()
            raise DataError(
                f"{bad.sum()} of {bad.size} values of the {name} are NaN or infinite, the first at "
                f"{place}; an error is measured on finite values alone"
            )
    errors: Floats = guess - real
    return errors
