"""What does a forward pass, a training step or a generation cost, in FLOPs, before it runs?

Prices grow in proportion to the batch. Padding costs what text costs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from lvray.core.errors import UsageError
from lvray.core.trial import LoraConfig
from lvray.flops.conventions import Components, Convention, Pass, convention_of
from lvray.flops.shape import ModelShape

NUMERIC_TOKENS = 14
"""Tokens of numeric text: ten digits, ".", ",", ";" and "-". A ``numeric`` head computes these rows alone."""

_IN_JSON = (
    *("positional", "rmsnorm", "residual", "attention", "feed_forward", "block", "blocks", "lora"),
    *("final_norm", "lm_head", "softmax", "forward", "train", "flops_per_token"),
)
"""The counts of FLOPs that programs read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Components):
    """FLOPs of a batch: its forward pass part by part, and a training step on it."""

    shape: ModelShape
    lora_config: LoraConfig | None
    convention: str
    context_length: int
    batch_size: int
    train: int
    """A training step: forward, backward, and the adapter's gradients; no optimizer."""

    @property
    def flops_per_token(self) -> int:
        """A training step's FLOPs for each token of the batch, rounded."""
        tokens = self.batch_size * self.context_length
        return (2 * self.train + tokens) // (2 * tokens)

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; FLOPs as strings."""
        lora = self.lora_config
        return {
            "model": self.shape.name,
            "convention": self.convention,
            "context_length": self.context_length,
            "batch_size": self.batch_size,
            "layers": self.layers,
            "parameters": self.shape.parameters(),
            "trainable_parameters": self.shape.trainable_weights(lora),
            "adapter": None if lora is None else lora.to_json(),
            **{name: str(getattr(self, name)) for name in _IN_JSON},
        }


@lru_cache(maxsize=4096)  # a space of thousands of configs has a few dozen prices
def price(
    shape: ModelShape,
    *,
    lora: LoraConfig | None,
    convention: str,
    context_length: int,
    batch_size: int,
    head: str = "full",
) -> Price:
    """Prices one batch of `batch_size` sequences of `context_length` tokens.

    Args:
        shape: the base model.
        lora: the adapter; None is the base model alone.
        convention: how FLOPs are counted.
        context_length: tokens of a sequence, padding included.
        batch_size: sequences.
        head: the rows of the head that are computed: ``full``, or ``numeric`` (`NUMERIC_TOKENS`).

    Raises:
        UsageError: an unknown convention or head, or a length, batch size or rank below 1.
        ModelError: a LoRA target that the model does not have.
    """
    rule = _convention(convention, lora)
    counted = with_head(shape, head)
    _at_least(1, context_length=context_length, batch_size=batch_size)
    work = Pass(batch_size, context_length, context_length)
    return Price(
        **asdict(rule.forward(counted, lora, work)),
        shape=shape,
        lora_config=lora,
        convention=convention,
        context_length=context_length,
        batch_size=batch_size,
        train=rule.train(counted, lora, work),
    )


def train_step(
    shape: ModelShape,
    *,
    lora: LoraConfig | None,
    convention: str,
    context_length: int,
    batch_size: int,
    head: str = "full",
) -> int:
    """FLOPs of one optimizer step on a batch. Raises what `price` raises."""
    return price(
        shape,
        lora=lora,
        convention=convention,
        context_length=context_length,
        batch_size=batch_size,
        head=head,
    ).train


def forward_pass(
    shape: ModelShape,
    *,
    lora: LoraConfig | None,
    convention: str,
    context_length: int,
    batch_size: int,
    head: str = "full",
) -> int:
    """FLOPs of one pass over a batch without gradients. Raises what `price` raises."""
    return price(
        shape,
        lora=lora,
        convention=convention,
        context_length=context_length,
        batch_size=batch_size,
        head=head,
    ).forward


@lru_cache(maxsize=4096)
def generation(
    shape: ModelShape,
    *,
    lora: LoraConfig | None,
    convention: str,
    prompt_tokens: int,
    new_tokens: int,
    batch_size: int,
    samples: int = 1,
    head: str = "full",
) -> int:
    """FLOPs of generations with a KV cache, `samples` of each of `batch_size` prompts.

    A prompt is put through in one pass, then each of its samples token by token. Each new token is put through the
    model and attends to all before it and itself.

    The price is above the work in two things: the last new token need not be put through, as nobody asks what would
    follow it, and of a prompt the head is computed at its last place alone, though the rule charges a pass for all.

    Raises:
        UsageError: an unknown convention, or a number of tokens or sequences that cannot be.
        ModelError: a LoRA target that the model does not have.
    """
    rule = _convention(convention, lora)
    shape = with_head(shape, head)
    _at_least(1, prompt_tokens=prompt_tokens, batch_size=batch_size, samples=samples)
    _at_least(0, new_tokens=new_tokens)
    prompt = rule.forward(shape, lora, Pass(batch_size, prompt_tokens, prompt_tokens)).forward
    first, last = (
        rule.forward(shape, lora, Pass(batch_size * samples, 1, context)).forward
        for context in (prompt_tokens + 1, prompt_tokens + new_tokens)
    )
    # One token's price is linear in what it attends to: an arithmetic series, and a whole number.
    return prompt + new_tokens * (first + last) // 2


def with_head(shape: ModelShape, head: str) -> ModelShape:
    """Gives the shape whose head has the rows that are computed.

    Raises:
        UsageError: neither ``full`` nor ``numeric``.
    """
    if head not in {"full", "numeric"}:
        raise UsageError(f"a head of {head!r} rows; it is full or numeric")
    return shape if head == "full" else replace(shape, vocabulary=NUMERIC_TOKENS)


def _convention(name: str, lora: LoraConfig | None) -> Convention:
    if lora is not None:
        _at_least(1, rank=lora.rank)
    return convention_of(name)


def _at_least(least: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < least:
            raise UsageError(f"{name} is {count}; it must be at least {least}")
