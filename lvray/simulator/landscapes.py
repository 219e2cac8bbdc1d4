"""What is a trial's loss after so many steps, without training it?

Two answers: from a table of learning curves that were once recorded (`Tabulated`), and invented ones
(`Invented`) for trying things out at any size. Both are functions of the config and the steps alone, so a
trial that is asked again, after a crash or in another order, says the same.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from lvray.core.errors import DataError
from lvray.core.trial import TrialConfig


@dataclass(frozen=True, slots=True)
class Reading:
    """What an evaluation says of a trial."""

    validation_loss: float
    """Nats per token; NaN where training has diverged."""
    window_losses: tuple[float, ...] = ()
    """Of each validation window, nats per token; their mean is the validation loss, nearly."""
    test_loss: float | None = None
    """On systems that no decision sees, nats per token; None where nobody knows."""


class Landscape(Protocol):
    """Learning curves of all configs."""

    def read(self, config: TrialConfig, *, steps: int, flops: int) -> Reading:
        """What is measured after `steps` optimizer steps, which cost `flops` FLOPs of training.

        Raises:
            DataError: the landscape does not know the config.
        """
        ...


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation of a recorded curve."""

    steps: int
    reading: Reading


@dataclass(frozen=True, slots=True)
class Curve:
    """One recorded curve."""

    points: tuple[Point, ...]
    """In order of steps."""
    diverged: bool = False
    """Whether training broke down after the last point."""

    def at(self, steps: int) -> Reading:
        """The reading at `steps`: between two points a loss moves evenly with the logarithm of steps.

        Beyond its last point a curve stays where it is, since nobody saw it move on.
        """
        after = bisect_right(self.points, steps, key=lambda point: point.steps)
        if after == len(self.points):
            last = self.points[-1]
            return Reading(math.nan) if self.diverged and steps > last.steps else last.reading
        if after == 0:
            return self.points[0].reading
        low, high = self.points[after - 1], self.points[after]
        begin = math.log1p(low.steps)
        share = (math.log1p(steps) - begin) / (math.log1p(high.steps) - begin)

        def mixed(one: float, two: float) -> float:
            return one + share * (two - one)

        tests = (low.reading.test_loss, high.reading.test_loss)
        return Reading(
            mixed(low.reading.validation_loss, high.reading.validation_loss),
            tuple(map(mixed, low.reading.window_losses, high.reading.window_losses)),
            None if tests[0] is None or tests[1] is None else mixed(tests[0], tests[1]),
        )


class Tabulated:
    """Curves that were recorded once, by config."""

    def __init__(self, curves: Mapping[TrialConfig, Curve], source: str) -> None:
        """Takes curves; `source` is what they are called in messages."""
        self._curves = {_learning(config): curve for config, curve in curves.items()}
        self._source = source

    @classmethod
    def load(cls, path: Path) -> Tabulated:
        """Reads a table: JSON lines, gzipped or not, one curve a line with its `config` and its `points`.

        A point has `step` and `validation_loss`, and `test_loss` and `window_losses` where they are known.

        Raises:
            DataError: it cannot be read, or is no table of curves.
        """
        opened = gzip.open if path.suffix == ".gz" else open
        curves: dict[TrialConfig, Curve] = {}
        try:
            with opened(path, "rt", encoding="utf-8") as file:
                lines = file.read().splitlines()
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                curves[TrialConfig.from_json(row["config"])] = _curve(row)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{path}, line {number}: not a learning curve: {error}") from error
        if not curves:
            raise DataError(f"{path}: has no learning curve")
        return cls(curves, str(path))

    def __len__(self) -> int:
        return len(self._curves)

    def read(self, config: TrialConfig, *, steps: int, flops: int) -> Reading:
        """Reads the config's curve at `steps`."""
        curve = self._curves.get(_learning(config))
        if curve is None:
            raise DataError(self._unknown(config))
        return curve.at(steps)

    def _unknown(self, config: TrialConfig) -> str:
        """What sets a config apart from the nearest one that has a curve, in words."""
        asked = _fields(_learning(config))

        def differences(other: TrialConfig) -> dict[str, object]:
            return {
                name: value for name, value in _fields(other).items() if value != asked.get(name)
            }

        nearest = min((differences(other) for other in self._curves), key=len)
        told = ", ".join(
            f"{name} {asked.get(name)!r} (there it is {value!r})" for name, value in nearest.items()
        )
        return f"{self._source}: none of its {len(self)} curves is of this config; the nearest differs in {told}"


def _learning(config: TrialConfig) -> TrialConfig:
    """The config without what a recorded curve does not depend on: how its schedule ends, and the seed."""
    return replace(config, schedule="constant", decay_fraction=0.0, seed=0)


def _fields(config: TrialConfig) -> dict[str, object]:
    row = config.to_json()
    lora = row.pop("lora") or {}
    return {**row, **{f"lora.{name}": value for name, value in lora.items()}}


def _curve(row: Mapping[str, Any]) -> Curve:
    points = tuple(
        Point(
            point["step"],
            Reading(
                float(point["validation_loss"]),
                tuple(point.get("window_losses", ())),
                point.get("test_loss"),
            ),
        )
        for point in row["points"]
    )
    steps = [point.steps for point in points]
    if not points or steps != sorted(set(steps)):
        raise ValueError("its points are not in order of steps")
    return Curve(points, bool(row.get("diverged", False)))


@dataclass(frozen=True, slots=True)
class Invented:
    """Curves that behave as LoRA's do, drawn by a seed.

    A power law in training FLOPs falls from the base model's loss towards a floor. The learning rate has a best
    value that hardly depends on the rank, and diverges far above it; a higher rank has a lower floor, which
    shows late; longer contexts and larger batches cost steps and change little else.
    """

    seed: int = 0
    noise: float = 0.01
    """Standard deviation of a measured loss, nats per token."""
    windows: int = 12
    """Validation windows; some are harder than others, for every trial alike."""
    scale: float = 1e12
    """Training FLOPs at which half of what a short run can gain is gained."""
    traits: Mapping[str, float] = field(init=False)
    """What the seed drew: where the best learning rate is, how steep the law, how low the floor."""
    difficulties: tuple[float, ...] = field(init=False)
    """What each validation window adds to a loss, nats per token."""

    def __post_init__(self) -> None:
        """Draws the traits."""
        chance = random.Random(f"landscape {self.seed}")
        traits = {
            "best_rate": 10 ** chance.uniform(-3.5, -2.0),
            "exponent": chance.uniform(0.3, 0.6),
            "floor": chance.uniform(0.25, 0.35),
            "gain": chance.uniform(0.25, 0.35),
            "width": chance.uniform(0.6, 1.0),
        }
        object.__setattr__(self, "traits", traits)
        hard = tuple(chance.gauss(0, 0.05) for _ in range(self.windows))
        object.__setattr__(self, "difficulties", hard)

    def read(self, config: TrialConfig, *, steps: int, flops: int) -> Reading:
        """The law at `flops`, with noise that the config and the steps decide."""
        traits, base = self.traits, self.traits["floor"] + self.traits["gain"]
        if config.lora is None:
            return self._noisy(base, config, steps)
        off = math.log10(config.learning_rate / traits["best_rate"]) / traits["width"]
        if off > 1.5 and steps > 0:
            return Reading(math.nan)
        worked = flops / self.scale
        late = worked / (1 + worked)
        capacity = 0.01 * math.log2(config.lora.rank) * late
        gained = 1 - (1 + worked) ** -traits["exponent"]
        own = random.Random(f"{self.seed}/{_key(config)}").gauss(0, 0.01)
        return self._noisy(
            base - (traits["gain"] * math.exp(-off * off) + own) * gained - capacity, config, steps
        )

    def _noisy(self, loss: float, config: TrialConfig, steps: int) -> Reading:
        chance = random.Random(f"{self.seed}/{_key(config)}/{steps}")
        told = loss + chance.gauss(0, self.noise)
        windows = tuple(told + hard + chance.gauss(0, self.noise) for hard in self.difficulties)
        return Reading(told, windows, loss)


def _key(config: TrialConfig) -> str:
    lora = config.lora
    return f"{config.learning_rate}/{lora and (lora.rank, lora.targets)}/{config.context_length}/{config.batch_size}"
