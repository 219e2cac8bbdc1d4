"""How do numbers become text, and text numbers again?

The LLMTIME way (arXiv:2310.07820), in the coursework's dialect: values are scaled so that most lie
between 0 and 10 and written with a fixed number of decimals; "," stands between the variables of a time
step, ";" after every time step, and there are no blanks::

    0.95,1.04;0.74,0.78;

A negative value begins with "-", a value past the scale simply has more digits, and a missing value is an
empty field: ``0.95,;`` lacks its second variable. Unlike LLMTIME's own code, numbers are rounded, not cut
off, and the "." is printed. Two options change how a number looks, not what it is::

    point=False            0.71,12.50,0.05,0.00   is   71,1250,5,0          whole units of the last decimal
    trailing_zeros=False   0.460,0.400,1.000      is   0.46,0.4,1.0         as Python prints floats

Scaling is x' = (x − offset) / scale. The four methods:

    fixed            scale = alpha
    max              scale = max |x| / to; 1 where max |x| is below `above`
    percentile       scale = percentile of |x| / to
    offset-quantile  offset = min − offset·(max − min), scale = quantile of (x − offset) / to; every variable apart

They are fitted on the training systems once (``per="data"``), or on the history of each series alone
(``per="series"``; offset-quantile always), so that no forecast ever sees its own future. ``per="part"`` fits
training, validation and test systems apart, each part on all of its values: what others did, and a look ahead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float64]

METHODS: Mapping[str, Mapping[str, float]] = {
    "fixed": {"alpha": 10.0},
    "max": {"to": 9.9, "above": 0.0},
    "percentile": {"percentile": 99.7, "to": 10.0},
    "offset-quantile": {"offset": 0.3, "quantile": 0.99, "to": 1.0},
}
"""Scaling methods, their parameters and what those are unless given."""

LARGEST_PARAMETER: Mapping[str, float] = {"percentile": 100.0, "quantile": 1.0}
"""Parameters that have an upper end."""

MAY_BE_ZERO = frozenset({"offset", "above"})
"""Parameters that may be 0; every other must be above it."""

MOST_DECIMALS = 4

LARGEST_DIGITS = 309
"""Digits of the largest floating point number."""

PARTS = ("train", "validation", "test")
"""The parts that systems play, each with a scale of its own under ``per="part"``."""

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_UNITS = re.compile(r"-?[0-9]+")

_ROOM_AHEAD = 4
"""How many times the largest value of a series that is scaled by itself a forecast may reach, at the least."""

_USUAL = 0.95
"""Share of the training steps that are no longer than a usual step."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How one series is shifted and stretched, a number for each variable: x' = (x − offset) / scale."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, series: Floats) -> Floats:
        """Gives the scaled series, of the shape of `series` [T, V]."""
        with np.errstate(over="ignore"):  # what is too large to write is told by `Codec.encode`
            result: Floats = (series - np.array(self.offset)) / np.array(self.scale)
        return result

    def invert(self, scaled: Floats) -> Floats:
        """Gives the series in the data's units, of the shape of `scaled` [T, V]."""
        with np.errstate(over="ignore"):  # infinite values end what `Codec.decode` gives
            result: Floats = scaled * np.array(self.scale) + np.array(self.offset)
        return result

    def to_json(self) -> dict[str, list[float]]:
        """Gives plain JSON values."""
        return {"offset": list(self.offset), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, row: Mapping[str, Sequence[float]]) -> Scale:
        """Reads what `to_json` wrote."""
        return cls(offset=tuple(row["offset"]), scale=tuple(row["scale"]))


@dataclass(frozen=True, slots=True)
class Codec:
    """Writes series of a fixed number of variables as text, and reads them back. Made by `fit`."""

    decimals: int
    """Digits after the point, 1 to 4."""
    variables: int
    method: str
    per: str
    """``data``: one scale for all; ``part``: one for each of `PARTS`; ``series``: one for each history."""
    parameters: Mapping[str, float]
    scale: Scale | None
    """The data set's scale; None where every part or series has its own."""
    step_characters: int
    """Characters of a usual time step, separators included: 95% of the training steps take no more."""
    point: bool = True
    """Whether "." is written; without it a number counts units of the last decimal."""
    trailing_zeros: bool = True
    """Whether every number has all its decimals; without them 0.40 is ``0.4`` and 1.00 ``1.0``."""
    parts: Mapping[str, Scale] | None = None
    """The scale of each part where every part has its own, else None."""
    integer_digits: int = 3
    """Digits before the point of the largest scaled training value, at least 1: no forecast has more. Where every
    history has its own scale, of four times that value: what comes may be larger than all that was."""
    signed: bool = True
    """Whether a training value is below zero when it is scaled: else no forecast is."""

    @classmethod
    def fit(
        cls,
        values: npt.ArrayLike,
        *,
        decimals: int,
        method: str,
        per: str = "data",
        point: bool = True,
        trailing_zeros: bool = True,
        others: Mapping[str, npt.ArrayLike] | None = None,
        **parameters: float,
    ) -> Codec:
        """Fits the scaling to the values [N, T, V] of the training systems; NaN are missing values.

        Args:
            values: those of the training systems.
            decimals: digits after the point.
            method: one of `METHODS`.
            per: what shares a scale: ``data``, ``part`` or ``series``.
            point: whether "." is written.
            trailing_zeros: whether every number has all its decimals.
            others: values [N', T', V] of the ``validation`` and ``test`` systems; only ``per="part"`` looks at them.
            parameters: the method's.

        Raises:
            DataError: an unknown method or parameter, one that is out of its range, or values that
                cannot be scaled.
        """
        training = np.asarray(values, dtype=np.float64)
        if training.ndim != 3 or training.size == 0:
            raise DataError(
                f"a scaling is fitted to [systems, steps, variables], not to {training.shape}"
            )
        if isinstance(decimals, bool) or decimals not in range(1, MOST_DECIMALS + 1):
            raise DataError(f"{decimals} decimals: series are written with 1 to {MOST_DECIMALS}")
        if per not in {"data", "part", "series"}:
            raise DataError(f"scaling per {per!r}: it is 'data', 'part' or 'series'")
        if not point and not trailing_zeros:
            raise DataError(
                "numbers without a point have all their decimals: trailing_zeros is true"
            )
        whole = _parameters(method, parameters)
        if method == "offset-quantile":
            per = "series"
        variables = training.shape[2]
        together = training if per == "series" else training.reshape(1, -1, variables)
        offset, scale = _scales(together, method, whole)
        own = Scale(tuple(offset[0].tolist()), tuple(scale[0].tolist()))
        parts = None
        if per == "part":
            parts = {"train": own, **_scales_of_parts(others or {}, method, whole)}
        with np.errstate(over="ignore", invalid="ignore"):  # rounding overflows too
            scaled = (training - offset[:, None]) / scale[:, None]
            signed = bool((np.round(scaled, decimals) < 0).any())
            largest = np.round(np.nanmax(np.abs(scaled), initial=0.0), decimals)
            largest *= _ROOM_AHEAD if per == "series" else 1
        return cls(
            decimals,
            variables,
            method,
            per,
            whole,
            own if per == "data" else None,
            _usual_step(scaled, decimals, point=point, trailing_zeros=trailing_zeros),
            point,
            trailing_zeros,
            parts,
            integer_digits=len(str(int(largest))) if np.isfinite(largest) else LARGEST_DIGITS,
            signed=signed,
        )

    def scale_of(self, history: npt.ArrayLike, *, part: str | None = None) -> Scale:
        """Gives the scale of a series whose history [T, V] is known: the data set's, its part's, or the history's own.

        Args:
            history: what is known of the series.
            part: which of `PARTS` its system plays; only a codec with a scale for each of them asks.

        Raises:
            DataError: the history spans more than floating point numbers do.
        """
        if self.scale is not None:
            return self.scale
        if self.parts is not None:
            assert part is not None, f"every part has a scale of its own: one of {PARTS} is needed"
            return self.parts[part]
        known = np.asarray(history, dtype=np.float64)
        assert known.ndim == 2, f"a history is [steps, variables], not {known.shape}"
        assert len(known) > 0, "a history without a step has no scale"
        assert known.shape[1] == self.variables, f"{known.shape[1]} variables, not {self.variables}"
        offset, scale = _scales(known[None], self.method, self.parameters)
        return Scale(tuple(offset[0].tolist()), tuple(scale[0].tolist()))

    def encode(self, series: npt.ArrayLike, scale: Scale) -> str:
        """Writes a series [T, V] as text; every time step is closed by ";".

        Raises:
            DataError: an infinite value, or one too large for its scale.
        """
        values = np.asarray(series, dtype=np.float64)
        assert values.ndim == 2, f"a series is [steps, variables], not {values.shape}"
        assert values.shape[1] == self.variables, (
            f"{values.shape[1]} variables, not {self.variables}"
        )
        scaled = scale.apply(values)
        if np.isinf(scaled).any():
            step, variable = np.argwhere(np.isinf(scaled))[0].tolist()
            raise DataError(
                f"{values[step, variable]:g} at step {step}, variable {variable} (counted from 0) cannot "
                f"be written as text: over the scale {scale.scale[variable]:g} it is infinite"
            )
        steps = scaled.tolist()
        return "".join([",".join([self._field(value) for value in step]) + ";" for step in steps])

    def decode(self, text: str, scale: Scale, *, missing: bool = True) -> Floats:
        """Reads the longest valid beginning of any text, [T', V] in the data's units; never an exception.

        A time step counts if it is closed by ";" and has one field for each variable: a number such as
        ``-12.5`` (without the point ``-1250``), whatever its digits, or nothing for a missing value (NaN). With
        ``missing=False`` an empty field ends the beginning too: what a forecast wants, where a missing value is no
        answer.
        """
        rows: list[list[float]] = []
        for step in text.split(";")[:-1]:
            fields = step.split(",")
            if len(fields) != self.variables:
                break
            row = [self._value(field, missing=missing) for field in fields]
            if any(value is None for value in row):
                break
            rows.append([value for value in row if value is not None])
        scaled = np.array(rows, dtype=np.float64).reshape(len(rows), self.variables)
        values = scale.invert(scaled)
        infinite = np.isinf(values).any(axis=1)
        return values[: int(infinite.argmax())] if infinite.any() else values

    def rounding_floor(self, scale: Scale) -> float:
        """Gives the mean absolute error that rounding alone makes, in the data's units.

        Rounding to a unit u = 10^-decimals errs evenly between −u/2 and u/2, by u/4 on average.
        """
        return 10.0**-self.decimals / 4 * sum(scale.scale) / len(scale.scale)

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values."""
        row = {name: getattr(self, name) for name in self.__slots__}
        row["parameters"] = dict(self.parameters)
        if self.scale is not None:
            row["scale"] = self.scale.to_json()
        if self.parts is not None:
            row["parts"] = {part: scale.to_json() for part, scale in self.parts.items()}
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Codec:
        """Reads what `to_json` wrote, or what it wrote before there were `point`, `trailing_zeros` and `parts`."""
        scale, parts = row["scale"], row.get("parts")
        return cls(
            **{
                **row,
                "parameters": dict(row["parameters"]),
                "scale": None if scale is None else Scale.from_json(scale),
                "parts": parts and {part: Scale.from_json(own) for part, own in parts.items()},
            }
        )

    def _field(self, value: float) -> str:
        if math.isnan(value):
            return ""
        number = f"{value:z.{self.decimals}f}"  # z: 0.00, never -0.00
        if not self.point:
            return _without_point(number)
        return number if self.trailing_zeros else _without_trailing_zeros(number)

    def _value(self, field: str, *, missing: bool) -> float | None:
        """Gives the number in a field, NaN for a missing value, None for anything else."""
        if not field:
            return math.nan if missing else None
        if self.point:
            return float(field) if _NUMBER.fullmatch(field) else None
        # Read as a decimal number: a division by 100 would round twice where there are many digits.
        return float(f"{field}e-{self.decimals}") if _UNITS.fullmatch(field) else None


def _without_point(number: str) -> str:
    """Gives ``5`` for ``0.05`` and ``-1250`` for ``-12.50``."""
    sign = "-" if number.startswith("-") else ""
    return sign + (number.removeprefix("-").replace(".", "").lstrip("0") or "0")


def _without_trailing_zeros(number: str) -> str:
    """Gives ``0.4`` for ``0.400`` and ``1.0`` for ``1.000``."""
    short = number.rstrip("0")
    return f"{short}0" if short.endswith(".") else short


def _scales_of_parts(
    others: Mapping[str, npt.ArrayLike], method: str, parameters: Mapping[str, float]
) -> dict[str, Scale]:
    """Gives the scale of the validation and of the test systems, each fitted to all of their values."""
    scales = {}
    for part in PARTS[1:]:
        values = np.asarray(others.get(part, []), dtype=np.float64)
        if values.ndim != 3 or values.size == 0:
            raise DataError(
                f"a scaling per part is fitted to the {part} systems too, [systems, steps, variables], not to {values.shape}"
            )
        offset, scale = _scales(values.reshape(1, -1, values.shape[2]), method, parameters)
        scales[part] = Scale(tuple(offset[0].tolist()), tuple(scale[0].tolist()))
    return scales


def _parameters(method: str, given: Mapping[str, float]) -> dict[str, float]:
    """Gives all parameters of a method: those given, checked, and the usual values of the others."""
    if method not in METHODS:
        raise DataError(f"scaling method {method!r}: it is one of {', '.join(METHODS)}")
    usual = METHODS[method]
    for name, value in given.items():
        if name not in usual:
            raise DataError(
                f"scaling method {method!r} has no parameter {name!r}, only {', '.join(usual)}"
            )
        largest = LARGEST_PARAMETER.get(name, math.inf)
        positive = value > 0 or (name in MAY_BE_ZERO and value == 0)
        if not (math.isfinite(value) and positive and value <= largest):
            upper = "" if largest == math.inf else f" and at most {largest:g}"
            lower = "at least 0" if name in MAY_BE_ZERO else "above 0"
            raise DataError(f"scaling {method}: {name} is {value}, it must be {lower}{upper}")
    return {name: float(given.get(name, value)) for name, value in usual.items()}


def _scales(series: Floats, method: str, parameters: Mapping[str, float]) -> tuple[Floats, Floats]:
    """Gives offset and scale of every series [N, T, V], both [N, V]; missing values do not count."""
    systems, _, variables = series.shape
    offset = np.zeros((systems, variables))
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        if method == "fixed":
            scale = np.full((systems, variables), parameters["alpha"])
        elif method == "offset-quantile":
            low = np.fmin.reduce(series, axis=1)
            high = np.fmax.reduce(series, axis=1)
            offset = np.nan_to_num(
                low - parameters["offset"] * (high - low), posinf=np.inf, neginf=-np.inf
            )
            scale = _quantile(series - offset[:, None], parameters["quantile"]) / parameters["to"]
        else:
            share = parameters["percentile"] / 100 if method == "percentile" else 1.0
            sizes = np.abs(series).reshape(systems, -1, 1)
            size = _quantile(sizes, share)
            own = np.where(size < parameters.get("above", 0.0), 1.0, size / parameters["to"])
            scale = np.repeat(own, variables, axis=1)
    # A series that never leaves 0 (or is missing) has no size of its own: it is written as it is.
    scale = np.where((scale == 0) | np.isnan(scale), 1.0, scale)
    if not (np.isfinite(offset).all() and np.isfinite(scale).all()):
        raise DataError("the series spans more than floating point numbers do; it cannot be scaled")
    return offset, scale


def _quantile(series: Floats, share: float) -> Floats:
    """Gives the quantile over time of every series [N, T, V], [N, V]; NaN where all is missing."""
    if not np.isnan(series).any():
        result: Floats = np.quantile(series, share, axis=1)
        return result
    result = np.full((series.shape[0], series.shape[2]), np.nan)
    for system, variable in np.ndindex(*result.shape):  # np.nanquantile would do the same, and warn
        known = series[system, :, variable]
        known = known[~np.isnan(known)]
        if known.size:
            result[system, variable] = np.quantile(known, share)
    return result


def _usual_step(scaled: Floats, decimals: int, *, point: bool, trailing_zeros: bool) -> int:
    """Gives how many characters 95% of the time steps of a scaled series [N, T, V] do not exceed."""
    with np.errstate(over="ignore", invalid="ignore"):  # the very largest numbers overflow
        sizes = np.round(np.abs(scaled), decimals)
        units = np.nan_to_num(np.rint(sizes * 10.0**decimals))
    if point:
        digits = np.floor(np.log10(np.maximum(np.nan_to_num(sizes), 1.0))) + 1 + decimals
        if not trailing_zeros:
            for zeros in range(1, decimals):  # one digit stays behind the point
                digits -= np.mod(units, 10.0**zeros) == 0
    else:
        digits = np.floor(np.log10(np.maximum(units, 1.0))) + 1
    signs = (scaled < 0) & (sizes > 0)
    numbers = np.where(np.isnan(scaled), 0, digits + point + signs)
    steps = (numbers + 1).sum(axis=2)  # one separator after each
    return int(np.quantile(steps, _USUAL, method="inverted_cdf"))
