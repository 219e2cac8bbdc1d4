"""Where will a loss be after more FLOPs than were spent yet?

Loss curves fall about as a power law, L(C) = a + b·C^−γ, down to a floor a (arXiv:2001.08361). Four to ten noisy points do
not say which γ it is, so none is chosen: for each γ of a grid, a and b follow in closed form by ridge regression, and the
grid is averaged, each γ weighed by how well it explains the points. Fits to few points can fly off; what they say is
therefore clipped to what curves do: a loss does not rise with more training, and falls no further than it has fallen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST_POINTS = 4
"""Fewer say nothing about where a curve bends."""

EXPONENTS: NDArray[np.float64] = np.linspace(0.1, 1.5, 15)
"""The grid of γ."""

RIDGE = 1e-3
"""Strength of the pull of b towards zero, in units of the squared scale of the points."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where a curve is expected to be."""

    mean: float
    """Loss, in the unit of the points."""
    error: float
    """Standard deviation of what is expected."""

    def improvement(self, best: float) -> float:
        """By how much the loss is expected to come below `best`; the expected improvement of Bayesian optimization."""
        if self.error <= 0:
            return max(0.0, best - self.mean)
        z = (best - self.mean) / self.error
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        below = 0.5 * (1 + math.erf(z / math.sqrt(2)))
        return max(0.0, (best - self.mean) * below + self.error * density)


def outlook(flops: Sequence[float], losses: Sequence[float], *, at: float) -> Outlook | None:
    """Extrapolates a curve.

    Args:
        flops: where it was measured, rising and above zero.
        losses: what was measured, finite.
        at: where it is asked for, in the unit of `flops`, beyond the last point.

    Returns:
        What is expected at `at`; None for fewer than `FEWEST_POINTS` points.
    """
    if len(flops) < FEWEST_POINTS:
        return None
    x = np.asarray(flops, float) / flops[-1]
    y = np.asarray(losses, float)
    powers = x[None, :] ** -EXPONENTS[:, None]  # [γ, point]
    beyond = (at / flops[-1]) ** -EXPONENTS
    centred = powers - powers.mean(axis=1, keepdims=True)
    spread = (centred**2).sum(axis=1)
    slopes = np.maximum(0.0, centred @ (y - y.mean()) / (spread + RIDGE * len(y)))
    floors = y.mean() - slopes * powers.mean(axis=1)
    residuals = y[None, :] - floors[:, None] - slopes[:, None] * powers
    squares = (residuals**2).sum(axis=1)
    noise = max(float(squares.min()) / max(1, len(y) - 2), 1e-12)
    weights = np.exp(-(squares - squares.min()) / (2 * noise))
    weights /= weights.sum()
    reached = floors + slopes * beyond
    mean = float(weights @ reached)
    variance = float(weights @ (reached - mean) ** 2) + noise
    lowest = float(y[-1] - max(0.0, y[0] - y[-1]))
    return Outlook(min(max(mean, lowest), float(y[-1])), math.sqrt(variance))
