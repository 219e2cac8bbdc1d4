"""The figure of `lvray.forecast`: each system's history, what is forecast of it with its bands, and the truth where it is known."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lvray.core.run_folder import write_whole
from lvray.reporting.look import ACCENT, FAINT, INK, STYLE, svg
from lvray.series.dataset import Dataset
from lvray.series.forecasts import Forecasts
from lvray.series.metrics import quantiles

MOST_SYSTEMS = 6
"""Systems that are drawn; the table has them all."""

BANDS = ((0.1, 0.9, 0.15), (0.25, 0.75, 0.25))
"""Central bands: lower level, upper level, how dark."""


def draw(path: Path, made: Forecasts, dataset: Dataset, times: npt.NDArray[np.float64]) -> None:
    """Writes the figure as SVG.

    Args:
        path: where.
        made: the forecasts.
        dataset: the series, for names and times.
        times: those that are forecast [H].

    Raises:
        RunFolderError: the file cannot be written.
    """
    count, variables = min(MOST_SYSTEMS, len(made.systems)), made.point.shape[2]
    known = bool(np.isfinite(made.truth).all())
    given = made.history.shape[1]
    end = dataset.steps - (len(times) if known else 0)
    before = dataset.times[end - given : end]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 2.1 * variables * count + 0.5), layout="constrained")
        grid = figure.subplots(count * variables, 1, squeeze=False, sharex=True)[:, 0]
        for row in range(count):
            for variable, name in enumerate(dataset.variables):
                axes = grid[row * variables + variable]
                _panel(axes, made, row, variable, before, times, known=known)
                axes.set_ylabel(name if count == 1 else f"{name}, system {made.systems[row]}")
        grid[-1].set_xlabel("time")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=9)
        write_whole(path, svg(figure))


def _panel(
    axes: Axes,
    made: Forecasts,
    row: int,
    variable: int,
    before: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64],
    *,
    known: bool,
) -> None:
    history = made.history[row, :, variable]

    def joined(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.concatenate([history[-1:], values])  # one line with what is known

    ahead = np.concatenate([before[-1:], times])
    axes.plot(before, history, color=INK, linewidth=1.2, label="given")
    if made.samples.shape[1]:
        for low, high, shade in BANDS:
            found = quantiles(made.samples[row : row + 1], (low, high))[0, :, :, variable]
            share = f"{100 * (high - low):.0f}% band"
            below, above = joined(found[0]), joined(found[1])
            axes.fill_between(
                ahead, below, above, color=ACCENT, alpha=shade, linewidth=0, label=share
            )
    axes.plot(
        ahead, joined(made.point[row, :, variable]), color=ACCENT, linewidth=2, label="forecast"
    )
    if known:
        truth = joined(made.truth[row, :, variable])
        axes.plot(ahead, truth, color=INK, linewidth=1.4, linestyle="--", label="what happened")
    axes.axvline(before[-1], color=FAINT, linestyle=":", linewidth=1)
