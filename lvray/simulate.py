"""Runs a sweep file in virtual time: the same scheduler, policies and ledger; the training is made up.

    python -m lvray.simulate SWEEP.yaml [--scale F] [--curves TABLE] [--workers N] [--seed N] [--crashes P] [--json] …

Losses are read from a table of recorded learning curves, or invented. It tells in seconds what a sweep would do
with its budget, how long it would take, and that the books hold whatever breaks. The same seed gives the
same output, to the byte.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lvray.core.errors import LvrayError, RunFolderError, UsageError
from lvray.core.output import say
from lvray.core.run_folder import RunFolder, write_whole
from lvray.core.trial import Status
from lvray.core.units import flops_from_text, format_flops, format_seconds, format_share
from lvray.driver.accounts import Evidence, findings
from lvray.driver.virtual import SURROUNDINGS, open_virtual
from lvray.driver.walk import Run, walk
from lvray.planner.asked import add_arguments, asked
from lvray.scheduler.replay import StageHistory
from lvray.scheduler.scheduler import Scheduler
from lvray.simulator.landscapes import Invented, Landscape, Tabulated
from lvray.simulator.world import RESTART_SECONDS, Conditions, DriverKilled, World
from lvray.spec.load import dump
from lvray.spec.schema import Sweep


def simulate(sweep: Sweep, world: World, *, keep: bool) -> Run:
    """The whole walk in virtual time.

    Args:
        sweep: the sweep.
        world: the machines, and the disk with the run's logs.
        keep: whether the logs are wanted afterwards.

    Raises:
        LvrayError: whatever a person can mend.
    """
    keep = keep or world.conditions.kills > 0
    journal, ledger = (world.log(name, keep=keep) for name in ("journal", "ledger"))

    def carry_out(run: Run, scheduler: Scheduler) -> None:
        run.record(
            {"event": "workers", "stage": scheduler.stage.name, "count": world.conditions.workers}
        )
        # A journal that nobody will read again lets go of what it holds as it goes.
        world.run_stage(scheduler, heard=(lambda: None) if keep else journal.forget)

    folder = RunFolder(Path(sweep.name))
    while True:
        try:
            run = open_virtual(sweep, folder, journal=journal, ledger=ledger, clock=world.clock)
            if not run.history.ended:
                walk(run, carry_out)
        except DriverKilled:
            world.now += RESTART_SECONDS
        else:
            return run


def landscape_of(sweep: Sweep, curves: Path | None, seed: int) -> Landscape:
    """The table, or where there is none an invented landscape on the scale of the sweep's budget."""
    if curves is not None:
        return Tabulated.load(curves)
    return Invented(seed=seed, windows=sweep.evaluation.windows, scale=sweep.budget / 100)


def to_json(run: Run, world: World) -> dict[str, Any]:
    """What happened, for programs; FLOPs are strings."""
    ledger, conditions = run.books.ledger, world.conditions
    wrong = findings(Evidence(ledger, run.history, run.sweep.name))
    busy = world.now * conditions.workers
    return {
        "sweep": run.sweep.name,
        "ok": not wrong,
        "findings": wrong,
        "budget": str(run.sweep.budget),
        "spent": str(run.books.spent),
        "lost": str(ledger.lost),
        "workers": conditions.workers,
        "seconds": round(world.now, 3),
        "utilisation": round(world.tally.busy_seconds / busy, 4) if busy else 0.0,
        "sessions": run.session,
        "grants": world.tally.grants,
        "reports": world.tally.reports,
        "crashes": world.tally.crashes,
        "kills": world.tally.kills,
        "stages": [_stage(stage) for stage in run.history.stages.values()],
    }


def _stage(stage: StageHistory) -> Mapping[str, Any]:
    counts = dict.fromkeys(Status, 0)
    for trial in stage.trials.values():
        counts[trial.status] += 1
    best = stage.trials[stage.best] if stage.best is not None else None
    return {
        "name": stage.plan.name,
        "policy": stage.plan.policy,
        "allowance": str(stage.plan.allowance),
        "planned": str(stage.plan.price),
        "heard": str(sum(trial.flops_heard for trial in stage.trials.values())),
        "returned": str(stage.returned),
        "trials": {status.value: count for status, count in counts.items() if count},
        "best": stage.best,
        "reason": stage.reason,
        "validation_loss": None if best is None else best.loss,
        "test_loss": None if best is None else best.curve[-1].metrics.get("test_loss"),
    }


def describe(told: Mapping[str, Any]) -> str:
    """What happened, for people."""
    budget, spent = int(told["budget"]), int(told["spent"])
    lines = [
        f"{told['sweep']}: {format_flops(spent)} of {format_flops(budget)} FLOPs spent ({format_share(spent, budget)}), "
        f"{format_flops(int(told['lost']))} of them lost",
        f"{format_seconds(told['seconds'])} on {told['workers']} workers, busy {told['utilisation']:.0%} of it; "
        f"{told['grants']} grants, {told['reports']} reports, {told['crashes']} crashes, {told['kills']} drivers killed",
        "",
        f"{'stage':<12} {'policy':<12} {'planned':>10} {'heard':>10} {'returned':>10}  trials",
    ]
    for stage in told["stages"]:
        trials = ", ".join(f"{count} {status}" for status, count in stage["trials"].items())
        figures = (stage["planned"], stage["heard"], stage["returned"])
        row = " ".join(f"{format_flops(int(flops)):>10}" for flops in figures)
        lines.append(f"{stage['name']:<12} {stage['policy']:<12} {row}  {trials}")
    for stage in told["stages"]:
        test = "" if stage["test_loss"] is None else f"; test loss {stage['test_loss']:.4f}"
        lines.append(f"{stage['name']}: {stage['best']}: {stage['reason']}{test}")
    lines += ["", *(f"WRONG: {finding}" for finding in told["findings"])]
    lines.append("the books are in order" if told["ok"] else f"{len(told['findings'])} findings")
    return "\n".join(lines)


def write_run(run: Run, world: World, root: Path) -> None:
    """Writes the simulated run as a run folder, for `report` and `audit`.

    Raises:
        RunFolderError: something is there already, or it cannot be written.
    """
    folder = RunFolder(root)
    if root.exists():
        raise RunFolderError(f"{root} is there already; name another place, or remove it")
    write_whole(folder.sweep, dump(run.sweep))
    write_whole(folder.environment, SURROUNDINGS.to_text())
    write_whole(folder.split, json.dumps({"variables": []}) + "\n")
    write_whole(folder.journal, world.log("journal").text())
    write_whole(folder.ledger, world.log("ledger").text())


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 well, 1 a deliberate error or books out of order, 2 usage or a bad sweep file."""
    arguments = _parser().parse_args(argv)
    try:
        wanted = asked(arguments)
        sweep = wanted.sweep
        if wanted.note:
            print(wanted.note, file=sys.stderr)
        conditions = _conditions(arguments, sweep)
        world = World(landscape_of(sweep, arguments.curves, arguments.seed), conditions)
        run = simulate(sweep, world, keep=arguments.runs is not None)
        if arguments.runs is not None:
            write_run(run, world, arguments.runs / sweep.name)
    except LvrayError as error:
        print(f"lvray simulate: {error}", file=sys.stderr)
        return error.exit_code
    told = to_json(run, world)
    say(json.dumps(told, indent=1) if arguments.json else describe(told))
    return 0 if told["ok"] else 1


def _conditions(arguments: argparse.Namespace, sweep: Sweep) -> Conditions:
    for name in ("straggling", "crashes", "repeats", "kills"):
        probability = getattr(arguments, name)
        if not 0 <= probability < 1:
            raise UsageError(f"--{name} {probability}: must be a probability, from 0 to below 1")
    if arguments.workers is not None and arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers}: must be a whole number from 1")
    return Conditions(
        workers=arguments.workers or sweep.resources.workers or 4,
        flops_per_second=float(arguments.speed),
        spread=arguments.spread,
        straggling=arguments.straggling,
        crashes=arguments.crashes,
        repeats=arguments.repeats,
        kills=arguments.kills,
        seed=arguments.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lvray simulate", description="Runs a sweep file in virtual time; trains nothing."
    )
    add_arguments(parser)
    parser.add_argument(
        "--curves",
        type=Path,
        metavar="TABLE",
        help="recorded learning curves; else they are invented",
    )
    parser.add_argument("--workers", type=int, help="trials at once (default: the sweep's, or 4)")
    parser.add_argument(
        "--speed",
        type=flops_from_text,
        default=10**12,
        metavar="RATE",
        help="accounted FLOP/s of a worker (default: 1e12)",
    )
    parser.add_argument(
        "--spread", type=float, default=0.0, help="how far the workers' speeds differ (default: 0)"
    )
    for name, told in (
        ("straggling", "that a stretch takes ten times as long"),
        ("crashes", "that a worker breaks on its way to a milestone"),
        ("repeats", "that a report arrives twice, or too late"),
        ("kills", "that the driver dies at a write to its books"),
    ):
        parser.add_argument(
            f"--{name}",
            type=float,
            default=0.0,
            metavar="P",
            help=f"probability {told} (default: 0)",
        )
    parser.add_argument(
        "--seed", type=int, default=0, help="of everything that is drawn (default: 0)"
    )
    parser.add_argument(
        "--runs", type=Path, metavar="FOLDER", help="write a run folder there, for report and audit"
    )
    parser.add_argument("--json", action="store_true", help="for programs; FLOPs as strings")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
