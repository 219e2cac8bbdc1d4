"""How are long token sequences cut into windows of one length?

A window starts at every multiple of the stride. What becomes of a short last window is the padding:

- ``pad``   it is filled up with the padding token, as in the coursework. Every start inside the sequence gives
            a window, also one whose tokens all stand in the window before it, so with a small stride much of
            what is computed is padding: 15% for 999 tokens at length 512 and stride 256.
- ``drop``  it is left out: no padding, but the end of a sequence may never be seen.
- ``pack``  the sequences are joined end to end and cut as one, so only the end of the last may be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError

Integers: TypeAlias = npt.NDArray[np.int64]

PADDINGS = ("pad", "drop", "pack")


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Token windows of one length, M of them."""

    tokens: Integers
    """[M, length]."""
    lengths: Integers
    """[M], at least 1: tokens at or past ``lengths[m]`` are padding."""

    def __len__(self) -> int:
        return len(self.lengths)


def cut(
    sequences: Sequence[Sequence[int]], *, length: int, stride: int, padding: str, pad_id: int
) -> Windows:
    """Cuts token sequences, one a system, into windows.

    Raises:
        DataError: an unknown padding, a length or stride below 1, or no window at all.
    """
    if padding not in PADDINGS:
        raise DataError(f"padding {padding!r}: it is one of {', '.join(PADDINGS)}")
    if length < 1 or stride < 1:
        raise DataError(f"windows of {length} tokens every {stride}: both must be at least 1")
    sizes = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    tokens = np.fromiter(chain.from_iterable(sequences), dtype=np.int64, count=int(sizes.sum()))
    if padding == "pack":
        sizes = np.array([tokens.size], dtype=np.int64)
    counts = _window_counts(sizes, length, stride, whole=padding != "pad")
    if counts.sum() == 0:
        raise DataError(_nothing_left(sizes, length, padding))
    first = np.cumsum(counts) - counts
    within = (np.arange(counts.sum()) - np.repeat(first, counts)) * stride
    starts = within + np.repeat(np.cumsum(sizes) - sizes, counts)
    lengths = np.minimum(np.repeat(sizes, counts) - within, length)
    places = np.arange(length)
    taken = tokens[np.minimum(starts[:, None] + places, tokens.size - 1)]
    return Windows(np.where(places < lengths[:, None], taken, pad_id), lengths)


def evenly(windows: Windows, count: int) -> Windows:
    """Gives `count` windows spread evenly over all, each at most once; all of them if there are no more.

    Raises:
        DataError: fewer than 1 is asked for.
    """
    if count < 1:
        raise DataError(f"{count} windows: at least 1 must be asked for")
    if count >= len(windows):
        return windows
    chosen = (2 * np.arange(count) + 1) * len(windows) // (2 * count)  # the middle of each share
    return Windows(windows.tokens[chosen], windows.lengths[chosen])


def _window_counts(sizes: Integers, length: int, stride: int, *, whole: bool) -> Integers:
    """Gives how many windows each sequence has: those that fit whole, or all that start inside it."""
    last_start = sizes - length if whole else sizes - 1
    counts: Integers = np.where(last_start < 0, 0, last_start // stride + 1)
    return counts


def _nothing_left(sizes: Integers, length: int, padding: str) -> str:
    longest = int(sizes.max(initial=0))
    if longest == 0:
        return "there is not one token to cut into windows"
    joined = "all sequences together have" if padding == "pack" else "the longest sequence has"
    return (
        f"no window of {length} tokens is left with padding {padding!r}: {joined} {longest} tokens; "
        f"take a context length of at most {longest}, or padding 'pad'"
    )
