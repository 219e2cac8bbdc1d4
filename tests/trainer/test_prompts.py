"""What stands before a forecast, in the tokens of a tokenizer that joins what Qwen2.5's joins."""

from dataclasses import replace

import numpy as np
import pytest

from lvray.core.errors import ModelError
from lvray.core.task import ForecastTask
from lvray.planner.prices import CHAT_TOKENS
from lvray.series.codec import Codec
from lvray.trainer.prompts import instruction, prompt_of
from lvray.trainer.tokenizer import ByteTokenizer, load_tokenizer

pytestmark = pytest.mark.torch

# ChatML, with a system message of some twenty tokens where none is given, as instruct models have one.
TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n"
    "This is a test, and a model that it talks to. The model says what is asked.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Digits one by one, words whole, punctuation together with the line ends behind it: how Qwen2.5's vocabulary is cut.
SPLIT = r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"
ASKED = ForecastTask(
    systems=1,
    context_steps=80,
    horizon=20,
    windows=1,
    every=20,
    samples=0,
    temperature=1.0,
    prompt="chat",
    prompt_tokens=1000,
    new_tokens=200,
)
FORMATS = ({}, {"point": False}, {"trailing_zeros": False})


def codec_of(variables=2, decimals=2, **options):
    values = np.ones((1, 2, variables))
    return Codec.fit(values, decimals=decimals, method="fixed", alpha=1, **options)


def save_qwen_like(folder, template=TEMPLATE):
    """A byte-pair encoding that knows our words whole, and joins ";-", ",-" and a ";" with the line end behind it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    words = [instruction(codec_of(v, **options), 20) for v in (1, 2) for options in FORMATS]
    words += [TEMPLATE, "1.23,-4.56;-7.89,,0.12;\n\n\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=5000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(words * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<|endoftext|>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    return load_tokenizer(save_qwen_like(tmp_path_factory.mktemp("chatty")))


def series(steps, codec, seed=0):
    values = np.random.default_rng(seed).normal(0, 4, size=(steps, codec.variables))
    return codec.encode(values, codec.scale_of(values))


def find(tokens, part):
    """Where `part` stands in `tokens`; -1 if nowhere."""
    places = range(len(tokens) - len(part) + 1)
    return next((place for place in places if tokens[place : place + len(part)] == part), -1)


def test_a_tokenizer_that_joins_signs_writes_them_one_by_one(chatty):
    text = "1.23,-4.56;-7.89,,0.12;"
    assert len(chatty._joined(text)) < len(text), "this tokenizer would join them"
    ids = chatty.encode(text)
    assert ids == [chatty.encode(character)[0] for character in text]
    assert chatty.decode(ids) == text
    assert len(chatty.encode(f"{text}\nwords")) > len(text), "other text is encoded as it was"


def test_a_chat_prompt_is_words_and_series_in_the_template(chatty):
    codec = codec_of()
    text = series(10, codec)
    tokens = prompt_of(chatty, codec, text, ASKED)
    place = find(tokens, chatty.encode(text))
    assert place > 0, "the series stands in it, one token a character"
    im_start, im_end = (chatty._joined(mark)[0] for mark in ("<|im_start|>", "<|im_end|>"))
    behind = tokens[place + len(text) :]
    assert behind == chatty._joined("<|im_end|>\n<|im_start|>assistant\n")
    assert tokens.count(im_start) == 3
    assert tokens.count(im_end) == 2
    before = chatty.decode(tokens[:place])
    assert "2 variables" in before
    assert "2 decimals" in before
    assert "next 20 time steps" in before
    assert before.endswith("\n\n")


@pytest.mark.parametrize("variables", [1, 2])
@pytest.mark.parametrize("options", FORMATS, ids=["point", "units", "short"])
def test_the_words_around_a_series_take_no_more_than_is_priced(chatty, variables, options):
    codec = codec_of(variables, **options)
    text = series(10, codec)
    tokens = prompt_of(chatty, codec, text, ASKED)
    assert find(tokens, chatty.encode(text)) > 0
    assert len(tokens) - len(text) <= 0.8 * CHAT_TOKENS


def test_words_tell_the_format():
    assert "have 3 decimals" in instruction(codec_of(decimals=3), 5)
    assert "up to 3 decimals" in instruction(codec_of(decimals=3, trailing_zeros=False), 5)
    assert "units of 0.001" in instruction(codec_of(decimals=3, point=False), 5)
    alone = instruction(codec_of(1), 1)
    assert "1 variable." in alone
    assert "comma" not in alone
    assert "next 1 time step." in alone


@pytest.mark.parametrize("kind", ["raw", "chat"])
@pytest.mark.parametrize("room", [0, 1, 7, 9, 10, 11, 95, 99])
def test_a_long_prompt_loses_just_its_oldest_steps(chatty, kind, room):
    """100 tokens of series are 10 steps; of them as many stay as there is room for."""
    codec = codec_of()
    text = "".join(f"{step}.00,{step}.50;" for step in range(10))
    whole = prompt_of(chatty, codec, text, replace(ASKED, prompt=kind))
    words = len(whole) - len(text)
    asked = replace(ASKED, prompt=kind, prompt_tokens=words + 10 + room)
    tokens = prompt_of(chatty, codec, text, asked)
    kept = min(10, 1 + room // 10)
    assert len(tokens) == words + 10 * kept <= asked.prompt_tokens
    assert find(tokens, chatty.encode(text[-10 * kept :])) >= 0


def test_a_raw_prompt_is_the_series_and_never_less_than_its_last_step(chatty):
    codec = codec_of()
    raw = replace(ASKED, prompt="raw")
    assert prompt_of(chatty, codec, "1.00,1.00;", raw) == chatty.encode("1.00,1.00;")
    few = prompt_of(chatty, codec, "1.00,1.00;2.00,2.00;", replace(raw, prompt_tokens=3))
    assert few == chatty.encode("2.00,2.00;")


def test_words_without_room_for_a_step_are_told(chatty):
    codec = codec_of()
    with pytest.raises(ModelError, match="and 30 are paid for; ask for prompt: raw"):
        prompt_of(chatty, codec, series(9, codec), replace(ASKED, prompt_tokens=30))


def test_a_model_without_a_chat_template_is_told(model):
    codec = codec_of()
    for tokenizer, name in ((ByteTokenizer(), "tiny"), (load_tokenizer(model), model)):
        with pytest.raises(ModelError) as told:
            prompt_of(tokenizer, codec, series(3, codec), ASKED)
        assert str(told.value).startswith(f"{name} has no chat template")
        assert "prompt: raw" in str(told.value)


def test_a_template_that_rewrites_the_series_is_told(tmp_path):
    shouting = TEMPLATE.replace("message.content }}", "message.content | replace('.', ' ') }}")
    tokenizer = load_tokenizer(save_qwen_like(tmp_path, shouting))
    codec = codec_of()
    with pytest.raises(ModelError, match="changes the text of a series"):
        prompt_of(tokenizer, codec, series(3, codec), ASKED)
