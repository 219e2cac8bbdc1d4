"""Which rows of the language-model head are computed?

All of them, or those of a few tokens: the head is one product of the last hidden state with a matrix
that has a row for each token of the vocabulary, so the logits of chosen tokens are the product with
their rows alone. For numeric text that is 14 rows of 151,936, a quarter of the whole step's FLOPs less.

Shapes: B sequences, T tokens, D hidden width, K token ids of the vocabulary, C chosen ones.
"""

from __future__ import annotations

from peft import PeftModel
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import linear
from transformers import DynamicCache, PreTrainedModel


def logits_of(model: Module, tokens: Tensor, rows: Tensor | None) -> Tensor:
    """Gives the logits of all tokens [B, T, K], or of the tokens `rows` alone [B, T, C].

    Args:
        model: a causal language model of transformers, with or without peft's wrapping.
        tokens: ids [B, T].
        rows: ids of the tokens whose logits are computed [C]; None is all of them.
    """
    if rows is None:
        every: Tensor = model(input_ids=tokens, use_cache=False).logits
        return every
    hidden = _backbone(model)(input_ids=tokens, use_cache=False).last_hidden_state
    return _rows_of_head(model, hidden, rows)


def next_logits(
    model: Module,
    tokens: Tensor,
    rows: Tensor | None,
    *,
    mask: Tensor | None,
    positions: Tensor,
    cache: DynamicCache | None,
) -> tuple[Tensor, DynamicCache]:
    """Gives the logits of what follows the last of `tokens`, [B, K] or [B, C], and the cache with those tokens in it.

    Args:
        model: a causal language model of transformers, with or without peft's wrapping.
        tokens: ids [B, T] that are not in the cache yet.
        rows: ids of the tokens whose logits are computed [C]; None is all of them.
        mask: 0 on padding, over all tokens, those in the cache too; None where there is no padding.
        positions: of `tokens` [B, T].
        cache: transformers' keys and values of what came before; None begins.
    """
    inputs = {
        "input_ids": tokens,
        "attention_mask": mask,
        "position_ids": positions,
        "past_key_values": cache,
        "use_cache": True,
    }
    if rows is None:
        answer = model(**inputs, logits_to_keep=1)
        return answer.logits[:, -1], answer.past_key_values
    answer = _backbone(model)(**inputs)
    return _rows_of_head(model, answer.last_hidden_state[:, -1], rows), answer.past_key_values


def causal_model(model: Module) -> PreTrainedModel:
    """Gives transformers' own model: what peft wraps, its layers adapted, or `model` itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _backbone(model: Module) -> PreTrainedModel:
    return causal_model(model).base_model  # transformers' name for all below the head


def _rows_of_head(model: Module, hidden: Tensor, rows: Tensor) -> Tensor:
    head = causal_model(model).get_output_embeddings()
    return linear(hidden, head.weight[rows], None if head.bias is None else head.bias[rows])
