from dataclasses import replace

import numpy as np
import pytest
import torch

from lvray.core.errors import DataError, ModelError
from lvray.series.codec import Codec
from lvray.series.grammar import ALPHABET, Grammar
from lvray.trainer.generate import (
    character_ids,
    continue_texts,
    evenly_spread,
    forecast_systems,
    metrics_of,
)
from lvray.trainer.model import load_base
from lvray.trainer.tokenizer import load_tokenizer

pytestmark = pytest.mark.torch

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
    grammar, ids = Grammar(variables=2, decimals=2), character_ids(tokenizer)
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


def test_a_tokenizer_without_single_characters_is_told_in_words():
    class Words:
        pad_id, vocabulary = 0, 9

        def encode(self, text):
            return [1, 2]

        def decode(self, ids):
            return ""

    with pytest.raises(ModelError, match="as 2 tokens"):
        character_ids(Words())


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
