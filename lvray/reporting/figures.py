"""The report's figures, as SVG text. Matplotlib's object interface only: no global state, no display."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lvray.core.trial import Trial
from lvray.core.units import format_flops, format_share
from lvray.reporting.facts import Facts, differences

INK, FAINT, GRID = "#1f2933", "#9aa5b1", "#e4e7eb"
ACCENT, SECOND, WARN = "#0b7285", "#e8590c", "#c92a2a"
SEQUENCE = ("#74c0fc", "#228be6", "#1864ab", "#0b3d6b", "#5f3dc4", "#ae3ec9")
"""For values in order, such as ranks: light to dark."""

STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "svg.hashsalt": "lvray",  # or every drawing of the same folder would differ
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw_all(facts: Facts) -> dict[str, str]:
    """Every figure that the run folder has the data for, as SVG text by name."""
    drawings: Mapping[str, Callable[[Facts], Figure | None]] = {
        "ledger": ledger_figure,
        "loss": loss_figure,
        "grid": grid_figure,
        "forecasts": forecast_figure,
        "horizon": horizon_figure,
    }
    with mpl.rc_context(STYLE):
        figures = {name: draw(facts) for name, draw in drawings.items()}
        return {name: _svg(figure) for name, figure in figures.items() if figure is not None}


def ledger_figure(facts: Facts) -> Figure:
    """Where the budget went: one bar, a piece for each stage, what was lost, and what is left."""
    figure = Figure(figsize=(8, 1.7), layout="constrained")
    axes = figure.subplots()
    begun = 0.0
    lost = sum(stage.lost for stage in facts.stages)
    pieces = [(stage.name, stage.heard) for stage in facts.stages] + [("lost", lost)]
    pieces.append(("unspent", facts.budget - facts.spent))
    colours = {"lost": WARN, "unspent": GRID}
    for index, (name, flops) in enumerate(pieces):
        if not flops:
            continue
        width = flops / facts.budget
        axes.barh(
            0,
            width,
            left=begun,
            color=colours.get(name, SEQUENCE[index % len(SEQUENCE)]),
            height=0.8,
        )
        if width > 0.08:
            shade = INK if name in colours or index == 0 else "white"
            label = f"{name}\n{format_flops(flops)} · {format_share(flops, facts.budget)}"
            axes.text(
                begun + width / 2, 0, label, ha="center", va="center", color=shade, fontsize=9
            )
        begun += width
    axes.set_xlim(0, 1)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"Where {format_flops(facts.budget)} FLOPs went")
    return figure


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
    best = facts.best
    for trial in trained:
        flops, losses = _curve(facts, trial)
        chosen = best is not None and trial.plan.trial_id in {
            best.plan.trial_id,
            best.plan.continues,
        }
        axes.plot(
            flops,
            losses,
            color=ACCENT if chosen else colour_of(trial),
            linewidth=2.4 if chosen else 1.2,
            marker="o",
            markersize=5 if chosen else 3,
            alpha=1 if chosen else 0.8,
            zorder=3 if chosen else 2,
        )
    if best is not None and best.loss is not None:
        flops, losses = _curve(facts, best)
        axes.annotate(
            f"{best.plan.trial_id} {best.loss:.3f}",
            (flops[-1], losses[-1]),
            xytext=(-4, 10),
            textcoords="offset points",
            ha="right",
            color=ACCENT,
            weight="bold",
        )
    if facts.baseline is not None and facts.baseline.loss is not None:
        axes.axhline(facts.baseline.loss, color=FAINT, linestyle="--", linewidth=1.2)
        axes.annotate(
            f"zero-shot {facts.baseline.loss:.3f}",
            (1, facts.baseline.loss),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            color=INK,
        )
    for label, colour in legend:
        axes.plot([], [], color=colour, marker="o", markersize=3, label=label)
    if legend:
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.93), fontsize=9)
    axes.set_xscale("log")
    axes.set_xlabel("FLOPs into these weights")
    axes.set_ylabel("validation loss, nats per token")
    axes.set_title("Loss against compute")
    return figure


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
    legend = [
        (f"{field.removeprefix('lora.')} {_short(value)}", colour)
        for value, colour in shade.items()
    ]
    return (lambda trial: shade[apart[trial.plan.trial_id].get(field)]), legend


def _searched(facts: Facts) -> list[str]:
    """The fields that the sweep's first search varies, as the sweep file has them."""
    spaces = (stage["space"] for stage in facts.spec["stages"] if stage["space"])
    return [field for field, values in next(spaces, {}).items() if len(values) > 1]


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
        if key not in cells or (trial.loss or math.inf) < (cells[key].loss or math.inf):
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
    axes.imshow(
        losses, cmap="GnBu_r", aspect="auto", vmin=low, vmax=high + (high - low) * 0.25 + 1e-12
    )
    for (row, column), trial in cells.items():
        place = (columns.index(column), rows.index(row))
        dark = np.isfinite(trial.loss or math.nan) and (trial.loss or 0) < low + (high - low) * 0.45
        shade = "white" if dark else INK
        axes.text(*place, f"{trial.loss:.3f}", ha="center", va="bottom", color=shade, weight="bold")
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
    axes.set_xlabel(fields[1].removeprefix("lora.").replace("_", " "))
    axes.set_ylabel(fields[0].removeprefix("lora.").replace("_", " "))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("Validation loss; cells stopped at different FLOPs")
    return figure


def forecast_figure(facts: Facts, systems: int = 3) -> Figure | None:
    """A few held-out systems: what the model was given, what came next, what base and winner said."""
    best, base = facts.best, facts.baseline
    if best is None or best.plan.trial_id not in facts.forecasts:
        return None
    made = facts.forecasts[best.plan.trial_id]
    rival = facts.forecasts.get(base.plan.trial_id) if base else None
    count, variables = min(systems, len(made.systems)), made.truth.shape[2]
    figure = Figure(figsize=(8, 1.9 * count + 0.6), layout="constrained")
    grid = figure.subplots(count, variables, squeeze=False, sharex=True)
    given, horizon = made.history.shape[1], made.truth.shape[1]
    shown = min(given, 2 * horizon)
    past, ahead = np.arange(given - shown, given), np.arange(given, given + horizon)
    names = _variables(facts, variables)
    for row in range(count):
        for variable in range(variables):
            axes: Axes = grid[row, variable]
            axes.plot(past, made.history[row, -shown:, variable], color=INK, linewidth=1.2)
            axes.plot(ahead, made.truth[row, :, variable], color=INK, linewidth=1.2, label="truth")
            if rival is not None:
                axes.plot(
                    ahead,
                    rival.forecast[row, :, variable],
                    color=SECOND,
                    linewidth=1.2,
                    label="zero-shot",
                )
            axes.plot(
                ahead,
                made.forecast[row, :, variable],
                color=ACCENT,
                linewidth=2,
                label=best.plan.trial_id,
            )
            axes.axvline(given - 0.5, color=FAINT, linestyle=":", linewidth=1)
            if row == 0:
                axes.set_title(names[variable])
            if row == count - 1:
                axes.set_xlabel("time step")
        grid[row, 0].set_ylabel(f"system {made.systems[row]}")
    grid[0, -1].legend(loc="upper left", fontsize=8, ncols=3)
    return figure


def horizon_figure(facts: Facts) -> Figure | None:
    """Mean absolute error by step of the horizon, for each trial that forecast and for two rivals without a model."""
    from lvray.series.baselines import last_value, seasonal_naive

    if not facts.forecasts:
        return None
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    made = next(iter(facts.forecasts.values()))
    steps = np.arange(1, made.truth.shape[1] + 1)
    lines = [
        ("last value", last_value(made.history, len(steps)), made.truth, FAINT, ":"),
        ("seasonal naive", seasonal_naive(made.history, len(steps)), made.truth, FAINT, "--"),
    ]
    best = facts.best.plan.trial_id if facts.best else None
    for name, forecasts in facts.forecasts.items():
        colour = ACCENT if name == best else SECOND
        lines.append((name, forecasts.forecast, forecasts.truth, colour, "-"))
    for name, forecast, truth, colour, dash in lines:
        error = np.abs(np.asarray(forecast) - truth).mean(axis=(0, 2))
        axes.plot(steps, error, color=colour, linestyle=dash, linewidth=2 if dash == "-" else 1.4)
        axes.annotate(
            name,
            (steps[-1], error[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=INK if colour == FAINT else colour,
        )
    axes.set_xlim(1, len(steps) * 1.18)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time steps ahead")
    axes.set_ylabel("mean absolute error, data's units")
    axes.set_title(f"Error by horizon, {len(made.systems)} held-out systems")
    return figure


def _variables(facts: Facts, count: int) -> list[str]:
    import json

    names = json.loads(facts.folder.split.read_text(encoding="utf-8")).get("variables", [])
    return (
        [str(name) for name in names]
        if len(names) == count
        else [f"variable {index + 1}" for index in range(count)]
    )


def _order(value: object) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=False)
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
