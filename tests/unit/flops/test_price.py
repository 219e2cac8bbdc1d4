"""Prices: the course's figures, sums that hold, generation as a sum of its tokens."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvray.core.errors import ModelError, UsageError
from lvray.core.trial import LoraConfig
from lvray.core.units import format_flops
from lvray.flops.conventions import CONVENTIONS
from lvray.flops.price import forward_pass, generation, price, train_step
from lvray.flops.shape import TINY, shape_of

SMALL = shape_of("Qwen/Qwen2.5-0.5B-Instruct")
EVERY = pytest.mark.parametrize("convention", sorted(CONVENTIONS))
LORA = LoraConfig(rank=4)
DORA = LoraConfig(rank=4, targets=("all-linear",), variant="dora")
COUNTS = (
    "positional",
    "rmsnorm",
    "residual",
    "attention",
    "feed_forward",
    "block",
    "blocks",
    "final_norm",
)
COUNTS += ("lm_head", "softmax", "lora", "forward", "train", "flops_per_token")


def test_the_small_qwen_at_512_tokens_has_the_courses_figures():
    priced = price(SMALL, lora=None, convention="coursework", context_length=512, batch_size=1)

    names = (
        "attention",
        "feed_forward",
        "block",
        "blocks",
        "lm_head",
        "softmax",
        "forward",
        "train",
    )
    assert {name: format_flops(getattr(priced, name)) for name in names} == {
        "attention": "4.27e9",
        "feed_forward": "1.34e10",
        "block": "1.77e10",
        "blocks": "4.25e11",
        "lm_head": "1.39e11",
        "softmax": "9.33e8",
        "forward": "5.65e11",
        "train": "1.70e12",
    }
    assert priced.train == 1_695_103_958_736


@EVERY
@given(st.integers(1, 5000), st.integers(1, 32), st.sampled_from([None, LORA, DORA]))
def test_the_parts_sum_to_the_whole(convention, context, batch, lora):
    row = price(
        TINY, lora=lora, convention=convention, context_length=context, batch_size=batch
    ).to_json()
    flops = {name: int(row[name]) for name in COUNTS}

    assert flops["block"] == (
        2 * flops["rmsnorm"] + flops["attention"] + flops["feed_forward"] + 2 * flops["residual"]
    )
    assert flops["blocks"] == row["layers"] * flops["block"]
    outside = ("positional", "lora", "final_norm", "lm_head", "softmax")
    assert flops["forward"] == flops["blocks"] + sum(flops[name] for name in outside)
    assert flops["forward"] < flops["train"] <= 3 * flops["forward"]
    assert abs(flops["train"] - flops["flops_per_token"] * context * batch) <= context * batch / 2


def test_palm_lora_prices_nothing_but_products():
    priced = price(SMALL, lora=LORA, convention="palm-lora", context_length=512, batch_size=1)

    for name in ("positional", "rmsnorm", "residual", "final_norm", "softmax"):
        assert getattr(priced, name) == 0
    assert priced.lora == 2 * 512 * 270_336


def test_json_has_flops_as_strings_and_comes_back_exact():
    priced = price(SMALL, lora=LORA, convention="coursework", context_length=768, batch_size=10**6)
    row = json.loads(json.dumps(priced.to_json()))

    assert all(isinstance(row[name], str) for name in COUNTS)
    assert int(row["train"]) == priced.train > 2**53
    assert row["adapter"] == LORA.to_json()
    assert (row["trainable_parameters"], row["parameters"]) == (270_336, 494_032_768)


@EVERY
def test_short_cuts_are_what_price_says(convention):
    batch = {"lora": LORA, "convention": convention, "context_length": 300, "batch_size": 3}
    priced = price(SMALL, **batch)

    assert train_step(SMALL, **batch) == priced.train
    assert forward_pass(SMALL, **batch) == priced.forward


# Generation


def generated(convention, prompt, new, batch=1, lora=LORA, shape=TINY):
    return generation(
        shape,
        lora=lora,
        convention=convention,
        prompt_tokens=prompt,
        new_tokens=new,
        batch_size=batch,
    )


@EVERY
@pytest.mark.parametrize("lora", [None, LORA, DORA], ids=["base", "lora", "dora"])
def test_generating_nothing_is_a_forward_pass_of_the_prompt(convention, lora):
    for prompt in (1, 2, 77):
        forward = forward_pass(
            TINY, lora=lora, convention=convention, context_length=prompt, batch_size=5
        )
        assert generated(convention, prompt, 0, batch=5, lora=lora) == forward


@EVERY
@given(st.integers(1, 300), st.integers(0, 60), st.sampled_from([None, LORA, DORA]))
def test_generation_is_the_sum_of_its_tokens(convention, prompt, new, lora):
    tokens = [
        generated(convention, length, 1, lora=lora) - generated(convention, length, 0, lora=lora)
        for length in range(prompt, prompt + new)
    ]

    whole = generated(convention, prompt, new, lora=lora)
    assert whole == generated(convention, prompt, 0, lora=lora) + sum(tokens)


@EVERY
@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(1, 50))
def test_generation_grows_with_prompt_tokens_and_batch(convention, prompt, new, batch):
    here = generated(convention, prompt, new, batch)

    assert here < generated(convention, prompt + 1, new, batch)
    assert here < generated(convention, prompt, new + 1, batch)
    assert here * (batch + 1) == generated(convention, prompt, new, batch + 1) * batch


def test_one_more_token_costs_one_row_that_attends_to_all_before_it():
    heads, d, width, f, v = 4, 32, 128, 512, 260
    context = 101
    attention = 3 * width * (2 * width - 1) + 3 * width + width * (2 * width - 1)
    attention += heads * context * (2 * d) + 10 + heads * (12 * context - 1)
    attention += heads * d * (2 * context - 1)
    feed_forward = 2 * f * (2 * width - 1) + 15 * f + width * (2 * f - 1)
    block = attention + feed_forward + 2 * width + 2 * (4 * width + 11)
    head = v * (2 * width - 1) + v + (12 * v - 1)

    more = generated("coursework", 100, 1, lora=None) - generated("coursework", 100, 0, lora=None)
    assert more == width + 4 * block + (4 * width + 11) + head


def test_a_cache_makes_generation_cheaper_than_a_pass_over_it_all():
    assert generated("coursework", 800, 200) < forward_pass(
        TINY, lora=LORA, convention="coursework", context_length=1000, batch_size=1
    )


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_length": 0}, "context_length is 0; it must be at least 1"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"lora": LoraConfig(rank=0)}, "rank is 0"),
        ({"convention": "coursewrok"}, "no FLOP convention 'coursewrok'"),
    ],
)
def test_what_cannot_be_priced_is_refused_in_words(changes, message):
    batch = {"lora": None, "convention": "coursework", "context_length": 8, "batch_size": 1}
    with pytest.raises(UsageError, match=message):
        price(TINY, **{**batch, **changes})


def test_generation_needs_a_prompt_and_no_negative_tokens():
    with pytest.raises(UsageError, match="prompt_tokens is 0"):
        generated("coursework", 0, 5)
    with pytest.raises(UsageError, match="new_tokens is -1"):
        generated("palm-lora", 5, -1)


@EVERY
def test_an_unknown_target_is_refused_under_every_convention(convention):
    with pytest.raises(ModelError, match="no linear layer 'wq'"):
        price(
            TINY,
            lora=LoraConfig(targets=("wq",)),
            convention=convention,
            context_length=8,
            batch_size=1,
        )
