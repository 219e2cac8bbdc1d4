"""Which tokens does optimizer step k train on?

Batch k is a function of (seed, k) alone, so a checkpoint needs the step and nothing else to find its
place in the data again. Every batch is full, `batch_size` sequences of `context_length` tokens:
what a step costs is then known before it runs. Padding is compute, and part of the loss only if a trial asks for it.

Shapes: M windows, B sequences of a batch, T tokens of a window.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lvray.core.errors import DataError
from lvray.core.trial import TrialConfig
from lvray.series import readers
from lvray.series.codec import Codec
from lvray.series.windows import Windows, cut
from lvray.trainer.near import near, read_near
from lvray.trainer.tokenizer import Tokenizer, load_tokenizer, numeric_ids

IGNORED = -100
"""Label of a position that is not in the loss; `torch.nn.functional.cross_entropy`'s own default."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The series of a task, as numbers and as token ids."""

    values: NDArray[np.float64]
    """All systems of the file whose systems are forecast [N, time, V]."""
    codec: Codec
    train: tuple[tuple[int, ...], ...]
    """Token ids of the whole text of each training system."""
    validation: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=2)
def read_texts(data: str, model: str) -> Texts:
    """Reads the data of a task (`DataTask` as JSON) and writes it in the tokens of `model`.

    A worker that runs many trials of one sweep reads once.

    Raises:
        DataError: the file cannot be read, or holds other systems than the task names.
    """
    row = json.loads(data)
    values = _read_values(row["path"])
    codec = Codec.from_json(row["codec"])
    tokenizer = load_tokenizer(model)

    def tokens(part: str) -> tuple[tuple[int, ...], ...]:
        systems: Sequence[int] = row[part]
        if beyond := [system for system in systems if system >= len(values)]:
            raise DataError(
                f"{row['path']} has {len(values)} systems, there is no system {beyond[0]}; "
                "the file is not the one the sweep was split on"
            )
        chosen = values[list(systems), : row["steps"]]
        texts = (codec.encode(series, codec.scale_of(series, part=part)) for series in chosen)
        return tuple(tuple(tokenizer.encode(text)) for text in texts)

    tested = values if row["test_path"] is None else _read_values(row["test_path"])
    return Texts(tested, codec, tokens("train"), tokens("validation"))


def _read_values(path: str) -> NDArray[np.float64]:
    return read_near(path, near(Path(path)), readers.read, DataError).values


def window_indices(step: int, *, count: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Gives the windows [B] of batch `step`, out of `count`.

    The windows are drawn without replacement: a new permutation each epoch, and a batch may reach
    over the border of two epochs (of more, if there are fewer windows than `batch_size`).
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    return np.array(
        [_permutation(count, seed, place // count)[place % count] for place in places],
        dtype=np.int64,
    )


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)


def labels_of(windows: Windows, *, pads: bool = False) -> NDArray[np.int64]:
    """Gives the token that follows each token [M, T], `IGNORED` where none follows within the window.

    A window of n tokens has n - 1 labels; everything from its last token on, padding included, is
    ignored. With `pads` padding is predicted like text: every window has T - 1 labels.
    """
    labels = np.full_like(windows.tokens, IGNORED)
    labels[:, :-1] = windows.tokens[:, 1:]
    if not pads:
        place = np.arange(windows.tokens.shape[1])
        labels[place[None, :] >= windows.lengths[:, None] - 1] = IGNORED
    return labels


def places_of(labels: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Gives the place of each label among the tokens `rows` [C] whose logits are computed; `IGNORED` stays.

    Raises:
        DataError: a label is none of them, so its loss could not be told.
    """
    place_of = dict(zip(rows.tolist(), range(len(rows)), strict=True)) | {IGNORED: IGNORED}
    ids, where = np.unique(labels, return_inverse=True)
    if strange := [number for number in ids.tolist() if number not in place_of]:
        raise DataError(
            f"a loss over numeric tokens cannot predict the token {strange[0]}, which is none of them; "
            "train with loss: full"
        )
    return np.array([place_of[number] for number in ids.tolist()], dtype=np.int64)[where]


@dataclass(frozen=True, slots=True)
class Batches:
    """The training windows of one trial, in the trial's own order, endlessly."""

    tokens: Tensor
    """Token ids [M, T], on the device."""
    labels: Tensor
    """Next tokens [M, T] by id, or by place among `rows` that were given; `IGNORED` where there is none."""
    batch_size: int
    seed: int

    @classmethod
    def of(
        cls,
        windows: Windows,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        pads: bool = False,
        rows: NDArray[np.int64] | None = None,
    ) -> Batches:
        """Puts the windows that have anything to predict on the device.

        Args:
            windows: of the training texts.
            batch_size: windows of a batch.
            seed: of their order.
            device: where they are put.
            pads: whether padding is predicted too.
            rows: ids of the only tokens that are predicted; None is all.

        Raises:
            DataError: no window holds two tokens, or one holds a token that is not predicted.
        """
        labels = labels_of(windows, pads=pads)
        useful = (labels != IGNORED).any(axis=1)
        if not useful.any():
            raise DataError(
                f"the training text gives no window of two tokens or more ({len(windows.lengths)} "
                "windows in all); give the trial a longer context_length, or longer training series"
            )
        return cls(
            tokens=torch.from_numpy(windows.tokens[useful]).to(device),
            labels=torch.from_numpy(
                labels[useful] if rows is None else places_of(labels[useful], rows)
            ).to(device),
            batch_size=batch_size,
            seed=seed,
        )

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Gives tokens and labels [B, T] of optimizer step `step`, counted from 0."""
        indices = window_indices(
            step, count=len(self.tokens), batch_size=self.batch_size, seed=self.seed
        )
        places = torch.from_numpy(indices).to(self.tokens.device)
        return self.tokens[places], self.labels[places]


def training_batches(
    sequences: Sequence[Sequence[int]],
    config: TrialConfig,
    *,
    tokenizer: Tokenizer,
    device: torch.device,
) -> Batches:
    """Cuts the training texts (token ids, one sequence a system) as `config` asks."""
    windows = cut(
        sequences[: config.train_systems],
        length=config.context_length,
        stride=config.stride,
        padding=config.padding,
        pad_id=tokenizer.pad_id,
    )
    return Batches.of(
        windows,
        batch_size=config.batch_size,
        seed=config.seed,
        device=device,
        pads=config.pad_loss,
        rows=numeric_ids(tokenizer) if config.loss == "numeric" else None,
    )
