"""Who forecasts best for one budget? Four earlier systems, replayed, and our own recipe, on the same series and windows.

    python benchmarks/replicas.py [--budget 1e13] [--seeds 3] [--data FILE.h5] [--processes 2] [--runs runs/replicas]

Every sweep file is scaled on the tiny model until its plan fills the same budget, and run whole: all its stages, each
trial one after the other in one process, without Ray (the same scheduler and ledger). For each seed the same systems
train, validate and test, for everybody. Forecasts inside the sweeps are left out; instead each winner's adapter
forecasts the test systems at the end, outside of the budget:

- 20 steps ahead of 40 and 80, and 5 steps ahead of 12, 51 and 76 (128, 512 and 768 tokens at ten a step, from starts 26
  apart), decoded as its own sweep file decodes;
- 20 steps ahead of 40 and 80 once more as `SAMPLES` draws at temperature 1, for everybody: their CRPS, and what the
  median would have got each of them.

Rows are kept in a file, so that an interrupted run goes on. ``--table`` prints the table of docs/replicas.md from it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from lvray.core.errors import BudgetTooSmall
from lvray.core.run_folder import RunFolder
from lvray.core.task import ForecastTask
from lvray.core.units import flops_from_text, format_flops
from lvray.driver.accounts import Evidence, findings
from lvray.driver.inline import run_inline
from lvray.driver.own_series import Forecaster, forecaster_from
from lvray.driver.walk import open_run, walk
from lvray.planner.scaled import scaled
from lvray.planner.stages import outline
from lvray.series.baselines import Known, baseline_forecasts
from lvray.series.forecasts import Forecasts
from lvray.series.metrics import Scores
from lvray.series.readers import read
from lvray.spec.load import load
from lvray.spec.schema import Sweep

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "replicas.jsonl"

FILES: Mapping[str, str] = {
    "S1 McConkey": "sweeps/replicas/mcconkey.yaml",
    "S2 at2128": "sweeps/replicas/at2128.yaml",
    "S3 Mondal": "sweeps/replicas/mondal.yaml",
    "S4 ym429": "sweeps/replicas/ym429.yaml",
    "ours": "sweeps/best.yaml",
}
OURS = "ours"

FOR_TINY: Mapping[str, list[str]] = {
    "S3 Mondal": ["stages.zero-shot-chat.forecast.prompt=raw"]  # the tiny model does not chat
}

SAMPLES = 10
"""Draws of each window for the CRPS."""

FAR = 20
"""Steps ahead of the forecasts that the contest is about."""

PROMPTS_AT_ONCE = 16

BOOTSTRAPS = 4000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contest:
    """One sweep file with one seed."""

    system: str
    seed: int
    budget: int
    data: str | None
    runs: Path

    @property
    def folder(self) -> RunFolder:
        """Where it runs."""
        name = self.system.split()[-1]
        return RunFolder(self.runs / f"{name}-{self.seed}{'-file' if self.data else ''}")

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What tells its row from others."""
        return self.system, self.seed, str(self.budget), data_name(self.data)

    def sweep(self) -> Sweep:
        """The file, at this budget, with this seed, on the systems that all share."""
        shared = [
            "model=tiny",
            f"seed={self.seed}",
            f"data.split={{train: 850, validation: 50, test: 100, order: random, seed: {self.seed}}}",
        ]
        shared += [f"data.path={self.data}"] if self.data else []
        shared += FOR_TINY.get(self.system, [])
        path = ROOT / FILES[self.system]
        made_for, tiny = load(path), load(path, overrides=shared)
        made_for, tiny = (_without_forecasts(sweep) for sweep in (made_for, tiny))
        factor = Fraction(self.budget, sum(plan.price for plan in outline(made_for, variables=2)))
        while True:
            small = scaled(tiny, factor, made_for=made_for, variables=2)
            small = small.model_copy(update={"name": self.folder.name, "budget": self.budget})
            try:
                outline(small, variables=2)
            except BudgetTooSmall:  # counts that cannot be scaled further, such as 8 windows
                factor *= Fraction(99, 100)
            else:
                return small


def _without_forecasts(sweep: Sweep) -> Sweep:
    """The sweep with its forecasts left out: everybody's are made here, outside of the budget."""
    stages = tuple(stage.model_copy(update={"forecast": None}) for stage in sweep.stages)
    return sweep.model_copy(update={"stages": stages})


def data_name(data: str | None) -> str:
    """What the table calls the series."""
    return "generated" if data is None else Path(data).name


def windows(asked: Sweep) -> list[ForecastTask]:
    """The windows that everybody is held to, decoded as `asked` decodes."""
    own = asked.evaluation.forecast
    shapes = [(40, FAR, 1), (80, FAR, 1), (12, 5, 4), (51, 5, 2), (76, 5, 1)]
    return [
        ForecastTask(
            systems=100,
            context_steps=context,
            horizon=horizon,
            windows=count,
            every=26,
            samples=own.samples,
            temperature=own.temperature,
            prompt="raw",
            prompt_tokens=10**6,
            new_tokens=16 * horizon,
        )
        for context, horizon, count in shapes
    ]


def compete(contest: Contest) -> dict[str, Any]:
    """Runs one sweep, then has its winner forecast; gives the row."""
    import torch

    torch.set_num_threads(1)
    began = perf_counter()
    sweep, folder = contest.sweep(), contest.folder
    run = open_run(sweep, folder)
    if not run.history.ended:
        walk(
            run,
            lambda run, scheduler: run_inline(run, scheduler, heard=lambda heard: None, threads=1),
        )
    ran = perf_counter() - began
    best = [stage.best for stage in run.history.stages.values() if stage.best is not None][-1]
    winner = run.history.trials[best]
    row: dict[str, Any] = {
        "system": contest.system,
        "seed": contest.seed,
        "budget": str(contest.budget),
        "data": data_name(contest.data),
        "spent": str(run.books.spent),
        "in_order": not findings(Evidence(run.books.ledger, run.history, sweep.name)),
        "config": winner.plan.config.to_json(),
        "validation_loss": winner.loss,
        "seconds": round(ran, 1),
    }
    assert run.data is not None, "a real run has data"
    systems = run.data.test
    dataset = read(run.data.path)
    forecaster = forecaster_from(str(folder.root), dataset)
    tasks = windows(sweep)
    drawn = [replace(task, samples=SAMPLES, temperature=1.0) for task in tasks[:2]]
    own = [_forecast(forecaster, dataset.values, systems, task, contest.seed) for task in tasks]
    chance = [
        made
        if task == own_task
        else _forecast(forecaster, dataset.values, systems, task, contest.seed)
        for made, own_task, task in zip(own[:2], tasks[:2], drawn, strict=True)
    ]
    row["own"] = {task.name: measured(made) for task, made in zip(tasks, own, strict=True)}
    row["drawn"] = {task.name: measured(made) for task, made in zip(drawn, chance, strict=True)}
    if contest.system == OURS:
        row["baselines"] = _baselines(
            own, tasks, dataset.values[list(run.data.train)], dataset.times
        )
    row["forecast_seconds"] = round(perf_counter() - began - ran, 1)
    return row


def _forecast(
    forecaster: Forecaster, values: Floats, systems: Sequence[int], task: ForecastTask, seed: int
) -> Forecasts:
    import torch

    from lvray.trainer.generate import forecast_systems
    from lvray.trainer.model import detach, load_adapter, load_base
    from lvray.trainer.tokenizer import load_tokenizer

    device = torch.device("cpu")
    base = load_base(forecaster.model, device=device, dtype=torch.float32)
    assert forecaster.adapter is not None, "a winner has an adapter"
    model = load_adapter(base, forecaster.adapter)
    try:
        return forecast_systems(
            model,
            load_tokenizer(forecaster.model),
            forecaster.codec,
            values,
            systems,
            task,
            batch_size=PROMPTS_AT_ONCE,
            seed=seed,
            device=device,
        )
    finally:
        detach(model)


def measured(made: Forecasts) -> dict[str, list[float]]:
    """Absolute and squared errors and CRPS, in the data's units: of each window where intervals are made, else the mean."""
    scores = Scores.of(made.point, made.truth, made.history, samples=made.samples)
    each = {"mae": scores.absolute, "mse": scores.squared, "crps": scores.crps}
    means = {name: values.mean(axis=(1, 2)) for name, values in each.items()}
    whole = {"mae"} if made.truth.shape[1] == FAR else set()
    return {
        name: [float(f"{v:.5g}") for v in (values if name in whole else [values.mean()])]
        for name, values in means.items()
    }


def _baselines(
    made: Sequence[Forecasts], tasks: Sequence[ForecastTask], training: Floats, times: Floats
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """What forecasts without a model get on the same windows, by baseline and task."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for task, forecasts in zip(tasks, made, strict=True):
        known = Known(
            history=forecasts.history,
            horizon=task.horizon,
            training=training,
            times=times,
            source="coursework",
        )
        for name, point in baseline_forecasts(known)[0].items():
            other = replace(forecasts, point=point, samples=forecasts.samples[:, :0])
            found.setdefault(name, {})[task.name] = measured(other)
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of docs/replicas.md: means over the seeds, with 95% intervals of a bootstrap over the windows."""
    header = (
        "| | MAE, 20 steps; of 40, of 80 | median of draws | CRPS | MAE, 5 steps; of 12, 51, 76 | MSE, 5 steps | FLOPs spent |",
        "|---|---|---:|---:|---|---|---:|",
    )
    lines = list(header)
    for data in dict.fromkeys(row["data"] for row in rows):
        here = [row for row in rows if row["data"] == data]
        seeds = len({row["seed"] for row in here})
        lines.append(f"| *{data} series, {seeds} seed{'s' if seeds > 1 else ''}* | | | | | | |")
        for system in dict.fromkeys(row["system"] for row in here):
            of = [row for row in here if row["system"] == system]
            spent = sum(int(row["spent"]) for row in of) // len(of)
            own, drawn = ([row[kind] for row in of] for kind in ("own", "drawn"))
            lines.append(_line(system, own, drawn, format_flops(spent)))
        judged = [row["baselines"] for row in here if "baselines" in row]
        names = judged[0] if judged else ()
        lines += [_line(f"*{name}*", [row[name] for row in judged], None) for name in names]
    return "\n".join(lines)


def _line(
    name: str,
    own: Sequence[Mapping[str, Mapping[str, list[float]]]],
    drawn: Sequence[Mapping[str, Mapping[str, list[float]]]] | None,
    spent: str = "0",
) -> str:
    far, near = ("40+20", "80+20"), ("12+5", "51+5", "76+5")

    def mean(
        rows: Sequence[Mapping[str, Mapping[str, list[float]]]], task: str, kind: str
    ) -> float:
        return float(np.mean([np.mean(row[task][kind]) for row in rows]))

    both = interval([np.mean([row[task]["mae"] for task in far], axis=0) for row in own])
    cells = [
        f"**{both[0]:.3f}** ({both[1]:.3f}–{both[2]:.3f}); "
        + ", ".join(f"{mean(own, task, 'mae'):.3f}" for task in far)
    ]
    cells += [
        "" if drawn is None else f"{np.mean([mean(drawn, task, kind) for task in far]):.3f}"
        for kind in ("mae", "crps")
    ]
    cells.append(", ".join(f"{mean(own, task, 'mae'):.3f}" for task in near))
    cells.append(", ".join(f"{mean(own, task, 'mse'):.3f}" for task in near))
    return f"| {name} | " + " | ".join([*cells, spent]) + " |"


def interval(by_seed: Sequence[Floats]) -> tuple[float, float, float]:
    """The mean over seeds of the mean over systems, and its 95% interval: systems and seeds drawn with replacement."""
    chance = np.random.default_rng(0)
    each = np.stack([np.asarray(errors) for errors in by_seed])  # [seeds, systems]
    seeds, systems = each.shape
    means = []
    for _ in range(BOOTSTRAPS):
        some = each[chance.integers(seeds, size=seeds)]
        of = chance.integers(systems, size=(seeds, systems))
        means.append(float(np.take_along_axis(some, of, axis=1).mean()))
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return float(each.mean()), low, high


def advantage(rows: Sequence[Mapping[str, Any]]) -> str:
    """Ours against the best of the others, 20 steps ahead, with a paired interval over the same windows."""
    errors = {
        system: np.stack(
            [
                np.mean([row["own"][task]["mae"] for task in ("40+20", "80+20")], axis=0)
                for row in sorted(rows, key=lambda row: row["seed"])
                if row["system"] == system and row["data"] == "generated"
            ]
        )
        for system in FILES
        if any(row["system"] == system and row["data"] == "generated" for row in rows)
    }
    best = min((name for name in errors if name != OURS), key=lambda name: errors[name].mean())
    ours, theirs, chance = errors[OURS], errors[best], np.random.default_rng(0)
    seeds, systems = ours.shape
    ratios = []
    for _ in range(BOOTSTRAPS):
        some = chance.integers(seeds, size=seeds)
        of = chance.integers(systems, size=(seeds, systems))
        ratios.append(
            np.take_along_axis(ours[some], of, 1).mean()
            / np.take_along_axis(theirs[some], of, 1).mean()
        )
    low, high = np.quantile(ratios, [0.025, 0.975]).tolist()
    ratio = ours.mean() / theirs.mean()
    return (
        f"ours has {ratio:.2f} × the 20-step MAE of the best of the four, {best} "
        f"(95% interval {low:.2f}–{high:.2f}, paired over {seeds} seeds × {systems} systems)"
    )


def main() -> int:
    """Runs what is missing, and prints the table; 1 if some books are not in order or a budget was overdrawn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="1e13", help="FLOPs of each sweep (default: 1e13)")
    parser.add_argument("--seeds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--systems", nargs="*", default=list(FILES), choices=list(FILES))
    parser.add_argument("--data", help="an HDF5 file of the series instead of generated ones")
    parser.add_argument("--processes", type=int, default=2, help="sweeps at once (default: 2)")
    parser.add_argument("--runs", type=Path, default=Path("runs/replicas"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    arguments = parser.parse_args()
    rows = _rows(arguments.out)
    if not arguments.table:
        budget = flops_from_text(arguments.budget)
        contests = [
            Contest(system, seed, budget, arguments.data, arguments.runs)
            for seed in range(arguments.seeds)
            for system in arguments.systems
        ]
        done = {(row["system"], row["seed"], row["budget"], row["data"]) for row in rows}
        _run([contest for contest in contests if contest.key not in done], arguments)
        rows = _rows(arguments.out)
    print(table(rows))
    if {row["system"] for row in rows} > {OURS}:
        print(f"\n{advantage(rows)}")
    return (
        0 if all(row["in_order"] and int(row["spent"]) <= int(row["budget"]) for row in rows) else 1
    )


def _run(contests: Sequence[Contest], arguments: argparse.Namespace) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.processes, maxtasksperchild=1) as pool:
        for row in pool.imap_unordered(compete, contests):
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            error = np.mean([row["own"][task]["mae"] for task in ("40+20", "80+20")])
            print(
                f"{row['system']:<12} seed {row['seed']}  {format_flops(int(row['spent']))} FLOPs  "
                f"20-step MAE {error:.3f}  {row['seconds']:.0f} + {row['forecast_seconds']:.0f} s",
                flush=True,
            )


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    order = list(FILES)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(
        rows, key=lambda row: (row["data"] != "generated", order.index(row["system"]), row["seed"])
    )


if __name__ == "__main__":
    raise SystemExit(main())
