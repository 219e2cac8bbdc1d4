import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lvray.core.errors import DataError
from lvray.series.windows import Windows
from lvray.trainer.batches import labels_of, read_texts
from lvray.trainer.evaluate import validation_windows, window_losses
from lvray.trainer.losses import Objective
from lvray.trainer.model import load_base

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


@pytest.fixture
def base(model):
    return load_base(model, device=CPU, dtype=torch.float32)


@pytest.fixture
def windows():
    random = np.random.default_rng(0)
    return Windows(random.integers(1, 15, (5, 32)), np.array([32, 32, 20, 32, 7]))


def test_the_loss_is_the_mean_over_predicted_tokens_and_padding_is_none(base, windows):
    nats = []
    for tokens, length in zip(windows.tokens, windows.lengths, strict=True):
        row = torch.from_numpy(tokens[None, :length])  # the padding is cut off, not masked
        with torch.no_grad():
            scores = base(input_ids=row).logits[0, :-1].log_softmax(-1)
        nats += (-scores[torch.arange(length - 1), row[0, 1:]]).tolist()
    loss = window_losses(base, windows, batch_size=2, device=CPU).mean
    assert loss == pytest.approx(np.mean(nats), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 64])
def test_the_batch_size_is_a_matter_of_memory_alone(base, windows, batch_size):
    loss = window_losses(base, windows, batch_size=batch_size, device=CPU).mean
    assert loss == pytest.approx(
        window_losses(base, windows, batch_size=2, device=CPU).mean, rel=1e-6
    )


def test_what_stands_in_the_padding_changes_nothing(base, windows):
    other = windows.tokens.copy()
    other[2, 20:], other[4, 7:] = 3, 9
    loss = window_losses(base, Windows(other, windows.lengths), batch_size=2, device=CPU).mean
    assert loss == window_losses(base, windows, batch_size=2, device=CPU).mean


def test_a_label_inside_the_text_does_change_the_loss(base, windows):
    """The fault that the test above is for: were nothing counted at all, it would pass too."""
    other = windows.tokens.copy()
    other[2, 19] = other[2, 19] % 14 + 1
    loss = window_losses(base, Windows(other, windows.lengths), batch_size=2, device=CPU).mean
    assert loss != window_losses(base, windows, batch_size=2, device=CPU).mean


def test_each_window_has_its_own_loss(base, windows):
    losses = window_losses(base, windows, batch_size=2, device=CPU)
    alone = [
        window_losses(
            base, Windows(windows.tokens[[i]], windows.lengths[[i]]), batch_size=1, device=CPU
        )
        for i in range(5)
    ]
    assert losses.each == pytest.approx([one.mean for one in alone], rel=1e-5)
    assert losses.predicted.tolist() == [31, 31, 19, 31, 6]


def test_a_window_in_which_nothing_is_predicted_has_no_loss(base, windows):
    lengths = windows.lengths.copy()
    lengths[1] = 1
    losses = window_losses(base, Windows(windows.tokens, lengths), batch_size=2, device=CPU)
    assert len(losses.each) == 4
    assert np.isfinite(losses.mean)


def test_training_and_validation_loss_are_one_measure(base, windows):
    tokens, labels = torch.from_numpy(windows.tokens), torch.from_numpy(labels_of(windows))
    loss = Objective().losses(base, tokens, labels).objective.item()
    assert loss == pytest.approx(
        window_losses(base, windows, batch_size=2, device=CPU).mean, rel=1e-6
    )


def test_validation_windows_do_not_depend_on_the_trial(make_task):
    short, long = make_task(1, context_length=16, seed=1), make_task(1, context_length=64, seed=2)
    cut = []
    for task in (short, long):
        texts = read_texts(json.dumps(task.to_json()["data"]), task.model)
        cut.append(validation_windows(texts.validation, task.evaluation, pad_id=0))
    assert (cut[0].tokens == cut[1].tokens).all()
    assert cut[0].tokens.shape == (3, 64)


def test_no_validation_text_is_told_in_words(make_task):
    evaluation = replace(make_task(1).evaluation, validation_windows=1)
    with pytest.raises(DataError, match="validation texts"):
        validation_windows([[1], [2]], evaluation, pad_id=0)
