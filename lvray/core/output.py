"""How is a page of text printed, so that `| head` is no mistake?"""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Prints to standard output; whoever reads it may have read enough and gone."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What is still to be written at exit goes nowhere, instead of failing once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
