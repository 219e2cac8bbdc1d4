"""How good is a model on text it has never seen?

The validation loss is the mean cross-entropy over all predicted tokens of a fixed set of windows, in
nats per token: the same windows for every trial of a sweep, whatever context or batch it trains with.

Shapes: M windows, B sequences of a batch, T tokens of a window, K token ids of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy

from lvray.core.errors import DataError
from lvray.core.task import EvaluationTask
from lvray.series.windows import Windows, cut, evenly
from lvray.trainer.batches import IGNORED, labels_of


def validation_windows(
    sequences: Sequence[Sequence[int]], evaluation: EvaluationTask, *, pad_id: int
) -> Windows:
    """Cuts validation texts (token ids, one sequence a system) side by side and takes some evenly.

    Raises:
        DataError: nothing in the windows can be predicted.
    """
    length = evaluation.validation_context
    windows = cut(sequences, length=length, stride=length, padding="pad", pad_id=pad_id)
    if not (windows.lengths > 1).any():
        raise DataError(
            f"the {len(sequences)} validation texts give no window of two tokens or more; "
            "put more systems, or longer ones, into data.split.validation"
        )
    return evenly(windows, evaluation.validation_windows)


def next_token_loss(model: Module, tokens: Tensor, labels: Tensor) -> Tensor:
    """Gives the mean cross-entropy of one batch [B, T] in nats per token, ready for `backward`."""
    logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)


@dataclass(frozen=True, slots=True)
class WindowLosses:
    """The cross-entropy of each validation window on its own: what two trials are compared by, window by window."""

    nats: NDArray[np.float64]
    """Sums over the predicted tokens of each window [M]."""
    predicted: NDArray[np.int64]
    """How many tokens are predicted in each window [M]."""

    @property
    def mean(self) -> float:
        """The validation loss: over every predicted token of every window, nats per token."""
        return float(self.nats.sum() / self.predicted.sum())

    @property
    def each(self) -> tuple[float, ...]:
        """The loss of each window in which a token is predicted, nats per token, in order."""
        said = self.predicted > 0
        return tuple((self.nats[said] / self.predicted[said]).tolist())


@torch.no_grad()
def window_losses(
    model: Module,
    windows: Windows,
    *,
    batch_size: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> WindowLosses:
    """Gives the cross-entropy of every window.

    The model is left in evaluation mode (no dropout). Sums are taken sequence by sequence, so that
    the result does not depend on `batch_size` beyond the rounding of the matrix products, and so
    that only one sequence's logits [T, K] are held in 32 bits at a time.
    """
    model.eval()
    labels = torch.from_numpy(labels_of(windows)).to(device)
    tokens = torch.from_numpy(windows.tokens).to(device)
    nats = torch.zeros(len(tokens), dtype=torch.float32, device=device)
    for start in range(0, len(tokens), batch_size):
        rows = slice(start, start + batch_size)
        with autocast():
            logits = model(input_ids=tokens[rows], use_cache=False).logits
        for row, scores in enumerate(logits, start):
            nats[row] = cross_entropy(
                scores.float(), labels[row], ignore_index=IGNORED, reduction="sum"
            )
    predicted = (labels != IGNORED).sum(dim=1)
    return WindowLosses(nats.cpu().double().numpy(), predicted.cpu().numpy())
