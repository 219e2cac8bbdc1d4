"""Which kinds of values do the fields of a sweep file hold, and how is each read and written back?

Validators raise `ValueError` with what is wanted; `mistakes` adds where, and what was there.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer

from lvray.core.trial import ALL_LINEAR
from lvray.core.units import flops_from_text

LARGEST_SEED = 2**32 - 1
"""NumPy's generators take no larger one."""


def _flops(value: object) -> int:
    if not isinstance(value, str | int):
        raise ValueError("must be a count of FLOPs such as 1e17")  # noqa: TRY004 -- pydantic gathers ValueErrors only
    flops = flops_from_text(value)
    if flops == 0:
        raise ValueError("must be above 0")
    return flops


def _flops_or_none(value: object) -> int | None:
    return None if value is None else _flops(value)


def _text_or_none(value: int | None) -> str | None:
    return None if value is None else str(value)


def _part(value: object) -> int | float:
    """A number of systems (`int`) or a fraction of them (`float`): 1 is one system, 1.0 all of them."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, float) and 0 < value <= 1:
        return value
    raise ValueError("must be a fraction such as 0.8, or a number of systems such as 800")


def _part_or_validation(value: object) -> int | float | str:
    if value == "validation":
        return "validation"
    try:
        return _part(value)
    except ValueError as error:
        raise ValueError(f"{error}; or validation, whose systems are then forecast") from None


def _steps(value: object) -> object:
    if value is None or value == "fill":
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**9:
        return value
    raise ValueError("must be a whole number from 1, or fill")


def _workers(value: object) -> object:
    if value is None or value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**5:
        return value
    raise ValueError("must be a whole number from 1, or auto")


def _targets(value: object) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names:
        raise ValueError(
            f"must be {ALL_LINEAR}, or a list of linear layers such as [q_proj, v_proj]"
        )
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{name!r} is no name of a linear layer; they are like q_proj")
    if len(set(names)) < len(names):
        raise ValueError("names a layer twice")
    if ALL_LINEAR in names and len(names) > 1:
        raise ValueError(f"has {ALL_LINEAR}, which is every layer, among others; give it alone")
    return tuple(names)


def _counts(value: object) -> tuple[int, ...]:
    given = value if isinstance(value, list | tuple) else (value,)
    counts = tuple(
        count for count in given if isinstance(count, int) and not isinstance(count, bool)
    )
    if not counts or len(counts) < len(given) or not all(1 <= count <= 10**6 for count in counts):
        raise ValueError("must be a whole number from 1, or a list of some, such as [40, 80]")
    return counts


def _counts_as_given(counts: tuple[int, ...]) -> int | list[int]:
    return counts[0] if len(counts) == 1 else list(counts)


Flops: TypeAlias = Annotated[int, BeforeValidator(_flops), PlainSerializer(str)]


Part: TypeAlias = Annotated[int | float, BeforeValidator(_part)]


PartOrValidation: TypeAlias = Annotated[
    int | float | Literal["validation"], BeforeValidator(_part_or_validation)
]


Seed: TypeAlias = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


Count: TypeAlias = Annotated[int, Field(ge=1, le=10**6)]


Counts: TypeAlias = Annotated[
    tuple[int, ...], BeforeValidator(_counts), PlainSerializer(_counts_as_given)
]


Tokens: TypeAlias = Annotated[int, Field(ge=2, le=2**20)]


Positive: TypeAlias = Annotated[float, Field(gt=0)]


Name: TypeAlias = Annotated[str, Field(min_length=1)]


FlopsOrNone: TypeAlias = Annotated[
    int | None, BeforeValidator(_flops_or_none), PlainSerializer(_text_or_none)
]
Steps: TypeAlias = Annotated[int | Literal["fill"] | None, BeforeValidator(_steps)]
Workers: TypeAlias = Annotated[
    int | None, BeforeValidator(_workers), PlainSerializer(lambda count: count or "auto")
]
Targets: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_targets)]
