"""Which predator–prey systems are there, and how do they move?

Two families, both with prey in column 0 and predator in column 1, on the course's own 100 times:

- `coursework`: the data set of the coursework, regenerated. It is called Lotka–Volterra there, but the
  prey grow logistically and the predators' appetite saturates (Rosenzweig and MacArthur, 1963), so most
  series are damped or run into a limit cycle, and no quantity is conserved.
- `lotka_volterra`: the classical equations, whose orbits are closed and conserve `invariant`.

In both, the first n systems of a seed are the same however many are asked for.

SciPy is imported only when something is integrated: reading a data set does not need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lvray.core.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float64]
Slope: TypeAlias = Callable[[float, tuple[float, float]], tuple[float, float]]

VARIABLES = ("prey", "predator")
END = 200.0
"""Time units that are simulated."""
STEPS = 100
LARGEST_SEED = 2**32 - 1
"""What `numpy.random.RandomState` takes."""

_BLOCK = 1000
"""Systems whose parameters are drawn together: the size of the coursework's data set."""

_COURSEWORK_RANGES = (
    (0.1, 0.3),  # a, growth of the prey
    (0.2, 0.5),  # b, attack rate
    (0.1, 0.3),  # c, death of the predators
    (0.05, 0.2),  # h, saturation of their appetite
    (0.3, 0.7),  # e, prey turned into predators
    (5.0, 15.0),  # K, prey that the land carries
    (0.8, 1.2),  # prey at the start
    (0.8, 1.2),  # predators at the start
)

_CLASSICAL_RANGES = (
    (0.1, 0.3),  # alpha
    (0.2, 0.5),  # beta
    (0.1, 0.3),  # gamma
    (0.1, 0.3),  # delta
    (0.8, 1.2),  # prey at the start
    (0.8, 1.2),  # predators at the start
)


def times() -> Floats:
    """Gives the times of every generated series, [T]: 100 from 0 to 200."""
    return np.linspace(0.0, END, STEPS)


def coursework(seed: int = 0, systems: int = 1000) -> npt.NDArray[np.float32]:
    """Gives the course's data set, [N, 100, 2] as float32; seeds other than 0 give fresh systems of its kind.

    With x prey and y predators::

        dx/dt = a x (1 − x/K) − b x y / (1 + h x)
        dy/dt = e b x y / (1 + h x) − c y

    The eight parameters are drawn in the order of the ranges above, a thousand systems at a time, and
    integrated by LSODA at SciPy's default tolerances (rtol 1e-3, atol 1e-6). These are loose: against a
    tight solution the values are off by 0.005 on average. They are part of the data set, so they stay.

    Raises:
        DataError: a seed or number of systems that cannot be.
    """
    from scipy.integrate import solve_ivp  # a third of a second, paid only by those who generate

    _check(seed, systems)
    grid = times()
    series = np.empty((systems, STEPS, 2), dtype=np.float32)
    for system, parameters in enumerate(_draw_coursework(seed, systems)):
        slope, start = _rosenzweig_macarthur(*parameters)
        solution = solve_ivp(slope, (0.0, END), start, method="LSODA", t_eval=grid)
        if not solution.success:
            raise DataError(f"system {system} of seed {seed} was not solved: {solution.message}")
        series[system] = solution.y.T
    return series


@dataclass(frozen=True, slots=True)
class Classical:
    """Parameters of one classical Lotka–Volterra system: dx/dt = αx − βxy, dy/dt = δxy − γy."""

    alpha: float
    beta: float
    gamma: float
    delta: float
    prey: float
    """Prey at the start."""
    predator: float
    """Predators at the start."""

    def invariant(self, series: npt.ArrayLike) -> Floats:
        """Gives δx − γ ln x + βy − α ln y of a series [T, 2], which every exact orbit keeps; [T]."""
        x, y = np.asarray(series, dtype=np.float64).T
        result: Floats = (
            self.delta * x - self.gamma * np.log(x) + self.beta * y - self.alpha * np.log(y)
        )
        return result


def draw_classical(seed: int, systems: int) -> tuple[Classical, ...]:
    """Draws classical systems whose periods are those of the coursework's (about 20 to 65 time units).

    Raises:
        DataError: a seed or number of systems that cannot be.
    """
    _check(seed, systems)
    low, high = np.array(_CLASSICAL_RANGES).T
    draws = np.random.default_rng(seed).uniform(low, high, size=(systems, len(low)))
    return tuple(Classical(*row) for row in draws.tolist())


def lotka_volterra(seed: int = 0, systems: int = 1000) -> Floats:
    """Gives classical Lotka–Volterra series, [N, 100, 2], of the systems that `draw_classical` drew.

    Integrated in the logarithms (so nothing dies out by rounding) by LSODA at rtol 1e-10 and atol 1e-12;
    the conserved quantity then drifts by less than 1e-7 of itself.

    Raises:
        DataError: a seed or number of systems that cannot be.
    """
    from scipy.integrate import odeint

    grid = times()
    series = np.empty((systems, STEPS, 2))
    for system, parameters in enumerate(draw_classical(seed, systems)):
        slope, start = _in_logarithms(*astuple(parameters))
        series[system] = odeint(slope, start, grid, tfirst=True, rtol=1e-10, atol=1e-12)
    return np.exp(series)


def _draw_coursework(seed: int, systems: int) -> list[list[float]]:
    """Gives the eight parameters of each system, [systems][8]."""
    random = np.random.RandomState(seed)  # an old generator, but the one that made the data set
    blocks = [
        np.stack([random.uniform(low, high, _BLOCK) for low, high in _COURSEWORK_RANGES], axis=1)
        for _ in range(math.ceil(systems / _BLOCK))
    ]
    rows: list[list[float]] = np.concatenate(blocks)[:systems].tolist()
    return rows


def _rosenzweig_macarthur(
    a: float, b: float, c: float, h: float, e: float, k: float, prey: float, predator: float
) -> tuple[Slope, tuple[float, float]]:
    def slope(_: float, state: tuple[float, float]) -> tuple[float, float]:
        x, y = state
        return (
            a * x * (1 - x / k) - b * x * y / (1 + h * x),
            e * b * x * y / (1 + h * x) - c * y,
        )

    return slope, (prey, predator)


def _in_logarithms(
    alpha: float, beta: float, gamma: float, delta: float, prey: float, predator: float
) -> tuple[Slope, tuple[float, float]]:
    def slope(_: float, state: tuple[float, float]) -> tuple[float, float]:
        log_x, log_y = state
        return alpha - beta * math.exp(log_y), delta * math.exp(log_x) - gamma

    return slope, (math.log(prey), math.log(predator))


def _check(seed: int, systems: int) -> None:
    if not 0 <= seed <= LARGEST_SEED:
        raise DataError(
            f"seed {seed}: a generator's seed is a whole number from 0 to {LARGEST_SEED}"
        )
    if systems < 1:
        raise DataError(f"{systems} systems: at least 1 must be generated")
