"""What does the model say happens next?

A forecast is text: the history of a system is written as text, the model goes on, greedily or by drawing
from its own probabilities, and what it wrote is read as numbers again; of several draws the median counts. A small automaton (`series.grammar`) lets it choose only among characters
that can follow, so that every forecast is readable, and a system that went astray shows as a bad
number and not as a missing one. The scale of a forecast is fitted on its history alone (unless the sweep
scales per part).

Shapes: N windows, B sequences of a batch, R texts that are written at once, T tokens of a prompt, C characters of the alphabet, H time steps of the horizon, V variables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module
from transformers import DynamicCache

from lvray.core.errors import DataError
from lvray.core.task import ForecastTask
from lvray.series.codec import Codec
from lvray.series.forecasts import Forecasts
from lvray.series.grammar import ALPHABET, Grammar
from lvray.series.metrics import mae, rmse
from lvray.trainer.cache import spread
from lvray.trainer.head import next_logits
from lvray.trainer.prompts import prompt_of
from lvray.trainer.tokenizer import Tokenizer, numeric_ids


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


ROWS_A_SEQUENCE = 8
"""Texts that are written at once for each sequence that is evaluated at once. What a text needs is its keys and values,
12 KiB a token in Qwen2.5-0.5B, a twentieth of the logits that an evaluated sequence needs."""


@dataclass(frozen=True, slots=True)
class Draws:
    """How prompts are continued by chance."""

    temperature: float
    """Logits are divided by it."""
    seeds: Sequence[Sequence[int]]
    """For each prompt one seed a sample: a sample depends on its own alone, not on its company."""


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
    loss: str = "full",
) -> Forecasts:
    """Forecasts windows of some of `systems`, evenly spread; `values` is [all, time, V].

    Args:
        model: with or without an adapter.
        tokenizer: the model's.
        codec: how series are written.
        values: all systems of the file [all, time, V].
        systems: those that may be forecast.
        asked: which windows, how far, how many samples, and how many tokens it may take.
        batch_size: sequences evaluated at once; `ROWS_A_SEQUENCE` times as many texts are written at once.
        seed: of the draws. A sample depends on it, the system, the window's start and its own number.
        device: where the model is.
        autocast: the context in which it is called.
        loss: the rows of the head that are computed: ``full``, or ``numeric`` text's alone.

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
    rows, count = ROWS_A_SEQUENCE * batch_size, max(1, asked.samples)
    texts: list[list[str]] = [[] for _ in prompts]
    # Prompts of one length need no padding, and without padding no mask.
    order = sorted(range(len(prompts)), key=lambda window: len(prompts[window]))
    at_once = max(1, rows // count)
    for begin in range(0, len(order), at_once):
        batch = order[begin : begin + at_once]
        seeds = [_seeds(seed, *windows[window], asked.samples) for window in batch]
        written = continue_texts(
            model,
            tokenizer,
            grammar,
            [prompts[window] for window in batch],
            horizon=horizon,
            most_tokens=asked.new_tokens,
            device=device,
            autocast=autocast,
            draws=Draws(asked.temperature, seeds) if asked.samples else None,
            loss=loss,
            rows=rows,
        )
        for number, window in enumerate(batch):
            texts[window] = written[number * count : (number + 1) * count]
    draws = np.empty((len(windows), count, *truth.shape[1:]))
    short = np.zeros(len(windows), dtype=np.int64)
    for window, scale in enumerate(scales):
        for number, text in enumerate(texts[window]):
            steps = codec.decode(text, scale, missing=False)[:horizon]
            short[window] += len(steps) < horizon
            draws[window, number, : len(steps)] = steps
            draws[window, number, len(steps) :] = steps[-1] if len(steps) else history[window, -1]
    return Forecasts(
        systems=np.array([system for system, _ in windows], dtype=np.int64),
        starts=np.array([start for _, start in windows], dtype=np.int64),
        history=history,
        truth=truth,
        point=np.median(draws, axis=1),
        samples=draws[:, : asked.samples],
        scale=np.array([scale.scale for scale in scales]),
        floor=np.array([codec.rounding_floor(scale) for scale in scales]),
        short=short,
    )


def _seeds(seed: int, system: int, start: int, samples: int) -> list[int]:
    """Gives each sample of a window a seed of its own, whatever else is forecast beside it."""
    return [
        int(np.random.SeedSequence((seed, system, start, number)).generate_state(1, np.uint64)[0])
        for number in range(samples)
    ]


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
    draws: Draws | None = None,
    loss: str = "full",
    rows: int | None = None,
) -> list[str]:
    """Continues each prompt (token ids) within the grammar, until `horizon` semicolons.

    A text that has not got there after `most_tokens` tokens ends where it is. Prompts of unequal
    length are padded on the left, where neither attention nor positions see the padding, so a
    prompt is continued alike in any company. The model is left in evaluation mode.

    Args:
        model: with or without an adapter.
        tokenizer: the model's.
        grammar: which characters may follow.
        prompts: token ids of each.
        horizon: time steps of a text.
        most_tokens: most tokens of a text.
        device: where the model is.
        autocast: the context in which it is called.
        draws: None takes the likeliest character each time.
        loss: the rows of the head that are computed: ``full``, or ``numeric`` text's alone.
        rows: most texts that are written at once; None is all of them.

    Returns:
        What comes after the prompts, without them: the texts of the first prompt, of the second, and so on.
    """
    model.eval()
    characters = torch.from_numpy(numeric_ids(tokenizer)).to(device)
    tokens, mask = _padded_left(prompts, tokenizer.pad_id, device)
    allowed, following = (torch.from_numpy(table).to(device) for table in grammar.tables())
    writer = _Writer(
        model, autocast, characters, allowed, following, loss, horizon, most_tokens, mask
    )
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    scores, cache = writer.scores(
        tokens, positions, writer.mask if writer.padded else None, cache=None
    )
    if draws is None:
        return writer.write(scores, spread(cache, samples=1, room=most_tokens), noise=None)
    samples = len(draws.seeds[0])
    at_once = samples if rows is None else max(1, rows // len(prompts))
    texts: list[list[str]] = [[] for _ in prompts]
    for begin in range(0, samples, at_once):
        seeds = [of_prompt[begin : begin + at_once] for of_prompt in draws.seeds]
        count = len(seeds[0])
        noise = draws.temperature * _gumbel_noise(seeds, most_tokens).to(device)
        wide = spread(cache, samples=count, room=most_tokens)
        written = writer.write(scores, wide, noise)
        for number, of_prompt in enumerate(texts):
            of_prompt += written[number * count : (number + 1) * count]
    return [text for of_prompt in texts for text in of_prompt]


def _gumbel_noise(seeds: Sequence[Sequence[int]], tokens: int) -> Tensor:
    """Gives noise [R, tokens, C]: the largest of logits + T·noise is a draw from the softmax of logits / T.

    (The Gumbel-max trick; arXiv:1611.01144, eq. 1.) It is drawn on the CPU, so that it is the same on every device.
    """
    noise = torch.empty(sum(map(len, seeds)), tokens, len(ALPHABET))
    generator = torch.Generator()
    for row, seed in zip(noise, chain.from_iterable(seeds), strict=True):
        row.exponential_(generator=generator.manual_seed(seed))
    return -noise.clamp_(min=torch.finfo(noise.dtype).tiny).log_()


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes texts behind a batch of prompts [B, T], character by character."""

    model: Module
    autocast: Callable[[], AbstractContextManager[None]]
    characters: Tensor
    """Token id of each character [C]."""
    allowed: Tensor
    """Whether a character may stand at a place of the grammar [S, C]."""
    following: Tensor
    """The place after it [S, C]."""
    loss: str
    horizon: int
    most_tokens: int
    mask: Tensor
    """0 on the padding of the prompts [B, T]."""

    @property
    def padded(self) -> bool:
        return not bool(self.mask.all())

    def scores(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: DynamicCache | None
    ) -> tuple[Tensor, DynamicCache]:
        """Gives the logits of the characters that may follow [R, C], in 32 bits, and the cache."""
        numeric = self.loss == "numeric"
        with self.autocast():
            logits, cache = next_logits(
                self.model,
                tokens,
                self.characters if numeric else None,
                mask=mask,
                positions=positions,
                cache=cache,
            )
        return (logits if numeric else logits[:, self.characters]).float(), cache

    def write(self, scores: Tensor, cache: DynamicCache, noise: Tensor | None) -> list[str]:
        """Writes as many texts for each prompt as there are rows of noise for it, or one.

        Args:
            scores: logits of the first characters [B, C].
            cache: keys and values of the prompts, a row for each text [R].
            noise: added to the logits [R, most_tokens, C]; None adds nothing.
        """
        prompts = len(scores)
        texts = prompts if noise is None else len(noise)
        samples = texts // prompts
        scores = scores.repeat_interleave(samples, 0)
        positions = self.mask.sum(1).repeat_interleave(samples)[:, None]
        mask = None
        if self.padded:
            room = self.mask.new_ones(prompts, self.most_tokens)
            mask = torch.cat([self.mask, room], 1).repeat_interleave(samples, 0)
        rows = torch.arange(texts, device=scores.device)  # the text that each row writes
        places, steps = torch.zeros_like(rows), torch.zeros_like(rows)
        written = torch.full((texts, self.most_tokens), -1, device=scores.device)
        semicolon = ALPHABET.index(";")
        for number in range(self.most_tokens):
            if noise is not None:
                scores = scores + noise[rows, number]
            choice = scores.masked_fill(~self.allowed[places], -torch.inf).argmax(dim=1)
            written[rows, number] = choice
            places = self.following[places, choice]
            steps += choice == semicolon
            going = steps < self.horizon
            left = int(going.sum())
            if left == 0 or number == self.most_tokens - 1:
                break
            if left <= KEPT * len(rows):  # texts that are done should cost nothing more
                keep = going.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                rows, places, steps, choice = rows[keep], places[keep], steps[keep], choice[keep]
                positions = positions[keep]
                mask = None if mask is None else mask[keep]
            seen = None if mask is None else mask[:, : self.mask.shape[1] + number + 1]
            scores, cache = self.scores(
                self.characters[choice][:, None], positions, seen, cache=cache
            )
            positions = positions + 1
        return [
            _first_steps("".join(ALPHABET[choice] for choice in row if choice >= 0), self.horizon)
            for row in written.tolist()
        ]


KEPT = 0.8
"""A batch is made smaller when at most this share of its texts is still being written: it costs a copy of their keys."""


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
