import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lvray.core.errors import DataError
from lvray.core.trial import TrialConfig
from lvray.series.codec import Codec
from lvray.series.windows import Windows
from lvray.trainer.batches import (
    IGNORED,
    Batches,
    labels_of,
    read_texts,
    training_batches,
    window_indices,
)
from lvray.trainer.tokenizer import load_tokenizer

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


def windows(*rows, length=6):
    """Windows of these tokens, padded with 0."""
    tokens = np.zeros((len(rows), length), dtype=np.int64)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
    return Windows(tokens, np.array([len(row) for row in rows], dtype=np.int64))


def drawn(steps, **how):
    return [int(index) for step in steps for index in window_indices(step, **how)]


def test_an_epoch_holds_every_window_once_and_the_next_has_another_order():
    how = {"count": 12, "batch_size": 3, "seed": 0}
    first, second = drawn(range(4), **how), drawn(range(4, 8), **how)
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


def test_a_batch_reaches_over_the_end_of_an_epoch_and_is_always_full():
    how = {"count": 5, "batch_size": 3, "seed": 0}
    assert all(len(window_indices(step, **how)) == 3 for step in range(20))
    assert sorted(drawn(range(5), **how)) == sorted(3 * list(range(5)))


def test_fewer_windows_than_a_batch_still_fill_it():
    assert sorted(window_indices(0, count=2, batch_size=4, seed=0)) == [0, 0, 1, 1]


def test_a_batch_depends_on_seed_and_step_alone():
    how = {"count": 50, "batch_size": 4}
    assert drawn([7], seed=1, **how) == drawn([7], seed=1, **how)
    assert drawn([7], seed=1, **how) != drawn([7], seed=2, **how)


def test_labels_are_the_next_tokens_and_nothing_past_the_text():
    labels = labels_of(windows([1, 2, 3, 4, 5, 6], [7, 8, 9]))
    assert labels.tolist() == [
        [2, 3, 4, 5, 6, IGNORED],
        [8, 9, IGNORED, IGNORED, IGNORED, IGNORED],
    ]


def test_a_text_that_holds_the_padding_token_itself_is_still_learned():
    assert labels_of(windows([1, 0, 0]))[0].tolist() == [0, 0, IGNORED, IGNORED, IGNORED, IGNORED]


def test_windows_with_nothing_to_predict_are_left_out():
    batches = Batches.of(windows([1], [2, 3]), batch_size=4, seed=0, device=CPU)
    tokens, _ = batches.at(0)
    assert tokens[:, 0].tolist() == [2, 2, 2, 2]


def test_no_window_to_learn_from_is_told_in_words():
    with pytest.raises(DataError, match="no window of two tokens or more"):
        Batches.of(windows([1], [2]), batch_size=4, seed=0, device=CPU)


def test_a_system_that_the_file_lacks_is_named(make_task):
    row = make_task(1).to_json()["data"]
    with pytest.raises(DataError, match="no system 99"):
        read_texts(json.dumps({**row, "train": [0, 99]}), make_task(1).model)


def test_each_part_is_written_in_its_own_scale(make_task, values):
    task = make_task(1)
    row = task.to_json()["data"]
    others = {
        part: values[list(row[part])] * size for part, size in (("validation", 2), ("test", 3))
    }
    codec = Codec.fit(
        values[list(row["train"])], decimals=2, method="max", per="part", others=others
    )
    texts = read_texts(json.dumps({**row, "codec": codec.to_json()}), task.model)
    tokenizer = load_tokenizer(task.model)
    for part in ("train", "validation"):
        for system, tokens in zip(row[part], getattr(texts, part), strict=True):
            text = codec.encode(values[system], codec.scale_of(values[system], part=part))
            assert list(tokens) == tokenizer.encode(text)
    first = values[row["validation"][0]]
    assert codec.scale_of(first, part="train") != codec.scale_of(first, part="validation")


def test_a_trial_may_train_on_the_first_systems_alone(model):
    tokenizer = load_tokenizer(model)
    sequences = [[number] * 8 for number in (1, 2, 3)]
    config = TrialConfig(context_length=8, stride=8, padding="drop", train_systems=2)
    made = training_batches(sequences, config, tokenizer=tokenizer, device=CPU)
    assert set(made.tokens.flatten().tolist()) == {1, 2}
    every = replace(config, train_systems=None)
    made = training_batches(sequences, every, tokenizer=tokenizer, device=CPU)
    assert set(made.tokens.flatten().tolist()) == {1, 2, 3}
