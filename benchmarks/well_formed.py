"""Can a model that knows nothing write a forecast that cannot be read? 10,000 draws at temperature 1 from random weights.

python benchmarks/well_formed.py [--forecasts 10000] [--horizon 2] [--decimals 2]
"""

from __future__ import annotations

import argparse
import re
from time import perf_counter

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from lvray.flops.shape import TINY
from lvray.series.grammar import Grammar
from lvray.trainer.generate import Draws, continue_texts
from lvray.trainer.tokenizer import load_tokenizer

PROMPT = "0.50,1.25;"
AT_ONCE = 500
VARIABLES = 2


def random_model() -> Qwen2ForCausalLM:
    """A model of the shape of ``tiny`` with random weights, large enough to prefer some characters wildly."""
    config = Qwen2Config(
        hidden_size=TINY.hidden,
        num_hidden_layers=TINY.layers,
        num_attention_heads=TINY.heads,
        num_key_value_heads=TINY.kv_heads,
        intermediate_size=TINY.feed_forward,
        vocab_size=TINY.vocabulary,
        tie_word_embeddings=TINY.tied_head,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config)


def well_formed(text: str, *, horizon: int, decimals: int) -> bool:
    """Whether a text is so many whole time steps and nothing else."""
    number = rf"-?(0|[1-9]\d{{0,2}})\.\d{{{decimals}}}"
    step = rf"{number}(,{number}){{{VARIABLES - 1}}};"
    return re.fullmatch(rf"({step}){{{horizon}}}", text) is not None


def main() -> int:
    """Prints how many were malformed; 1 if any was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forecasts", type=int, default=10_000)
    parser.add_argument("--horizon", type=int, default=2)
    parser.add_argument("--decimals", type=int, default=2)
    arguments = parser.parse_args()
    model, tokenizer = random_model(), load_tokenizer("tiny")
    longest = arguments.horizon * VARIABLES * (6 + arguments.decimals)
    begun = perf_counter()
    malformed: list[str] = []
    texts: set[str] = set()
    for start in range(0, arguments.forecasts, AT_ONCE):
        written = continue_texts(
            model,
            tokenizer,
            Grammar(variables=VARIABLES, decimals=arguments.decimals),
            [tokenizer.encode(PROMPT)],
            horizon=arguments.horizon,
            most_tokens=longest,
            device=torch.device("cpu"),
            draws=Draws(1.0, [range(start, min(start + AT_ONCE, arguments.forecasts))]),
        )
        texts |= set(written)
        malformed += [
            text
            for text in written
            if not well_formed(text, horizon=arguments.horizon, decimals=arguments.decimals)
        ]
    print(
        f"{arguments.forecasts} forecasts, {len(texts)} of them different, {len(malformed)} malformed, "
        f"{perf_counter() - begun:.0f} s"
    )
    print(*malformed[:5], sep="\n")
    return 1 if malformed else 0


if __name__ == "__main__":
    raise SystemExit(main())
