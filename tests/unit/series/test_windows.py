"""Windows: what is kept, what is padding, and the shares that are known from the coursework."""

import time
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvray.core.errors import DataError
from lvray.series.windows import PADDINGS, Windows, cut, evenly

PAD = -1

sequences_of_tokens = st.lists(st.lists(st.integers(0, 9), max_size=25), min_size=1, max_size=5)
lengths = st.integers(1, 12)
strides = st.integers(1, 15)


def rows(windows: Windows) -> list[list[int]]:
    return [
        row[:length].tolist() for row, length in zip(windows.tokens, windows.lengths, strict=True)
    ]


def test_pad_fills_up_every_window_that_starts_inside():
    windows = cut([[1, 2, 3, 4, 5]], length=4, stride=2, padding="pad", pad_id=PAD)
    assert windows.tokens.tolist() == [[1, 2, 3, 4], [3, 4, 5, PAD], [5, PAD, PAD, PAD]]
    assert windows.lengths.tolist() == [4, 3, 1]
    assert windows.tokens.dtype == windows.lengths.dtype == np.int64


def test_drop_leaves_out_what_is_short():
    windows = cut([[1, 2, 3, 4, 5], [6, 7]], length=4, stride=2, padding="drop", pad_id=PAD)
    assert windows.tokens.tolist() == [[1, 2, 3, 4]]


def test_pack_cuts_across_sequences():
    windows = cut([[1, 2, 3], [4, 5], [6, 7, 8]], length=3, stride=3, padding="pack", pad_id=PAD)
    assert windows.tokens.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("length", "stride", "share"),
    [
        (128, 64, 5.6),
        (512, 256, 14.9),
        (768, 384, 29.9),
        (128, 256, 0),
        (768, 256, 27.4),
        (128, 128, 2.4),
        (512, 512, 2.4),
        (768, 768, 35.0),
    ],
)
def test_padding_takes_the_share_known_of_texts_of_999_tokens(length, stride, share):
    windows = cut([[0] * 999] * 3, length=length, stride=stride, padding="pad", pad_id=PAD)
    padding = 1 - windows.lengths.sum() / windows.tokens.size
    assert 100 * padding == pytest.approx(share, abs=0.05)


@given(sequences_of_tokens, lengths, strides, st.sampled_from(PADDINGS))
def test_every_window_is_a_piece_of_the_text(sequences, length, stride, padding):
    try:
        windows = cut(sequences, length=length, stride=stride, padding=padding, pad_id=PAD)
    except DataError:
        return
    texts = [list(chain(*sequences))] if padding == "pack" else sequences
    expected = [
        text[start : start + length]
        for text in texts
        for start in range(0, len(text), stride)
        if padding == "pad" or start + length <= len(text)
    ]
    assert rows(windows) == expected
    for row, kept in zip(windows.tokens, windows.lengths, strict=True):
        assert (row[kept:] == PAD).all()


@given(sequences_of_tokens, lengths, strides, st.sampled_from(["drop", "pack"]))
def test_drop_and_pack_have_no_padding(sequences, length, stride, padding):
    try:
        windows = cut(sequences, length=length, stride=stride, padding=padding, pad_id=PAD)
    except DataError:
        assert max(map(len, sequences)) < length
        return
    assert (windows.lengths == length).all()
    assert (windows.tokens != PAD).all()


@given(st.lists(st.integers(0, 25), min_size=1, max_size=5), lengths, strides)
def test_pad_loses_no_token_when_windows_touch(sizes, length, stride):
    numbered = iter(range(1000))
    sequences = [[next(numbered) for _ in range(size)] for size in sizes]
    if not any(sizes):
        return
    windows = cut(sequences, length=length, stride=min(stride, length), padding="pad", pad_id=PAD)
    assert set(windows.tokens.ravel()) - {PAD} == {token for row in sequences for token in row}


@pytest.mark.parametrize(
    ("padding", "message"),
    [
        ("drop", "no window of 8 tokens is left with padding 'drop': the longest sequence has 3"),
        ("pack", "all sequences together have 5 tokens; take a context length of at most 5"),
    ],
)
def test_nothing_left_is_an_error_that_says_so(padding, message):
    with pytest.raises(DataError, match=message):
        cut([[1, 2, 3], [4, 5]], length=8, stride=1, padding=padding, pad_id=PAD)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("sequences", [[], [[]], [[], []]])
def test_no_token_at_all_is_an_error(sequences, padding):
    with pytest.raises(DataError, match="not one token"):
        cut(sequences, length=4, stride=2, padding=padding, pad_id=PAD)


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(DataError, match="'fold': it is one of pad, drop, pack"):
        cut([[1]], length=1, stride=1, padding="fold", pad_id=PAD)
    with pytest.raises(DataError, match="both must be at least 1"):
        cut([[1]], length=1, stride=0, padding="pad", pad_id=PAD)


def test_a_thousand_systems_are_cut_in_a_moment():
    texts = [list(range(1000))] * 1000
    begin = time.perf_counter()
    assert len(cut(texts, length=512, stride=256, padding="pad", pad_id=PAD)) == 4000
    assert time.perf_counter() - begin < 1


@given(st.integers(1, 60), st.integers(1, 80))
def test_windows_are_chosen_evenly_and_never_twice(total, count):
    windows = cut([range(total)], length=1, stride=1, padding="drop", pad_id=PAD)
    chosen = evenly(windows, count).tokens[:, 0].tolist()
    assert len(chosen) == min(total, count)
    gaps = np.diff(chosen)
    assert (gaps >= 1).all()
    if len(chosen) > 1:
        assert gaps.max() - gaps.min() <= 1


def test_no_window_cannot_be_asked_for():
    windows = cut([[1, 2]], length=1, stride=1, padding="drop", pad_id=PAD)
    with pytest.raises(DataError, match="at least 1"):
        evenly(windows, 0)
