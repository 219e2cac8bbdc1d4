"""Fine-tunes one trial, here, without Ray.

    python -m lvray.train SWEEP.yaml --steps 200 [--set trial.lora.rank=4 …] [--forecast] [--fresh]

The trial is the sweep file's `trial:`, run under the same prices, ledger and scheduler as a sweep; its
run folder is runs/<name>-train.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lvray.core.arguments import positive
from lvray.core.batch import patience
from lvray.core.errors import LvrayError, TrialFailed
from lvray.core.preemption import Preemption
from lvray.core.run_folder import RunFolder
from lvray.core.trial import Measurement, Status
from lvray.core.units import format_flops, format_seconds
from lvray.driver.inline import run_inline
from lvray.driver.walk import Run, open_run, walk
from lvray.planner.environment import begun_by_this_job
from lvray.scheduler.scheduler import Scheduler
from lvray.spec.load import load
from lvray.spec.schema import ForecastChanges, StageSpec, Sweep


def one_trial(sweep: Sweep, *, steps: int, evaluations: int, forecast: bool) -> Sweep:
    """A sweep of one stage with one trial, of the same data, text, evaluation and budget."""
    stage = StageSpec(
        name="train",
        steps=steps,
        evaluations=evaluations,
        forecast=ForecastChanges() if forecast else None,
    )
    return sweep.model_copy(update={"name": f"{sweep.name}-train", "stages": (stage,)})


def train(sweep: Sweep, folder: RunFolder, preemption: Preemption, *, threads: int) -> Run:
    """Runs the sweep's trials in this process, telling each measurement.

    Raises:
        Preempted: the session was asked to pause, and the trial has.
        LvrayError: whatever a person can mend.
        KeyboardInterrupt: Ctrl-C; everything heard is kept.
    """
    run = open_run(sweep, folder)
    run.preemption = preemption

    def carry_out(run: Run, scheduler: Scheduler) -> None:
        run_inline(
            run, scheduler, heard=lambda measurement: print(_line(measurement)), threads=threads
        )

    if not run.history.ended:
        walk(run, carry_out)
    for name, trial in run.history.trials.items():
        if trial.status is Status.FAILED:
            raise TrialFailed(
                f"{name} failed: {trial.reason}; mend that, and start anew with --fresh"
            )
    return run


def _line(measurement: Measurement) -> str:
    figures: Mapping[str, float] = {
        "validation_loss": measurement.validation_loss,
        **measurement.metrics,
    }
    told = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    return (
        f"step {measurement.step:>6}  {format_flops(measurement.flops):>8} FLOPs  "
        f"{format_seconds(measurement.seconds):>8}  {told}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 well, 1 a deliberate error, 2 usage, 75 paused as asked, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        sweep = one_trial(
            load(arguments.sweep, overrides=arguments.overrides),
            steps=arguments.steps,
            evaluations=arguments.evaluations,
            forecast=arguments.forecast,
        )
        folder = RunFolder(arguments.runs / sweep.name)
        if arguments.fresh and not begun_by_this_job(folder):
            folder.put_aside()
        preemption = Preemption(folder.pause)
        with folder.locked(wait=patience()), preemption.listening():
            run = train(sweep, folder, preemption, threads=arguments.threads)
    except LvrayError as error:
        print(f"lvray train: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "\ninterrupted; everything heard so far is saved. The same command goes on from here."
        )
        return 130
    print(f"{format_flops(run.books.spent)} FLOPs spent; adapter: {folder.best}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lvray train", description="Fine-tunes one trial, here, without Ray."
    )
    parser.add_argument("sweep", type=Path, help="the sweep file whose `trial:` is run")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="path=value"
    )
    parser.add_argument(
        "--steps", type=positive, default=100, help="optimizer steps (default: 100)"
    )
    parser.add_argument(
        "--evaluations", type=positive, default=4, help="evaluations on the way (default: 4)"
    )
    parser.add_argument("--forecast", action="store_true", help="forecast test systems at the end")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where run folders are made (default: runs)"
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="put a run folder of that name aside and start anew; a batch job does so once, however often it is queued again",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
