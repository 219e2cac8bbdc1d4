"""Who spends a budget best? Policies compared on tabulated learning curves, the final run and every evaluation paid for.

    python benchmarks/policies.py [--tables FILE …] [--seeds 30] [--workers 4] [--budgets 1.5 3 6 12] [--out FOLDER]

One game: a budget of so many full runs, 25% of it held back for the final run; a contender searches with the rest among
configurations drawn from a table; its winner is continued with the hold-back and all that was returned, as far as the table
goes; the score is the final model's *test* loss, which no decision saw. Regret is normalised: 0 is the best configuration of
the table after a full run, 1 the median one. Costs are equal, or each configuration's steps cost 1, 2 or 4 times as
much, drawn by the seed; then a full run is that of a configuration of mean cost.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import multiprocessing
import random
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rivals import CONTENDERS, Setting, Stage

from lvray.core.errors import BudgetTooSmall
from lvray.core.trial import StagePlan, StepPrices, Trial, TrialConfig, TrialPlan
from lvray.ledger.books import Books
from lvray.ledger.journal import MemoryJournal
from lvray.ledger.ledger import SPENT, Ledger
from lvray.scheduler.fixed import Fixed
from lvray.scheduler.milestones import steps_within, unroll
from lvray.scheduler.scheduler import Scheduler
from lvray.simulator.landscapes import Curve, Point, Reading
from lvray.simulator.world import Conditions, World

ROOT = Path(__file__).resolve().parents[1]
OWN = ROOT / "benchmarks" / "curves" / "lotka_volterra_tiny.jsonl.gz"

FULL_STEPS = 500
"""Optimizer steps of a full run, in the benchmark's own unit: a table's whole curve."""
STEP = 1_000_000
"""FLOPs of one step of a configuration of cost 1."""
EVALUATION = 2 * STEP
"""FLOPs of one evaluation, whatever the configuration: two steps, as in the laptop sweep."""
HOLD_BACK = 0.25
MULTIPLES = (1, 2, 4)
"""What a step may cost, where costs are unequal."""
MOST_CANDIDATES = 400


@dataclass(frozen=True, slots=True)
class Table:
    """Learning curves of one task, all of one length."""

    name: str
    curves: tuple[Curve, ...]
    features: NDArray[np.float64]
    """What sets configurations apart, each column scaled to 0…1 [N, D]."""

    @property
    def untrained(self) -> float:
        """The median test loss before any training."""
        starts = [curve.at(0).test_loss for curve in self.curves]
        return float(np.median([start for start in starts if start is not None]))

    def regret(self, test: float) -> float:
        """Normalised: 0 for the best configuration's test loss after a full run, 1 for the median one's."""
        tests = self.tests
        best, median = tests.min(), float(np.median(tests))
        return float((test - best) / (median - best))

    @property
    def tests(self) -> NDArray[np.float64]:
        """Test losses after a full run [N]; infinite where training diverged."""
        ends = [curve.at(FULL_STEPS).test_loss for curve in self.curves]
        return np.array([math.inf if end is None else end for end in ends])


def taskset(path: Path) -> Table:
    """A table of TaskSet (arXiv:2002.11887): 51 points a curve."""
    with np.load(path) as held:
        valid, test, settings = held["valid"], held["test"], held["hyperparameters"]
    curves: list[tuple[Curve, NDArray[np.float64]]] = []
    for losses, tests in zip(valid, test, strict=True):
        points = []
        for index, (loss, unseen) in enumerate(zip(losses, tests, strict=True)):
            if not (math.isfinite(loss) and math.isfinite(unseen)):
                break
            steps = round(index * FULL_STEPS / (len(losses) - 1))
            points.append(Point(steps, Reading(float(loss), (), float(unseen))))
        if points:
            curves.append((Curve(tuple(points), len(points) < len(losses)), settings[len(curves)]))
    return Table(
        path.stem, tuple(curve for curve, _ in curves), _scaled(np.array([f for _, f in curves]))
    )


def recorded(path: Path) -> Table:
    """Our own table: points at counts of FLOPs, the last of which is a full run."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    whole = max(int(point["flops"]) for row in rows for point in row["points"])
    curves, features = [], []
    for row in rows:
        points = tuple(
            Point(
                round(int(point["flops"]) * FULL_STEPS / whole),
                Reading(
                    point["validation_loss"], tuple(point["window_losses"]), point["test_loss"]
                ),
            )
            for point in row["points"]
        )
        # A curve's last point may be a step short of the rest: its whole steps end there.
        last = points[-1] if row["diverged"] else replace(points[-1], steps=FULL_STEPS)
        curves.append(Curve((*points[:-1], last), row["diverged"]))
        config = TrialConfig.from_json(row["config"])
        assert config.lora is not None, "every recorded configuration has an adapter"
        features.append(
            (
                math.log(config.lora.rank),
                math.log(config.learning_rate),
                math.log(config.context_length),
                math.log(config.batch_size),
                len(config.lora.targets) == 1,
            )
        )
    return Table(path.name.split(".")[0], tuple(curves), _scaled(np.array(features, float)))


def _scaled(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of each column's values, 0…1: distances that no single wide column decides."""
    ranks = np.array([np.unique(column, return_inverse=True)[1] for column in features.T]).T
    scaled: NDArray[np.float64] = ranks / np.maximum(1, ranks.max(axis=0))
    return scaled


def number_of(config: TrialConfig) -> int:
    """Which configuration of a table it is: its number stands where a stride would, which no price depends on."""
    return config.stride


@dataclass(frozen=True, slots=True)
class ByNumber:
    """A table as a landscape."""

    table: Table

    def read(self, config: TrialConfig, *, steps: int, flops: int) -> Reading:
        """Reads the curve."""
        return self.table.curves[number_of(config)].at(steps)


@dataclass(frozen=True, slots=True)
class Game:
    """What is played."""

    table: str
    contender: str
    budget: float
    """In full runs of a configuration of mean cost."""
    unequal: bool
    workers: int
    seed: int


@dataclass(frozen=True, slots=True)
class Score:
    """How it ended."""

    regret: float
    unused: float
    """Share of the budget."""
    overdraft: int
    """FLOPs spent above the budget."""
    trials: int
    """Configurations that were tried."""


def play(game: Game, table: Table) -> Score:
    """Plays one game; everything in it is drawn by its seed."""
    chance = random.Random(f"{game.table} {game.seed}")
    numbers = chance.sample(range(len(table.curves)), min(MOST_CANDIDATES, len(table.curves)))
    costs = {number: chance.choice(MULTIPLES) if game.unequal else 1 for number in numbers}
    mean = sum(MULTIPLES) / len(MULTIPLES) if game.unequal else 1.0
    whole = round(game.budget * FULL_STEPS * STEP * mean)
    plans = [_candidate(number, costs[number]) for number in numbers]
    # No configuration is trained beyond its curve's end: what would be held back for that is searched with.
    held = min(round(whole * HOLD_BACK), max(costs.values()) * FULL_STEPS * STEP + EVALUATION)
    ledger = Ledger.open(MemoryJournal("ledger", keep=False), convention="coursework")
    books = Books(ledger, "game")
    books.open_sweep(whole)
    books.allow("final", held, key="hold-back")
    world = World(ByNumber(table), Conditions(workers=game.workers, spread=0.3, seed=game.seed))
    setting = Setting(
        plans, whole - held, held, lambda best, count: _nearest(table, plans[9:], best, count)
    )
    best, tried = _search(CONTENDERS[game.contender](setting), books, world)
    test = table.untrained if best is None else _final_run(best, books, world, table)
    spent = ledger.balance(SPENT)
    return Score(table.regret(test), 1 - spent / whole, max(0, spent - whole), tried)


def _candidate(number: int, cost: int) -> TrialPlan:
    prices = StepPrices(train_step=cost * STEP, evaluation=EVALUATION, forecast=0)
    milestones = unroll(prices, [(1, None)], forecast=False)
    return TrialPlan(f"{number}", "search", TrialConfig(stride=number), milestones, prices)


def _nearest(table: Table, plans: Sequence[TrialPlan], best: int, count: int) -> list[TrialPlan]:
    """The candidates nearest to configuration `best`, the nearest first."""

    def distance(plan: TrialPlan) -> float:
        return float(np.abs(table.features[number_of(plan.config)] - table.features[best]).sum())

    return sorted(plans, key=distance)[:count]


def _search(
    stages: Generator[Stage, int | None, None], books: Books, world: World
) -> tuple[Trial | None, int]:
    """Runs the stages of a search; gives the best of their winners, and how many configurations were tried."""
    best, tried, winner = None, 0, None
    try:
        plan, policy = next(stages)
        while True:
            books.allow(plan.name, min(plan.allowance, books.free), key="all")
            scheduler = Scheduler(_named(plan), policy, books, lambda record: None)
            world.run_stage(scheduler)
            won = scheduler.close()
            champion = scheduler.trials[won.trial_id] if won else None
            tried += sum(bool(trial.attempt) for trial in scheduler.trials.values())
            if champion and (best is None or _loss(champion) < _loss(best)):
                best = champion
            winner = number_of(champion.plan.config) if champion else None
            plan, policy = stages.send(winner)
    except (StopIteration, BudgetTooSmall):
        return best, tried


def _named(plan: StagePlan) -> StagePlan:
    """The plan with its stage in the trials' names: a configuration may stand in two stages."""
    return replace(
        plan,
        trials=tuple(
            replace(trial, stage=plan.name, trial_id=f"{plan.name}-{trial.trial_id}")
            for trial in plan.trials
        ),
    )


def _loss(trial: Trial) -> float:
    return math.inf if trial.loss is None else trial.loss


def _final_run(best: Trial, books: Books, world: World, table: Table) -> float:
    """Continues the winner with all that is left, as far as its curve goes; gives the test loss of what it becomes."""
    number, begun = number_of(best.plan.config), best.step
    reached = table.curves[number].at(begun).test_loss
    assert reached is not None, "the winner has diverged"
    if books.free:
        books.allow("final", books.free, key="returns")
    available, prices = books.available("final"), best.plan.prices
    steps = min(FULL_STEPS - begun, steps_within(prices, available, evaluations=1, forecast=False))
    if steps < 1:
        return reached
    milestones = unroll(prices, [(steps, None)], forecast=False)
    final = replace(
        best.plan,
        trial_id="final",
        stage="final",
        milestones=milestones,
        continues=best.plan.trial_id,
    )
    plan = StagePlan("final", (final,), available, "fixed")
    scheduler = Scheduler(plan, Fixed(), books, lambda record: None)
    world.run_stage(scheduler)
    scheduler.close()
    trained = table.curves[number].at(begun + steps).test_loss
    # A final run that diverges leaves what it began with; one that ends above the untrained model has diverged too.
    return reached if trained is None else min(trained, table.untrained)


# Many games, and what they say.


def tables_of(paths: Iterable[Path]) -> dict[str, Table]:
    """The tables by name."""
    made = [recorded(path) if path.name.endswith(".gz") else taskset(path) for path in paths]
    return {table.name: table for table in made}


class Players:
    """What the processes share: the tables, handed over once."""

    tables: dict[str, Table]

    @classmethod
    def take(cls, paths: Sequence[Path]) -> None:
        """Reads the tables."""
        cls.tables = tables_of(paths)

    @classmethod
    def play(cls, game: Game) -> tuple[Game, Score]:
        """Plays a game."""
        return game, play(game, cls.tables[game.table])


@dataclass(frozen=True, slots=True)
class Row:
    """One contender at one budget, over tables and seeds."""

    contender: str
    table: str
    unequal: bool
    budget: float
    workers: int
    mean: float
    low: float
    """2.5% quantile of the bootstrapped mean."""
    high: float
    """97.5% quantile of the bootstrapped mean."""
    worst: float
    """90th percentile of the regret."""
    unused: float
    tried: float
    overdrafts: int


def summary(scores: Sequence[tuple[Game, Score]], seed: int = 0) -> list[Row]:
    """A row for each contender, table, cost, budget and number of workers."""
    grouped: dict[tuple[str, str, bool, float, int], list[tuple[int, Score]]] = {}
    for game, score in scores:
        key = (game.contender, game.table, game.unequal, game.budget, game.workers)
        grouped.setdefault(key, []).append((game.seed, score))
    generator = np.random.default_rng(seed)
    rows = []
    for key in sorted(grouped):
        held = [score for _, score in sorted(grouped[key], key=lambda pair: pair[0])]
        regrets = np.array([score.regret for score in held])
        drawn = generator.choice(regrets, (2000, len(regrets))).mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        rows.append(
            Row(
                *key,
                mean=float(regrets.mean()),
                low=float(low),
                high=float(high),
                worst=float(np.quantile(regrets, 0.9)),
                unused=float(np.mean([score.unused for score in held])),
                tried=float(np.mean([score.trials for score in held])),
                overdrafts=sum(score.overdraft > 0 for score in held),
            )
        )
    return rows


def table_of(rows: Sequence[Row]) -> str:
    """Mean regrets as text: a line for each contender, a column for each budget, a block for each table and cost."""
    budgets = sorted({row.budget for row in rows})
    lines = []
    for table, unequal, workers in sorted({(r.table, r.unequal, r.workers) for r in rows}):
        kind = "unequal" if unequal else "equal"
        lines.append(f"{table}, {kind} costs, {workers} workers")
        lines.append(f"  {'':<12}" + "".join(f"{budget:>22g}" for budget in budgets))
        for contender in [name for name in CONTENDERS if name in {row.contender for row in rows}]:
            cells = ""
            for budget in budgets:
                found = [
                    row
                    for row in rows
                    if (row.table, row.unequal, row.workers) == (table, unequal, workers)
                    and (row.contender, row.budget) == (contender, budget)
                ]
                cells += "".join(
                    f"  {row.mean:.3f} ({row.low:.2f}-{row.high:.2f}) {row.tried:>4.0f}"
                    for row in found
                )
            lines.append(f"  {contender:<12}{cells}")
    return "\n".join(lines)


def main() -> None:
    """Plays all games and prints the table; `--out` gets every row as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, nargs="*", default=[OWN])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--budgets", type=float, nargs="*", default=[1.5, 3, 6, 12])
    parser.add_argument("--workers", type=int, nargs="*", default=[4])
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS))
    parser.add_argument(
        "--costs", nargs="*", choices=["equal", "unequal"], default=["equal", "unequal"]
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    tables = tables_of(arguments.tables)
    games = [
        Game(table, contender, budget, cost == "unequal", workers, seed)
        for table, contender, budget, cost, workers, seed in product(
            tables,
            arguments.contenders,
            arguments.budgets,
            arguments.costs,
            arguments.workers,
            range(arguments.seeds),
        )
    ]
    random.Random(0).shuffle(games)  # so that no process gets all the long ones
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.processes, Players.take, (arguments.tables,)) as pool:
        scores = pool.map(Players.play, games, chunksize=20)
    rows = summary(scores)
    print(table_of(rows))
    disqualified = sorted({row.contender for row in rows if row.overdrafts})
    print(f"overdrafts: {', '.join(disqualified) or 'none'}")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))


if __name__ == "__main__":
    main()
