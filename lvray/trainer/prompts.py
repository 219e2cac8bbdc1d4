"""What does the model read before it goes on?

Either the series alone, or the series with a few words about it in the chat template of an instruct model, up to where its
answer begins. What it writes next is in both cases the first time step after the series.

A prompt takes no more tokens than were paid for: the oldest time steps of a longer one are left out.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from lvray.core.errors import ModelError
from lvray.core.task import ForecastTask
from lvray.series.codec import Codec, Scale
from lvray.trainer.tokenizer import Tokenizer


def prompt_of(tokenizer: Tokenizer, codec: Codec, text: str, asked: ForecastTask) -> list[int]:
    """Gives the token ids of what comes before a forecast.

    Args:
        tokenizer: the model's.
        codec: the one that wrote `text`.
        text: the history, whole time steps.
        asked: which prompt, how many steps ahead, and how many tokens it may take.

    Raises:
        ModelError: the model has no chat template, or its template leaves no room for one time step.
    """
    write = tokenizer.encode
    if asked.prompt == "chat":
        write = partial(tokenizer.chat, instruction(codec, asked.horizon))
    tokens = write(text)
    while len(tokens) > asked.prompt_tokens and text.count(";") > 1:
        text = _without_oldest(text, len(tokens) - asked.prompt_tokens)
        tokens = write(text)
    if asked.prompt == "chat" and len(tokens) > asked.prompt_tokens:
        raise ModelError(
            f"a chat prompt with one time step takes {len(tokens)} tokens of this model, and {asked.prompt_tokens} are "
            "paid for; ask for prompt: raw, or for more context_steps"
        )
    return tokens


def ensure_prompts(tokenizer: Tokenizer, codec: Codec, asked: ForecastTask) -> None:
    """Makes one short prompt, so that a model that takes none says so before it is trained.

    Raises:
        ModelError: what `prompt_of` raises.
    """
    scale = Scale((0.0,) * codec.variables, (1.0,) * codec.variables)
    prompt_of(tokenizer, codec, codec.encode(np.zeros((1, codec.variables)), scale), asked)


def instruction(codec: Codec, horizon: int) -> str:
    """Gives the words of a chat prompt; the series follows them at once."""
    numbers = f"Numbers have {codec.decimals} decimals."
    if not codec.trailing_zeros:
        numbers = f"Numbers have up to {codec.decimals} decimals."
    if not codec.point:
        numbers = (
            f"Numbers are whole: they count units of {10**-codec.decimals:.{codec.decimals}f}."
        )
    return (
        f"This is a time series of {_counted(codec.variables, 'variable')}. A semicolon ends each time step"
        f"{', commas divide its variables' if codec.variables > 1 else ''}. {numbers} "
        f"Write the next {_counted(horizon, 'time step')}. Answer with numbers only, in the same format.\n\n"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count > 1 else ''}"


def _without_oldest(text: str, surplus: int) -> str:
    """Leaves out the oldest time steps, `surplus` characters or a few more, but never the last step.

    A character is a token.
    """
    last = text.rindex(";", 0, -1) + 1
    end = text.find(";", surplus - 1) + 1 or len(text)
    return text[min(end, last) :]
