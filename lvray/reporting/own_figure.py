"""The figure of `lvray.forecast`: each system's history, what is forecast of it with its bands, and the truth where it is known."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from lvray.reporting.look import ACCENT, FAINT, INK, STYLE, svg
from lvray.series.dataset import Dataset
from lvray.series.forecasts import Forecasts
from lvray.series.metrics import quantiles

MOST_SYSTEMS, MOST_VARIABLES = 6, 4
"""How many of each are drawn; the table has them all."""

SHOWN = 8
"""A history is drawn from this many times the horizon before its end, so that the forecast is no dot behind it …"""

SHOWN_AT_LEAST = 50
"""… but so many steps of it always."""

BANDS = ((0.1, 0.9, 0.15), (0.25, 0.75, 0.25))
"""Central bands: lower level, upper level, how dark."""


def draw(made: Forecasts, dataset: Dataset, times: npt.NDArray[np.float64]) -> tuple[str, str]:
    """Gives the figure as SVG, and what is not in it, in words; nothing where all is.

    The variables of one system stand below each other; of several, each system has a row, and each variable a column.

    Args:
        made: the forecasts.
        dataset: the series, for names and times.
        times: those that are forecast [H].
    """
    systems, variables = len(made.systems), made.point.shape[2]
    rows, names = min(MOST_SYSTEMS, systems), dataset.variables[:MOST_VARIABLES]
    if rows == 1:
        shape, size = (len(names), 1), (8.0, 2.1 * len(names) + 0.7)
    else:
        shape, size = (rows, len(names)), (max(8.0, 4.4 * len(names)), 1.9 * rows + 0.9)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(*shape, squeeze=False, sharex=True)
        for row in range(rows):
            for variable, name in enumerate(names):
                axes = grid[variable, 0] if rows == 1 else grid[row, variable]
                _panel(axes, made, row, variable, _before(dataset, made, times), times)
                if rows == 1 or row == 0:
                    axes.set_title(name)
            if rows > 1:
                grid[row, 0].set_ylabel(_row_name(dataset, int(made.systems[row])))
        for axes in grid[-1]:
            axes.set_xlabel("time")
            _clock(axes, np.concatenate([dataset.times, times]))
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=9)
        return svg(figure), _left_out(rows, systems, len(names), variables)


def _before(
    dataset: Dataset, made: Forecasts, times: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Gives the times of the history [T]: those before what is forecast."""
    end = int(np.searchsorted(dataset.times, times[0]))
    return dataset.times[end - made.history.shape[1] : end]


def _row_name(dataset: Dataset, system: int) -> str:
    return dataset.labels[system] if dataset.labels else f"system {system}"


def _left_out(rows: int, systems: int, columns: int, variables: int) -> str:
    parts = [
        f"{count} of {whole} {what}"
        for count, whole, what in ((rows, systems, "systems"), (columns, variables, "variables"))
        if count < whole
    ]
    return f"the first {' and '.join(parts)}" if parts else ""


def _clock(axes: Axes, times: npt.NDArray[np.float64]) -> None:
    """Years stay whole, and are written out."""
    if (times == np.rint(times)).all():
        axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))


def _panel(
    axes: Axes,
    made: Forecasts,
    row: int,
    variable: int,
    before: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64],
) -> None:
    history = made.history[row, :, variable]
    shown = max(SHOWN_AT_LEAST, SHOWN * len(times))
    ahead = np.concatenate([before[-1:], times])

    def joined(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.concatenate([history[-1:], values])  # one line with what is known

    axes.plot(before[-shown:], history[-shown:], color=INK, linewidth=1.2, label="given")
    if made.samples.shape[1]:
        for low, high, shade in BANDS:
            found = quantiles(made.samples[row : row + 1], (low, high))[0, :, :, variable]
            share = f"{100 * (high - low):.0f} % band"
            below, above = joined(found[0]), joined(found[1])
            axes.fill_between(
                ahead, below, above, color=ACCENT, alpha=shade, linewidth=0, label=share
            )
    axes.plot(
        ahead, joined(made.point[row, :, variable]), color=ACCENT, linewidth=2, label="forecast"
    )
    truth = made.truth[row, :, variable]
    if np.isfinite(truth).all():
        axes.plot(
            ahead, joined(truth), color=INK, linewidth=1.4, linestyle="--", label="what happened"
        )
    axes.axvline(before[-1], color=FAINT, linestyle=":", linewidth=1)
