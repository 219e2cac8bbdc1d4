"""Records learning curves of real configurations, for policies to be compared on: loss against FLOPs, test loss, cost.

    python benchmarks/record_curves.py [--configs 160] [--processes 2] [--out benchmarks/curves/lotka_volterra_tiny.jsonl.gz]

Each configuration (rank, learning rate, context length, targets, batch size, drawn without repetition from the whole
product) trains the tiny model on the classical Lotka–Volterra equations, at a constant rate, until `FLOPS` of training
are used. At each of `LEVELS` counts of FLOPs the loss is taken on the same validation windows (which a search
would see) and on test windows (which it would not). Configurations that the file already has are not trained again,
so an interrupted recording goes on. Every line stands for itself and says all that is needed to price its steps.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING

from lvray.core.run_folder import RunFolder
from lvray.core.task import DataTask, EvaluationTask, Task
from lvray.core.trial import LoraConfig, Milestone, TrialConfig
from lvray.planner.data import prepare
from lvray.planner.prices import price_trial
from lvray.spec.load import load
from lvray.spec.schema import Sweep

if TYPE_CHECKING:
    from lvray.trainer.evaluate import WindowLosses

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "curves" / "lotka_volterra_tiny.jsonl.gz"

FLOPS = 2_000_000_000_000
"""Of training, for each configuration; evaluations come on top."""
LEVELS = tuple(round(FLOPS * 2 ** (-index / 1.5)) for index in reversed(range(10)))
"""Counts of training FLOPs at which the losses are taken: from a 64th to all, evenly on a log scale."""
WINDOWS = 8
"""Validation windows, and twice as many of test text, of 1,000 tokens."""

RANKS = (1, 2, 4, 8, 16)
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
CONTEXTS = (250, 500, 1000)
TARGETS = (("q_proj", "v_proj"), ("all-linear",))
BATCHES = (1, 2, 4)

OVERRIDES = (
    "data.source=lotka-volterra",
    "text.decimals=2",
    "text.scaling=offset-quantile",
    f"evaluation.windows={WINDOWS}",
    "evaluation.context_length=1000",
)


def configs(seed: int = 0) -> list[TrialConfig]:
    """Every configuration of the product, in a drawn order."""
    chance = random.Random(seed)
    every = [
        TrialConfig(
            lora=LoraConfig(rank=rank, alpha=2.0 * rank, targets=targets),
            learning_rate=rate,
            warmup_steps=5,
            context_length=context,
            stride=context,
            batch_size=batch,
            padding="drop",
        )
        for rank, rate, context, targets, batch in product(RANKS, RATES, CONTEXTS, TARGETS, BATCHES)
    ]
    chance.shuffle(every)
    return every


def record(work: tuple[TrialConfig, DataTask, Sweep]) -> dict[str, object]:
    """Trains one configuration and gives its line of the table."""
    import torch

    from lvray.trainer.batches import read_texts
    from lvray.trainer.loop import Bench, Learner, accelerator_on, validate
    from lvray.trainer.model import attach, detach, load_base
    from lvray.trainer.tokenizer import load_tokenizer

    config, data, sweep = work
    lora = config.lora
    assert lora is not None, "every configuration has an adapter"
    torch.set_num_threads(1)
    prices = price_trial(sweep, config, variables=2)
    steps = [level // prices.train_step for level in LEVELS]
    stops = sorted({step for step in steps if step > 0})
    evaluation = EvaluationTask(validation_windows=WINDOWS, validation_context=1000, batch_size=8)
    with TemporaryDirectory() as folder:
        task = Task(
            trial_id="curve",
            attempt=1,
            model="tiny",
            device="cpu",
            data=data,
            evaluation=evaluation,
            config=config,
            milestones=tuple(Milestone(step, step * prices.train_step) for step in stops),
            prices=prices,
            folder=folder,
        )
        device = torch.device("cpu")
        texts = read_texts(json.dumps(task.to_json()["data"]), "tiny")
        unseen = DataTask(data.path, data.train, data.test, data.validation, data.codec)
        tests = read_texts(json.dumps(replace(task, data=unseen).to_json()["data"]), "tiny")
        twice = replace(task, evaluation=replace(evaluation, validation_windows=2 * WINDOWS))
        base = load_base("tiny", device=device, dtype=torch.float32)
        torch.manual_seed(config.seed)
        model = attach(base, config.lora, config.seed)
        try:
            tokenizer, accelerator = load_tokenizer("tiny"), accelerator_on("cpu")
            bench = Bench(task, device, accelerator, tokenizer, texts, model)
            test_bench = Bench(twice, device, accelerator, tokenizer, tests, model)
            learner = Learner.of(bench, lora)
            points = [_point(0, 0, validate(bench), validate(test_bench))]
            step, seconds = 0, 0.0
            for stop in stops:
                begun = perf_counter()
                stretch = learner.train(step, stop)
                seconds += perf_counter() - begun
                step = stop
                if not stretch.finite:
                    break
                losses = validate(bench), validate(test_bench)
                if not all(math.isfinite(loss.mean) for loss in losses):
                    break
                points.append(_point(stop, stop * prices.train_step, *losses))
        finally:
            detach(model)
    return {
        "config": config.to_json(),
        "prices": prices.to_json(),
        "seconds": round(seconds, 2),
        "diverged": len(points) <= len(stops),
        "points": points,
    }


def _point(
    step: int, flops: int, validation: WindowLosses, test: WindowLosses
) -> dict[str, object]:
    """One level of a curve: FLOPs of training so far, and losses in nats per token."""
    return {
        "step": step,
        "flops": str(flops),
        "validation_loss": round(validation.mean, 5),
        "test_loss": round(test.mean, 5),
        "window_losses": [round(loss, 4) for loss in validation.each],
    }


def read_lines(path: Path) -> list[dict[str, object]]:
    """Every line of a table, none if there is no file."""
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_lines(path: Path, lines: list[dict[str, object]]) -> None:
    """Writes the table whole, in the order of its configurations, the same bytes for the same lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(
        json.dumps(line, separators=(",", ":")) + "\n"
        for line in sorted(lines, key=lambda line: json.dumps(line["config"]))
    )
    beside = path.with_suffix(".partial")
    beside.write_bytes(gzip.compress(text.encode(), mtime=0))
    beside.replace(path)


def missing(path: Path, count: int) -> Iterator[TrialConfig]:
    """The first `count` configurations that the table lacks."""
    known = {json.dumps(line["config"], sort_keys=True) for line in read_lines(path)}
    for config in configs()[:count]:
        if json.dumps(config.to_json(), sort_keys=True) not in known:
            yield config


def main() -> None:
    """Trains what the table lacks and says how far it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", type=int, default=160)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    sweep = load(ROOT / "sweeps" / "grid.yaml", overrides=OVERRIDES)
    with TemporaryDirectory() as folder:
        data = prepare(sweep, RunFolder(Path(folder) / "curves"))
    lines = read_lines(arguments.out)
    work = [(config, data, sweep) for config in missing(arguments.out, arguments.configs)]
    context = multiprocessing.get_context("spawn")
    begun = perf_counter()
    with context.Pool(arguments.processes) as pool:
        for done, line in enumerate(pool.imap_unordered(record, work), 1):
            lines.append(line)
            write_lines(arguments.out, lines)
            left = (perf_counter() - begun) / done * (len(work) - done)
            print(
                f"{len(lines)} of {arguments.configs}: about {left / 60:.0f} min left", flush=True
            )


if __name__ == "__main__":
    main()
