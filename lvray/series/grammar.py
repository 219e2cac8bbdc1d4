"""Which characters may follow in the text of a series?

A small automaton that accepts what `codec` writes of values like those of its training systems (as many digits before
the point at most, negative ones only if there were some), and nothing that it cannot read. A forecast that is
written within it is readable whatever the model thinks of, and no single draw runs away by a power of ten.

Shapes: S places of the automaton, C characters of the alphabet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvray.series.codec import Codec

ALPHABET = "0123456789.-,;"
"""Every character that the codec writes, the digits first."""

_DIGITS = "0123456789"


class Place(NamedTuple):
    """Where in a time step the text stands."""

    variable: int
    """Variables of this step that are written already."""
    sign: bool = False
    """Whether this number has its minus sign; forgotten after the point, as `integer` is."""
    integer: str = ""
    """What the integer part is so far: nothing, ``0``, or digits (as many ``9``)."""
    decimals: int = -1
    """Digits after the point; -1 before the point."""
    open: bool = False
    """Whether the last of these digits is a zero that may not be the last one."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """The text of series of so many variables, written in one format.

    A number is a sign or none, an integer part of at most `integer_digits` digits without leading zeros, a point and
    `decimals` digits. Without trailing zeros it has one to `decimals` digits behind the point, the last of several not
    a zero. Without the point it is a sign or none and up to `integer_digits` + `decimals` digits without leading
    zeros; 0 has no sign.

    A comma divides the variables of a time step, a semicolon ends the step. The text begins at the
    border of two steps.
    """

    variables: int
    decimals: int
    point: bool = True
    trailing_zeros: bool = True
    integer_digits: int = 3
    signed: bool = True

    @classmethod
    def of(cls, codec: Codec) -> Grammar:
        """Gives the grammar of what `codec` writes."""
        return cls(
            codec.variables,
            codec.decimals,
            codec.point,
            codec.trailing_zeros,
            codec.integer_digits,
            codec.signed,
        )

    @property
    def start(self) -> Place:
        """The place at the start of every time step."""
        return Place(0)

    def allowed(self, place: Place) -> str:
        """Gives the characters that may stand next, never none."""
        if place.decimals >= 0:
            return self._behind_the_point(place)
        if not place.integer:
            first = _DIGITS if self.point or not place.sign else _DIGITS[1:]
            return first if place.sign or not self.signed else f"{first}-"
        end = "." if self.point else self._separator(place)
        longest = self.integer_digits + (0 if self.point else self.decimals)
        if place.integer == "0" or len(place.integer) == longest:
            return end
        return _DIGITS + end

    def _behind_the_point(self, place: Place) -> str:
        if place.decimals == self.decimals:
            return self._separator(place)
        if self.trailing_zeros or place.decimals == 0:
            return _DIGITS
        # The last digit that there is room for may not be a zero: nothing could follow it.
        digits = _DIGITS[1:] if place.decimals + 1 == self.decimals else _DIGITS
        return digits if place.open else digits + self._separator(place)

    def _separator(self, place: Place) -> str:
        return "," if place.variable < self.variables - 1 else ";"

    def after(self, place: Place, character: str) -> Place:
        """Gives the place after an allowed `character`."""
        assert character in self.allowed(place), f"{character!r} cannot follow at {place}"
        match character:
            case ",":
                return Place(place.variable + 1)
            case ";":
                return self.start
            case ".":
                return Place(place.variable, decimals=0)  # what stood before it no longer matters
            case "-":
                return place._replace(sign=True)
            case _ if place.decimals >= 0:
                # A single zero may be the last digit, as in 1.0.
                zero = not self.trailing_zeros and place.decimals > 0 and character == "0"
                return place._replace(decimals=place.decimals + 1, open=zero)
            case "0" if not place.integer:
                return place._replace(integer="0")
            case _:
                return place._replace(integer=place.integer + "9")

    def tables(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Gives the automaton with places numbered from 0, the start: allowed [S, C] and next place [S, C].

        Where a character is not allowed, the next place is the same place.
        """
        numbers = {self.start: 0}
        places = [self.start]
        moves: list[tuple[int, int, int]] = []
        for place in places:  # grows while we walk: every place that can be reached, once
            for character in self.allowed(place):
                following = self.after(place, character)
                if following not in numbers:
                    numbers[following] = len(places)
                    places.append(following)
                moves.append((numbers[place], ALPHABET.index(character), numbers[following]))
        allowed = np.zeros((len(places), len(ALPHABET)), dtype=np.bool_)
        following_numbers = np.tile(np.arange(len(places))[:, None], (1, len(ALPHABET)))
        for number, character_number, following_number in moves:
            allowed[number, character_number] = True
            following_numbers[number, character_number] = following_number
        return allowed, following_numbers
