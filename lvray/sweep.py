"""Runs a sweep file, stage after stage, and writes the report.

    python -m lvray.sweep SWEEP.yaml [--set path=value …] [--scale F] [--runs FOLDER] [--address HOST:PORT] [--fresh]

The same command goes on with a sweep that was interrupted, by Ctrl-C or otherwise: everything that
was heard stands in the run folder's journal, and the checkpoints lie beside it. SIGUSR1 asks it to pause:
trials stop at their next step with a checkpoint, nothing is lost, and the exit code is 75.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lvray.core.batch import patience
from lvray.core.errors import LvrayError
from lvray.core.preemption import Preemption
from lvray.core.run_folder import RunFolder
from lvray.core.units import format_flops, format_share
from lvray.driver.walk import Run, open_run, walk
from lvray.planner.asked import add_arguments, asked
from lvray.planner.environment import begun_by_this_job
from lvray.scheduler.replay import StageHistory
from lvray.scheduler.scheduler import Scheduler
from lvray.spec.schema import Sweep

if TYPE_CHECKING:
    from lvray.ray_tune.capacity import Node, Room


def run_sweep(sweep: Sweep, folder: RunFolder, preemption: Preemption) -> Run:
    """The whole walk: plan, pay, run and judge each stage on Ray; then report.

    Raises:
        Preempted: the session was asked to pause, and has.
        LvrayError: whatever a person can mend; what was heard until then is kept.
        KeyboardInterrupt: Ctrl-C or SIGTERM; likewise.
    """
    run = open_run(sweep, folder)
    run.preemption = preemption
    if not run.history.ended:
        _walk_on_ray(run, preemption)
    from lvray.reporting.page import write

    write(folder.root)
    return run


def _walk_on_ray(run: Run, preemption: Preemption) -> None:
    # Seconds of imports, paid only now that the sweep file, the data and the budget are known to be good.
    from lvray.ray_tune.backend import run_stage
    from lvray.ray_tune.gauges import Gauges
    from lvray.ray_tune.session import ray_session
    from lvray.reporting.live import LiveView

    def carry_out(run: Run, scheduler: Scheduler) -> None:
        room = _room(run, scheduler, preemption, view.say)

        def tick() -> None:
            room()  # while trials wait for a node, Tune asks for no further one
            view.tick()
            gauges.tick()

        run_stage(
            scheduler,
            lambda grant: run.task_of(grant, threads=room.workers.threads),
            workers=room.workers,
            capacity=room,
            changed=run.changed,
            tick=tick,
            preemption=preemption,
        )

    def changed() -> None:
        view.changed()
        gauges.changed()

    with (
        LiveView(run.history, run.books.ledger) as view,
        ray_session(dashboard=run.sweep.resources.dashboard) as where,
    ):
        if where:
            view.say(where)
        gauges = Gauges(run.history, run.books.ledger)
        run.changed = changed
        run.stage_ended = _wandb(run)
        walk(run, carry_out)


def _room(
    run: Run, scheduler: Scheduler, preemption: Preemption, say: Callable[[str], None]
) -> Room:
    """Divides the nodes among the trials of a stage, and writes down how many run at once, now and whenever that changes."""
    from lvray.ray_tune.capacity import Room, workers_for
    from lvray.ray_tune.session import nodes

    resources, stage = run.sweep.resources, scheduler.stage.name
    left = max(1, sum(not trial.status.final for trial in scheduler.trials.values()))
    most = min(left, resources.workers or left)

    def tell(words: str) -> None:
        run.record({"event": "nodes", "stage": stage, "told": words})
        say(words)

    def nodes_or_leave() -> Sequence[Node]:
        preemption.ensure_not_asked()  # while there is no node, nobody else looks
        return nodes()

    workers = workers_for(
        nodes_or_leave,
        most,
        trials_per_gpu=resources.trials_per_gpu,
        device=resources.device,
        tell=tell,
    )
    room = Room(
        nodes,
        workers,
        most,
        changed=lambda count: run.record({"event": "capacity", "stage": stage, "count": count}),
        tell=tell,
    )
    run.record({"event": "workers", "stage": stage, "count": room(), **asdict(workers)})
    return room


def _wandb(run: Run) -> Callable[[StageHistory], None]:
    """What tells Weights & Biases of a stage that has ended: nothing, unless the sweep file asks for it."""
    wanted = run.sweep.wandb
    if wanted is None:
        return lambda stage: None
    from lvray.reporting.wandb_runs import log_stage

    return lambda stage: log_stage(
        stage, sweep=run.sweep.name, project=wanted.project, folder=run.folder.root
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 well, 1 a deliberate error, 2 usage, 75 paused as asked, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.address:
        os.environ["RAY_ADDRESS"] = arguments.address
    try:
        wanted = asked(arguments)
        sweep = wanted.sweep
        if wanted.note:
            print(wanted.note, file=sys.stderr)
        folder = RunFolder(arguments.runs / sweep.name)
        if arguments.fresh and not begun_by_this_job(folder):
            folder.put_aside()
        print(f"run folder: {folder.root.absolute()}", flush=True)
        preemption = Preemption(folder.pause)
        with folder.locked(wait=patience()), preemption.listening():
            run = run_sweep(sweep, folder, preemption)
    except LvrayError as error:
        print(f"lvray sweep: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "\ninterrupted; everything heard so far is saved. The same command goes on from here."
        )
        return 130
    spent = run.books.spent
    print(
        f"{format_flops(spent)} of {format_flops(sweep.budget)} FLOPs spent ({format_share(spent, sweep.budget)})"
    )
    print(f"report: {folder.root / 'report.html'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lvray sweep", description="Runs a sweep file, or goes on with it."
    )
    add_arguments(parser)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where run folders are made (default: runs)"
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="the head of a Ray cluster that is there already (default: $RAY_ADDRESS, or a Ray of its own, here)",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="put a run folder of that name aside and start anew; a batch job does so once, however often it is queued again",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
