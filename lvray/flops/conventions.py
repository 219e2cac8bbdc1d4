"""How are the FLOPs of one pass through a model counted?

A convention is a way to count that people agree on, not what the hardware does. Two are known by name;
every ledger writes down which one it was kept under. In the formulas S is the tokens of a sequence, D the
hidden width, H the query heads of d dimensions each, F the feed-forward width, V the vocabulary, L the layers.
docs/flops.md derives them; tests/trainer/test_flop_counter.py accounts for the distance of each to
`torch.utils.flop_counter`, to the FLOP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from lvray.core.errors import UsageError
from lvray.core.trial import LoraConfig
from lvray.flops.primitives import ADD, DIVIDE, MULTIPLY, SQRT, matmul, rms_norm, softmax, swiglu
from lvray.flops.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of a batch through the model, perhaps after earlier ones whose keys and values are cached."""

    sequences: int
    tokens: int
    """Tokens of each sequence that are put through the model in this pass."""
    context: int
    """Tokens that each of them attends to: its own and those cached. No discount for the causal mask."""

    @property
    def rows(self) -> int:
        """Token positions in this pass."""
        return self.sequences * self.tokens

    @property
    def pairs(self) -> int:
        """Pairs of a token and one that it attends to."""
        return self.rows * self.context

    @property
    def opens(self) -> bool:
        """Whether nothing is cached yet."""
        return self.context == self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """FLOPs of a forward pass, part by part. A part that a convention does not count is 0."""

    layers: int
    """How many blocks the model has."""
    positional: int = 0
    """Adding the positional encodings to the embeddings."""
    rmsnorm: int = 0
    """One RMSNorm; a block has two."""
    residual: int = 0
    """One residual addition; a block has two."""
    attention: int = 0
    """One block's attention with its four projections."""
    feed_forward: int = 0
    """One block's SwiGLU layer."""
    final_norm: int = 0
    lm_head: int = 0
    softmax: int = 0
    """The softmax over the vocabulary."""
    lora: int = 0
    """The adapters of all blocks."""

    @property
    def block(self) -> int:
        """One block, without its adapters."""
        return 2 * self.rmsnorm + self.attention + self.feed_forward + 2 * self.residual

    @property
    def blocks(self) -> int:
        """All blocks, without their adapters."""
        return self.layers * self.block

    @property
    def forward(self) -> int:
        """The whole pass."""
        return (
            self.positional
            + self.blocks
            + self.lora
            + self.final_norm
            + self.lm_head
            + self.softmax
        )


class Convention(Protocol):
    """A way of counting. Its counts grow with the context at most linearly when `tokens` is held."""

    @property
    def name(self) -> str:
        """What a sweep file and a ledger call it."""

    def forward(self, shape: ModelShape, lora: LoraConfig | None, work: Pass) -> Components:
        """FLOPs of a pass without gradients, part by part."""

    def train(self, shape: ModelShape, lora: LoraConfig | None, work: Pass) -> int:
        """FLOPs of a pass, the way back through it, and the adapter's gradients."""


@dataclass(frozen=True, slots=True)
class Coursework:
    """The course's rules: a table of primitives, full multi-head attention, backward = 2 × forward.

    For each sequence (source: the course's rules as read in docs/flops.md):

        positional      S·D
        rmsnorm         S·(4D + 11)
        attention       3·S·Hd·(2D − 1) + 3·S·Hd      queries, keys, values and their biases
                        + H·S²·(2d − 1) + H·S² + 10   scores, divided by √d
                        + H·S·(12S − 1)               softmax
                        + S·Hd·(2S − 1)               weighted values
                        + S·D·(2Hd − 1)               output projection
        feed_forward    2·S·F·(2D − 1) + 15·S·F + S·D·(2F − 1)
        residual        S·D
        lm_head         S·V·(2D − 1) + S·V            with the bias of the course's skeleton
        softmax         S·(12V − 1)
        lora            S·r·(2·in − 1) + S·out·(2r − 1) + 2·S·out, each adapted layer of each block

    Known deviations from what is computed: grouped-query attention is counted as multi-head attention (also
    in the adapters of keys and values); the causal half of the scores is counted; rotary encodings, mask, loss and
    optimizer are not; the backward pass is 2 × forward though frozen weights need no gradient.
    """

    name: str = "coursework"

    def forward(self, shape: ModelShape, lora: LoraConfig | None, work: Pass) -> Components:
        """FLOPs of a pass without gradients, part by part."""
        whole, rows = shape.multi_head(), work.rows
        return Components(
            layers=shape.layers,
            positional=rows * shape.hidden * ADD,
            rmsnorm=rms_norm(rows, shape.hidden),
            residual=rows * shape.hidden * ADD,
            attention=_attention(whole, work),
            feed_forward=_feed_forward(whole, rows),
            final_norm=rms_norm(rows, shape.hidden),
            lm_head=_linear(rows, shape.hidden, shape.vocabulary, bias=True),
            softmax=softmax(rows, shape.vocabulary),
            lora=0 if lora is None else shape.layers * _adapters(whole, lora, work),
        )

    def train(self, shape: ModelShape, lora: LoraConfig | None, work: Pass) -> int:
        """FLOPs of a training step: the forward pass, and a backward pass of exactly twice that."""
        return 3 * self.forward(shape, lora, work).forward


def _linear(rows: int, inputs: int, outputs: int, *, bias: bool = False) -> int:
    return matmul(rows, inputs, outputs) + bias * rows * outputs * ADD


def _attention(shape: ModelShape, work: Pass) -> int:
    """One block's attention; `shape` has as many key and value heads as query heads."""
    layers = shape.linear_layers()
    projections = sum(
        _linear(work.rows, *layers[name], bias=shape.attention_bias)
        for name in ("q_proj", "k_proj", "v_proj")
    )
    scores = shape.heads * work.pairs * (matmul(1, shape.head_dim, 1) + DIVIDE)
    root = work.sequences * SQRT
    weights = softmax(shape.heads * work.rows, work.context)
    values = shape.heads * matmul(work.rows, work.context, shape.head_dim)
    output = _linear(work.rows, *layers["o_proj"])
    return projections + scores + root + weights + values + output


def _feed_forward(shape: ModelShape, rows: int) -> int:
    layers = shape.linear_layers()
    products = sum(_linear(rows, *layers[name]) for name in ("gate_proj", "up_proj", "down_proj"))
    return products + swiglu(rows * shape.feed_forward)


def _adapters(shape: ModelShape, lora: LoraConfig, work: Pass) -> int:
    """The adapters of one block: (x·A)·B, scaled, added to the frozen layer's output."""
    total = 0
    for inputs, outputs in shape.adapted_layers(lora).values():
        down_and_up = matmul(work.rows, inputs, lora.rank) + matmul(work.rows, lora.rank, outputs)
        total += down_and_up + work.rows * outputs * (MULTIPLY + ADD)
        if lora.variant == "dora":
            total += work.rows * outputs * MULTIPLY
            # The norm depends on weights alone, so later passes over the same sequence have it already.
            total += work.opens * work.sequences * _dora_norm(inputs, outputs, lora.rank)
    return total


def _dora_norm(inputs: int, outputs: int, rank: int) -> int:
    """DoRA's magnitude over the norm of each row of W + scale·B·A (arXiv:2402.09353, eq. 5)."""
    weight = matmul(outputs, rank, inputs) + inputs * outputs * (MULTIPLY + ADD)
    norms = inputs * outputs * MULTIPLY + outputs * ((inputs - 1) * ADD + SQRT)
    return weight + norms + outputs * DIVIDE


@dataclass(frozen=True, slots=True)
class PalmLora:
    """Matrix products only, at 2 FLOPs a multiply-add, with no gradients for frozen weights.

    For each token, with N the frozen weights that it is multiplied by (head in, embedding out), A the adapter's
    weights, T the tokens that it attends to (PaLM, arXiv:2204.02311, appendix B, with the backward pass of LoRA):

        forward   2N + 2A + attention              attention = 4·L·H·d·T
        train     4N + 6A + 3·attention

    A weight costs 2 on the way forward, 2 for the gradient of its input, and 2 more for its own gradient if it is
    trained: 4N and 6A. The products of attention have two inputs that need gradients and no weights: 2 + 4.

    Known deviations from what is computed: element-wise work (norms, softmax, SwiGLU, biases, rotary encodings)
    is not counted; the causal half of the scores is; the first block is charged for gradients of its input, which
    end there; DoRA's norm of the weights is left out.
    """

    name: str = "palm-lora"

    def forward(self, shape: ModelShape, lora: LoraConfig | None, work: Pass) -> Components:
        """FLOPs of a pass without gradients; the parts that have no matrix product are 0."""
        layers = {name: 2 * work.rows * a * b for name, (a, b) in shape.linear_layers().items()}
        projections = sum(layers[name] for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
        scores_and_values = 4 * work.pairs * shape.heads * shape.head_dim
        return Components(
            layers=shape.layers,
            attention=projections + scores_and_values,
            feed_forward=sum(layers.values()) - projections,
            lm_head=2 * work.rows * shape.hidden * shape.vocabulary,
            lora=2 * work.rows * shape.adapter_weights(lora),
        )

    def train(self, shape: ModelShape, lora: LoraConfig | None, work: Pass) -> int:
        """FLOPs of a training step of the adapter on a frozen base."""
        weights = 4 * shape.matmul_weights() + 6 * shape.adapter_weights(lora)
        attention = 4 * shape.layers * shape.heads * shape.head_dim * work.context
        return work.rows * (weights + 3 * attention)


CONVENTIONS: Mapping[str, Convention] = {
    convention.name: convention for convention in (Coursework(), PalmLora())
}
"""The conventions by name."""


def convention_of(name: str) -> Convention:
    """The convention of that name.

    Raises:
        UsageError: there is none; the message lists those that there are, the nearest first.
    """
    if name not in CONVENTIONS:
        near = get_close_matches(name, CONVENTIONS, n=1)
        known = near + [other for other in CONVENTIONS if other not in near]
        raise UsageError(f"no FLOP convention {name!r}; there is {' and '.join(known)}")
    return CONVENTIONS[name]
