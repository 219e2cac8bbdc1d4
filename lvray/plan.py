"""Prices a sweep file and prints what the budget buys; runs nothing.

python -m lvray.plan SWEEP.yaml [--set path=value …] [--scale F] [--speed 1e11|RUN_FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lvray.core.errors import LvrayError, UsageError
from lvray.core.output import say
from lvray.core.run_folder import RunFolder
from lvray.core.trial import StagePlan, TrialPlan
from lvray.core.units import flops_from_text, format_flops, format_seconds, format_share
from lvray.planner.asked import add_arguments, asked
from lvray.planner.data import variables_of
from lvray.planner.speed import Pace, Speed, measured, seconds
from lvray.planner.stages import hold_back, outline
from lvray.spec.schema import StageSpec, Sweep

MOST_ROWS = 30
"""Trials of one stage that are printed; of more, only the first and the last."""


def describe(sweep: Sweep, plans: Sequence[StagePlan], speed: Speed | None) -> str:
    """The plan as a page of text: each stage, its rungs, and its trials, milestone by milestone."""
    total = sum(plan.price for plan in plans)
    lines = [
        f"{sweep.name}: {format_flops(sweep.budget)} FLOPs ({sweep.convention}), model {sweep.model}",
        "",
        f"{'stage':<12} {'policy':<12} {'trials':>6} {'held back':>10} {'if all goes well':>17} {'at worst':>10} "
        f"{'of budget':>9} {'time':>12}",
    ]
    for stage, plan in zip(sweep.stages, plans, strict=True):
        held = hold_back(sweep, stage)
        time = format_seconds(seconds(plan, speed.of(plan.name))) if speed else "-"
        lines.append(
            f"{plan.name:<12} {plan.policy:<12} {len(plan.trials):>6} {format_flops(held) if held else '-':>10} "
            f"{format_flops(plan.price):>17} {format_flops(plan.allowance):>10} "
            f"{format_share(plan.price, sweep.budget):>9} {time:>12}"
        )
    whole = sum(seconds(plan, speed.of(plan.name)) for plan in plans) if speed else None
    lines.append(
        f"{'total':<12} {'':<12} {sum(len(plan.trials) for plan in plans):>6} {'':>10} "
        f"{format_flops(total):>17} {'':>10} {format_share(total, sweep.budget):>9} "
        f"{'-' if whole is None else format_seconds(whole):>12}"
    )
    lines.append(
        f"time: {speed.source}"
        if speed
        else "time: not known; --speed takes FLOP/s of one trial, or a run folder of this machine"
    )
    for stage, plan in zip(sweep.stages, plans, strict=True):
        lines += ["", *_stage_lines(stage, plan)]
    return "\n".join(lines)


def _stage_lines(stage: StageSpec, plan: StagePlan) -> list[str]:
    lines = [plan.name]
    if stage.sampler != "grid":
        chosen = "as they start, each from what was heard" if plan.trials[0].open else "by the seed"
        lines.append(f"  configs are chosen by {stage.sampler}, {chosen}")
    if stage.steps == "fill":
        lines.append(
            f"  {plan.trials[0].steps} steps, or more: all that other stages leave buys further ones"
        )
    lines += [f"  {note}" for note in plan.notes]
    if plan.rungs:
        lines += _rung_lines(plan)
    judged = "; * where it is judged" if plan.rungs else ""
    lines.append(f"  {'trial':<14} steps (FLOPs) at each milestone{judged}")
    rows = [f"  {trial.trial_id:<14} {_milestones(trial)}" for trial in plan.trials]
    if len(rows) > MOST_ROWS:
        left_out = len(rows) - MOST_ROWS
        rows = [*rows[: MOST_ROWS - 1], f"  … {left_out} more, in --json", rows[-1]]
    return lines + rows


def _rung_lines(plan: StagePlan) -> list[str]:
    """A line a rung: who gets there, who goes on, how far, and what it costs."""
    lines = [
        f"  {'rung':<6} {'trials':>6} {'go on':>6} {'FLOPs each':>11} {'steps each':>14} {'costs at most':>14}"
    ]
    gone_on = (*plan.rungs[1:], 1)
    for rung, (count, on, stretch) in enumerate(
        zip(plan.rungs, gone_on, plan.stretches, strict=True)
    ):
        at = [
            milestone
            for trial in plan.trials
            for milestone in trial.milestones
            if milestone.rung == rung
        ]
        steps = sorted(milestone.step for milestone in at)
        span = f"{steps[0]}" if steps[0] == steps[-1] else f"{steps[0]} to {steps[-1]}"
        level = max(milestone.flops for milestone in at)
        lines.append(
            f"  {rung:<6} {count:>6} {on:>6} {format_flops(level):>11} {span:>14} {format_flops(count * stretch):>14}"
        )
    return lines


def _milestones(trial: TrialPlan) -> str:
    return "  ".join(
        f"{milestone.step}{'*' if milestone.rung is not None else ''} ({format_flops(milestone.flops)})"
        for milestone in trial.milestones
    )


def speed_of(given: str | None, sweep: Sweep, runs: Path) -> Speed | None:
    """What the option says, FLOP/s or a run folder; without it, the sweep's own run folder if it is there.

    Raises:
        UsageError: it is neither.
        LvrayError: the run folder cannot be read.
    """
    if given is None:
        own = runs / sweep.name
        return measured(own) if RunFolder(own).journal.exists() else None
    if Path(given).is_dir():
        return measured(Path(given))
    try:
        rate = flops_from_text(given)
    except ValueError as error:
        raise UsageError(f"--speed {given}: no FLOP/s such as 1e11, and no run folder") from error
    workers = sweep.resources.workers or 1
    at = f"at {format_flops(rate)} FLOP/s of each trial, {workers} at once"
    return Speed(Pace(float(rate), workers), source=at)


def to_json(
    sweep: Sweep, plans: Sequence[StagePlan], speed: Speed | None = None
) -> Mapping[str, Any]:
    """The plan for programs; FLOPs are strings."""
    return {
        "sweep": sweep.name,
        "budget": str(sweep.budget),
        "convention": sweep.convention,
        "total": str(sum(plan.price for plan in plans)),
        "stages": [
            {
                "name": plan.name,
                "policy": plan.policy,
                "flops": str(plan.price),
                "allowance": str(plan.allowance),
                "held_back": str(hold_back(sweep, stage)),
                "seconds": round(seconds(plan, speed.of(plan.name)), 1) if speed else None,
                "trials": len(plan.trials),
                "rungs": list(plan.rungs),
                "plans": [trial.to_json() for trial in plan.trials],
            }
            for stage, plan in zip(sweep.stages, plans, strict=True)
        ],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 well, 1 a deliberate error, 2 usage or a bad sweep file."""
    arguments = _parser().parse_args(argv)
    try:
        wanted = asked(arguments)
        sweep = wanted.sweep
        if wanted.note:
            print(wanted.note, file=sys.stderr)
        plans = outline(sweep, variables=variables_of(sweep))
        speed = speed_of(arguments.speed, sweep, arguments.runs)
    except LvrayError as error:
        print(f"lvray plan: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        say(json.dumps(to_json(sweep, plans, speed), indent=1))
    else:
        say(describe(sweep, plans, speed))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lvray plan", description="Prices a sweep file; runs nothing."
    )
    add_arguments(parser)
    parser.add_argument(
        "--speed",
        metavar="RATE|RUN",
        help="accounted FLOP/s of one trial, or a run folder to take it from, to tell the time it takes "
        "(default: the sweep's own run folder, if it has run here)",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where run folders lie (default: runs)"
    )
    parser.add_argument("--json", action="store_true", help="for programs; FLOPs as strings")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
