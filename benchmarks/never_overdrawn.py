"""Is the budget ever overdrawn? Thousands of simulated sweeps in foul weather, each one's books audited.

    python benchmarks/never_overdrawn.py [--sweeps 10000] [--processes 2] [--seed 0]

Every sweep has a budget, workers, crashes, stragglers, repeated and late reports and killed drivers of its own, drawn
by its number. Exit code 1 if any spends more than its budget, ends with books out of order, or does not end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lvray.core.errors import BudgetTooSmall, TrialFailed
from lvray.driver.accounts import Evidence, findings
from lvray.ledger.ledger import SPENT, Ledger
from lvray.scheduler.replay import fold
from lvray.simulate import simulate
from lvray.simulator.landscapes import Invented
from lvray.simulator.world import Conditions, World
from lvray.spec.load import load
from lvray.spec.schema import Sweep

GRID = Path(__file__).resolve().parents[1] / "sweeps" / "grid.yaml"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one sweep ended."""

    number: int
    refused: bool = False
    """Whether its budget did not pay for its plan, so that it never began."""
    overdraft: int = 0
    findings: tuple[str, ...] = ()
    crashes: int = 0
    kills: int = 0
    lost: float = 0.0
    """Share of the budget."""


@cache
def _grid() -> Sweep:
    return load(GRID)


def weather(number: int, seed: int) -> tuple[Sweep, Conditions]:
    """The sweep of this number, and what it has to live through."""
    chance = random.Random(f"{seed}/{number}")
    budget = round(10 ** chance.uniform(12.5, 17)) if chance.random() < 0.9 else 10**26
    conditions = Conditions(
        workers=chance.choice((1, 2, 3, 4, 8, 16)),
        spread=chance.choice((0.0, 0.5, 1.0)),
        straggling=chance.choice((0.0, 0.2)),
        crashes=chance.choice((0.0, 0.05, 0.3)),
        repeats=chance.choice((0.0, 0.3)),
        kills=chance.choice((0.0, 0.005, 0.05)),
        seed=number,
    )
    return _grid().model_copy(update={"budget": budget}), conditions


def endure(work: tuple[int, int]) -> Outcome:
    """Runs one sweep and audits it."""
    number, seed = work
    sweep, conditions = weather(number, seed)
    world = World(Invented(seed=number, windows=2, scale=sweep.budget / 100), conditions)
    ended: tuple[str, ...] = ()
    try:
        if not simulate(sweep, world, keep=True).history.ended:
            ended = ("it did not end",)
    except BudgetTooSmall:
        if not world.tally.grants:
            return Outcome(number, refused=True)
    except TrialFailed:
        pass  # every trial of the search diverged or crashed too often: told in words, and the books must hold
    ledger = Ledger.open(world.log("ledger"), convention=sweep.convention)
    evidence = Evidence(ledger, fold(world.log("journal").replay()), sweep.name)
    return Outcome(
        number,
        overdraft=max(0, ledger.balance(SPENT) - sweep.budget),
        findings=(*findings(evidence), *ended),
        crashes=world.tally.crashes,
        kills=world.tally.kills,
        lost=ledger.lost / sweep.budget,
    )


def main() -> int:
    """Runs them all; 1 if a single one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    work = [(number, arguments.seed) for number in range(arguments.sweeps)]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        outcomes = list(pool.imap_unordered(endure, work, chunksize=20))
    wrong = [outcome for outcome in outcomes if outcome.overdraft or outcome.findings]
    begun = [outcome for outcome in outcomes if not outcome.refused]
    print(
        f"{len(begun)} sweeps ran, {len(outcomes) - len(begun)} had too small a budget to begin; "
        f"{sum(o.crashes for o in begun)} workers crashed, {sum(o.kills for o in begun)} drivers were killed; "
        f"{sum(o.lost for o in begun) / max(1, len(begun)):.1%} of the budgets lost"
    )
    print(f"overdrawn or out of order: {len(wrong)}")
    for outcome in wrong[:20]:
        print(f"  sweep {outcome.number}: overdraft {outcome.overdraft}, {outcome.findings}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
