"""The report's figures of forecasts: how they look, how they fade with the horizon, and whether their bands are honest.

Shapes: N windows, T time steps of context, H of horizon, V variables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lvray.reporting.compared import EQUATIONS, Comparison, Kind, Row
from lvray.reporting.look import ACCENT, FAINT, INK, SECOND, THIRD, spread
from lvray.reporting.tables import variable_names
from lvray.series.metrics import quantiles

COLOUR = {Kind.BASE: SECOND, Kind.TRAINED: THIRD, Kind.WINNER: ACCENT}
MARKER = {Kind.BASE: "s", Kind.TRAINED: "^", Kind.WINNER: "o"}
DASH = {"last value": ":", "seasonal naive": "--", EQUATIONS: "-."}
"""Baselines whose error is drawn by step, and how; the best of the others is drawn too."""

HARD = (0.1, 0.5, 0.9)
"""Which windows are drawn: where they stand when all are put in order of the winner's error."""

SHARES = tuple(share / 100 for share in range(10, 100, 10))
"""Central bands whose coverage is drawn."""


def horizon_figure(compared: Sequence[Comparison]) -> Figure | None:
    """Mean absolute error by step of the horizon, a panel for each length of context."""
    if not compared:
        return None
    figure = Figure(figsize=(max(8.0, 4.6 * len(compared)), 4), layout="constrained")
    panels = figure.subplots(1, len(compared), squeeze=False, sharey=True)[0]
    ends = [_draw_steps(axes, each) for axes, each in zip(panels, compared, strict=True)]
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("mean absolute error, data's units")
    gap = 0.052 * panels[0].get_ylim()[1]
    for axes, each, lines in zip(panels, compared, ends, strict=True):
        # No label on the axis itself, which would strike it through.
        heights = spread([max(height, 0.6 * gap) for _, _, height in lines], gap)
        for (name, colour, _), height in zip(lines, heights, strict=True):
            axes.text(each.horizon * 1.03, height, name, va="center", color=colour, fontsize=9)
        axes.set_xlim(1, max(each.horizon * 1.5, 2))
        axes.set_xticks(_ticks(each.horizon))
        axes.set_xlabel("time steps ahead")
        axes.set_title(f"from {each.context} time steps")
    return figure


def _draw_steps(axes: Axes, each: Comparison) -> list[tuple[str, str, float]]:
    """Draws the lines of one panel; gives each one's name, colour, and error at the last step."""
    ends = []
    others = [row for row in each.rows if row.kind is Kind.BASELINE and row.name not in DASH]
    baselines = [row for row in each.rows if row.name in DASH] + others[:1]
    steps = np.arange(1, each.horizon + 1)
    for row in [*baselines, *each.shown]:
        error = row.scores.by_step()["mae"]
        model = row.kind.model
        axes.plot(
            steps,
            error,
            color=COLOUR.get(row.kind, FAINT),
            linestyle="-" if model else DASH.get(row.name, (0, (5, 1, 1, 1, 1, 1))),
            linewidth=2 if model else 1.4,
            marker=MARKER.get(row.kind, ""),
            markersize=4,
            markevery=max(1, each.horizon // 5),
            clip_on=False,
        )
        ends.append((_label(row), COLOUR.get(row.kind, INK), float(error[-1])))
    return ends


def forecast_figure(compared: Sequence[Comparison], variables: Sequence[str]) -> Figure | None:
    """An easy, a middling and a hard window: what was given, what came, what base and winner said, with their bands."""
    each = _longest_won(compared)
    if each is None:
        return None
    places, names = _windows(each), variable_names(each, variables)
    count = len(names)
    figure = Figure(figsize=(max(8.0, 4.0 * count), 2.0 * len(places) + 0.6), layout="constrained")
    grid = figure.subplots(len(places), count, squeeze=False, sharex=True)
    for line, place in enumerate(places):
        for variable in range(count):
            _draw_window(grid[line, variable], each, place, variable)
        grid[line, 0].set_ylabel(_told(each, place))
    for variable, name in enumerate(names):
        grid[0, variable].set_title(name)
        grid[-1, variable].set_xlabel("time step of the window")
    _legend(figure, grid[0, 0])
    return figure


def _draw_window(axes: Axes, each: Comparison, place: int, variable: int) -> None:
    given, horizon = each.context, each.horizon
    shown = min(given, 2 * horizon)
    before = each.made.history[place, :, variable]
    ahead = np.arange(given - 1, given + horizon)

    def joined(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.concatenate([before[-1:], values])  # from the last step given: one line with it

    axes.plot(np.arange(given - shown, given), before[-shown:], color=INK, linewidth=1.2)
    for row in _base_and_winner(each):
        colour = COLOUR[row.kind]
        for levels, shade in (((0.1, 0.9), 0.15), ((0.25, 0.75), 0.25)):
            if row.scores.sampled:
                band = quantiles(row.made.samples[place : place + 1], levels)[0, :, :, variable]
                low, high = map(joined, band)
                axes.fill_between(ahead, low, high, color=colour, alpha=shade, linewidth=0)
        point = joined(row.made.point[place, :, variable])
        axes.plot(ahead, point, color=colour, linewidth=1.8, label=_label(row))
    truth = joined(each.made.truth[place, :, variable])
    axes.plot(ahead, truth, color=INK, linewidth=1.4, linestyle="--", label="what happened")
    axes.axvline(given - 1, color=FAINT, linestyle=":", linewidth=1)
    top = 1.6 * max(float(before[-shown:].max()), float(truth.max()))
    if top > 0:  # a wild forecast leaves the panel, or nothing else would be seen in it
        axes.set_ylim(top=min(axes.get_ylim()[1], top))


def phase_figure(compared: Sequence[Comparison], variables: Sequence[str]) -> Figure | None:
    """The same windows, one variable against the other; only where there are just two."""
    each = _longest_won(compared)
    if each is None or each.made.truth.shape[2] != 2:
        return None
    places, names = _windows(each), variable_names(each, variables)
    figure = Figure(figsize=(max(8.0, 3.2 * len(places)), 3.5), layout="constrained")
    panels = figure.subplots(1, len(places), squeeze=False)[0]
    for axes, place in zip(panels, places, strict=True):
        before, truth = each.made.history[place], each.made.truth[place]
        seen = np.concatenate([before, truth])
        axes.plot(*before[-2 * each.horizon :].T, color=FAINT, linewidth=1, label="given")
        for row in _base_and_winner(each):
            path = np.concatenate([before[-1:], row.made.point[place]])
            axes.plot(
                *path.T,
                color=COLOUR[row.kind],
                linewidth=1.6,
                marker=MARKER[row.kind],
                markersize=3,
                label=_label(row),
            )
        path = np.concatenate([before[-1:], truth])
        axes.plot(*path.T, color=INK, linewidth=1.4, linestyle="--", label="what happened")
        axes.plot(*before[-1], "o", color=INK, markersize=6, label="now")
        right, top = 1.6 * seen.max(axis=0)
        if right > 0 and top > 0:  # a wild forecast leaves the panel, as above
            axes.set_xlim(right=min(axes.get_xlim()[1], right))
            axes.set_ylim(top=min(axes.get_ylim()[1], top))
        axes.set_title(_told(each, place))
        axes.set_xlabel(names[0])
    panels[0].set_ylabel(names[1])
    _legend(figure, panels[0])
    return figure


def coverage_figure(compared: Sequence[Comparison]) -> Figure | None:
    """How often the truth lay in a band, against how often it should; a panel for each length of context."""
    sampled = [each for each in compared if any(row.scores.sampled for row in each.shown)]
    if not sampled:
        return None
    figure = Figure(figsize=(max(8.0, 3.6 * len(sampled)), 3.9), layout="constrained")
    panels = figure.subplots(1, len(sampled), squeeze=False, sharey=True)[0]
    for axes, each in zip(panels, sampled, strict=True):
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1.4)
        axes.text(0.6, 0.66, "honest", color=INK, rotation=45, ha="center", va="center", fontsize=9)
        for row in each.shown:
            if row.scores.sampled:
                shares, covered = coverage(row)
                axes.plot(
                    shares,
                    covered,
                    color=COLOUR[row.kind],
                    marker=MARKER[row.kind],
                    markersize=5,
                    label=_label(row),
                )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_xlabel("share that the band should hold")
        axes.set_title(f"from {each.context} time steps")
    panels[0].set_ylabel("share of true values in it")
    _legend(figure, panels[0])
    return figure


def coverage(row: Row) -> tuple[list[float], list[float]]:
    """Gives central bands by the share they should hold, and the share of true values in each.

    A band is left out if its ends would lie beyond the outermost of S samples, which are quantiles at 1 / (S + 1)
    and S / (S + 1): drawn narrower than it is, it would look dishonest.
    """
    draws = row.made.samples.shape[1]
    shares = [share for share in SHARES if (1 - share) / 2 >= 1 / (draws + 1) - 1e-9]
    levels = tuple(end for share in shares for end in ((1 - share) / 2, (1 + share) / 2))
    found = quantiles(row.made.samples, levels)
    within = (found[:, ::2] <= row.made.truth[:, None]) & (
        row.made.truth[:, None] <= found[:, 1::2]
    )
    return shares, [float(share) for share in within.mean(axis=(0, 2, 3))]


def _longest_won(compared: Sequence[Comparison]) -> Comparison | None:
    """The comparison with the longest context that the winner is in."""
    won = [each for each in compared if each.first(Kind.WINNER) is not None]
    return won[-1] if won else None


def _base_and_winner(each: Comparison) -> list[Row]:
    return [row for row in each.shown if row.kind is not Kind.TRAINED]


def _windows(each: Comparison) -> list[int]:
    """Places of the windows that are drawn, each once."""
    winner = each.first(Kind.WINNER)
    assert winner is not None, "nobody's error to put windows in order by"
    order = np.argsort(winner.scores.by_system()["mae"], kind="stable")
    return list(dict.fromkeys(int(order[round(share * (len(order) - 1))]) for share in HARD))


def _told(each: Comparison, place: int) -> str:
    """Which system a window is of, and from when if there are several of it."""
    system, start = each.made.systems[place], each.made.starts[place]
    several = (each.made.systems == system).sum() > 1
    return f"system {system}" + (f" from step {start}" if several else "")


def _label(row: Row) -> str:
    return f"{row.name} (base)" if row.kind is Kind.BASE else row.name


def _ticks(horizon: int) -> list[int]:
    step = max(1, horizon // 4)
    return [1, *range(step if step > 1 else 2, horizon + 1, step)]


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=9)
