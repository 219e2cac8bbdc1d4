"""Which dimensions does a base model have, as far as they decide what it costs?

The Qwen2.5 family and the embedded ``tiny`` are built in (numbers of their public config.json), so
pricing needs no download. Any other model is read from a local folder with a config.json of the same
architecture: pre-norm decoder, rotary positions, grouped-query attention, SwiGLU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lvray.core.errors import ModelError
from lvray.core.trial import ALL_LINEAR, LoraConfig


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions of a decoder-only transformer of Qwen2's or Llama's architecture."""

    name: str
    hidden: int
    """Width D of the residual stream."""
    layers: int
    heads: int
    """Query heads."""
    kv_heads: int
    """Key and value heads; fewer than `heads` in grouped-query attention (arXiv:2305.13245)."""
    head_dim: int
    feed_forward: int
    """Width F inside the feed-forward layer."""
    vocabulary: int
    tied_head: bool
    """Whether the head's weight is the embedding's."""
    attention_bias: bool
    """Whether the query, key and value projections have a bias."""

    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one block by name: inputs, outputs."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.feed_forward),
            "up_proj": (self.hidden, self.feed_forward),
            "down_proj": (self.feed_forward, self.hidden),
        }

    def adapted_layers(self, lora: LoraConfig | None) -> dict[str, tuple[int, int]]:
        """Those of one block's linear layers that `lora` adapts; none without an adapter.

        Raises:
            ModelError: a target that the model does not have; the message lists the real ones.
        """
        real = self.linear_layers()
        if lora is None:
            return {}
        if lora.targets == (ALL_LINEAR,):
            return real
        unknown = [target for target in lora.targets if target not in real]
        if unknown:
            raise ModelError(
                f"{self.name} has no linear layer {', '.join(map(repr, unknown))}; "
                f"LoRA targets are {', '.join(real)}, or {ALL_LINEAR} for all of them"
            )
        return {name: size for name, size in real.items() if name in lora.targets}

    def parameters(self) -> int:
        """All weights of the base model, a tied head counted once."""
        biases = self.attention_bias * (self.heads + 2 * self.kv_heads) * self.head_dim
        norms = 2 * self.hidden
        embedding = self.vocabulary * self.hidden
        return (
            (1 if self.tied_head else 2) * embedding
            + self.layers * (self._block_weights() + biases + norms)
            + self.hidden
        )

    def matmul_weights(self) -> int:
        """Weights that every token is multiplied by: the blocks' linear layers and the head, not the embedding."""
        return self.layers * self._block_weights() + self.hidden * self.vocabulary

    def adapter_weights(self, lora: LoraConfig | None) -> int:
        """Weights of the adapter beside the layers: rank·(inputs + outputs) a layer; DoRA adds a magnitude an output.

        Raises:
            ModelError: a target that the model does not have.
        """
        if lora is None:
            return 0
        magnitudes = lora.variant == "dora"
        return self.layers * sum(
            lora.rank * (inputs + outputs) + magnitudes * outputs
            for inputs, outputs in self.adapted_layers(lora).values()
        )

    def trainable_weights(self, lora: LoraConfig | None) -> int:
        """All that is trained: the adapter, and the bias of the head if it has one.

        Raises:
            ModelError: a target that the model does not have.
        """
        bias = lora is not None and lora.head_bias
        return self.adapter_weights(lora) + bias * self.vocabulary

    def multi_head(self) -> ModelShape:
        """The same model with as many key and value heads as query heads."""
        return replace(self, kv_heads=self.heads)

    def _block_weights(self) -> int:
        return sum(inputs * outputs for inputs, outputs in self.linear_layers().values())


TINY = ModelShape("tiny", 128, 4, 4, 2, 32, 512, 260, tied_head=True, attention_bias=True)
"""The base model inside the package."""


def _qwen(size: str, *dimensions: int, tied: bool = False) -> ModelShape:
    hidden, layers, heads, kv_heads, feed_forward, vocabulary = dimensions
    return ModelShape(
        f"Qwen/Qwen2.5-{size}",
        hidden,
        layers,
        heads,
        kv_heads,
        hidden // heads,
        feed_forward,
        vocabulary,
        tied_head=tied,
        attention_bias=True,
    )


_QWEN2_5 = (
    _qwen("0.5B", 896, 24, 14, 2, 4864, 151936, tied=True),
    _qwen("1.5B", 1536, 28, 12, 2, 8960, 151936, tied=True),
    _qwen("3B", 2048, 36, 16, 2, 11008, 151936, tied=True),
    _qwen("7B", 3584, 28, 28, 4, 18944, 152064),
    _qwen("14B", 5120, 48, 40, 8, 13824, 152064),
    _qwen("32B", 5120, 64, 40, 8, 27648, 152064),
    _qwen("72B", 8192, 80, 64, 8, 29568, 152064),
)

SHAPES: Mapping[str, ModelShape] = {
    shape.name: shape
    for base in _QWEN2_5
    for shape in (base, replace(base, name=f"{base.name}-Instruct"))
} | {TINY.name: TINY}
"""Built-in shapes by the name that a sweep file gives to ``model``."""


def shape_of(model: str) -> ModelShape:
    """The shape of ``tiny``, of a Qwen2.5 by its Hugging Face id, or of the model in a local folder.

    Raises:
        ModelError: neither a known name nor a folder, or the folder's config.json does not describe
            a model that can be priced.
    """
    if model in SHAPES:
        return SHAPES[model]
    if Path(model).is_dir():
        return _read(Path(model))
    near = get_close_matches(model, SHAPES, n=3, cutoff=0.5) or list(SHAPES)
    raise ModelError(
        f"model {model!r}: neither a folder with a config.json nor a model whose shape is built in; "
        f"did you mean {', '.join(near)}?"
    )


_ATTENTION_BIAS = {"qwen2": True, "llama": False, "mistral": False}
"""Model types that can be priced, and whether their queries, keys and values have a bias by default."""


def _read(folder: Path) -> ModelShape:
    """Reads the shape from the folder's config.json, in Hugging Face's field names."""
    path = folder / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ModelError(f"{path}: holds {type(fields).__name__}, not the fields of a model")
    kind, activation = fields.get("model_type"), fields.get("hidden_act", "silu")
    if kind not in _ATTENTION_BIAS or activation != "silu":
        raise ModelError(
            f"{path}: a model of type {kind!r} with activation {activation!r} cannot be priced; "
            f"types that can are {', '.join(_ATTENTION_BIAS)}, with silu"
        )
    hidden, heads = _whole(path, fields, "hidden_size"), _whole(path, fields, "num_attention_heads")
    return ModelShape(
        name=str(folder),
        hidden=hidden,
        layers=_whole(path, fields, "num_hidden_layers"),
        heads=heads,
        kv_heads=_whole(path, fields, "num_key_value_heads", default=heads),
        head_dim=_whole(path, fields, "head_dim", default=hidden // heads),
        feed_forward=_whole(path, fields, "intermediate_size"),
        vocabulary=_whole(path, fields, "vocab_size"),
        tied_head=bool(fields.get("tie_word_embeddings", False)),
        attention_bias=bool(fields.get("attention_bias", _ATTENTION_BIAS[kind])),
    )


def _whole(path: Path, fields: Mapping[str, Any], name: str, *, default: int | None = None) -> int:
    """One field of a config.json; `default` where it is absent or null."""
    value = fields.get(name)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"{path}: {name} is {value!r}; a whole number from 1 up is needed")
    return value
