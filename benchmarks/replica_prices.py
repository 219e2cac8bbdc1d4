"""What do four earlier systems cost as sweep files, and what did their authors count? As Markdown tables, for docs/replicas.md.

python benchmarks/replica_prices.py [--write docs/replicas.md]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvray.core.trial import StagePlan
from lvray.core.units import format_flops
from lvray.flops.price import train_step
from lvray.flops.shape import shape_of
from lvray.planner.stages import outline
from lvray.spec.load import load
from lvray.spec.schema import StageSpec, Sweep
from lvray.spec.space import trial_config

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- what benchmarks/replica_prices.py prints -->", "<!-- its end -->"


@dataclass(frozen=True, slots=True)
class Published:
    """What a report says that its own steps cost, FLOPs as printed there."""

    author: str
    steps: Mapping[int, float]
    """A training step of four sequences, by context length."""
    stages: Mapping[str, float]
    """By stage of the sweep file."""
    total: float | None = None
    how: str = ""
    """Where a figure is not printed as it stands here."""


PUBLISHED: Mapping[str, Published] = {
    "mcconkey": Published("S1 McConkey", {128: 1.65e12, 512: 6.67e12, 768: 1.01e13}, {}),
    "at2128": Published(
        "S2 at2128",
        {512: 4 * 1.70e12},
        {"initial": 8.19e15, "grid": 5.83e16, "contexts": 1.95e15 + 9.15e15, "final": 1.94e16},
        9.70e16,
        "four times the printed 1.70e12 of one sequence; contexts are the two printed rows",
    ),
    "mondal": Published(
        "S3 Mondal",
        {512: 1.59e12},
        {"default": 7.9e15, "grid": 8.1e15, "contexts": 2.2e15, "final": 2.5e16},
        4.5e16,
        "the LoRA step; the full one is printed as 4.69e12",
    ),
    "ym429": Published(
        "S4 ym429",
        {128: 1.8965e12, 512: 8.0023e12, 768: 1.2420e13},
        {"initial": 8e15, "grid": 3.6e16, "contexts": 1.1e16, "final": 4e16},
        9.5e16,
        "stages are printed as percentages of 1e17; the steps above are recounted from their code at rank 8",
    ),
}


def planned(name: str) -> tuple[Sweep, tuple[StagePlan, ...]]:
    """A replica's sweep file, and its plan as `lvray.plan` prints it."""
    sweep = load(ROOT / "sweeps" / "replicas" / f"{name}.yaml")
    return sweep, outline(sweep, variables=2)


def step_of(sweep: Sweep, context_length: int) -> int:
    """FLOPs of a training step of the sweep's own trial, at a context length."""
    config = trial_config(sweep, StageSpec(name="trial", steps=1), {})
    return train_step(
        shape_of(sweep.model),
        lora=config.lora,
        convention=sweep.convention,
        context_length=context_length,
        batch_size=config.batch_size,
    )


def step_table(sweeps: Mapping[str, Sweep]) -> Iterator[str]:
    """A row a system and context length: what a training step costs here and there."""
    yield "| a training step of | tokens | lvray | theirs | lvray / theirs |"
    yield "|---|---:|---:|---:|---:|"
    for name, sweep in sweeps.items():
        for context, there in PUBLISHED[name].steps.items():
            here = step_of(sweep, context)
            theirs = f"{there:.2e}", f"{here / there:.3f}"
            row = (PUBLISHED[name].author, f"4 × {context}", f"{here:,}", *theirs)
            yield f"| {' | '.join(row)} |".replace("e+", "e")


def stage_table(name: str, sweep: Sweep, plans: Sequence[StagePlan]) -> Iterator[str]:
    """A row a stage: training, evaluation and forecasts here, and the sum there."""
    published = PUBLISHED[name]
    yield f"| {published.author} | trials × steps | training | evaluation | forecasts | together | theirs | lvray / theirs |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    sums = [0, 0, 0]
    for plan in plans:
        parts = parts_of(plan)
        sums = [one + other for one, other in zip(sums, parts, strict=True)]
        trials = f"{len(plan.trials)} × {plan.trials[0].steps}"
        yield _row(plan.name, trials, parts, published.stages.get(plan.name))
    yield _row("total", "", sums, published.total)
    share = sum(sums) / sweep.budget
    yield f"\nBudget {format_flops(sweep.budget)}, of which {share:.1%} are planned."
    if published.how:
        yield f"Theirs: {published.how}."


def parts_of(plan: StagePlan) -> list[int]:
    """FLOPs of a stage of fixed steps by what they are for: training, evaluation, forecasts."""
    training = sum(trial.steps * trial.prices.train_step for trial in plan.trials)
    evaluation = sum(len(trial.milestones) * trial.prices.evaluation for trial in plan.trials)
    forecasts = sum(trial.milestones[-1].forecast * trial.prices.forecast for trial in plan.trials)
    assert training + evaluation + forecasts == plan.price, plan.name
    return [training, evaluation, forecasts]


def _row(name: str, trials: str, parts: Sequence[int], theirs: float | None) -> str:
    whole = sum(parts)
    there = ("–", "–") if theirs is None else (f"{theirs:.2e}", f"{whole / theirs:.2f}")
    cells = (name, trials, *(format_flops(part) if part else "–" for part in parts))
    return f"| {' | '.join((*cells, format_flops(whole), *there))} |".replace("e+", "e")


def page() -> str:
    """All tables."""
    found = {name: planned(name) for name in PUBLISHED}
    lines = [*step_table({name: sweep for name, (sweep, _) in found.items()})]
    for name, (sweep, plans) in found.items():
        lines += ["", *stage_table(name, sweep, plans)]
    return "\n".join(lines)


def main() -> None:
    """Prints the tables, or puts them where the page has its marks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="a page with the two marks")
    target = parser.parse_args().write
    if target is None:
        print(page())
        return
    text = target.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    target.write_text(f"{before}{BEGIN}\n\n{page()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
