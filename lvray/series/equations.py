"""What would someone forecast who knew the true equations, but not their parameters?

A system's parameters and its state at the first time are fitted to its history alone by least squares, and
the equations then integrated on over the horizon. It is the least error to hope for on the generated data
sets, not a rival that could be met elsewhere.

Everything is done for all N systems at once. Solvers of one system at a time (`scipy.optimize.least_squares`
around `scipy.integrate.solve_ivp`) spend nearly all their time in Python's own steps between two small
vectors; here one such step serves N × (P + 1) copies of the equations: each system as it is, and with each
of its P unknowns perturbed, for the derivatives that Levenberg and Marquardt's method asks for.

State and parameters are carried as logarithms: they cannot become negative, and nothing dies out by
rounding. Prey are column 0, predators column 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

FEWEST_STEPS = 5
"""Steps of history that a fit asks for: two variables then give more values than there are unknowns."""

_SUBSTEPS = 4
"""Runge–Kutta steps between two times. Four times as many change no forecast on the coursework by 1e-4."""

_PERTURBED = 1e-6
"""Change of a logarithm from which a derivative is taken."""

_MOST_ITERATIONS = 60
_LONGEST_STEP = 1.0
"""Most that a logarithm changes in one iteration: a factor of e."""
_GAIN = 1e-5
"""A system is fitted when an iteration lowers its sum of squares by less than this share."""
_STUCK = 1e8
"""Or when its damping is above this: no step downhill was found."""

_FLOOR = 0.1
"""Share of a variable's mean that is added to each value when errors are taken relative to it."""

_LARGEST_LOG = 30.0
"""Beyond e^30 a population is as good as infinite; clipped there, a bad guess overflows nothing."""

_BANDS = 8
"""Parts that each interval is cut into when the history's spline is integrated (Simpson's rule)."""

_SATURATIONS = (0.01, 0.03, 0.05, 0.075, 0.1, 0.13, 0.16, 0.2, 0.3, 0.6)
"""Values of h that are tried for a first guess; the coursework's are from 0.05 to 0.2."""

_SMALLEST_RATE = 1e-4
"""A first guess that comes out below is raised to this, since its logarithm is needed."""


@dataclass(frozen=True, slots=True)
class Family:
    """A pair of equations: their slope, a typical set of parameters, and a first guess from a history."""

    slope: Callable[[Floats, Floats], Floats]
    """Slopes [2, …] of the logarithms of prey and predators, from these and the parameters [P, …]."""
    centre: tuple[float, ...]
    """The middle of the ranges that generated systems are drawn from, [P]."""
    guess: Callable[[Floats, Floats], Floats]
    """Parameters [N, P] by gradient matching, from histories [N, T, 2] above zero and their times [T]."""


def forecast(family: Family, history: Floats, times: Floats) -> Floats:
    """Gives the steps of `times` after the history, [N, len(times) − T, 2]; NaN for systems without a fit.

    The fit starts twice, from gradient matching and from the family's centre, and the better end counts. What
    is made small is the sum over steps and variables of ((fitted − seen) / (seen + 0.1 × mean seen))²: relative
    errors, so that valleys between the peaks count, but bounded where a population is all but gone.

    No fit have systems with a value below zero or a variable that is 0 throughout, and those whose sum of
    squares is infinite at both starts.

    Args:
        family: the equations.
        history: [N, T, 2] with T of at least `FEWEST_STEPS`, finite.
        times: increasing times of the history's steps and of those asked for, [T + H].
    """
    steps = history.shape[1]
    assert history.shape[2] == 2, f"prey and predators, not {history.shape[2]} variables"
    assert FEWEST_STEPS <= steps <= len(times), f"{steps} steps of history, {len(times)} times"
    made = np.full((history.shape[0], len(times) - steps, 2), np.nan)
    fit = (history >= 0).all(axis=(1, 2)) & (history.max(axis=1) > 0).all(axis=1)
    if fit.any():
        made[fit] = _forecast(family, history[fit], times)
    made[~np.isfinite(made).all(axis=(1, 2))] = np.nan
    return made


def _forecast(family: Family, history: Floats, times: Floats) -> Floats:
    steps = history.shape[1]
    above = np.maximum(history, 1e-3 * history.mean(axis=1, keepdims=True))  # logarithms of no zero
    begin = np.log(above[:, 0])
    guesses = np.log(family.guess(above, times[:steps]))
    centres = np.broadcast_to(np.log(family.centre), guesses.shape)
    starts = np.stack([guesses, centres])  # fitted together: it is the steps in Python that cost
    unknowns, costs = _fit(
        family,
        np.concatenate([history, history]),
        times[:steps],
        np.concatenate([starts, np.stack([begin, begin])], axis=2).reshape(2 * len(history), -1),
    )
    costs = costs.reshape(2, -1)
    best, systems = costs.argmin(axis=0), np.arange(len(history))
    orbit = _integrate(family, unknowns.reshape(2, len(history), -1)[best, systems], times)
    orbit[:, :, ~np.isfinite(costs[best, systems])] = np.nan
    return np.moveaxis(orbit[steps:], 2, 0)


def _fit(family: Family, history: Floats, times: Floats, start: Floats) -> tuple[Floats, Floats]:
    """Gives the logarithms of parameters and state at the start, [N, P + 2], and the sums of squares, [N].

    Levenberg–Marquardt with Marquardt's scaling (1963), each system with its own damping. A system leaves
    when it is done, so that the last ones alone pay for their iterations.
    """
    unknowns = start.copy()
    residual, slope = _linearised(family, unknowns, history, times)
    cost = np.square(residual).sum(axis=1)
    damping = np.full(len(unknowns), 1e-2)
    active = np.flatnonzero(np.isfinite(cost))
    for _ in range(_MOST_ITERATIONS):
        if active.size == 0:
            break
        step = _step(residual[active], slope[active], damping[active])
        moved = unknowns[active] + step
        new_residual, new_slope = _linearised(family, moved, history[active], times)
        new_cost = np.square(new_residual).sum(axis=1)
        good = (new_cost < cost[active]) & np.isfinite(new_slope).all(axis=(1, 2))
        done = np.zeros(active.size, dtype=bool)
        done[good] = cost[active][good] - new_cost[good] <= _GAIN * cost[active][good]
        taken = active[good]
        unknowns[taken], cost[taken] = moved[good], new_cost[good]
        residual[taken], slope[taken] = new_residual[good], new_slope[good]
        damping[active] *= np.where(good, 0.2, 5.0)
        active = active[~done & (damping[active] < _STUCK)]
    return unknowns, np.where(np.isfinite(cost), cost, np.inf)


def _step(residual: Floats, slope: Floats, damping: Floats) -> Floats:
    """Gives the damped Gauss–Newton step, [N, U], from residuals [N, R] and derivatives [N, U, R]."""
    normal = slope @ np.swapaxes(slope, 1, 2)
    downhill = -(slope @ residual[:, :, None])
    size = np.diagonal(normal, axis1=1, axis2=2)
    # An unknown that changes nothing (h, where prey are few) would make the matrix singular.
    scaling = size + 1e-9 * size.max(axis=1, keepdims=True) + 1e-12
    damped = normal + damping[:, None, None] * scaling[:, :, None] * np.eye(size.shape[1])
    step = np.linalg.solve(damped, downhill)[:, :, 0]
    return np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)


def _linearised(
    family: Family, unknowns: Floats, history: Floats, times: Floats
) -> tuple[Floats, Floats]:
    """Gives the residuals [N, R] at the unknowns [N, U], and their derivatives [N, U, R]; R is 2 T."""
    systems, count = unknowns.shape
    copies = np.concatenate([np.zeros((1, count)), _PERTURBED * np.eye(count)])
    together = (unknowns[:, None] + copies).reshape(-1, count)
    orbits = _integrate(family, together, times).reshape(len(times), 2, systems, count + 1)
    seen = np.moveaxis(history, 0, 2)[:, :, :, None]  # [T, 2, N, 1]
    residuals = (orbits - seen) / (seen + _FLOOR * seen.mean(axis=0))
    flat = np.moveaxis(residuals, (2, 3), (0, 1)).reshape(systems, count + 1, -1)
    return flat[:, 0], (flat[:, 1:] - flat[:, :1]) / _PERTURBED


def _integrate(family: Family, unknowns: Floats, times: Floats) -> Floats:
    """Gives the orbits [T, 2, M] of M sets of unknowns, [M, P + 2], by Runge and Kutta's classical method.

    A fixed step makes the orbit a smooth function of the unknowns, of which differences are derivatives.
    """
    parameters, state = np.exp(unknowns[:, :-2].T), unknowns[:, -2:].T
    slope = family.slope
    logs = [state]
    for interval in np.diff(times):
        step = interval / _SUBSTEPS
        for _ in range(_SUBSTEPS):
            first = slope(state, parameters)
            second = slope(state + step / 2 * first, parameters)
            third = slope(state + step / 2 * second, parameters)
            fourth = slope(state + step * third, parameters)
            state = state + step / 6 * (first + 2 * (second + third) + fourth)
        logs.append(state)
    return np.exp(np.clip(np.stack(logs), -_LARGEST_LOG, _LARGEST_LOG))


def _populations(logs: Floats) -> Floats:
    return np.exp(np.clip(logs, -_LARGEST_LOG, _LARGEST_LOG))


def _slope_rosenzweig_macarthur(logs: Floats, parameters: Floats) -> Floats:
    """Gives d log x/dt = a (1 − x/K) − b y/(1 + h x), d log y/dt = e b x/(1 + h x) − c."""
    prey, predators = _populations(logs)
    a, b, c, h, e, k = parameters
    eaten = b / (1 + h * prey)
    return np.stack([a * (1 - prey / k) - eaten * predators, e * eaten * prey - c])


def _slope_lotka_volterra(logs: Floats, parameters: Floats) -> Floats:
    """Gives d log x/dt = α − β y, d log y/dt = δ x − γ."""
    prey, predators = _populations(logs)
    alpha, beta, gamma, delta = parameters
    return np.stack([alpha - beta * predators, delta * prey - gamma])


def _guess_rosenzweig_macarthur(history: Floats, times: Floats) -> Floats:
    """For a given h the equations are linear in a, a/K, b, and in e b, c; the h that fits best is taken."""
    prey, predators, integrate = _spline(history, times)
    growth, rise = np.moveaxis(np.diff(np.log(history), axis=1), 2, 0)
    passed = np.broadcast_to(np.diff(times), growth.shape)
    guesses: list[Floats] = []
    costs: list[Floats] = []
    for h in _SATURATIONS:
        free = 1 + h * prey
        (a, crowding, b), missed = _linear(
            [passed, -integrate(prey), -integrate(predators / free)], growth
        )
        (gain, c), too = _linear([integrate(prey / free), -passed], rise)
        guesses.append(np.stack([a, b, c, np.full_like(a, h), gain / b, a / crowding], axis=1))
        costs.append(missed + too)
    best = np.stack(costs).argmin(axis=0)
    chosen: Floats = np.stack(guesses)[best, np.arange(len(history))]
    return chosen


def _guess_lotka_volterra(history: Floats, times: Floats) -> Floats:
    """The equations of the logarithms are linear in their parameters."""
    prey, predators, integrate = _spline(history, times)
    growth, rise = np.moveaxis(np.diff(np.log(history), axis=1), 2, 0)
    passed = np.broadcast_to(np.diff(times), growth.shape)
    (alpha, beta), _ = _linear([passed, -integrate(predators)], growth)
    (delta, gamma), _ = _linear([integrate(prey), -passed], rise)
    return np.stack([alpha, beta, gamma, delta], axis=1)


def _spline(history: Floats, times: Floats) -> tuple[Floats, Floats, Callable[[Floats], Floats]]:
    """Gives prey and predators between the steps, [N, F], and what integrates such values to [N, T − 1].

    The spline is cubic, through the logarithms: between two steps of a peak the values bend too much for one.
    """
    from scipy.interpolate import CubicSpline  # a third of a second, paid only by those who fit

    intervals = len(times) - 1
    place = np.arange(intervals * _BANDS + 1) / _BANDS
    fine = np.interp(place, np.arange(len(times)), times)
    logs = CubicSpline(times, np.log(history), axis=1)(fine)
    weights = np.array([1, *[4, 2] * (_BANDS // 2 - 1), 4, 1]) / (3 * _BANDS)
    windows = np.arange(intervals)[:, None] * _BANDS + np.arange(_BANDS + 1)

    def integrate(values: Floats) -> Floats:
        areas: Floats = values[:, windows] @ weights * np.diff(times)
        return areas

    prey, predators = np.moveaxis(_populations(logs), 2, 0)
    return prey, predators, integrate


def _linear(terms: list[Floats], wanted: Floats) -> tuple[tuple[Floats, ...], Floats]:
    """Gives the positive factors [N] of terms [N, R] that add up to [N, R] best, and the sums of squares [N]."""
    design = np.stack(terms, axis=2)
    normal = np.swapaxes(design, 1, 2) @ design
    size = np.trace(normal, axis1=1, axis2=2)[:, None, None]
    ridge = 1e-9 * size * np.eye(len(terms))  # a constant history leaves the matrix singular
    target = np.swapaxes(design, 1, 2) @ wanted[:, :, None]
    factors = np.maximum(np.linalg.solve(normal + ridge, target), _SMALLEST_RATE)
    missed = np.square((design @ factors)[:, :, 0] - wanted).sum(axis=1)
    return tuple(factors[:, :, 0].T), missed


ROSENZWEIG_MACARTHUR = Family(
    _slope_rosenzweig_macarthur, (0.2, 0.35, 0.2, 0.125, 0.5, 10.0), _guess_rosenzweig_macarthur
)
"""The coursework's: parameters a, b, c, h, e, K, as `predator_prey.coursework` writes them."""

LOTKA_VOLTERRA = Family(_slope_lotka_volterra, (0.2, 0.35, 0.2, 0.2), _guess_lotka_volterra)
"""The classical ones: parameters α, β, γ, δ, as `predator_prey.Classical` has them."""
