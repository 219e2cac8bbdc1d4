"""How good is a model on text it has never seen?

The validation loss is the mean cross-entropy over all predicted tokens of a fixed set of windows, in
nats per token: the same windows for every trial of a sweep, whatever context or batch it trains with.
Padding is never predicted.

Shapes: M windows, B sequences of a batch, T tokens of a window, K token ids of the vocabulary, or of those that are
predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Module
from torch.nn.functional import cross_entropy

from lvray.core.errors import DataError
from lvray.core.task import EvaluationTask
from lvray.series.windows import Windows, cut, evenly
from lvray.trainer.batches import IGNORED, labels_of, places_of
from lvray.trainer.head import logits_of


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
    rows: NDArray[np.int64] | None = None,
) -> WindowLosses:
    """Gives the cross-entropy of every window, over the whole vocabulary or over the tokens `rows` alone [K].

    The model is left in evaluation mode (no dropout). Sums are taken sequence by sequence, so that
    the result does not depend on `batch_size` beyond the rounding of the matrix products, and so
    that only one sequence's logits [T, K] are held in 32 bits at a time.

    Raises:
        DataError: a token is to be predicted that is none of `rows`.
    """
    model.eval()
    next_tokens = labels_of(windows) if rows is None else places_of(labels_of(windows), rows)
    labels = torch.from_numpy(next_tokens).to(device)
    ids = None if rows is None else torch.from_numpy(rows).to(device)
    tokens = torch.from_numpy(windows.tokens).to(device)
    nats = torch.zeros(len(tokens), dtype=torch.float32, device=device)
    for start in range(0, len(tokens), batch_size):
        with autocast():
            logits = logits_of(model, tokens[start : start + batch_size], ids)
        for row, scores in enumerate(logits, start):
            nats[row] = cross_entropy(
                scores.float(), labels[row], ignore_index=IGNORED, reduction="sum"
            )
    predicted = (labels != IGNORED).sum(dim=1)
    return WindowLosses(nats.cpu().double().numpy(), predicted.cpu().numpy())
