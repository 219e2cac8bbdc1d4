"""The two ways of counting, against their formulas written out once more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvray.core.errors import UsageError
from lvray.core.trial import LoraConfig
from lvray.flops.conventions import CONVENTIONS, Pass, convention_of
from lvray.flops.shape import SHAPES, ModelShape, shape_of

SMALL = shape_of("Qwen/Qwen2.5-0.5B-Instruct")
COURSEWORK, PALM = CONVENTIONS["coursework"], CONVENTIONS["palm-lora"]
MODELS = st.sampled_from(sorted(SHAPES)).map(shape_of)
LORAS = st.none() | st.builds(
    LoraConfig,
    rank=st.integers(1, 64),
    targets=st.sampled_from([("q_proj", "v_proj"), ("all-linear",), ("down_proj",)]),
    variant=st.sampled_from(["lora", "rslora", "dora"]),
)
LENGTHS = st.integers(1, 40_000)


@pytest.mark.parametrize(
    ("tokens", "train"),
    [(128, 409_739_408_208), (512, 1_692_070_102_224), (768, 2_591_217_624_528)],
)
@pytest.mark.parametrize("sequences", [1, 4])
def test_coursework_is_the_recount_of_the_course_to_the_flop(tokens, train, sequences):
    """The recount leaves out two things that the course's skeleton has: the softmax and the head's bias."""
    work = Pass(sequences, tokens, tokens)
    softmax, bias = COURSEWORK.forward(SMALL, None, work).softmax, work.rows * SMALL.vocabulary

    assert COURSEWORK.train(SMALL, None, work) - 3 * (softmax + bias) == sequences * train


@given(MODELS, LORAS, LENGTHS, st.integers(1, 64))
def test_coursework_follows_its_formula(shape, lora, s, sequences):
    work = Pass(sequences, s, s)

    assert COURSEWORK.forward(shape, lora, work).forward == sequences * by_hand(shape, lora, s)


def by_hand(shape: ModelShape, lora: LoraConfig | None, s: int) -> int:
    """The formula of docs/flops.md in one piece, for one sequence; Hd = D in every built-in shape."""
    dim, heads, d, f, v = (
        shape.hidden,
        shape.heads,
        shape.head_dim,
        shape.feed_forward,
        shape.vocabulary,
    )
    attention = 3 * s * dim * (2 * dim - 1) + 3 * s * dim
    attention += heads * s * s * (2 * d - 1) + heads * s * s + 10
    attention += heads * s * (12 * s - 1) + heads * s * d * (2 * s - 1) + s * dim * (2 * dim - 1)
    feed_forward = 2 * s * f * (2 * dim - 1) + 15 * s * f + s * dim * (2 * f - 1)
    block = attention + feed_forward + 2 * s * dim + 2 * s * (4 * dim + 11)
    head = s * v * (2 * dim - 1) + s * v + s * (12 * v - 1)
    return s * dim + shape.layers * (block + adapters(shape, lora, s)) + s * (4 * dim + 11) + head


def adapters(shape, lora, s):
    if lora is None:
        return 0
    dim, f, r = shape.hidden, shape.feed_forward, lora.rank
    sizes = {
        ("q_proj", "v_proj"): [(dim, dim)] * 2,
        ("all-linear",): [(dim, dim)] * 4 + [(dim, f)] * 2 + [(f, dim)],
        ("down_proj",): [(f, dim)],
    }[lora.targets]
    total = sum(s * r * (2 * i - 1) + s * o * (2 * r - 1) + 2 * s * o for i, o in sizes)
    if lora.variant == "dora":
        total += sum(
            s * o + o * i * (2 * r - 1) + 3 * o * i + o * (i - 1) + 11 * o for i, o in sizes
        )
    return total


@given(MODELS, LORAS, LENGTHS, st.integers(1, 64))
def test_coursework_trains_at_three_forwards(shape, lora, tokens, sequences):
    work = Pass(sequences, tokens, tokens)

    assert COURSEWORK.train(shape, lora, work) == 3 * COURSEWORK.forward(shape, lora, work).forward


@given(MODELS, LORAS, LENGTHS, st.integers(1, 64))
def test_palm_lora_is_2n_2a_and_attention_forward_and_4n_6a_and_3_attention_in_training(
    shape, lora, tokens, sequences
):
    work = Pass(sequences, tokens, tokens)
    frozen, trained = shape.matmul_weights(), shape.adapter_weights(lora)
    attention = 4 * shape.layers * shape.heads * shape.head_dim * tokens

    per_token = 2 * frozen + 2 * trained + attention
    assert PALM.forward(shape, lora, work).forward == sequences * tokens * per_token
    per_token = 4 * frozen + 6 * trained + 3 * attention
    assert PALM.train(shape, lora, work) == sequences * tokens * per_token


def test_palm_lora_of_the_small_qwen_in_numbers():
    # 24·(896·896·2 + 2·896·128 + 3·896·4864) + 896·151936 weights; 4·24·14·64·512 of attention a token.
    assert SMALL.matmul_weights() == 493_961_216
    per_token = 2 * 493_961_216 + 44_040_192
    assert PALM.forward(SMALL, None, Pass(1, 512, 512)).forward == 512 * per_token


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=list(CONVENTIONS))
@given(shape=MODELS, lora=LORAS, tokens=LENGTHS, sequences=st.integers(1, 64))
def test_every_count_is_a_whole_number_and_proportional_to_the_batch(
    convention, shape, lora, tokens, sequences
):
    one, many = Pass(1, tokens, tokens), Pass(sequences, tokens, tokens)
    forward = convention.forward(shape, lora, many)

    assert isinstance(forward.forward, int)
    assert forward.forward == sequences * convention.forward(shape, lora, one).forward
    assert convention.train(shape, lora, many) == sequences * convention.train(shape, lora, one)


def test_rslora_costs_what_lora_costs_and_dora_more():
    lora, rslora, dora = (LoraConfig(variant=name) for name in ("lora", "rslora", "dora"))
    work = Pass(1, 128, 128)

    price = {c.variant: COURSEWORK.forward(SMALL, c, work).forward for c in (lora, rslora, dora)}
    assert price["lora"] == price["rslora"] < price["dora"]


def test_doras_norm_of_the_weights_is_not_counted_again_for_cached_tokens():
    dora, lora = LoraConfig(variant="dora"), LoraConfig()
    first, later = Pass(1, 1, 1), Pass(1, 1, 2)
    extra = [
        COURSEWORK.forward(SMALL, dora, work).lora - COURSEWORK.forward(SMALL, lora, work).lora
        for work in (first, later)
    ]

    assert extra[1] == 24 * 2 * 896  # a magnitude an output of q and v, multi-head widths
    assert extra[0] > 100 * extra[1]


def test_an_unknown_convention_is_answered_with_those_that_exist():
    with pytest.raises(UsageError, match="'palm'; there is palm-lora and coursework"):
        convention_of("palm")
