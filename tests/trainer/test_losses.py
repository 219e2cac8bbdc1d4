import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lvray.core.errors import DataError
from lvray.core.trial import LoraConfig, TrialConfig
from lvray.flops.price import NUMERIC_TOKENS
from lvray.series.grammar import ALPHABET
from lvray.series.windows import Windows
from lvray.trainer.batches import IGNORED, labels_of, places_of, read_texts, training_batches
from lvray.trainer.evaluate import window_losses
from lvray.trainer.head import logits_of, next_logits
from lvray.trainer.loop import run
from lvray.trainer.losses import Objective, number_token_loss
from lvray.trainer.model import attach, detach, load_base
from lvray.trainer.tokenizer import load_tokenizer, numeric_ids

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [1, 11, 2, 13, 14, 7, 7, 12]])


@pytest.fixture
def base(model):
    return load_base(model, device=CPU, dtype=torch.float32)


@pytest.fixture(params=["base", "adapter", "adapter and bias"])
def any_model(base, request):
    """The base model, or with a disturbed adapter, or with a disturbed bias of the head too."""
    if request.param == "base":
        yield base
        return
    lora = LoraConfig(rank=2, targets=("all-linear",), head_bias="bias" in request.param)
    wrapped = attach(base, lora, seed=1)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.3)
    yield wrapped.eval()
    detach(wrapped)


@pytest.fixture
def rows(model):
    return torch.from_numpy(numeric_ids(load_tokenizer(model)))


# %% The rows of the head


@pytest.mark.parametrize("autocast", [False, True])
def test_chosen_rows_are_those_of_the_whole_head(any_model, rows, autocast):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        whole, chosen = logits_of(any_model, TOKENS, None), logits_of(any_model, TOKENS, rows)
    assert chosen.shape == (2, 8, 14)
    torch.testing.assert_close(chosen, whole[..., rows], rtol=1e-5, atol=0.05 if autocast else 1e-5)


def test_chosen_rows_go_on_from_a_cache(any_model, rows):
    with torch.no_grad():
        whole = any_model(input_ids=TOKENS, use_cache=False).logits[:, -1, rows]
        places = torch.arange(8).expand(2, 8)
        how = {"mask": None, "cache": None}
        _, cache = next_logits(any_model, TOKENS[:, :5], rows, positions=places[:, :5], **how)
        how["cache"] = cache
        chosen, _ = next_logits(any_model, TOKENS[:, 5:], rows, positions=places[:, 5:], **how)
    torch.testing.assert_close(chosen, whole, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_the_whole_head(base, rows):
    """A loss over chosen rows moves the adapter as the loss over the same logits of the whole head does."""
    wrapped = attach(base, LoraConfig(rank=2, head_bias=True), seed=1)
    gradients = []
    for computed in (rows, None):
        logits = logits_of(wrapped, TOKENS, computed)
        chosen = logits if computed is not None else logits[..., rows]
        wrapped.zero_grad()
        chosen.logsumexp(-1).sum().backward()
        gradients.append([w.grad.clone() for w in wrapped.parameters() if w.requires_grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    detach(wrapped)


# %% The loss over numeric tokens


@pytest.fixture
def windows():
    random = np.random.default_rng(0)
    return Windows(random.integers(1, 15, (5, 32)), np.array([32, 32, 20, 32, 7]))


def test_a_numeric_loss_is_the_loss_of_probabilities_renormalised_over_numeric_tokens(
    base, windows, rows
):
    loss = window_losses(base, windows, batch_size=2, device=CPU, rows=rows.numpy()).mean
    nats = []
    for tokens, length in zip(windows.tokens, windows.lengths, strict=True):
        row = torch.from_numpy(tokens[None, :length])
        with torch.no_grad():
            scores = base(input_ids=row).logits[0, :-1]
        said = scores[torch.arange(length - 1), row[0, 1:]]
        nats += (scores[:, rows].logsumexp(-1) - said).tolist()
    assert loss == pytest.approx(np.mean(nats), rel=1e-5)
    assert loss < window_losses(base, windows, batch_size=2, device=CPU).mean - 1e-4


def test_training_and_validation_are_one_measure_over_numeric_tokens_too(base, windows, rows):
    labels = torch.from_numpy(places_of(labels_of(windows), rows.numpy()))
    losses = Objective(rows=rows).losses(base, torch.from_numpy(windows.tokens), labels)
    loss = window_losses(base, windows, batch_size=2, device=CPU, rows=rows.numpy()).mean
    assert losses.objective.item() == pytest.approx(loss, rel=1e-6)


def test_a_label_that_is_no_numeric_token_is_told_and_not_passed_over(rows):
    assert places_of(np.array([IGNORED, *rows.tolist()]), rows.numpy()).tolist() == [
        IGNORED,
        *range(14),
    ]
    with pytest.raises(DataError, match="the token 0, which is none of them"):
        places_of(np.array([[1, 0]]), rows.numpy())


# %% Padding


def batches_of(make_task, **changes):
    task = make_task(1, context_length=96, stride=96, batch_size=8, **changes)
    texts = read_texts(json.dumps(task.to_json()["data"]), task.model)
    tokenizer = load_tokenizer(task.model)
    return training_batches(texts.train, task.config, tokenizer=tokenizer, device=CPU)


def test_padding_is_predicted_if_asked_as_the_next_token_is(make_task):
    """The course's skeleton: labels are the inputs, shifted by one, padding and all."""
    plain, padded = batches_of(make_task), batches_of(make_task, pad_loss=True)
    tokens, labels = padded.tokens, padded.labels
    torch.testing.assert_close(labels[:, :-1], tokens[:, 1:])
    assert (labels[:, -1] == IGNORED).all()
    assert (labels == 0).any(), "no padding, nothing tested"
    assert (plain.labels != 0).all()


def test_padding_changes_the_training_and_never_the_measure(make_task):
    heard = {}
    for pad_loss in (False, True):
        task = make_task(0, 8, name=f"{pad_loss}", context_length=96, stride=96, pad_loss=pad_loss)
        heard[pad_loss] = []
        run(task, heard[pad_loss].append)
    start, end = ([m.validation_loss for m in pair] for pair in zip(*heard.values(), strict=True))
    assert start[0] == start[1]
    assert end[0] != end[1]


# %% The number-token loss

DIGITS = torch.tensor([3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
"""Places of 0 to 9 among 16 logits."""


def peaked(*digits):
    """Logits [N, 16] that are sure of these digits."""
    logits = torch.zeros(len(digits), 16)
    for row, digit in enumerate(digits):
        logits[row, DIGITS[digit]] = 100.0
    return logits


def test_a_digit_costs_by_how_far_off_it_is():
    labels = DIGITS[[5, 5, 5]]
    assert number_token_loss(peaked(5, 5, 5), labels, DIGITS).item() == pytest.approx(0)
    assert number_token_loss(peaked(4, 6, 5), labels, DIGITS).item() == pytest.approx(2 / 3)
    assert number_token_loss(peaked(0, 9, 5), labels, DIGITS).item() == pytest.approx(3)


def test_even_probabilities_cost_the_mean_distance():
    assert number_token_loss(torch.zeros(1, 16), DIGITS[[0]], DIGITS).item() == pytest.approx(4.5)
    assert number_token_loss(torch.zeros(1, 16), DIGITS[[4]], DIGITS).item() == pytest.approx(2.5)


def test_labels_that_are_no_digits_do_not_count():
    labels = torch.tensor([DIGITS[5], 1, IGNORED])
    both = number_token_loss(peaked(3, 9, 0), labels, DIGITS)
    assert both.item() == pytest.approx(2)
    assert number_token_loss(peaked(3), torch.tensor([1]), DIGITS).item() == 0


def test_probabilities_of_other_tokens_do_not_count():
    logits = peaked(3)
    logits[0, 0] = 1000.0
    assert number_token_loss(logits, DIGITS[[5]], DIGITS).item() == pytest.approx(2)


def test_it_is_the_ntloss_of_its_authors(model):
    """The package ntloss, without its reweighing, which the paper has not."""
    from ntloss import NTLoss
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    theirs = NTLoss(tokenizer, vocab_size=16, reweigh=False)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 50, 16, generator=generator)
    labels = torch.randint(0, 15, (4, 50), generator=generator)
    labels[0, :10] = IGNORED
    digits = torch.from_numpy(numeric_ids(load_tokenizer(model))[:10])
    ours = number_token_loss(logits.flatten(0, 1), labels.flatten(), digits)
    torch.testing.assert_close(ours, theirs(logits, labels))


@pytest.mark.parametrize("loss", ["full", "numeric"])
def test_the_objective_is_cross_entropy_and_the_weighted_number_token_loss(base, model, loss):
    tokenizer = load_tokenizer(model)
    ids = numeric_ids(tokenizer)
    config = replace(TrialConfig(), loss=loss, number_token_weight=0.3)
    labels = torch.tensor([[1, 4, 1, 5, 9, 2, 6, IGNORED], [11, 2, 13, 14, 7, 7, 12, IGNORED]])
    places = labels if loss == "full" else torch.from_numpy(places_of(labels.numpy(), ids))
    losses = Objective.of(config, tokenizer, CPU).losses(base, TOKENS, places)
    logits = base(input_ids=TOKENS).logits.flatten(0, 1)
    among = logits if loss == "full" else logits[:, ids]
    nats = cross_entropy(among, places.flatten(), ignore_index=IGNORED)
    further = number_token_loss(logits, labels.flatten(), torch.from_numpy(ids[:10]))
    assert further > 0
    torch.testing.assert_close(losses.cross_entropy, nats)
    torch.testing.assert_close(losses.objective, nats + 0.3 * further)


def test_a_numeric_head_has_as_many_rows_as_are_priced_the_digits_first():
    assert len(ALPHABET) == NUMERIC_TOKENS
    assert ALPHABET[:10] == "0123456789"
