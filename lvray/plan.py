"""Prices a sweep file and prints what the budget buys; runs nothing.

python -m lvray.plan SWEEP.yaml [--set path=value …] [--flops-per-second 4e10] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lvray.core.errors import LvrayError
from lvray.core.trial import StagePlan, TrialPlan
from lvray.core.units import flops_from_text, format_flops, format_seconds, format_share
from lvray.planner.data import variables_of
from lvray.planner.stages import hold_back, outline
from lvray.spec.load import load
from lvray.spec.schema import Sweep


def describe(sweep: Sweep, plans: Sequence[StagePlan], *, flops_per_second: int | None) -> str:
    """The plan as a page of text: each stage, then each of its trials, milestone by milestone."""
    total = sum(plan.price for plan in plans)
    lines = [
        f"{sweep.name}: {format_flops(sweep.budget)} FLOPs ({sweep.convention}), model {sweep.model}",
        "",
        f"{'stage':<12} {'policy':<9} {'trials':>6} {'may spend':>10} {'plans':>10} {'of budget':>9} {'held back':>10}",
    ]
    for stage, plan in zip(sweep.stages, plans, strict=True):
        held = hold_back(sweep, stage)
        lines.append(
            f"{plan.name:<12} {plan.policy:<9} {len(plan.trials):>6} {format_flops(plan.allowance):>10} "
            f"{format_flops(plan.price):>10} {format_share(plan.price, sweep.budget):>9} "
            f"{format_flops(held) if held else '-':>10}"
        )
    lines.append(
        f"{'total':<12} {'':<9} {sum(len(plan.trials) for plan in plans):>6} {'':>10} "
        f"{format_flops(total):>10} {format_share(total, sweep.budget):>9}"
    )
    if flops_per_second:
        lines.append(
            f"at {format_flops(flops_per_second)} FLOP/s: {format_seconds(total / flops_per_second)}"
        )
    for plan in plans:
        lines += ["", *_stage_lines(plan)]
    return "\n".join(lines)


def _stage_lines(plan: StagePlan) -> list[str]:
    lines = [f"{plan.name}"] + [f"  {note}" for note in plan.notes]
    lines.append(f"  {'trial':<14} {'steps (FLOPs) at each milestone; * where it is judged':<70}")
    lines += [f"  {trial.trial_id:<14} {_milestones(trial)}" for trial in plan.trials]
    return lines


def _milestones(trial: TrialPlan) -> str:
    return "  ".join(
        f"{milestone.step}{'*' if milestone.rung is not None else ''} ({format_flops(milestone.flops)})"
        for milestone in trial.milestones
    )


def to_json(sweep: Sweep, plans: Sequence[StagePlan]) -> Mapping[str, Any]:
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
        sweep = load(arguments.sweep, overrides=arguments.overrides)
        plans = outline(sweep, variables=variables_of(sweep))
    except LvrayError as error:
        print(f"lvray plan: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        print(json.dumps(to_json(sweep, plans), indent=1))
    else:
        print(describe(sweep, plans, flops_per_second=arguments.flops_per_second))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lvray plan", description="Prices a sweep file; runs nothing."
    )
    parser.add_argument("sweep", type=Path, help="the sweep file")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="path=value"
    )
    parser.add_argument(
        "--flops-per-second",
        type=flops_from_text,
        metavar="RATE",
        help="accounted FLOP/s, to tell the time it takes",
    )
    parser.add_argument("--json", action="store_true", help="for programs; FLOPs as strings")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
