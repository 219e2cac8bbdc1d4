"""Is one trial better than another, or is it only luck?

Every trial is measured on the same validation windows. Some windows are harder than others, and for every trial alike; so
the difference of two losses, window by window, scatters far less than the losses themselves (a paired comparison).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lvray.core.trial import Measurement

CLEAR = 2.0
"""Standard errors from zero at which a difference is called clear: about one chance in twenty that it is none."""


@dataclass(frozen=True, slots=True)
class Gap:
    """How much higher one loss is than another, over the windows of both."""

    mean: float
    """Nats per token."""
    error: float
    """Standard error of the mean."""
    windows: int

    @property
    def clear(self) -> bool:
        """Whether the difference is more than chance would make it."""
        return abs(self.mean) > CLEAR * self.error

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.error:.4f} over {self.windows} windows"


def gap(one: Measurement, other: Measurement) -> Gap | None:
    """The loss of `one` less that of `other`, window by window; None where their windows are not known or not the same."""
    count = len(one.window_losses)
    if count < 2 or count != len(other.window_losses):
        return None
    differences = [
        high - low for high, low in zip(one.window_losses, other.window_losses, strict=True)
    ]
    mean = math.fsum(differences) / count
    variance = math.fsum((difference - mean) ** 2 for difference in differences) / (count - 1)
    return Gap(mean, math.sqrt(variance / count), count)
