"""What would have been forecast without a model, on the windows that models forecast? The record beside theirs.

Shapes: N windows, H steps of horizon, V variables.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError
from lvray.series.baselines import BASELINES, Known, Unavailable, baseline_forecasts
from lvray.series.dataset import Dataset
from lvray.series.forecasts import Forecasts

Floats: TypeAlias = npt.NDArray[np.float64]

COSTLY = frozenset({"nearest windows", "nearest shapes", "true equations"})
"""Baselines that take hundredths of a second a window."""

MOST_COSTLY = 200
"""Windows that each of them is computed on at most, evenly spread: some 5 s each on one core, so that
nobody waits a minute for a report."""

_ABOUT = ("systems", "starts", "missing")
"""Arrays of a file that are no baseline's."""


@dataclass(frozen=True, slots=True, eq=False)
class Rivals:
    """Forecasts of all baselines that can be had, of the same windows, in the data's units."""

    systems: npt.NDArray[np.int64]
    """Which system of the data set each window is of [N]."""
    starts: npt.NDArray[np.int64]
    """The time step at which each window begins [N]."""
    points: Mapping[str, Floats]
    """By the baseline's name [N, H, V]; NaN in windows that a costly one was not computed on."""
    missing: Mapping[str, str]
    """Why the other baselines cannot be had."""

    def of(self, systems: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> Rivals:
        """Gives the rows of some of the windows, in the order asked.

        Raises:
            DataError: a window is not among these.
        """
        places = {window: place for place, window in enumerate(_windows(self.systems, self.starts))}
        wanted = _windows(systems, starts)
        unknown = [window for window in wanted if window not in places]
        if unknown:
            raise DataError(
                f"holds no forecast of system {unknown[0][0]} from step {unknown[0][1]}; it is of other windows"
            )
        rows = [places[window] for window in wanted]
        points = {name: point[rows] for name, point in self.points.items()}
        return Rivals(self.systems[rows], self.starts[rows], points, self.missing)

    def to_npz(self) -> bytes:
        """Gives the arrays by their names, as the bytes of an NPZ file."""
        buffer = io.BytesIO()
        reasons = np.array([*self.missing.items()], dtype=np.str_).reshape(-1, 2)
        about = dict(zip(_ABOUT, (self.systems, self.starts, reasons), strict=True))
        arrays: dict[str, Any] = {**about, **self.points}  # NumPy's types know no names but its own
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, path: Path) -> Self:
        """Reads what `to_npz` wrote.

        Raises:
            DataError: an array is missing.
            OSError, ValueError, zipfile.BadZipFile: what NumPy raises where the file is missing or damaged.
        """
        with np.load(path) as held:
            missing = [name for name in _ABOUT if name not in held]
            if missing:
                raise DataError(f"{path}: holds no {', '.join(missing)}; these are no baselines")
            points = {name: held[name] for name in held.files if name not in _ABOUT}
            reasons = {str(name): str(reason) for name, reason in held["missing"]}
            return cls(held["systems"], held["starts"], points, reasons)


def cheap_rivals(made: Forecasts) -> Rivals:
    """Computes the baselines that need nothing but each window's own history: thousands of windows a second."""
    known = Known(made.history, made.truth.shape[1])
    return Rivals(made.systems, made.starts, *baseline_forecasts(known))


def rivals_of(
    made: Sequence[Forecasts], *, data: Dataset, training: Floats | None, source: str | None
) -> Rivals:
    """Computes every baseline that can be had, on each window that any of these forecasts is of.

    Args:
        made: forecasts of one context length and one horizon.
        data: the series that they are of.
        training: series that may be learnt from [M, S, V].
        source: the data source that `data` is, as a sweep file calls it; None where it is unknown.
    """
    windows: dict[tuple[int, int], Floats] = {}
    for each in made:
        windows |= dict(zip(_windows(each.systems, each.starts), each.history, strict=True))
    history = np.stack([*windows.values()])
    systems, starts = np.array([*windows], dtype=np.int64).T
    horizon = made[0].truth.shape[1]
    few = _evenly(len(windows), MOST_COSTLY)
    points: dict[str, Floats] = {}
    missing: dict[str, str] = {}
    for name, baseline in BASELINES.items():
        rows = few if name in COSTLY else np.arange(len(windows))
        point = np.full((len(windows), horizon, history.shape[2]), np.nan)
        try:
            for same in _alike(data.times, starts[rows]):
                chosen = rows[same]
                begin = starts[chosen[0]]
                times = data.times[begin : begin + history.shape[1] + horizon]
                point[chosen] = baseline(Known(history[chosen], horizon, training, times, source))
        except Unavailable as reason:
            missing[name] = str(reason)
        else:
            points[name] = point
    return Rivals(systems, starts, points, missing)


def _windows(
    systems: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]
) -> list[tuple[int, int]]:
    return [(int(system), int(start)) for system, start in zip(systems, starts, strict=True)]


def _evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """Gives at most so many of the rows 0 to `count` - 1, evenly spread."""
    some = min(count, most)
    return np.arange(some) * count // some


def _alike(times: Floats, starts: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Gives the windows that can be computed together: all where times are evenly spaced, else those of one start."""
    gaps = np.diff(times)
    if np.ptp(gaps) <= 1e-6 * gaps.max():  # files keep times as float32
        return [np.arange(len(starts))]
    return [np.flatnonzero(starts == start) for start in np.unique(starts)]
