"""How does a sweep file made for one model and budget become one for another, at a fraction of it?

The budget is multiplied by a factor F. Whatever is counted in steps or windows is multiplied by F times the price of
one of them under the file's own model and config, over its price now: so each stage keeps its share of the budget,
though prices do not all change alike (attention weighs more in a small model, the head in a large one).

Scaled are the budget, a shared ledger's budget, the steps and warm-up steps of stages and trials, the windows of validation
and the systems that are forecast. Counts are rounded down, so that what fitted the budget fits it still, but steps
are at least 1, windows and forecast systems at least `FLOOR` (or what the file has), and these never more than in the
file. Where the floor of the windows would take more than evaluation's share, a stage evaluates less often. Everything
else stays: sizes, rates, shares, `train_systems`, and the values of a space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from lvray.core.errors import UsageError
from lvray.core.policies import POLICIES
from lvray.core.trial import StepPrices
from lvray.core.units import LARGEST_FLOPS, format_flops
from lvray.planner.prices import price_trial
from lvray.planner.stages import step_prices
from lvray.spec.schema import EvaluationSpec, StageSpec, Sweep
from lvray.spec.space import forecast_of, trial_config

FLOOR = 8
"""Fewest validation windows and forecast systems of a scaled sweep: fewer could tell no two trials apart."""

LARGEST = Decimal("1e12")
"""Of a factor; 1 over it is the smallest."""

MOST_STEPS = 10**9
MOST_WARMUP_STEPS = 10**6


def factor_from_text(text: str) -> Fraction:
    """Reads a factor such as ``2e-4``, exactly.

    Raises:
        UsageError: it is no number from 1e-12 to 1e12.
    """
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal(0)
    if not (value.is_finite() and 1 / LARGEST <= value <= LARGEST):
        raise UsageError(
            f"--scale {text}: must be a number above 0 (from 1e-12 to 1e12), such as 2e-4"
        )
    return Fraction(value)


def scaled(sweep: Sweep, factor: Fraction, *, made_for: Sweep, variables: int) -> Sweep:
    """Gives `sweep` at `factor` of its budget.

    Args:
        sweep: what is asked for now, its counts still those of the file.
        factor: of the budget.
        made_for: the file as it stands, whose model and config the counts were made for.
        variables: how many variables the series have.

    Raises:
        UsageError: the budget would be below 1 FLOP or above 1e30.
        ModelError: the shape of one of the two models is not known.
    """
    dearer = _Dearer(factor, made_for, sweep, variables)
    changes: dict[str, Any] = {
        "budget": _budget(sweep.budget, factor),
        "evaluation": _evaluation(sweep.evaluation, dearer),
        "trial": sweep.trial.model_copy(
            update={"warmup_steps": _warmup(sweep.trial.warmup_steps, dearer.trial)}
        ),
        "stages": tuple(_stage(sweep, stage, dearer) for stage in sweep.stages),
    }
    if sweep.ledger is not None and sweep.ledger.budget is not None:
        budget = _budget(sweep.ledger.budget, factor)
        changes["ledger"] = sweep.ledger.model_copy(update={"budget": budget})
    return sweep.model_copy(update=changes)


def told(before: Sweep, after: Sweep, factor: str) -> str:
    """One line on what `scaled` has changed."""
    parts = [f"budget {format_flops(before.budget)} → {format_flops(after.budget)}"]
    steps = [
        f"{one.name} {one.steps} → {other.steps}"
        for one, other in zip(before.stages, after.stages, strict=True)
        if isinstance(one.steps, int)
    ]
    parts += [f"steps {', '.join(steps)}"] if steps else []
    windows = before.evaluation.windows, after.evaluation.windows
    systems = before.evaluation.forecast.systems, after.evaluation.forecast.systems
    parts += [f"validation windows {windows[0]} → {windows[1]}"]
    parts += [f"forecast systems {systems[0]} → {systems[1]}"]
    return f"scaled by {factor}: {'; '.join(parts)}"


@dataclass(frozen=True, slots=True)
class _Dearer:
    """By how much counts are multiplied."""

    factor: Fraction
    made_for: Sweep
    sweep: Sweep
    variables: int

    @property
    def trial(self) -> Fraction:
        """Steps of the sweep's own `trial`."""
        return self._ratio("train_step", self._plain(self.made_for), self._plain(self.sweep))

    def steps(self, stage: StageSpec) -> Fraction:
        """Steps of a stage; where the file has none of its name, those of `trial`."""
        own = next((other for other in self.made_for.stages if other.name == stage.name), None)
        if own is None:
            return self.trial
        before = step_prices(self.made_for, own, variables=self.variables)
        now = step_prices(self.sweep, stage, variables=self.variables)
        return self._ratio("train_step", before, now)

    def windows(self) -> Fraction:
        """Windows of validation."""
        before, now = self._plain(self.made_for), self._plain(self.sweep)
        counts = self.made_for.evaluation.windows, self.sweep.evaluation.windows
        return self._ratio("evaluation", before, now) * Fraction(counts[1], counts[0])

    def systems(self) -> Fraction:
        """Systems that are forecast."""
        before, now = self._plain(self.made_for), self._plain(self.sweep)
        counts = self.made_for.evaluation.forecast.systems, self.sweep.evaluation.forecast.systems
        return self._ratio("forecast", before, now) * Fraction(counts[1], counts[0])

    def _ratio(
        self, part: str, before: Sequence[StepPrices], now: Sequence[StepPrices]
    ) -> Fraction:
        """The factor times the mean price of a part of a trial before, over the mean price now."""
        means = [
            Fraction(sum(getattr(prices, part) for prices in every), len(every))
            for every in (before, now)
        ]
        return self.factor * means[0] / means[1]

    def _plain(self, sweep: Sweep) -> tuple[StepPrices]:
        """The prices of the sweep's own `trial`."""
        config = trial_config(sweep, StageSpec(name="trial", steps=1), {})
        return (price_trial(sweep, config, self.variables),)


def _budget(flops: int, factor: Fraction) -> int:
    budget = int(flops * factor)
    if not 1 <= budget <= LARGEST_FLOPS:
        raise UsageError(
            f"--scale: {float(factor):g} of {format_flops(flops)} FLOPs is no budget from 1 to 1e30"
        )
    return budget


def _evaluation(evaluation: EvaluationSpec, dearer: _Dearer) -> EvaluationSpec:
    systems = _down_to_floor(evaluation.forecast.systems, dearer.systems())
    return evaluation.model_copy(
        update={
            "windows": _down_to_floor(evaluation.windows, dearer.windows()),
            "forecast": evaluation.forecast.model_copy(update={"systems": systems}),
        }
    )


def _stage(sweep: Sweep, stage: StageSpec, dearer: _Dearer) -> StageSpec:
    changes: dict[str, Any] = {}
    if stage.forecast is not None and "systems" in stage.forecast.model_fields_set:
        systems = _down_to_floor(forecast_of(sweep, stage).systems, dearer.systems())
        changes["forecast"] = stage.forecast.model_copy(update={"systems": systems})
    if not stage.zero_shot:
        changes |= _training(sweep, stage, dearer)
    return stage.model_copy(update=changes)


def _training(sweep: Sweep, stage: StageSpec, dearer: _Dearer) -> Mapping[str, Any]:
    factor = dearer.steps(stage)
    changes: dict[str, Any] = {}
    if isinstance(stage.steps, int):
        changes["steps"] = min(MOST_STEPS, max(1, int(stage.steps * factor)))
    if "warmup_steps" in stage.trial.model_fields_set:
        warmup = _warmup(stage.trial.warmup_steps, factor)
        changes["trial"] = stage.trial.model_copy(update={"warmup_steps": warmup})
    if not POLICIES[stage.policy.name].plans_steps:
        wanted = sweep.evaluation.windows * dearer.windows()
        windows = _down_to_floor(sweep.evaluation.windows, dearer.windows())
        often = int(stage.evaluations * wanted / windows)
        changes["evaluations"] = max(1, min(stage.evaluations, often))
    return changes


def _down_to_floor(count: int, factor: Fraction) -> int:
    return min(count, max(FLOOR, int(count * factor)))


def _warmup(steps: int, factor: Fraction) -> int:
    return min(MOST_WARMUP_STEPS, max(1, int(steps * factor))) if steps else 0
