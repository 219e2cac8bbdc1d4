"""Who forecasts best, and where does the model stand among forecasts that need none?

Everyone in a comparison is scored on the same windows. Shapes: N windows, S samples, T time steps of context,
H of horizon, V variables.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from lvray.core.errors import DataError, RunFolderError
from lvray.core.trial import Trial
from lvray.reporting.facts import Facts
from lvray.series.forecasts import Floats, Forecasts
from lvray.series.metrics import Scores
from lvray.series.rivals import Rivals, cheap_rivals

EQUATIONS = "true equations"
"""The baseline that knows what nobody knows of real data: a bound, not a rival."""


class Kind(enum.Enum):
    """What a row of a comparison is, in the words of the report."""

    WINNER = "fine-tuned, the sweep's winner"
    BASE = "the base model as it is"
    TRAINED = "fine-tuned"
    BASELINE = "no model"
    BOUND = "no model, told the equations"

    @property
    def model(self) -> bool:
        """Whether it is a language model's forecast."""
        return self in (Kind.WINNER, Kind.BASE, Kind.TRAINED)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One forecaster and what it gets."""

    name: str
    """The trial, or the baseline."""
    kind: Kind
    made: Forecasts
    """Its forecasts of the comparison's windows, or of those that a costly baseline was computed on."""
    scores: Scores
    """In the data's units."""
    scaled: Scores
    """In units of the numbers that the model writes."""

    @property
    def mae(self) -> float:
        """Mean absolute error in the data's units."""
        return self.scores.summary()["mae"]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Everyone who forecast so many steps from so many."""

    name: str
    """``80+20`` is 20 steps ahead of 80."""
    rows: tuple[Row, ...]
    """By their mean absolute error, the best first."""
    made: Forecasts
    """The windows: the forecasts of some model in it."""
    left_out: tuple[str, ...]
    """Trials that forecast other windows."""
    missing: Mapping[str, str]
    """Why baselines cannot be had, by their names."""
    complete: bool
    """Whether the baselines are those that a sweep's end computes, not only the cheap ones."""

    @property
    def context(self) -> int:
        """Time steps that were given, T."""
        return int(self.made.history.shape[1])

    @property
    def horizon(self) -> int:
        """Time steps that were forecast, H."""
        return int(self.made.truth.shape[1])

    def first(self, kind: Kind) -> Row | None:
        """The best row of a kind, if there is one."""
        return next((row for row in self.rows if row.kind is kind), None)

    def row(self, name: str) -> Row | None:
        """The row of that name, if there is one."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def shown(self) -> list[Row]:
        """Base, another trained trial and winner, as far as there are such: those that figures draw."""
        kinds = (Kind.BASE, Kind.TRAINED, Kind.WINNER)
        return [row for row in map(self.first, kinds) if row is not None]


def compare(facts: Facts) -> list[Comparison]:
    """Gives a comparison for each name of forecasts, the shortest context first.

    Raises:
        RunFolderError: a file of baselines is of other windows than the forecasts.
    """
    names = {name: None for made in facts.forecasts.values() for name in made}
    found = [_compared(facts, name) for name in names]
    return sorted(found, key=lambda each: (each.context, each.horizon))


def _compared(facts: Facts, name: str) -> Comparison:
    made = {trial: files[name] for trial, files in facts.forecasts.items() if name in files}
    shared, left_out = _shared(made, [_id(facts.best), *reversed(made)])
    models = [
        _row(trial, _kind(facts, trial), _rows(made[trial], places))
        for trial, places in shared.items()
    ]
    like = models[0].made
    rivals = cheap_rivals(like)
    if name in facts.rivals:
        try:
            rivals = facts.rivals[name].of(like.systems, like.starts)
        except DataError as error:
            file = facts.folder.baselines / f"{name}.npz"
            raise RunFolderError(
                f"{file} {error}; without the file the report computes what it can"
            ) from None
    rows = sorted([*models, *_baselines(rivals, like)], key=lambda row: row.mae)
    return Comparison(name, tuple(rows), like, left_out, rivals.missing, name in facts.rivals)


def _shared(
    made: Mapping[str, Forecasts], order: Sequence[str]
) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Gives each trial's places of the windows that all have, and who is left out since it shares none with those before.

    Args:
        made: by trial.
        order: who is asked first; others than those in `made` are passed over.
    """
    windows = {
        trial: {
            window: place
            for place, window in enumerate(zip(each.systems, each.starts, strict=True))
        }
        for trial, each in made.items()
    }
    asked = [trial for trial in dict.fromkeys(order) if trial in windows]
    common = list(windows[asked[0]])
    kept = []
    for trial in asked:
        both = [window for window in common if window in windows[trial]]
        if both:
            common = both
            kept.append(trial)
    places = {
        trial: [windows[trial][window] for window in common] for trial in made if trial in kept
    }
    return places, tuple(trial for trial in made if trial not in kept)


def _baselines(rivals: Rivals, like: Forecasts) -> list[Row]:
    rows = []
    for name, point in rivals.points.items():
        there = [place for place, each in enumerate(point) if np.isfinite(each).all()]
        if there:
            windows = _rows(like, there)
            none = np.empty((len(there), 0, *point.shape[1:]))
            told = replace(
                windows, point=point[there], samples=none, short=np.zeros(len(there), np.int64)
            )
            rows.append(_row(name, Kind.BOUND if name == EQUATIONS else Kind.BASELINE, told))
    return rows


def _row(name: str, kind: Kind, made: Forecasts) -> Row:
    def scores(scale: Floats | None) -> Scores:
        return Scores.of(made.point, made.truth, made.history, samples=made.samples, scale=scale)

    return Row(name, kind, made, scores(None), scores(made.scale))


def _rows(made: Forecasts, places: Sequence[int]) -> Forecasts:
    """The forecasts of some of the windows, in the order asked."""
    if list(places) == list(range(len(made.systems))):
        return made
    return Forecasts(**{each.name: getattr(made, each.name)[list(places)] for each in fields(made)})


def _kind(facts: Facts, trial: str) -> Kind:
    if trial == _id(facts.best):
        return Kind.WINNER
    trained = facts.history.trials[trial].plan.config.lora is not None
    return Kind.TRAINED if trained else Kind.BASE


def _id(trial: Trial | None) -> str:
    return "" if trial is None else trial.plan.trial_id


def mean_errors(compared: Sequence[Comparison]) -> dict[str, float]:
    """Gives the mean absolute error of everyone who is in all comparisons that the winner is in, by name.

    It is the mean of the comparisons' own, so each length of context counts alike.
    """
    won = [each for each in compared if each.first(Kind.WINNER) is not None]
    if not won:
        return {}
    errors = [{row.name: row.mae for row in each.rows} for each in won]
    everywhere = [name for name in errors[0] if all(name in each for each in errors)]
    return {name: math.fsum(each[name] for each in errors) / len(errors) for name in everywhere}


def standing(compared: Sequence[Comparison]) -> str:
    """Where the winner stands among the baselines, in words; empty where nothing is compared."""
    errors = mean_errors(compared)
    kinds = {row.name: row.kind for each in compared for row in each.rows}
    rivals = sorted((error, name) for name, error in errors.items() if kinds[name] is Kind.BASELINE)
    ours = next((errors[name] for name in errors if kinds[name] is Kind.WINNER), None)
    if ours is None or not rivals:
        return ""
    ahead = [f"{name} ({error:.4f})" for error, name in rivals if error <= ours]
    if not ahead:
        error, name = rivals[0]
        told = f"ahead of every forecast without a model, the best of which is {name} ({error:.4f})"
        return told + _though(compared)
    after = len(rivals) - len(ahead)
    rest = f", ahead of {after} other forecast{'s' if after > 1 else ''} without a model"
    return f"behind {listed(ahead)}, which need no model" + (rest if after else "")


def _though(compared: Sequence[Comparison]) -> str:
    """Says from which contexts a baseline is ahead all the same, of a winner that is ahead in the mean."""
    behind = []
    for each in compared:
        ours = each.first(Kind.WINNER)
        best = each.first(Kind.BASELINE)
        if ours is not None and best is not None and best.mae <= ours.mae:
            behind.append(f"{best.name} from {each.context} steps")
    return f", though behind {listed(behind)}" if behind else ""


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
