"""Which token stands for which character?

Numeric text is one token a character, in the embedded tokenizer as in Qwen2.5's: the ids of GPT-2's
byte order, '!' = 0, so that "1.23" is [16, 13, 17, 18].
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lvray.core.errors import ModelError, missing_model
from lvray.series.grammar import ALPHABET
from lvray.trainer.near import near_model, read_near

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TINY = "tiny"
"""The name of the base model inside the package."""

END_OF_TEXT = 256
"""The embedded tokenizer's padding; ids 257 to 259 are unused."""


class Tokenizer(Protocol):
    """What the trainer needs of a tokenizer."""

    pad_id: int
    vocabulary: int

    def encode(self, text: str) -> list[int]:
        """Gives the ids of `text`, no special tokens added."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Gives the text of `ids`, special tokens left out."""
        ...

    def chat(self, words: str, series: str) -> list[int]:
        """Gives the ids of a question in the model's chat template, up to where its answer begins.

        The question is `words` with the text of `series` behind them, one token a character.

        Raises:
            ModelError: there is no chat template.
        """
        ...


def _byte_order() -> bytes:
    """Bytes by id, as GPT-2 orders them: those with a printable character first, then the rest."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return bytes([*printable, *(byte for byte in range(256) if byte not in set(printable))])


class ByteTokenizer:
    """The embedded tokenizer: one token a byte of UTF-8."""

    pad_id = END_OF_TEXT
    vocabulary = 260

    def __init__(self) -> None:
        self._byte_of = _byte_order()
        self._id_of = {byte: number for number, byte in enumerate(self._byte_of)}

    def encode(self, text: str) -> list[int]:
        """Gives the ids of `text`, one a byte."""
        return [self._id_of[byte] for byte in text.encode()]

    def decode(self, ids: list[int]) -> str:
        """Gives the text of `ids`; bytes that are no UTF-8 become the replacement character."""
        return bytes(self._byte_of[number] for number in ids if number < 256).decode(
            errors="replace"
        )

    def chat(self, words: str, series: str) -> list[int]:
        """Gives nothing: the embedded model was never taught to answer.

        Raises:
            ModelError: always.
        """
        raise ModelError(no_chat_template(TINY))


class PretrainedTokenizer:
    """A tokenizer of the Hugging Face hub, held to one token a character of numeric text.

    Byte-pair encodings have tokens such as ",-" and ";-" (so does Qwen2.5's), which would join two characters before
    a negative value. Numeric text is therefore put together from the tokens of its characters.
    """

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self._name = name
        self._tokenizer = tokenizer
        self.vocabulary = len(tokenizer)
        pad = (
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        )
        if pad is None:
            raise ModelError(
                f"{name}: its tokenizer has neither a padding nor an end-of-text token"
            )
        self.pad_id = int(pad)
        self._id_of: dict[str, int] = {}
        for character in ALPHABET:
            ids = self._joined(character)
            if len(ids) != 1:
                raise ModelError(
                    f"{name}: its tokenizer writes {character!r} as {len(ids)} tokens; series need one a character"
                )
            self._id_of[character] = ids[0]
        probe = "1.23,4.56;"
        if len(self._joined(probe)) != len(probe):
            raise ModelError(
                f"{name}: its tokenizer joins characters of {probe!r} into longer tokens; series need one a character"
            )

    def encode(self, text: str) -> list[int]:
        """Gives the ids of `text`, no special tokens added; of numeric text one a character."""
        if self._id_of.keys() >= set(text):
            return [self._id_of[character] for character in text]
        return self._joined(text)

    def _joined(self, text: str) -> list[int]:
        """Gives the ids of `text` as the tokenizer itself joins characters."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: list[int]) -> str:
        """Gives the text of `ids`, special tokens left out."""
        text = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def chat(self, words: str, series: str) -> list[int]:
        """Gives the ids of a question in the model's chat template, up to where its answer begins.

        The question is `words` with the text of `series` behind them, one token a character.

        Raises:
            ModelError: there is no chat template, or it writes another series.
        """
        if not self._tokenizer.chat_template:
            raise ModelError(no_chat_template(self._name))
        question = [{"role": "user", "content": words + series}]
        text = str(
            self._tokenizer.apply_chat_template(
                question, tokenize=False, add_generation_prompt=True
            )
        )
        before, found, after = text.rpartition(series)
        if not found:
            raise ModelError(
                f"{self._name}: its chat template changes the text of a series; ask for prompt: raw"
            )
        # The series is encoded apart: its ends may not join what stands before and behind them.
        return [*self.encode(before), *self.encode(series), *self.encode(after)]


def numeric_ids(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Gives the token id of each character of `ALPHABET` [C], the digits first."""
    return np.array([tokenizer.encode(character)[0] for character in ALPHABET], dtype=np.int64)


@cache
def load_tokenizer(model: str) -> Tokenizer:
    """Gives the tokenizer of ``tiny``, of a Hugging Face id, or of a folder; once a process.

    Raises:
        ModelError: it cannot be had, or does not write numeric text one token a character.
    """
    if model == TINY:
        return ByteTokenizer()
    from transformers import AutoTokenizer

    try:
        read = AutoTokenizer.from_pretrained
        tokenizer = read_near(model, near_model(model), read, OSError, ValueError)
        return PretrainedTokenizer(model, tokenizer)
    except (OSError, ValueError) as error:
        raise ModelError(missing(model, error)) from error


def no_chat_template(model: str) -> str:
    """What to do about a model that takes no chat prompts, in words."""
    return (
        f"{model} has no chat template, and evaluation.forecast asks for prompt: chat; ask for prompt: raw, or take an "
        "instruct model such as Qwen/Qwen2.5-0.5B-Instruct"
    )


def missing(model: str, error: Exception) -> str:
    """What to do about a model that cannot be had, in words."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if Path(model).is_dir():
        return f"{model}: the folder holds no model that can be loaded: {first}"
    return missing_model(model, first)
