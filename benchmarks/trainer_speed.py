"""How much slower is the trainer than a plain transformers + PEFT loop? Tokens per second, in pairs.

python benchmarks/trainer_speed.py [--steps 40] [--pairs 5]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from bare import bare_model, seconds_of_steps

from lvray.core.task import DataTask, EvaluationTask, Task
from lvray.core.trial import LoraConfig, Measurement, Pause, StepPrices, TrialConfig
from lvray.scheduler.milestones import unroll
from lvray.series.codec import Codec
from lvray.series.dataset import load
from lvray.series.readers import read
from lvray.trainer.loop import run

BATCH, CONTEXT, RANK = 4, 256, 8


def task(folder: Path, steps: int) -> Task:
    """A trial of `steps` steps with one small evaluation at its end."""
    path = load("coursework", path=None, seed=0, systems=1000)
    training = tuple(range(100))
    codec = Codec.fit(read(path).values[:100], decimals=2, method="percentile")
    prices = StepPrices(train_step=1, evaluation=1, forecast=1)
    lora = LoraConfig(rank=RANK, alpha=2.0 * RANK, targets=("all-linear",))
    return Task(
        trial_id="speed",
        attempt=1,
        model="tiny",
        device="cpu",
        data=DataTask(str(path), training, (100,), (101,), codec.to_json()),
        evaluation=EvaluationTask(validation_windows=1, validation_context=16, batch_size=1),
        config=TrialConfig(
            lora=lora, learning_rate=1e-3, context_length=CONTEXT, stride=CONTEXT, batch_size=BATCH
        ),
        milestones=unroll(prices, [(steps, None)], forecast=False),
        prices=prices,
        folder=str(folder),
        threads=1,
    )


def seconds_of_trainer(steps: int) -> float:
    """Seconds that the trainer itself reports for `steps` steps, its evaluation and checkpoint included."""
    heard: list[Measurement | Pause] = []
    with TemporaryDirectory() as folder:
        run(task(Path(folder), steps), heard.append)
    return heard[-1].seconds


def main() -> None:
    """Prints both rates and the median of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = bare_model(RANK)
    shape = {"batch_size": BATCH, "context_length": CONTEXT}
    seconds_of_steps(model, steps=3, **shape)
    seconds_of_trainer(3)
    pairs = [
        (
            seconds_of_trainer(arguments.steps),
            seconds_of_steps(model, steps=arguments.steps, **shape),
        )
        for _ in range(arguments.pairs)
    ]
    tokens = arguments.steps * BATCH * CONTEXT
    ours, bare = (tokens / statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = [mine / theirs for mine, theirs in pairs]
    print(f"trainer {ours:.0f} tokens/s, bare loop {bare:.0f} tokens/s")
    print(
        f"time ratio: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}"
    )


if __name__ == "__main__":
    main()
