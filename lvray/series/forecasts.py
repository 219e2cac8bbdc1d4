"""What was forecast, from what, and what happened? The record that files, tables and figures share.

Shapes: N windows, T time steps of context, H of horizon, V variables, S samples.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """Forecasts of windows of held-out systems beside the truth, in the data's units."""

    systems: npt.NDArray[np.int64]
    """Which system of the data set each window is of [N]."""
    starts: npt.NDArray[np.int64]
    """The time step at which each window begins [N]."""
    history: Floats
    """What the forecaster was given [N, T, V]."""
    truth: Floats
    """What happened [N, H, V]."""
    point: Floats
    """The forecast [N, H, V]: the median of the samples, or the greedy one; a short one goes on with its last value."""
    samples: Floats
    """Draws [N, S, H, V]; S is 0 where the forecast is greedy."""
    scale: Floats
    """Data units of one scaled unit [N, V]: x' = (x − offset) / scale."""
    floor: Floats
    """Mean absolute error that writing a value with so many decimals makes alone, in the data's units [N]."""
    short: npt.NDArray[np.int64]
    """Draws (or the greedy forecast) of each window that had fewer than H time steps [N]."""

    def __post_init__(self) -> None:
        """Holds the arrays to their shapes."""
        windows, horizon, variables = self.truth.shape
        assert self.point.shape == self.truth.shape, f"{self.point.shape}, {self.truth.shape}"
        assert self.samples.shape[2:] == (horizon, variables), f"samples {self.samples.shape}"
        for name in ("systems", "starts", "history", "samples", "scale", "floor", "short"):
            assert len(getattr(self, name)) == windows, f"{name} of {windows} windows"

    @property
    def floors(self) -> Floats:
        """The rounding floor of each variable, in the data's units [N, V]; its mean over the variables is `floor`.

        A unit of the last decimal is as many data units as the variable's scale says, and rounding errs by a
        quarter of it on average.
        """
        floors: Floats = self.floor[:, None] * self.scale / self.scale.mean(axis=1, keepdims=True)
        return floors

    def to_npz(self) -> bytes:
        """Gives the arrays by their names, as the bytes of an NPZ file."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, **{each.name: getattr(self, each.name) for each in fields(self)}
        )
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, path: Path) -> Forecasts:
        """Reads what `to_npz` wrote.

        Raises:
            DataError: an array is missing.
            OSError, ValueError, zipfile.BadZipFile: what NumPy raises where the file is missing or damaged.
        """
        with np.load(path) as held:
            missing = [each.name for each in fields(cls) if each.name not in held]
            if missing:
                raise DataError(f"{path}: holds no {', '.join(missing)}; these are no forecasts")
            return cls(**{each.name: held[each.name] for each in fields(cls)})
