"""The report's figures, as SVG text. Matplotlib's object interface only: no global state, no display."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lvray.core.trial import Trial
from lvray.core.units import format_flops, format_share
from lvray.reporting.compared import Comparison
from lvray.reporting.facts import Facts, differences
from lvray.reporting.forecast_plots import (
    coverage_figure,
    forecast_figure,
    horizon_figure,
    phase_figure,
)
from lvray.reporting.look import ACCENT, FAINT, GRID, INK, SECOND, SEQUENCE, STYLE, WARN, svg
from lvray.reporting.tables import field_name

NARROW = 0.15
"""Share of the budget whose piece has no room for its label."""


def draw_all(facts: Facts, compared: Sequence[Comparison]) -> dict[str, str]:
    """Every figure that the run folder has the data for, as SVG text by name."""
    drawings: Mapping[str, Callable[[Facts], Figure | None]] = {
        "ledger": ledger_figure,
        "loss": loss_figure,
        "grid": grid_figure,
        "horizon": lambda facts: horizon_figure(compared),
        "forecasts": lambda facts: forecast_figure(compared, facts.variables),
        "phase": lambda facts: phase_figure(compared, facts.variables),
        "coverage": lambda facts: coverage_figure(compared),
    }
    with mpl.rc_context(STYLE):
        figures = {name: draw(facts) for name, draw in drawings.items()}
        return {name: svg(figure) for name, figure in figures.items() if figure is not None}


def ledger_figure(facts: Facts) -> Figure:
    """Where the budget went: one bar, a piece for each stage, what was lost, and what is left."""
    figure = Figure(figsize=(8, 1.7), layout="constrained")
    axes = figure.subplots()
    pieces = _pieces(facts)
    begun, below = 0.0, Counter[str]()
    rows = _narrow(facts, pieces)
    for name, flops, colour, shade in pieces:
        width = flops / facts.budget
        axes.barh(0, width, left=begun, color=colour, height=0.8)
        label = f"{name} {format_flops(flops)} · {format_share(flops, facts.budget)}"
        centre = begun + width / 2
        if width > NARROW:
            axes.text(
                centre,
                0,
                label.replace(" ", "\n", 1),
                ha="center",
                va="center",
                color=shade,
                fontsize=9,
            )
        else:  # too narrow for its label, which hangs below it instead
            side = _side(centre)
            below[side] += 1
            # On the left the first hangs lowest, or lines would cross the labels that begin before them.
            row = below[side] if side == "right" else rows[side] + 1 - below[side]
            axes.annotate(
                label,
                (centre, -0.4),
                xytext=(centre, -0.4 - 0.32 * row),
                ha=side,
                va="center",
                fontsize=9,
                arrowprops={
                    "arrowstyle": "-",
                    "color": FAINT,
                    "shrinkA": 0,
                    "shrinkB": 0,
                    "relpos": (0 if side == "left" else 1, 0.5),
                },
            )
        begun += width
    most = max(rows.values(), default=0)
    figure.set_figheight(1.35 + 0.25 * most)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6 - 0.32 * most, 0.42)
    axes.set_axis_off()
    axes.set_title(f"Where {format_flops(facts.budget)} FLOPs went")
    return figure


def _narrow(facts: Facts, pieces: Sequence[tuple[str, int, str, str]]) -> Counter[str]:
    """How many pieces are too narrow for their labels, on either side of the bar."""
    begun, found = 0.0, Counter[str]()
    for _, flops, _, _ in pieces:
        width = flops / facts.budget
        if width <= NARROW:
            found[_side(begun + width / 2)] += 1
        begun += width
    return found


def _side(centre: float) -> str:
    return "left" if centre < 0.5 else "right"


def _pieces(facts: Facts) -> list[tuple[str, int, str, str]]:
    """The budget in pieces: name, FLOPs, colour, and the colour of a label on it; no empty ones."""
    stages = [
        (stage.name, stage.heard, SEQUENCE[index % 3], INK if index % 3 == 0 else "white")
        for index, stage in enumerate(facts.stages)
    ]
    lost = sum(stage.lost for stage in facts.stages)
    unspent = facts.budget - facts.spent - facts.spent_by_others
    pieces = [
        *stages,
        ("lost", lost, WARN, "white"),
        ("other sweeps", facts.spent_by_others, FAINT, INK),
        ("unspent", unspent, GRID, INK),
    ]
    return [piece for piece in pieces if piece[1]]


def loss_figure(facts: Facts) -> Figure | None:
    """Validation loss against the FLOPs that went into the weights; the winner's line is drawn on."""
    trained = [
        trial for trial in facts.history.trials.values() if trial.curve and trial.plan.config.lora
    ]
    if not trained:
        return None
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    colour_of, legend = _colours(facts, trained)
    best, base = facts.best, facts.baseline
    base_loss = base.loss if base is not None else None
    path = {best.plan.trial_id, best.plan.continues} if best is not None else set()
    curves = {trial.plan.trial_id: _curve(facts, trial) for trial in trained}
    bottom, top = _span([loss for _, losses in curves.values() for loss in losses], base_loss)
    for trial in trained:
        flops, losses = curves[trial.plan.trial_id]
        chosen = trial.plan.trial_id in path
        colour, size = (ACCENT, 5) if chosen else (colour_of(trial), 3.5)
        layer = 3 if chosen else 2
        width = 2.4 if chosen else 1.4
        axes.plot(
            flops, losses, color=colour, linewidth=width, marker="o", markersize=size, zorder=layer
        )
        beyond = [count for count, loss in zip(flops, losses, strict=True) if not loss <= top]
        axes.plot(
            beyond, [top] * len(beyond), "^", color=colour, markersize=8, clip_on=False, zorder=4
        )
    _name_ends(axes, facts, curves, base_loss)
    if any(not loss <= top for _, losses in curves.values() for loss in losses):
        axes.plot([], [], "^", color=FAINT, label="beyond the axis, or diverged")
    for label, colour in legend:
        axes.plot([], [], color=colour, marker="o", markersize=3.5, label=label)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper right", ncols=4, fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(right=axes.get_xlim()[1] * 1.25)  # room for the name at the winner's end
    axes.set_ylim(bottom, top)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(
        lambda count, _: f"{count:.0e}".replace("e+0", "e").replace("e+", "e")
    )
    axes.set_xlabel("FLOPs into these weights")
    axes.set_ylabel("validation loss, nats per token")
    axes.set_title("Loss against compute")
    return figure


def _span(losses: Sequence[float], base: float | None) -> tuple[float, float]:
    """Where the loss axis begins and ends: around everything, unless some loss lies far beyond the base model's.

    Such losses, NaN among them, would flatten all others; they are drawn as triangles at the upper edge.
    """
    finite = [loss for loss in [*losses, base] if loss is not None and math.isfinite(loss)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    start = base if base is not None and math.isfinite(base) else statistics.median(finite or [1.0])
    if high - low > 4 * (start - low) > 0:
        high = low + 1.5 * (start - low)
    margin = 0.06 * (high - low) or 0.01 * high
    return low - margin, high + margin


def _name_ends(
    axes: Axes,
    facts: Facts,
    curves: Mapping[str, tuple[list[float], list[float]]],
    base: float | None,
) -> None:
    """Writes names where lines end: the winner beside its last point, the base model on its level."""
    best = facts.best
    if best is not None and best.loss is not None:
        flops, losses = curves[best.plan.trial_id]
        axes.annotate(
            f"{best.plan.trial_id}\n{best.loss:.3f}",
            (flops[-1], losses[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=ACCENT,
            weight="bold",
        )
    if base is not None and math.isfinite(base):
        axes.axhline(base, color=SECOND, linestyle="--", linewidth=1.4)
        axes.annotate(
            f"zero-shot {base:.3f}",
            (1, base),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            color=SECOND,
        )


def _curve(facts: Facts, trial: Trial) -> tuple[list[float], list[float]]:
    """FLOPs and losses of a trial, those of the trial that it continues first."""
    before = facts.history.trials[trial.plan.continues] if trial.plan.continues else None
    begun = float(before.flops_heard) if before else 0.0
    flops = [begun] if before else []
    losses = [before.curve[-1].validation_loss] if before else []
    for heard in trial.curve:
        flops.append(begun + trial.plan.milestones[heard.milestone].flops)
        losses.append(heard.validation_loss)
    return flops, losses


def _colours(
    facts: Facts, trials: Sequence[Trial]
) -> tuple[Callable[[Trial], str], list[tuple[str, str]]]:
    """A colour for each value of the searched field with the widest choice, in order."""
    apart = differences(facts)
    fields = _searched(facts)
    if not fields:
        return (lambda trial: FAINT), []
    field = fields[-1]
    values = sorted({apart[trial.plan.trial_id].get(field) for trial in trials}, key=_order)
    shade = {value: SEQUENCE[index % len(SEQUENCE)] for index, value in enumerate(values)}
    legend = [(f"{field_name(field)} {_short(value)}", colour) for value, colour in shade.items()]
    return (lambda trial: shade[apart[trial.plan.trial_id].get(field)]), legend


def _searched(facts: Facts) -> list[str]:
    """The fields that the sweep's first search varies, as the sweep file has them."""
    spaces = (stage["space"] for stage in facts.spec["stages"] if stage["space"])
    return [
        field
        for field, values in next(spaces, {}).items()
        if isinstance(values, list) and len(values) > 1  # a range has no cells to draw
    ]


def grid_figure(facts: Facts) -> Figure | None:
    """The first two searched fields as a map: each cell's loss, and how far its trial went for it."""
    fields = _searched(facts)[:2]
    if len(fields) < 2:
        return None
    apart = differences(facts)
    cells: dict[tuple[Any, Any], Trial] = {}
    for trial in facts.history.trials.values():
        config = apart[trial.plan.trial_id]
        if trial.plan.continues or not trial.curve or any(field not in config for field in fields):
            continue
        key = (config[fields[0]], config[fields[1]])
        if key not in cells or _finite(trial.loss) < _finite(cells[key].loss):
            cells[key] = trial
    if not cells:
        return None
    rows = sorted({key[0] for key in cells}, key=_order)
    columns = sorted({key[1] for key in cells}, key=_order)
    losses = np.full((len(rows), len(columns)), np.nan)
    for (row, column), trial in cells.items():
        losses[rows.index(row), columns.index(column)] = trial.loss
    figure = Figure(
        figsize=(1.9 + 1.7 * len(columns), 1.3 + 0.85 * len(rows)), layout="constrained"
    )
    axes = figure.subplots()
    finite = losses[np.isfinite(losses)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if finite.size:  # one loss far beyond the rest would leave them all one colour
        high = min(high, low + 3 * (float(np.median(finite)) - low))
    axes.imshow(
        losses, cmap="GnBu_r", aspect="auto", vmin=low, vmax=high + (high - low) * 0.25 + 1e-12
    )
    for (row, column), trial in cells.items():
        place = (columns.index(column), rows.index(row))
        shade = "white" if _finite(trial.loss) < low + (high - low) * 0.45 else INK
        told = f"{trial.loss:.3f}" if math.isfinite(_finite(trial.loss)) else "diverged"
        axes.text(*place, told, ha="center", va="bottom", color=shade, weight="bold")
        axes.text(
            *place,
            f"{trial.step} steps, {format_flops(trial.flops_heard)}",
            ha="center",
            va="top",
            color=shade,
            fontsize=8,
        )
    axes.set_xticks(range(len(columns)), [_short(value) for value in columns])
    axes.set_yticks(range(len(rows)), [_short(value) for value in rows])
    axes.set_xlabel(field_name(fields[1]))
    axes.set_ylabel(field_name(fields[0]))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("Validation loss; cells stopped at different FLOPs")
    return figure


def _finite(loss: float | None) -> float:
    """A loss to compare by: infinite for a trial that diverged or was never heard."""
    return loss if loss is not None and math.isfinite(loss) else math.inf


def _order(value: object) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
