"""What does the model say happens next?

A forecast is text: the history of a system is written as text, the model goes on greedily, and what
it wrote is read as numbers again. A small automaton (`series.grammar`) lets it choose only among characters
that can follow, so that every forecast is readable, and a system that went astray shows as a bad
number and not as a missing one. The scale of a forecast is fitted on its history alone (unless the sweep
scales per part).

Shapes: N systems, B sequences of a batch, T tokens of a prompt, C characters of the alphabet, H time steps of the horizon, V variables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from lvray.core.errors import DataError, ModelError
from lvray.core.task import ForecastTask
from lvray.series.codec import Codec
from lvray.series.forecasts import Forecasts
from lvray.series.grammar import ALPHABET, Grammar
from lvray.series.metrics import mae, rmse
from lvray.trainer.prompts import prompt_of
from lvray.trainer.tokenizer import Tokenizer


def metrics_of(made: Sequence[Forecasts]) -> dict[str, float]:
    """Gives the figures by name, each the mean over the lengths of context.

    ``forecast_mae`` and ``forecast_rmse`` are in the data's units; ``forecast_short`` counts the forecasts that had too
    few time steps.
    """
    return {
        "forecast_mae": float(np.mean([mae(each.point, each.truth) for each in made])),
        "forecast_rmse": float(np.mean([rmse(each.point, each.truth) for each in made])),
        "forecast_short": float(sum(each.short.sum() for each in made)),
    }


def evenly_spread(systems: Sequence[int], count: int) -> tuple[int, ...]:
    """Gives `count` of the systems, evenly spread over their order; all, if there are not so many."""
    count = min(count, len(systems))
    return tuple(systems[place * len(systems) // count] for place in range(count))


def forecast_systems(
    model: Module,
    tokenizer: Tokenizer,
    codec: Codec,
    values: NDArray[np.float64],
    systems: Sequence[int],
    asked: ForecastTask,
    *,
    batch_size: int,
    seed: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Forecasts:
    """Forecasts windows of some of `systems`, evenly spread; `values` is [all, time, V].

    Args:
        model: with or without an adapter.
        tokenizer: the model's.
        codec: how series are written.
        values: all systems of the file [all, time, V].
        systems: those that may be forecast.
        asked: which windows, how far, and how many tokens it may take.
        batch_size: prompts continued at once.
        seed: of the draws.
        device: where the model is.
        autocast: the context in which it is called.

    Raises:
        DataError: the series are too short for history and horizon together.
    """
    given, horizon = asked.context_steps, asked.horizon
    need = given + (asked.windows - 1) * asked.every + horizon
    if need > values.shape[1]:
        raise DataError(
            f"a forecast of {horizon} steps from {given} needs series of {need} steps, "
            f"these have {values.shape[1]}; make evaluation.forecast shorter"
        )
    chosen = evenly_spread(systems, asked.systems)
    windows = [(system, start * asked.every) for system in chosen for start in range(asked.windows)]
    history = np.stack([values[system, at : at + given] for system, at in windows])
    truth = np.stack([values[system, at + given : at + given + horizon] for system, at in windows])
    scales = [codec.scale_of(series, part="test") for series in history]
    prompts = [
        prompt_of(tokenizer, codec, codec.encode(series, scale), asked)
        for series, scale in zip(history, scales, strict=True)
    ]
    grammar = Grammar.of(codec)
    texts: list[str] = []
    for start in range(0, len(prompts), batch_size):
        texts += continue_texts(
            model,
            tokenizer,
            grammar,
            prompts[start : start + batch_size],
            horizon=horizon,
            most_tokens=asked.new_tokens,
            device=device,
            autocast=autocast,
        )
    point = np.empty_like(truth)
    short = np.zeros(len(windows), dtype=np.int64)
    for row, (text, scale) in enumerate(zip(texts, scales, strict=True)):
        steps = codec.decode(text, scale, missing=False)[:horizon]
        short[row] = len(steps) < horizon
        point[row, : len(steps)] = steps
        point[row, len(steps) :] = steps[-1] if len(steps) else history[row, -1]
    return Forecasts(
        systems=np.array([system for system, _ in windows], dtype=np.int64),
        starts=np.array([start for _, start in windows], dtype=np.int64),
        history=history,
        truth=truth,
        point=point,
        samples=np.empty((len(windows), 0, horizon, truth.shape[2])),
        scale=np.array([scale.scale for scale in scales]),
        floor=np.array([codec.rounding_floor(scale) for scale in scales]),
        short=short,
    )


@torch.no_grad()
def continue_texts(
    model: Module,
    tokenizer: Tokenizer,
    grammar: Grammar,
    prompts: Sequence[Sequence[int]],
    *,
    horizon: int,
    most_tokens: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> list[str]:
    """Continues each prompt (token ids) greedily within the grammar, until `horizon` semicolons.

    A text that has not got there after `most_tokens` tokens ends where it is. Prompts of unequal
    length are padded on the left, where neither attention nor positions see the padding, so a
    prompt is continued alike in any company. The model is left in evaluation mode.
    """
    model.eval()
    characters = character_ids(tokenizer).to(device)
    allowed, following = (torch.from_numpy(table).to(device) for table in grammar.tables())
    semicolon = ALPHABET.index(";")
    tokens, mask = _padded_left(prompts, tokenizer.pad_id, device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    places = torch.zeros(len(prompts), dtype=torch.int64, device=device)
    steps = torch.zeros_like(places)
    written: list[Tensor] = []
    cache = None
    while len(written) < most_tokens and bool((steps < horizon).any()):
        with autocast():
            answer = model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        cache = answer.past_key_values
        scores = answer.logits[:, -1, characters].float()
        choice = scores.masked_fill(~allowed[places], -torch.inf).argmax(dim=1)
        written.append(choice)
        places = following[places, choice]
        steps += choice == semicolon
        tokens = characters[choice][:, None]
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
    if not written:
        return [""] * len(prompts)
    texts = [
        "".join(ALPHABET[number] for number in row) for row in torch.stack(written, 1).tolist()
    ]
    return [_first_steps(text, horizon) for text in texts]


def character_ids(tokenizer: Tokenizer) -> Tensor:
    """Gives the token id of each character of the alphabet [C].

    Raises:
        ModelError: the tokenizer has no single token for one of them.
    """
    ids = [tokenizer.encode(character) for character in ALPHABET]
    for character, row in zip(ALPHABET, ids, strict=True):
        if len(row) != 1:
            raise ModelError(
                f"this model's tokenizer writes {character!r} as {len(row)} tokens; forecasts need "
                "one token for each character of a number, as in the Qwen2.5 family"
            )
    return torch.tensor([row[0] for row in ids], dtype=torch.int64)


def _padded_left(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Gives tokens [B, T] with the padding before each prompt, and the mask [B, T] with 0 on it."""
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.full((len(prompts), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
        mask[row, longest - len(prompt) :] = 1
    return tokens.to(device), mask.to(device)


def _first_steps(text: str, horizon: int) -> str:
    """Cuts what a row wrote after its last asked step, while others of its batch were not done."""
    parts = text.split(";")
    return text if len(parts) <= horizon else ";".join(parts[:horizon]) + ";"
