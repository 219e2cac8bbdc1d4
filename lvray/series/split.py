"""Which systems are trained on, which validate and which are tested?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lvray.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Split:
    """Which systems have which role, as indices into the data set; no system has two, unless validation is the test."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def split_systems(
    count: int,
    *,
    train: float,
    validation: float,
    test: float | None,
    seed: int = 0,
    order: str = "random",
) -> Split:
    """Gives every part its systems: an `int` asks for that many, a `float` for that fraction of `count`.

    Fractions that do not come out even are rounded so that their sum does (largest remainder). With the order
    ``file`` the first systems are trained on and the last tested; with ``random`` they are shuffled first, and
    stay shuffled within a part, so that the first few of a part are a fair sample of it. Without a `test` the
    validation systems are the test systems too: what is forecast then has been chosen on.

    Raises:
        DataError: a part would be empty, or the parts ask for more systems than there are.
    """
    wanted = {"train": train, "validation": validation}
    sizes = _sizes(count, wanted if test is None else {**wanted, "test": test})
    if order == "random":
        systems = np.random.default_rng(seed).permutation(count).tolist()
    elif order == "file":
        systems = list(range(count))
    else:
        raise DataError(f"split order {order!r}: it is 'random' or 'file'")
    ends = np.cumsum(list(sizes.values())).tolist()
    held_out = tuple(systems[ends[0] : ends[1]])
    return Split(
        train=tuple(systems[: ends[0]]),
        validation=held_out,
        test=held_out if test is None else tuple(systems[ends[1] : ends[2]]),
    )


def _sizes(count: int, wanted: Mapping[str, float]) -> dict[str, int]:
    """Turns counts and fractions into counts of at least 1 each and at most `count` together."""
    exact = {part: _exact_size(part, share, count) for part, share in wanted.items()}
    total = sum(exact.values(), Fraction(0))
    if total > count:
        shares = ", ".join(f"{part} {share}" for part, share in wanted.items())
        raise DataError(
            f"the split asks for {float(total):g} systems ({shares}), but there are {count}"
        )
    sizes = {part: int(size) for part, size in exact.items()}
    by_remainder = sorted(exact, key=lambda part: sizes[part] - exact[part])
    for part in by_remainder[: int(total) - sum(sizes.values())]:
        sizes[part] += 1
    for part, size in sizes.items():
        if size == 0:
            raise DataError(
                f"the {part} part of the split is empty: {wanted[part]} of {count} systems is none; "
                "ask for more, or give a count such as 1"
            )
    return sizes


def _exact_size(part: str, share: int | float, count: int) -> Fraction:
    if isinstance(share, float):
        if 0 <= share <= 1:
            return Fraction(repr(share)) * count  # of the decimal as written: 0.1 is a tenth
    elif not isinstance(share, bool) and share >= 0:
        return Fraction(share)
    raise DataError(
        f"split {part}: {share!r} is neither a fraction such as 0.8 nor a count such as 800"
    )
