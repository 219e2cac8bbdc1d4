"""How was the embedded base model made? Pretrains it on invented series, none of them predator–prey.

    python -m lvray.trainer.tiny.pretrain --minutes 40 --out FOLDER

A Qwen2 of one million parameters learns the project's text format on series drawn as it goes: mixtures
of oscillations of many shapes, relaxations, steps, trends, autoregressions and noise. Nothing is
integrated from predator–prey equations, so that such series stay something to be learnt. The run is
bounded in time, not in steps: the learning rate and the context length follow the share of the time
that has passed, so it ends annealed however slow the machine is. Apart from that it is seeded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from lvray.trainer.tokenizer import END_OF_TEXT, ByteTokenizer

Floats: TypeAlias = npt.NDArray[np.float64]
Draw: TypeAlias = Callable[[np.random.Generator, int, int, int, Floats], Floats]
"""(random, n, T, V, times [1, T, 1]) → series [n, T, V] of no particular scale."""

PEAK_LEARNING_RATE = 2e-3
WARMUP_STEPS = 300
CURRICULUM = ((0.4, 256, 8), (0.75, 512, 4), (1.0, 1024, 2))
"""(share of the time until which, context length, batch size): 2,048 tokens a step throughout."""


def config() -> Qwen2Config:
    """The model's shape: Qwen2 with 4 layers of 128, grouped-query attention, tied embeddings."""
    return Qwen2Config(
        vocab_size=ByteTokenizer.vocabulary,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        rope_theta=10000.0,
        bos_token_id=END_OF_TEXT,
        eos_token_id=END_OF_TEXT,
        pad_token_id=END_OF_TEXT,
    )


def oscillation(
    random: np.random.Generator, n: int, length: int, variables: int, times: Floats
) -> Floats:
    """Waves of one period with lags between variables: skewed, spiky, damped or growing, some chirping."""
    period = np.exp(random.uniform(np.log(6), np.log(60), (n, 1, 1)))
    base = random.uniform(0, 2 * np.pi, (n, 1, 1))
    lag = random.uniform(0, 2 * np.pi, (n, 1, variables))
    chirp = 1 + random.normal(0, 0.1, (n, 1, 1)) * times / length * (random.random((n, 1, 1)) < 0.3)
    phase = 2 * np.pi * times / period * chirp + base + lag
    phase = phase + random.uniform(0, 0.9, (n, 1, variables)) * np.sin(phase)
    wave = np.sin(phase)
    sharp = random.uniform(0, 3.0, (n, 1, variables)) * (random.random((n, 1, variables)) < 0.7)
    low, high = np.exp(-sharp), np.exp(sharp)
    spiky = (np.exp(sharp * wave) - low) / (high - low + 1e-9) * 2 - 1
    shaped = np.where(sharp > 0.2, spiky, wave)
    rate = np.exp(random.uniform(np.log(0.002), np.log(0.15), (n, 1, 1)))
    rate = rate * random.choice([0.0, 1.0, 1.0, -0.1], (n, 1, 1))
    envelope = np.exp(-np.clip(rate * times, -1.5, 20))
    level = random.uniform(0, 1, (n, 1, variables))
    amplitude = random.uniform(0.2, 1, (n, 1, variables))
    drawn: Floats = shaped * envelope * amplitude + level * (1 - envelope) * random.choice(
        [0, 1], (n, 1, 1)
    )
    return drawn


def relaxation(
    random: np.random.Generator, n: int, length: int, variables: int, times: Floats
) -> Floats:
    """Sums of a slow and a fast exponential."""
    rate = np.exp(random.uniform(np.log(0.01), np.log(0.5), (n, 1, variables)))
    slow = np.exp(-rate * times)
    fast = np.exp(-rate * random.uniform(1.2, 5, (n, 1, variables)) * times)
    return (
        random.normal(0, 1, (n, 1, variables)) * slow
        + random.normal(0, 1, (n, 1, variables)) * fast
    )


def steps(
    random: np.random.Generator, n: int, length: int, variables: int, times: Floats
) -> Floats:
    """Three smooth steps up or down, at any time, of any steepness."""
    series = np.zeros((n, length, variables))
    for _ in range(3):
        height = random.normal(0, 1, (n, 1, variables))
        middle = random.uniform(0, length, (n, 1, variables))
        width = np.exp(random.uniform(-1, 3, (n, 1, variables)))
        series += height / (1 + np.exp(np.clip(-(times - middle) / width, -40, 40)))
    return series


def autoregression(
    random: np.random.Generator, n: int, length: int, variables: int, times: Floats
) -> Floats:
    """Second-order autoregressions near the unit circle: noisy waves whose phase wanders."""
    radius = random.uniform(0.7, 0.999, (n, variables))
    angle = 2 * np.pi / np.exp(random.uniform(np.log(5), np.log(60), (n, variables)))
    first, second = 2 * radius * np.cos(angle), -radius * radius
    series, shocks = np.zeros((n, length, variables)), random.normal(0, 1, (n, length, variables))
    for step in range(2, length):
        series[:, step] = (
            first * series[:, step - 1] + second * series[:, step - 2] + shocks[:, step]
        )
    drawn: Floats = series / (np.abs(series).max(1, keepdims=True) + 1e-9)
    return drawn


def trend(
    random: np.random.Generator, n: int, length: int, variables: int, times: Floats
) -> Floats:
    """Lines, parabolas and square roots."""
    share = times / length
    line, parabola = random.normal(0, 1, (n, 1, variables)), random.normal(0, 1, (n, 1, variables))
    return (
        line * share
        + parabola * share * share
        + random.normal(0, 0.3, (n, 1, variables)) * np.sqrt(share)
    )


OSCILLATIONS: tuple[Draw, ...] = (oscillation,) * 4
KINDS: tuple[Draw, ...] = (*OSCILLATIONS, relaxation, steps, autoregression, trend)


def draw_series(random: np.random.Generator, n: int, length: int, variables: int) -> Floats:
    """Draws n series [n, length, variables], mostly between 0 and 10: an oscillation, another kind mixed in."""
    times = np.arange(length)[None, :, None].astype(float)
    first = OSCILLATIONS[random.integers(len(OSCILLATIONS))](random, n, length, variables, times)
    second = KINDS[random.integers(len(KINDS))](random, n, length, variables, times)
    weight = random.uniform(0, 0.8, (n, 1, variables)) * (random.random((n, 1, 1)) < 0.45)
    added, modulated = first + weight * second, first * (1 + 0.5 * np.tanh(second) * (weight > 0))
    series = np.where(random.random((n, 1, 1)) < 0.8, added, modulated)
    series = np.where(random.random((n, 1, 1)) < 0.12, second, series)
    noise = np.exp(random.uniform(np.log(0.001), np.log(0.15), (n, 1, 1))) * (
        random.random((n, 1, 1)) < 0.2
    )
    series = series + noise * random.normal(0, 1, series.shape)
    low, high = series.min(1, keepdims=True), series.max(1, keepdims=True)
    unit = (series - low) / (high - low + 1e-9)
    amplitude = np.exp(random.uniform(np.log(0.2), np.log(9), (n, 1, variables)))
    near_zero = random.random((n, 1, variables)) < 0.5
    base = np.where(
        near_zero,
        random.uniform(0, 0.3, (n, 1, variables)),
        random.uniform(0, 3, (n, 1, variables)),
    )
    bent = random.random((n, 1, variables)) < 0.3
    power = np.where(bent, random.uniform(0.6, 2.5, (n, 1, variables)), 1.0)
    sign = np.where(random.random((n, 1, variables)) < 0.03, -1, 1)
    drawn: Floats = (base + amplitude * unit**power) * sign
    return drawn


def write_text(series: Floats, decimals: int) -> str:
    """One series [T, V] in the project's text format."""
    return "".join(",".join(f"{value:.{decimals}f}" for value in row) + ";" for row in series)


def draw_batch(random: np.random.Generator, batch_size: int, context_length: int) -> torch.Tensor:
    """Tokens [batch_size, context_length]; half the windows begin in mid-series, in mid-number too."""
    tokenizer = ByteTokenizer()
    variables = int(random.choice([1, 2, 2, 2, 2, 2, 2, 3]))
    decimals = int(random.choice([2, 2, 2, 2, 2, 2, 1, 3]))
    length = context_length // (variables * (2 + decimals)) + 60
    series = draw_series(random, batch_size, length, variables)
    windows = np.empty((batch_size, context_length), np.int64)
    for row in range(batch_size):
        ids = tokenizer.encode(write_text(series[row], decimals))
        late = random.random() >= 0.5
        start = int(random.integers(0, max(1, min(len(ids) - context_length, 400)))) if late else 0
        windows[row] = ids[start : start + context_length]
    return torch.from_numpy(windows)


def schedule(passed: float, step: int) -> tuple[float, int, int]:
    """Learning rate, context length and batch size when a share `passed` of the time is gone."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    decay = 1.0 if passed < 0.5 else max(0.01, (1 - passed) / 0.5)
    length, batch_size = next(
        (length, size) for until, length, size in CURRICULUM if passed < until
    )
    return PEAK_LEARNING_RATE * warm * decay, length, batch_size


def pretrain(minutes: float, out: Path, note: Callable[[dict[str, Any]], None]) -> None:
    """Trains for `minutes`, writing the model to `out` every 90 s and telling `note` how it stands."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    model = Qwen2ForCausalLM(config())
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98))
    held_out = [draw_batch(np.random.default_rng(10_000 + index), 8, 1000) for index in range(6)]
    begun = told = monotonic()
    step = tokens = 0
    average: float | None = None
    while (passed := (monotonic() - begun) / 60 / minutes) < 1:
        rate, length, batch_size = schedule(passed, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = draw_batch(random, batch_size, length)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + batch.numel()
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        if monotonic() - told > 90:
            told = monotonic()
            note(_standing(model, held_out, begun, step, tokens, rate, average))
            model.save_pretrained(out)
    note(_standing(model, held_out, begun, step, tokens, 0.0, average or 0.0))
    model.save_pretrained(out)


def _standing(
    model: Qwen2ForCausalLM,
    held_out: Sequence[torch.Tensor],
    begun: float,
    step: int,
    tokens: int,
    rate: float,
    average: float,
) -> dict[str, Any]:
    model.eval()
    with torch.no_grad():
        losses = [model(input_ids=batch, labels=batch).loss.item() for batch in held_out]
    model.train()
    passed = monotonic() - begun
    return {
        "step": step,
        "tokens": tokens,
        "minutes": round(passed / 60, 2),
        "learning_rate": rate,
        "train_loss": round(average, 4),
        "held_out_loss": round(sum(losses) / len(losses), 4),
        "tokens_per_second": round(tokens / passed),
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Pretrains the embedded base model.")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument(
        "--out", type=Path, required=True, help="a folder for the model and its log"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "pretraining.jsonl").open("w", encoding="utf-8") as log:

        def note(standing: dict[str, Any]) -> None:
            log.write(json.dumps(standing) + "\n")
            log.flush()

        pretrain(arguments.minutes, arguments.out, note)


if __name__ == "__main__":
    main()
