"""How are keys and values kept while many texts go on from one prompt?

A prompt is put through the model once; its keys and values are then laid out once for each of its
samples, with room for all tokens that may follow. Adding a token writes it into that room: what stands
there is not copied again, as the usual growing cache does at every token (measured: more than half of
the time of a forecast).

Shapes: R rows, K heads of keys and values, T tokens so far, d dimensions of a head.
"""

from __future__ import annotations

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer [R, K, T, d], at the front of buffers with room for more tokens."""

    def __init__(self, keys: Tensor, values: Tensor, *, samples: int, room: int) -> None:
        """Lays out `samples` copies of each row side by side, with `room` for as many tokens."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._all_keys = _laid_out(keys, samples, room)
        self._all_values = _laid_out(values, samples, room)
        self._show(keys.shape[2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_how: object
    ) -> tuple[Tensor, Tensor]:
        """Writes further tokens behind those that are there, and gives all of them."""
        before = self.keys.shape[2]
        after = before + key_states.shape[2]
        assert after <= self._all_keys.shape[2], f"no room for {after} tokens"
        self._all_keys[:, :, before:after] = key_states
        self._all_values[:, :, before:after] = value_states
        self._show(after)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows alone."""
        self._all_keys, self._all_values = self._all_keys[indices], self._all_values[indices]
        self._show(self.keys.shape[2])

    def _show(self, tokens: int) -> None:
        self.keys, self.values = self._all_keys[:, :, :tokens], self._all_values[:, :, :tokens]


def _laid_out(states: Tensor, samples: int, room: int) -> Tensor:
    rows, heads, tokens, size = states.shape
    buffer = states.new_zeros(rows, samples, heads, tokens + room, size)
    buffer[:, :, :, :tokens] = states[:, None]
    return buffer.flatten(0, 1)


def spread(cache: DynamicCache, *, samples: int, room: int) -> DynamicCache:
    """Gives a cache with `samples` rows for each row of `cache`, side by side; `cache` is left as it is.

    Layers that keep all tokens have room for `room` more. Only such layers are known here: those of models
    that can be priced.
    """
    wide = DynamicCache()
    wide.layers = [
        RoomyLayer(layer.keys, layer.values, samples=samples, room=room) for layer in cache.layers
    ]
    return wide
