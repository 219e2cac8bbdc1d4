"""What is a model trained to make small?

The mean cross-entropy of the next token, over the whole vocabulary or over the tokens of numeric text
alone; and beside it, if asked, the number-token loss, which knows that 4 is nearer to 5 than 9 is.

Shapes: B sequences, T tokens, K logits of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy

from lvray.core.trial import TrialConfig
from lvray.trainer.batches import IGNORED
from lvray.trainer.head import logits_of
from lvray.trainer.tokenizer import Tokenizer, numeric_ids


class Losses(NamedTuple):
    """The losses of one batch, ready for `backward`."""

    objective: Tensor
    """What is made small."""
    cross_entropy: Tensor
    """Mean over the predicted tokens, nats per token: what can be compared with a validation loss."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What one trial makes small."""

    rows: Tensor | None = None
    """Ids of the tokens whose logits are computed; labels are places among them. None is the whole vocabulary."""
    digits: Tensor | None = None
    """Places of the digits 0 to 9 among the logits [10]; None leaves the number-token loss out."""
    number_token_weight: float = 0.0
    """Weight of the number-token loss."""

    @classmethod
    def of(cls, config: TrialConfig, tokenizer: Tokenizer, device: torch.device) -> Objective:
        """Gives what `config` asks for, in the tokens of the model."""
        ids = torch.from_numpy(numeric_ids(tokenizer)).to(device)
        numeric = config.loss == "numeric"
        places = torch.arange(len(ids), device=device) if numeric else ids
        return cls(
            rows=ids if numeric else None,
            digits=places[:10] if config.number_token_weight else None,
            number_token_weight=config.number_token_weight,
        )

    def losses(self, model: Module, tokens: Tensor, labels: Tensor) -> Losses:
        """Gives the losses of one batch, tokens and labels [B, T]."""
        logits = logits_of(model, tokens, self.rows).flatten(0, 1).float()
        labels = labels.flatten()
        nats = cross_entropy(logits, labels, ignore_index=IGNORED)
        if self.digits is None:
            return Losses(nats, nats)
        further = number_token_loss(logits, labels, self.digits)
        return Losses(nats + self.number_token_weight * further, nats)


def number_token_loss(logits: Tensor, labels: Tensor, digits: Tensor) -> Tensor:
    """Gives the mean distance of the digits that a model would say from those that stand there.

    Over the labels that are digits: Σ_j p(j)·|j − label|, with p the softmax over the ten digits alone. It is the
    Wasserstein-1 distance of p from the label, NTL-WAS of arXiv:2411.02083, eq. 4. Zero where no label is a digit.

    Args:
        logits: [N, K].
        labels: places among the logits [N]; those that are no digit do not count.
        digits: places of the digits 0 to 9 among the logits [10].
    """
    probabilities = logits[:, digits].float().softmax(dim=1)
    is_digit = labels[:, None] == digits
    values = torch.arange(10, device=logits.device)
    stands = (is_digit * values).sum(dim=1)
    distances = (probabilities * (values - stands[:, None]).abs()).sum(dim=1)
    counts = is_digit.any(dim=1)
    return (distances * counts).sum() / counts.sum().clamp(min=1)
