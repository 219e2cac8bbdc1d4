"""How are whole numbers read from a command line, so that a wrong one is told in words?"""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """Reads a whole number above 0, as a type of `argparse`'s.

    Raises:
        argparse.ArgumentTypeError: it is another number, or none.
    """
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def count(text: str) -> int:
    """Reads a whole number from 0 on. Raises what `positive` raises."""
    number = _whole(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no whole number") from None
