"""Both conventions against `torch.utils.flop_counter`, their differences accounted for to the FLOP.

PyTorch counts the matrix products that run, at 2·n FLOPs for an inner dimension n, and nothing else. So

    forward     torch = palm-lora
    training    torch = palm-lora − what ends at the first block
    forward     torch = coursework − element-wise work − (multi-head − grouped-query widths)
                        + 1 FLOP for every entry of every product (2n, not 2n − 1)
    training    torch = 3 × its own forward − gradients of frozen weights (2N a token) − what ends at the first block
"""

import pytest

from lvray.core.trial import ALL_LINEAR, LoraConfig
from lvray.flops.price import NUMERIC_TOKENS, forward_pass, train_step
from lvray.flops.shape import TINY

pytestmark = [
    pytest.mark.torch,
    # peft 0.21 asks transformers 5 by the old name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

BATCH, S = 2, 48
ROWS = BATCH * S
QV = LoraConfig(rank=4, targets=("q_proj", "v_proj"))
EVERYTHING = LoraConfig(rank=4, targets=(ALL_LINEAR,))
ADAPTERS = pytest.mark.parametrize("lora", [QV, EVERYTHING], ids=["q,v", "all-linear"])

D, H, K, d = TINY.hidden, TINY.heads, TINY.kv_heads, TINY.head_dim
F, V, L = TINY.feed_forward, TINY.vocabulary, TINY.layers


def base_model():
    """A model of the shape of ``tiny`` with random weights and attention in plain matrix products."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        hidden_size=D,
        num_hidden_layers=L,
        num_attention_heads=H,
        num_key_value_heads=K,
        intermediate_size=F,
        vocab_size=V,
        tie_word_embeddings=TINY.tied_head,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config)


def adapted_model(lora):
    """The same, frozen, with peft's adapters on it."""
    import peft

    targets = ALL_LINEAR if lora.targets == (ALL_LINEAR,) else list(lora.targets)
    return peft.get_peft_model(
        base_model(),
        peft.LoraConfig(r=lora.rank, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"),
    )


def tokens():
    import torch

    return torch.arange(ROWS).reshape(BATCH, S) % V


def torch_forward(model):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=tokens(), use_cache=False)
    return counter.get_total_flops()


def numeric_rows():
    import torch

    return torch.arange(NUMERIC_TOKENS)


def torch_numeric_forward(model):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lvray.trainer.head import logits_of

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits_of(model, tokens(), numeric_rows())
    return counter.get_total_flops()


def torch_numeric_train(model):
    from torch.utils.flop_counter import FlopCounterMode

    from lvray.trainer.losses import Objective

    objective = Objective(rows=numeric_rows())
    with FlopCounterMode(display=False) as counter:
        objective.losses(model, tokens(), tokens() % NUMERIC_TOKENS).objective.backward()
    return counter.get_total_flops()


def torch_train(model):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens(), labels=tokens(), use_cache=False).loss.backward()
    return counter.get_total_flops()


def priced(count, convention, lora, head="full"):
    return count(
        TINY, lora=lora, convention=convention, context_length=S, batch_size=BATCH, head=head
    )


def test_the_model_priced_has_as_many_weights_as_the_model_run():
    assert TINY.parameters() == base_model().num_parameters()


@ADAPTERS
def test_the_adapter_priced_has_as_many_weights_as_the_adapter_trained(lora):
    trainable = sum(w.numel() for w in adapted_model(lora).parameters() if w.requires_grad)

    assert TINY.adapter_weights(lora) == trainable


# palm-lora


def test_palm_lora_forward_is_what_torch_counts():
    assert torch_forward(base_model()) == priced(forward_pass, "palm-lora", None)


@ADAPTERS
def test_palm_lora_forward_with_adapters_is_what_torch_counts(lora):
    expected = priced(forward_pass, "palm-lora", lora)

    assert torch_forward(adapted_model(lora)) == expected


def ends_at_the_first_block(lora):
    """Gradients that palm-lora charges and that nobody needs: the embedding below the first block is frozen.

    The inputs of the first block's q, k, v (2 FLOPs a weight), of their adapters' A (2 FLOPs a weight), and, where k
    has no adapter, its keys: nothing trained lies below them.
    """
    inputs = sum(TINY.linear_layers()[name][1] for name in ("q_proj", "k_proj", "v_proj"))
    adapted = TINY.adapted_layers(lora)
    down = sum(lora.rank for name in ("q_proj", "k_proj", "v_proj") if name in adapted)
    keys = 0 if "k_proj" in adapted else H * S * d
    return 2 * ROWS * (D * inputs + D * down + keys)


@ADAPTERS
def test_palm_lora_training_is_what_torch_counts_but_for_where_gradients_end(lora):
    expected = priced(train_step, "palm-lora", lora) - ends_at_the_first_block(lora)

    assert torch_train(adapted_model(lora)) == expected


@ADAPTERS
def test_palm_lora_is_within_three_percent_of_what_torch_counts(lora):
    # A 4-layer model: the first block weighs most here. In 24 layers its share is a sixth of this.
    assert priced(train_step, "palm-lora", lora) == pytest.approx(
        torch_train(adapted_model(lora)), rel=0.03
    )


# The numeric head


@pytest.mark.parametrize("lora", [None, QV, EVERYTHING], ids=["base", "q,v", "all-linear"])
def test_a_numeric_head_costs_what_torch_counts_for_its_rows(lora):
    model = adapted_model(lora) if lora else base_model()
    expected = priced(forward_pass, "palm-lora", lora, head="numeric")

    assert torch_numeric_forward(model) == expected
    assert torch_forward(model) - expected == 2 * ROWS * D * (V - NUMERIC_TOKENS)


@ADAPTERS
def test_training_on_a_numeric_head_costs_what_torch_counts_but_for_where_gradients_end(lora):
    expected = priced(train_step, "palm-lora", lora, head="numeric") - ends_at_the_first_block(lora)

    assert torch_numeric_train(adapted_model(lora)) == expected


# coursework


def element_wise(lora):
    """Everything that coursework counts and that is no product of matrices."""
    norms = (2 * L + 1) * ROWS * (4 * D + 11)
    additions = (2 * L + 1) * ROWS * D  # residuals and positions
    biases = L * ROWS * 3 * H * d + ROWS * V
    scores = L * (BATCH * H * S * S + BATCH * 10 + BATCH * H * S * (12 * S - 1))
    swiglu = L * ROWS * F * 15
    softmax = ROWS * (12 * V - 1)
    adapters = L * ROWS * 2 * sum(outputs for _, outputs in multi_head(lora).values())
    return norms + additions + biases + scores + swiglu + softmax + adapters


def grouped_query_saves(lora):
    """What narrower keys and values (and their adapters' B) save, at 2 FLOPs a multiply-add."""
    wider = (H - K) * d
    base = 2 * L * ROWS * 2 * D * wider
    adapters = sum(name in TINY.adapted_layers(lora) for name in ("k_proj", "v_proj"))
    return base + (2 * L * ROWS * lora.rank * wider * adapters if lora else 0)


def entries(lora):
    """Entries of all products of a multi-head model: torch counts 2n for each, coursework 2n − 1."""
    projections = 4 * D + 2 * F + D
    scores_and_values = H * S + H * d
    adapters = sum(lora.rank + outputs for _, outputs in multi_head(lora).values())
    return ROWS * (L * (projections + scores_and_values + adapters) + V)


def multi_head(lora):
    return TINY.multi_head().adapted_layers(lora)


@pytest.mark.parametrize("lora", [None, QV, EVERYTHING], ids=["base", "q,v", "all-linear"])
def test_coursework_forward_differs_from_torch_by_named_terms_only(lora):
    expected = (
        priced(forward_pass, "coursework", lora)
        - element_wise(lora)
        - grouped_query_saves(lora)
        + entries(lora)
    )

    assert torch_forward(adapted_model(lora) if lora else base_model()) == expected


@ADAPTERS
def test_coursework_training_is_above_torch_by_gradients_of_frozen_weights(lora):
    """3 × forward in torch's own count less a training step: 2N a token, and what ends at the first block."""
    model = adapted_model(lora)
    forward = torch_forward(model)

    frozen = 2 * ROWS * TINY.matmul_weights() + ends_at_the_first_block(lora)
    assert 3 * forward - torch_train(model) == frozen

    counted_otherwise = element_wise(lora) + grouped_query_saves(lora) - entries(lora)
    assert priced(train_step, "coursework", lora) == 3 * (forward + counted_otherwise)
    assert priced(train_step, "coursework", lora) > torch_train(model)
