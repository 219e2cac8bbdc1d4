"""How are FLOPs and seconds read, written and shown?

1e17 is above 2^53, where floats stop counting by ones. FLOPs are therefore `int` everywhere, read
through `Decimal` and written to JSON as strings, so that no reader rounds them.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

LARGEST_FLOPS = 10**30
"""Far above any budget; an exponent beyond it is a typing error, not a wish."""


def flops_from_text(text: str | int) -> int:
    """Reads a count of FLOPs such as ``1e17``, ``2.5e15``, ``300_000`` or an `int`, exactly.

    Raises:
        ValueError: the text is no number, not whole, negative, or above 1e30.
    """
    if isinstance(text, bool):
        raise ValueError(f"{text!r} is not a count of FLOPs; write one like 1e17")  # noqa: TRY004 -- one error type for every bad text
    try:
        value = Decimal(str(text).strip().replace("_", ""))
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a count of FLOPs; write one like 1e17") from None
    if not value.is_finite() or value < 0 or value > LARGEST_FLOPS:
        raise ValueError(f"{text!r} is not a count of FLOPs from 0 to 1e30")
    if value != value.to_integral_value():
        raise ValueError(f"{text!r} is not a whole number of FLOPs")
    return int(value)


def format_flops(flops: int) -> str:
    """Shows a count of FLOPs to three digits, as ``1.69e12``; counts below 1000 in full."""
    if abs(flops) < 1000:
        return str(flops)
    mantissa, exponent = f"{Decimal(flops):.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_share(part: int, whole: int) -> str:
    """Shows part of whole as a percentage with one decimal; ``-`` when whole is 0."""
    return f"{100 * part / whole:.1f}%" if whole else "-"


def format_seconds(seconds: float) -> str:
    """Shows a duration as ``48 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
