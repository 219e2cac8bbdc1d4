"""Forecasts series of your own with a base model, an adapter, or the winner of a run.

    python -m lvray.forecast DATA.csv --from runs/grid --horizon 20

DATA is a CSV, HDF5 or NPZ file of one or more systems. A table of medians and quantiles and a figure
are written. With ``--check`` the last steps are held out and forecast, and the errors stand beside those of
baselines that need no model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lvray.core.errors import LvrayError
from lvray.core.units import format_flops
from lvray.driver.own_series import (
    Forecaster,
    forecast,
    forecaster_from,
    price,
    table,
    task,
    times_ahead,
    write_table,
)
from lvray.series.baselines import Known, baseline_forecasts
from lvray.series.dataset import Dataset, read
from lvray.series.forecasts import Forecasts
from lvray.series.metrics import Scores


def errors(forecaster: Forecaster, made: Forecasts) -> list[str]:
    """The forecaster among baselines that need no model, the smallest error first, a line each."""
    known = Known(history=made.history, horizon=made.truth.shape[1])
    rivals, _ = baseline_forecasts(known)
    scored = {name: Scores.of(point, made.truth, made.history) for name, point in rivals.items()}
    scored[forecaster.name] = Scores.of(made.point, made.truth, made.history, samples=made.samples)
    rows = {name: scores.summary() for name, scores in scored.items()}
    width = max(map(len, rows))
    lines = [f"{'':<{width}} {'MAE':>10} {'RMSE':>10} {'MASE':>7} {'CRPS':>10}"]
    for name, row in sorted(rows.items(), key=lambda item: item[1]["mae"]):
        scaled = f"{row['mase']:.3f}" if "mase" in row else ""
        lines.append(
            f"{name:<{width}} {row['mae']:>10.4g} {row['rmse']:>10.4g} {scaled:>7} {row['crps']:>10.4g}"
        )
    lines.append(f"rounding alone makes an error of {made.floor.mean():.2g}")
    return lines


def run(arguments: argparse.Namespace) -> list[str]:
    """Forecasts, writes table and figure, and gives what is told.

    Raises:
        LvrayError: whatever a person can mend.
    """
    dataset: Dataset = read(arguments.data)
    forecaster = forecaster_from(arguments.source, dataset)
    asked = task(
        forecaster,
        dataset,
        context=arguments.context,
        horizon=arguments.horizon,
        samples=arguments.samples,
        temperature=arguments.temperature,
        held_out=arguments.check,
    )
    flops = price(forecaster, asked)
    made = forecast(
        forecaster,
        dataset,
        asked,
        held_out=arguments.check,
        device=arguments.device,
        seed=arguments.seed,
    )
    times = times_ahead(dataset, asked.horizon, held_out=arguments.check)
    write_table(arguments.out, table(made, dataset, times))
    from lvray.reporting.own_figure import draw  # matplotlib

    figure = arguments.out.with_suffix(".svg")
    draw(figure, made, dataset, times)
    how = f"median of {asked.samples} draws" if asked.samples else "greedy"
    told = [
        f"{dataset.systems} systems of {', '.join(dataset.variables)}: {asked.horizon} steps ahead of "
        f"{asked.context_steps}, {how}; {format_flops(flops)} FLOPs at most",
        f"table: {arguments.out}",
        f"figure: {figure}",
    ]
    return told + (errors(forecaster, made) if arguments.check else [])


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 well, 1 a deliberate error, 2 usage."""
    arguments = _parser().parse_args(argv)
    try:
        told = run(arguments)
    except LvrayError as error:
        print(f"lvray forecast: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(told))
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
        "--horizon", type=_positive, default=20, help="time steps ahead (default: 20)"
    )
    parser.add_argument(
        "--context",
        type=_positive,
        help="time steps that it is given, the last ones (default: all)",
    )
    parser.add_argument(
        "--samples",
        type=_count,
        default=20,
        help="forecasts that are drawn: their median and quantiles are told; 0 makes one greedily (default: 20)",
    )
    parser.add_argument(
        "--temperature", type=_above_zero, default=1.0, help="of the draws (default: 1)"
    )
    parser.add_argument("--seed", type=_count, default=0, help="of the draws (default: 0)")
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


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _above_zero(text: str) -> float:
    number = float(text)
    if not 0 < number <= 10:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 10")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
