"""Forecasts series of your own with a base model, an adapter, or the winner of a run.

    python -m lvray.forecast DATA.csv --from runs/grid --horizon 20

DATA is a CSV, HDF5 or NPZ file of one or more systems. A table of medians and quantiles and a figure
are written. A cell may be empty. With ``--check`` the last steps are held out and forecast, and the errors stand beside those of
baselines that need no model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lvray.core.arguments import count, positive
from lvray.core.errors import LvrayError
from lvray.core.output import say
from lvray.core.run_folder import write_whole
from lvray.core.units import format_flops
from lvray.driver.own_series import (
    Forecaster,
    check_place,
    forecast,
    forecaster_from,
    history_of,
    notes,
    price,
    table,
    task,
    times_ahead,
    without_gaps,
    write_table,
)
from lvray.series.baselines import Known, baseline_forecasts
from lvray.series.dataset import Dataset
from lvray.series.forecasts import Forecasts
from lvray.series.metrics import Scores
from lvray.series.readers import read


def errors(forecaster: Forecaster, made: Forecasts) -> list[str]:
    """The forecaster among baselines that need no model, the smallest error first, a line each."""
    history = without_gaps(made.history)
    rivals, _ = baseline_forecasts(Known(history=history, horizon=made.truth.shape[1]))
    scored = {name: Scores.of(point, made.truth, history) for name, point in rivals.items()}
    scored[forecaster.name] = Scores.of(made.point, made.truth, history, samples=made.samples)
    rows = {name: scores.summary() for name, scores in scored.items()}
    width = max(map(len, rows))
    lines = [
        f"{'':<{width}} {'MAE':>10} {'RMSE':>10} {'MASE':>7} {'CRPS':>10} {'in 80 % band':>13}"
    ]
    for name, row in sorted(rows.items(), key=lambda item: item[1]["mae"]):
        scaled = f"{row['mase']:.3f}" if "mase" in row else ""
        covered = f"{100 * row['coverage_80']:.0f} %" if "coverage_80" in row else ""
        figures = f"{row['mae']:>10.4g} {row['rmse']:>10.4g} {scaled:>7} {row['crps']:>10.4g}"
        lines.append(f"{name:<{width}} {figures} {covered:>13}".rstrip())
    lines.append(f"{forecaster.name}: rounding alone makes an error of {made.floor.mean():.2g}")
    return lines


def run(arguments: argparse.Namespace) -> list[str]:
    """Forecasts, writes table and figure, and gives what is told.

    Raises:
        LvrayError: whatever a person can mend.
    """
    check_place(arguments.out, arguments.data)
    dataset: Dataset = read(arguments.data, allow_missing=True)
    history, truth = history_of(
        dataset, context=arguments.context, horizon=arguments.horizon, held_out=arguments.check
    )
    forecaster = forecaster_from(arguments.source, dataset, history)
    asked = task(
        forecaster,
        history,
        horizon=arguments.horizon,
        samples=arguments.samples,
        temperature=arguments.temperature,
    )
    flops = price(forecaster, asked)
    made = forecast(forecaster, history, truth, asked, device=arguments.device, seed=arguments.seed)
    times = times_ahead(dataset, asked.horizon, held_out=arguments.check)
    from lvray.reporting.own_figure import draw  # matplotlib

    picture, left_out = draw(made, dataset, times)
    figure = arguments.out.with_suffix(".svg")
    write_table(arguments.out, table(made, dataset, times))
    write_whole(figure, picture)
    how = f"median of {asked.samples} draws" if asked.samples else "greedy"
    told = [
        f"{dataset.systems} system{'s' if dataset.systems > 1 else ''} of {', '.join(dataset.variables)}: "
        f"{asked.horizon} steps ahead of {asked.context_steps}, {how}; {format_flops(flops)} FLOPs at most",
        *(f"note: {note}" for note in notes(forecaster, dataset, history)),
        f"table: {arguments.out}",
        f"figure: {figure}{left_out and f' ({left_out})'}",
    ]
    return told + (errors(forecaster, made) if arguments.check else [])


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 well, 1 a deliberate error, 2 usage, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        told = run(arguments)
    except LvrayError as error:
        print(f"lvray forecast: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("lvray forecast: interrupted; no forecast was written", file=sys.stderr)
        return 130
    say("\n".join(told))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lvray forecast", description="Forecasts series of your own."
    )
    parser.add_argument("data", type=Path, help="a CSV, HDF5 or NPZ file")
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="RUN|ADAPTER|MODEL",
        help="a run folder (its winner forecasts), an adapter such as runs/grid/best, or a base model such as tiny",
    )
    parser.add_argument(
        "--horizon", type=positive, default=20, help="time steps ahead (default: 20)"
    )
    parser.add_argument(
        "--context",
        type=positive,
        help="time steps that it is given, the last ones (default: all)",
    )
    parser.add_argument(
        "--samples",
        type=count,
        default=20,
        help="forecasts that are drawn: their median and quantiles are told; 0 makes one greedily (default: 20)",
    )
    parser.add_argument(
        "--temperature", type=_above_zero, default=1.0, help="of the draws (default: 1)"
    )
    parser.add_argument("--seed", type=count, default=0, help="of the draws (default: 0)")
    parser.add_argument(
        "--check",
        action="store_true",
        help="hold the last steps out, forecast them, and tell the errors beside those of baselines",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("forecast.csv"),
        help="the table, .csv or .parquet; the figure lies beside it as .svg (default: forecast.csv)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)"
    )
    return parser


def _above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no number") from None
    if not 0 < number <= 10:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 10")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
