from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot
from transformers import DynamicCache

from lvray.core.errors import DataError
from lvray.series.codec import Codec
from lvray.series.grammar import ALPHABET, Grammar
from lvray.trainer import generate
from lvray.trainer.generate import (
    Draws,
    continue_texts,
    evenly_spread,
    forecast_systems,
    metrics_of,
)
from lvray.trainer.model import load_base
from lvray.trainer.tokenizer import load_tokenizer, numeric_ids

pytestmark = pytest.mark.torch

TEST = (10, 11)
CPU = torch.device("cpu")


def test_systems_are_spread_evenly():
    assert evenly_spread(range(100, 110), 4) == (100, 102, 105, 107)
    assert evenly_spread([3, 4], 5) == (3, 4)


def test_prompts_of_unequal_length_go_on_alike_alone_and_in_company(model):
    tokenizer, base = load_tokenizer(model), load_base(model, device=CPU, dtype=torch.float32)
    texts = ["1.23,4.56;" * 3, "0.10,9.99;7.77,3.21;", "2.00,2.00;" * 6]
    how = {"horizon": 3, "most_tokens": 60, "device": CPU}
    grammar = Grammar(variables=2, decimals=2)
    prompts = [tokenizer.encode(text) for text in texts]
    base.train()
    together = continue_texts(base, tokenizer, grammar, prompts, **how)
    alone = [continue_texts(base, tokenizer, grammar, [row], **how)[0] for row in prompts]
    assert together == alone
    assert not base.training, "dropout would make a forecast a matter of luck"
    assert [text.count(";") for text in together] == [3, 3, 3]
    assert len(set(together)) > 1, "prompts that all go on alike would hide a mixed-up row"


def test_the_cache_changes_nothing(model):
    """Greedy choice by whole forward passes, without cache or padding, gives the same text."""
    tokenizer, base = load_tokenizer(model), load_base(model, device=CPU, dtype=torch.float32)
    grammar, ids = Grammar(variables=2, decimals=2), torch.from_numpy(numeric_ids(tokenizer))
    tokens = tokenizer.encode("1.23,4.56;0.10,9.99;")
    (text,) = continue_texts(
        base, tokenizer, grammar, [tokens], horizon=2, most_tokens=40, device=CPU
    )
    place, plain = grammar.start, ""
    while plain.count(";") < 2:
        with torch.no_grad():
            scores = base(input_ids=torch.tensor([tokens])).logits[0, -1, ids]
        best = max(grammar.allowed(place), key=lambda c: float(scores[ALPHABET.index(c)]))
        plain, place = plain + best, grammar.after(place, best)
        tokens = [*tokens, int(ids[ALPHABET.index(best)])]
    assert text == plain


def test_a_text_ends_when_its_tokens_are_used_up(model):
    tokenizer, base = load_tokenizer(model), load_base(model, device=CPU, dtype=torch.float32)
    (text,) = continue_texts(
        base,
        tokenizer,
        Grammar(variables=2, decimals=2),
        [tokenizer.encode("1.23,4.56;")],
        horizon=5,
        most_tokens=7,
        device=CPU,
    )
    assert len(text) == 7


def test_a_short_forecast_is_counted_and_goes_on_with_its_last_value(model, values, make_task):
    """20 tokens hold two steps of 3 integer digits at most (18 characters), never three (24 or more)."""
    task = make_task(1)
    forecasts = forecast_systems(
        load_base(model, device=CPU, dtype=torch.float32),
        load_tokenizer(model),
        Codec.from_json(task.data.codec),
        values,
        task.data.test,
        replace(task.evaluation.forecasts[0], new_tokens=20),
        batch_size=2,
        seed=0,
        device=CPU,
    )
    assert metrics_of([forecasts])["forecast_short"] == forecasts.short.sum() == 2
    assert np.isfinite(forecasts.point).all()
    np.testing.assert_array_equal(forecasts.point[:, 2], forecasts.point[:, 1])


def test_series_too_short_for_the_horizon_are_told_in_words(model, values, make_task):
    task = make_task(1)
    with pytest.raises(
        DataError, match="of 40 steps from 10 needs series of 50 steps, these have 40"
    ):
        forecast_systems(
            load_base(model, device=CPU, dtype=torch.float32),
            load_tokenizer(model),
            Codec.from_json(task.data.codec),
            values,
            task.data.test,
            replace(task.evaluation.forecasts[0], horizon=40),
            batch_size=2,
            seed=0,
            device=CPU,
        )


# %% Samples


def forecasts_of(model, values, task, of=None, batch_size=2, loss="full", **changes):
    return forecast_systems(
        load_base(model, device=CPU, dtype=torch.float32),
        load_tokenizer(model),
        Codec.from_json(task.data.codec),
        values,
        task.data.test if of is None else of,
        replace(task.evaluation.forecasts[0], **changes),
        batch_size=batch_size,
        seed=7,
        device=CPU,
        loss=loss,
    )


def test_samples_are_drawn_and_the_forecast_is_their_median(model, values, make_task):
    made = forecasts_of(model, values, make_task(1), samples=5)
    assert made.samples.shape == (2, 5, 3, 2)
    np.testing.assert_array_equal(made.point, np.median(made.samples, axis=1))
    assert len({draw.tobytes() for draw in made.samples[0]}) == 5
    greedy = forecasts_of(model, values, make_task(1))
    assert greedy.samples.shape == (2, 0, 3, 2)


def test_next_to_no_temperature_is_greedy(model, values, make_task):
    cold = forecasts_of(model, values, make_task(1), samples=3, temperature=1e-6)
    greedy = forecasts_of(model, values, make_task(1))
    for number in range(3):
        np.testing.assert_array_equal(cold.samples[:, number], greedy.point)


def test_a_sample_does_not_depend_on_its_company(model, values, make_task):
    """All systems together, in another order, alone, and in batches too small for all samples of one prompt."""
    task = make_task(1)
    spec = {"systems": 6, "samples": 10, "new_tokens": 30}
    together = forecasts_of(model, values, task, range(6), batch_size=60, **spec)
    reverse = forecasts_of(model, values, task, range(5, -1, -1), batch_size=4, **spec)
    parts = forecasts_of(model, values, task, range(6), batch_size=1, **spec)
    assert spec["samples"] > generate.ROWS_A_SEQUENCE, "rows at once for batch_size 1"
    np.testing.assert_array_equal(together.samples, reverse.samples[::-1])
    np.testing.assert_array_equal(together.samples, parts.samples)
    np.testing.assert_array_equal(
        forecasts_of(model, values, task, [5], **spec).samples[0], together.samples[5]
    )
    assert metrics_of([together]) == pytest.approx(metrics_of([reverse]), rel=1e-12)


def test_draws_follow_the_models_probabilities_at_the_temperature(model):
    """First characters of 4000 samples against softmax of logits / T over what may stand there."""
    tokenizer, base = load_tokenizer(model), load_base(model, device=CPU, dtype=torch.float32)
    grammar, ids = Grammar(variables=2, decimals=2), torch.from_numpy(numeric_ids(tokenizer))
    tokens = tokenizer.encode("1.23,4.56;0.10,9.99;")
    with torch.no_grad():
        scores = base(input_ids=torch.tensor([tokens])).logits[0, -1, ids]
    first = [ALPHABET.index(c) for c in grammar.allowed(grammar.start)]
    for temperature in (0.5, 2.0):
        expected = (scores[first] / temperature).softmax(0).numpy()
        texts = continue_texts(
            base,
            tokenizer,
            grammar,
            [tokens],
            horizon=1,
            most_tokens=1,
            device=CPU,
            draws=Draws(temperature, [range(4000)]),
        )
        drawn = np.array([ALPHABET.index(text) for text in texts])
        shares = np.array([(drawn == c).mean() for c in first])
        assert np.abs(shares - expected).max() < 0.03, "four standard deviations of a share"
        assert np.ptp(expected) > 0.1, "even probabilities would show no temperature"


def test_short_draws_are_counted_each(model, values, make_task):
    made = forecasts_of(model, values, make_task(1), samples=4, new_tokens=20)
    assert made.short.tolist() == [4, 4]
    np.testing.assert_array_equal(made.samples[:, :, 2], made.samples[:, :, 1])


def test_texts_that_are_done_leave_the_batch_and_disturb_none(model, monkeypatch):
    """Each row of a batch that shrinks is the row of one that never does."""
    tokenizer, base = load_tokenizer(model), load_base(model, device=CPU, dtype=torch.float32)
    grammar = Grammar(variables=2, decimals=2)
    prompts = [tokenizer.encode(text) for text in ("1.23,4.56;" * 3, "0.10,9.99;7.77,3.21;")]
    how = {"horizon": 3, "most_tokens": 60, "device": CPU, "draws": Draws(1.0, [range(9)] * 2)}
    texts = {}
    for kept in (0.0, 0.99):
        monkeypatch.setattr(generate, "KEPT", kept)
        texts[kept] = continue_texts(base, tokenizer, grammar, prompts, **how)
    assert texts[0.0] == texts[0.99]
    assert len(set(map(len, texts[0.0]))) > 2, "texts that all end together would not shrink it"


def test_a_prompt_is_put_through_once_for_all_its_samples(model, values, make_task):
    """As it is priced: prompt tokens once, then a token a sample."""
    base = load_base(model, device=CPU, dtype=torch.float32)
    seen = []
    hook = base.get_input_embeddings().register_forward_hook(
        lambda _module, given, _made: seen.append(tuple(given[0].shape))
    )
    try:
        forecasts_of(model, values, make_task(1), samples=20, systems=2)
    finally:
        hook.remove()
    prompts = [shape for shape in seen if shape[1] > 1]
    assert sum(rows for rows, _ in prompts) == 2
    assert sum(rows for rows, tokens in seen if tokens == 1) <= 2 * 20 * 48


# %% What is scored is what was written, never the prompt


class Constant(torch.nn.Module):
    """Writes the same characters whatever it is given, the next after as many tokens as the cache holds."""

    def __init__(self, prompt_tokens, script):
        super().__init__()
        self.prompt_tokens, self.script = prompt_tokens, script

    def forward(self, input_ids, past_key_values, **_how):
        cache = DynamicCache() if past_key_values is None else past_key_values
        states = input_ids[:, None, :, None].float()
        cache.update(states, states, 0)
        place = cache.get_seq_length() - self.prompt_tokens
        logits = torch.zeros(len(input_ids), 1, 16)
        logits[:, :, self.script[place % len(self.script)]] = 1.0
        return SimpleNamespace(logits=logits, past_key_values=cache)


class Echo(torch.nn.Module):
    """Says the prompt again: the token that came `prompt_tokens` - 1 before the one to be written."""

    def __init__(self, prompt_tokens):
        super().__init__()
        self.prompt_tokens = prompt_tokens

    def forward(self, input_ids, past_key_values, **_how):
        cache = DynamicCache() if past_key_values is None else past_key_values
        states = input_ids[:, None, :, None].float()
        keys, _ = cache.update(states, states, 0)
        tokens = keys[:, 0, :, 0].long()
        said = tokens[:, tokens.shape[1] - self.prompt_tokens]
        return SimpleNamespace(logits=one_hot(said, 16)[:, None].float(), past_key_values=cache)


def scripted_forecast(module, model, values, task, system, samples):
    return forecast_systems(
        module,
        load_tokenizer(model),
        Codec.from_json(task.data.codec),
        values,
        [system],
        replace(task.evaluation.forecasts[0], samples=samples, temperature=1e-3),
        batch_size=2,
        seed=0,
        device=CPU,
    )


@pytest.mark.parametrize("samples", [0, 3])
@pytest.mark.parametrize("system", TEST)
def test_a_prompt_is_never_scored_as_its_own_forecast(model, values, make_task, system, samples):
    """A model that always writes 5.00,5.00; has forecast 5.00,5.00, whatever the prompt says."""
    task = make_task(1)
    tokenizer, codec = load_tokenizer(model), Codec.from_json(task.data.codec)
    scale = codec.scale_of(values[system, :10])
    length = len(tokenizer.encode(codec.encode(values[system, :10], scale)))
    module = Constant(length, tokenizer.encode("5.00,5.00;"))
    made = scripted_forecast(module, model, values, task, system, samples)
    np.testing.assert_allclose(made.point[0], codec.decode("5.00,5.00;" * 3, scale))
    assert made.short.sum() == 0


@pytest.mark.parametrize("samples", [0, 3])
@pytest.mark.parametrize("system", TEST)
def test_an_echo_is_scored_for_what_it_said_and_not_for_the_whole_text(
    model, values, make_task, system, samples
):
    """What an echo says is the history from its start: that is its forecast, short of nothing, and it is bad."""
    task = make_task(1)
    tokenizer, codec = load_tokenizer(model), Codec.from_json(task.data.codec)
    scale = codec.scale_of(values[system, :10])
    length = len(tokenizer.encode(codec.encode(values[system, :10], scale)))
    made = scripted_forecast(Echo(length), model, values, task, system, samples)
    assert np.abs(made.point - made.history[:, :3]).max() < 0.05
    error = np.abs(made.history[:, :3] - made.truth).mean()
    assert metrics_of([made])["forecast_mae"] == pytest.approx(error, abs=0.01) != 0


def test_texts_never_hold_their_prompts(model):
    tokenizer, base = load_tokenizer(model), load_base(model, device=CPU, dtype=torch.float32)
    texts = ["1.23,4.56;" * 2, "0.10,9.99;7.77,3.21;"]
    written = continue_texts(
        base,
        tokenizer,
        Grammar(variables=2, decimals=2),
        [tokenizer.encode(text) for text in texts],
        horizon=4,
        most_tokens=60,
        device=CPU,
        draws=Draws(1.0, [range(20)] * 2),
    )
    assert len(written) == 40
    for number, text in enumerate(written):
        assert texts[number // 20] not in text


@pytest.mark.parametrize("loss", ["full", "numeric"])
def test_300_forecasts_of_a_model_that_knows_nothing_are_all_well_formed(
    model, values, make_task, loss
):
    """Hot draws from random weights: each has all its steps, each step all its numbers."""
    made = forecasts_of(
        model,
        values,
        make_task(1),
        range(12),
        batch_size=16,
        loss=loss,
        systems=12,
        samples=25,
        temperature=1.5,
        new_tokens=54,
    )
    assert made.samples.shape == (12, 25, 3, 2)
    assert np.isfinite(made.samples).all()
    assert made.short.sum() == 0, "3 steps of 2 numbers take 54 characters at most"


def test_the_numeric_head_makes_the_same_forecasts(model, values, make_task):
    for samples in (0, 4):
        full, numeric = (
            forecasts_of(model, values, make_task(1), samples=samples, loss=loss)
            for loss in ("full", "numeric")
        )
        np.testing.assert_array_equal(full.point, numeric.point)


def test_every_sample_of_every_window_has_a_seed_of_its_own():
    """Windows that shared one would err together, and their mean would look surer than it is."""
    seeds = [
        seed
        for asked in (0, 1)
        for system in (3, 4)
        for start in (0, 20)
        for seed in generate._seeds(asked, system, start, 5)
    ]
    assert len(set(seeds)) == 2 * 2 * 2 * 5
    assert seeds[:5] == generate._seeds(0, 3, 0, 9)[:5]


@pytest.mark.parametrize("options", [{}, {"point": False}, {"trailing_zeros": False}])
def test_forecasts_are_read_in_the_test_systems_own_scale_and_format(
    model, values, make_task, options
):
    task = make_task(1)
    others = {"validation": values * 2, "test": values * 3}
    codec = Codec.fit(values, decimals=2, method="max", per="part", others=others, **options)
    forecasts = forecast_systems(
        load_base(model, device=CPU, dtype=torch.float32),
        load_tokenizer(model),
        codec,
        values,
        task.data.test,
        replace(task.evaluation.forecasts[0], new_tokens=80),
        batch_size=2,
        seed=0,
        device=CPU,
    )
    scale = codec.scale_of(values[0], part="test")
    np.testing.assert_array_equal(forecasts.scale, [scale.scale] * 2)
    units = forecasts.point / np.array(scale.scale) * 100
    np.testing.assert_allclose(units, np.round(units), atol=1e-6)
    assert forecasts.short.sum() == 0


def test_windows_of_a_system_begin_so_many_steps_apart(model, values, make_task):
    made = forecasts_of(model, values, make_task(1), systems=2, windows=3, every=7)
    assert made.systems.tolist() == [10, 10, 10, 11, 11, 11]
    assert made.starts.tolist() == [0, 7, 14, 0, 7, 14]
    np.testing.assert_array_equal(made.history[4], values[11, 7:17])
    np.testing.assert_array_equal(made.truth[4], values[11, 17:20])
