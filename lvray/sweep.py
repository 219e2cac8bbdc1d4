"""Runs a sweep file, stage after stage, and writes the report.

    python -m lvray.sweep SWEEP.yaml [--set path=value …] [--runs FOLDER] [--fresh]

The same command goes on with a sweep that was interrupted, by Ctrl-C or otherwise: everything that
was heard stands in the run folder's journal, and the checkpoints lie beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lvray.core.errors import LvrayError, RunFolderError
from lvray.core.run_folder import RunFolder, write_whole
from lvray.core.task import DataTask
from lvray.core.units import format_flops, format_share
from lvray.ledger.journal import Journal
from lvray.ledger.ledger import Books, Ledger
from lvray.planner.data import prepare, variables_of
from lvray.planner.environment import environment
from lvray.planner.stages import Best, allowance, hold_back, outline, plan_stage
from lvray.planner.tasks import task_of
from lvray.scheduler.registry import policy_of
from lvray.scheduler.replay import History, StageHistory, fold, take
from lvray.scheduler.scheduler import Scheduler
from lvray.spec.load import difference, dump, load
from lvray.spec.schema import StageSpec, Sweep


@dataclass(slots=True)
class Run:
    """A sweep under way: what was asked, where it is written down, and how it stands."""

    sweep: Sweep
    folder: RunFolder
    journal: Journal
    history: History
    books: Books
    data: DataTask
    variables: int
    changed: Callable[[], None] = field(default=lambda: None)
    best: dict[str, Best] = field(default_factory=dict)
    """Winners by stage."""

    def record(self, row: Mapping[str, Any]) -> None:
        """Writes one line to the journal, then believes it."""
        stamped = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **row}
        self.journal.append(stamped)
        take(self.history, stamped)

    @property
    def session(self) -> int:
        """Which driver of this sweep we are, from 1."""
        return len(self.history.sessions)


def run_sweep(sweep: Sweep, folder: RunFolder) -> Run:
    """The whole walk: plan, pay, run and judge each stage; then report.

    Raises:
        LvrayError: whatever a person can mend; what was heard until then is kept.
        Interrupted: Ctrl-C or SIGTERM; likewise.
    """
    run = open_run(sweep, folder)
    from lvray.ray_tune.session import ray_session
    from lvray.reporting.live import LiveView

    with LiveView(run.folder.root) as view, ray_session():
        run.changed = view.changed
        for stage in sweep.stages:
            run_stage(run, stage, tick=view.tick)
        end_sweep(run)
    return run


def open_run(sweep: Sweep, folder: RunFolder) -> Run:
    """Opens books, journal and data: anew, or as a driver before us left them."""
    variables = variables_of(sweep)
    outline(sweep, variables=variables)  # refuses a budget that is too small before anything is written
    journal = Journal(folder.journal)
    history = fold(journal.replay())
    _same_sweep(sweep, folder, history)
    data = prepare(sweep, folder)
    write_whole(folder.sweep, dump(sweep))
    ledger = Ledger.open(Path(sweep.ledger) if sweep.ledger else folder.ledger, convention=sweep.convention)
    books = Books(ledger, sweep.name)
    books.open_sweep(sweep.budget)
    run = Run(sweep, folder, journal, history, books, data, variables)
    surroundings = environment()
    write_whole(folder.environment, surroundings.to_text())
    run.record(
        {
            "event": "session",
            "spec": sweep.to_json(),
            "budget": str(sweep.budget),
            "convention": sweep.convention,
            "resumed": bool(history.stages),
            "environment": surroundings.to_json(),
        }
    )
    for stage in sweep.stages:
        if hold_back(sweep, stage):
            books.allow(stage.name, hold_back(sweep, stage), key="hold-back")
    return run


def run_stage(run: Run, stage: StageSpec, *, tick: Callable[[], None]) -> None:
    """Runs one stage to its winner, from wherever the journal says that it stands."""
    told = run.history.stages.get(stage.name) or _begin_stage(run, stage)
    if not told.ended:
        scheduler = Scheduler(
            told.plan,
            policy_of(told.plan),
            run.books,
            run.record,
            session=run.session,
            most_failures=run.sweep.resources.max_failures,
            trials=told.trials,
        )
        scheduler.recover()
        _run_trials(run, scheduler, tick)
        scheduler.close()
        run.changed()
    if told.best is not None:
        run.best[stage.name] = Best(told.best, told.trials[told.best].plan.config)


def _begin_stage(run: Run, stage: StageSpec) -> StageHistory:
    """Plans a stage with what is left, moves its allowance to its account, and journals the plan."""
    free, held = run.books.free, run.books.available(stage.name)
    allowed = allowance(run.sweep, stage, free=free, held=held, best=run.best, variables=run.variables)
    plan = plan_stage(run.sweep, stage, allowed=allowed, best=run.best, variables=run.variables)
    if allowed > held:
        run.books.allow(stage.name, allowed - held, key=f"{run.session}")
    run.record({"event": "stage", **plan.to_json()})
    return run.history.stages[stage.name]


def _run_trials(run: Run, scheduler: Scheduler, tick: Callable[[], None]) -> None:
    from lvray.ray_tune.backend import run_stage as run_on_ray
    from lvray.ray_tune.session import workers_for

    resources = run.sweep.resources
    workers = workers_for(
        sum(not trial.status.final for trial in scheduler.trials.values()),
        wanted=resources.workers,
        trials_per_gpu=resources.trials_per_gpu,
        device=resources.device,
    )
    if not scheduler.finished:
        run_on_ray(
            scheduler,
            lambda grant: task_of(run.sweep, run.folder, run.data, grant, threads=workers.threads),
            folder_of=run.folder.trial,
            workers=workers,
            changed=run.changed,
            tick=tick,
        )


def end_sweep(run: Run) -> None:
    """Closes the books and the journal, and puts the best adapter where people look for it."""
    from lvray.reporting.page import write

    if not run.history.ended:
        run.books.close_sweep()
        winners = [stage.name for stage in run.sweep.stages if stage.name in run.best and not stage.zero_shot]
        best = run.best[winners[-1]].trial_id if winners else None
        run.record({"event": "sweep_end", "best": best, "reason": f"winner of stage {winners[-1]}" if winners else "no trial has a finite loss"})
    write(run.folder.root)


def _same_sweep(sweep: Sweep, folder: RunFolder, history: History) -> None:
    """Refuses a run folder of another sweep, showing how the two differ."""
    if not history.sessions:
        return
    changes = difference(history.sessions[0]["spec"], sweep.to_json())
    if changes:
        raise RunFolderError(
            f"{folder.root} belongs to another sweep file:\n"
            + "\n".join(f"  {change}" for change in changes)
            + "\nundo these changes to go on with it, give the sweep another name, or start anew with --fresh"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 well, 1 a deliberate error, 2 usage, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        sweep = load(arguments.sweep, overrides=arguments.overrides)
        folder = RunFolder(arguments.runs / sweep.name)
        if arguments.fresh:
            _put_aside(folder)
        with folder.locked():
            run = run_sweep(sweep, folder)
    except LvrayError as error:
        print(f"lvray sweep: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; everything heard so far is saved. The same command goes on from here.")
        return 130
    spent = run.books.spent
    print(f"{format_flops(spent)} of {format_flops(sweep.budget)} FLOPs spent ({format_share(spent, sweep.budget)})")
    print(f"report: {folder.root / 'report.html'}")
    return 0


def _put_aside(folder: RunFolder) -> None:
    """Renames a run folder that is there, so that a fresh run loses nothing."""
    if folder.root.exists():
        number = next(n for n in range(1, 10**6) if not folder.root.with_name(f"{folder.name}.{n}").exists())
        folder.root.rename(folder.root.with_name(f"{folder.name}.{number}"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lvray sweep", description="Runs a sweep file, or goes on with it.")
    parser.add_argument("sweep", type=Path, help="the sweep file")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="path=value")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are made (default: runs)")
    parser.add_argument("--fresh", action="store_true", help="put a run folder of that name aside and start anew")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
