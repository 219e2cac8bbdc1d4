"""How long do forecasts take? 150 systems, 20 steps ahead of 80, by the tiny model; and against transformers' own `generate`.

    python benchmarks/forecast_speed.py [--systems 150] [--samples 0] [--threads 1]

The ratio is of the time a token takes here, within the grammar, to the time it takes `generate`, greedy and
unconstrained, on the same prompts in the same batches.
"""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import Any

import torch

from lvray.core.task import ForecastTask
from lvray.series.codec import Codec
from lvray.series.dataset import load
from lvray.series.readers import read
from lvray.trainer.generate import ROWS_A_SEQUENCE, forecast_systems
from lvray.trainer.model import load_base
from lvray.trainer.tokenizer import load_tokenizer

CONTEXT, HORIZON, BATCH = 80, 20, 8
STEP_TOKENS = 8
"""Tokens of a usual time step: two variables of one digit, a point and one decimal, and what divides them."""


def main() -> None:
    """Prints seconds, tokens a second, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", type=int, default=150)
    parser.add_argument("--samples", type=int, default=0, help="draws of each; 0 is greedy")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cpu")
    values = read(load("coursework", path=None, seed=0, systems=1000)).values
    codec = Codec.fit(values[:800], decimals=1, method="offset-quantile", to=9.0)
    model, tokenizer = load_base("tiny", device=device, dtype=torch.float32), load_tokenizer("tiny")
    systems = range(1000 - arguments.systems, 1000)
    asked = ForecastTask(
        systems=arguments.systems,
        context_steps=CONTEXT,
        horizon=HORIZON,
        windows=1,
        every=HORIZON,
        samples=arguments.samples,
        temperature=1.0,
        prompt="raw",
        prompt_tokens=2 * CONTEXT * STEP_TOKENS,
        new_tokens=2 * HORIZON * STEP_TOKENS,
    )
    began = perf_counter()
    made = forecast_systems(
        model, tokenizer, codec, values, systems, asked, batch_size=BATCH, seed=0, device=device
    )
    ours = perf_counter() - began
    texts = [
        codec.encode(series, codec.scale_of(history))
        for window, history in zip(made.samples, made.history, strict=True)
        for series in (window if len(window) else [])
    ]
    greedy = [
        codec.encode(each, codec.scale_of(past))
        for each, past in zip(made.point, made.history, strict=True)
    ]
    tokens = sum(map(len, texts or greedy))
    print(
        f"{arguments.systems} systems × {HORIZON} steps of {CONTEXT}, {arguments.samples or 'no'} draws: "
        f"{ours:.1f} s, {tokens / ours:,.0f} tokens/s on {arguments.threads} thread(s), {made.short.sum()} too short"
    )
    some = made.history[: ROWS_A_SEQUENCE * BATCH]
    prompts = [tokenizer.encode(codec.encode(past, codec.scale_of(past))) for past in some]
    shortest = min(map(len, prompts))
    batch = torch.tensor([prompt[-shortest:] for prompt in prompts])
    plain: Any = model
    began = perf_counter()
    with torch.no_grad():
        plain.generate(
            input_ids=batch,
            attention_mask=torch.ones_like(batch),
            do_sample=False,
            min_new_tokens=HORIZON * STEP_TOKENS,
            max_new_tokens=HORIZON * STEP_TOKENS,
            pad_token_id=tokenizer.pad_id,
        )
    theirs = (perf_counter() - began) / (len(prompts) * HORIZON * STEP_TOKENS)
    print(f"a token takes {ours / tokens / theirs:.2f} × the time it takes transformers' generate")


if __name__ == "__main__":
    main()
