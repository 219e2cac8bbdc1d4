"""Which trials does each stage have, where are they measured, and what may the stage spend?

The sweep's FLOPs flow through its stages in order. A stage's hold-back leaves the sweep's account
before anything runs, so that no stage before it can touch it; what a stage does not use goes back and
is there for the next. All of it is worked out here before a trial starts, by the same functions that
`plan` prints and the driver runs.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from lvray.core.errors import BudgetTooSmall
from lvray.core.trial import StagePlan, StepPrices, TrialConfig, TrialPlan
from lvray.core.units import LARGEST_FLOPS, format_flops
from lvray.planner.prices import price_trial
from lvray.scheduler.milestones import evenly, fill, price, unroll
from lvray.scheduler.policy import REDUCTION_FACTOR
from lvray.scheduler.registry import registered
from lvray.spec.schema import AxisSpec, StageSpec, Sweep
from lvray.spec.space import as_field, drawn, forecast_of, grid, overridden, size, trial_config


@dataclass(frozen=True, slots=True)
class Best:
    """The winner of a stage, as later stages start from it."""

    trial_id: str
    config: TrialConfig


def hold_back(sweep: Sweep, stage: StageSpec) -> int:
    """FLOPs that are set aside for `stage` before anything runs."""
    return int(sweep.budget * Fraction(str(stage.hold_back))) if stage.hold_back else 0


def allowance(
    sweep: Sweep,
    stage: StageSpec,
    *,
    free: int,
    held: int,
    best: Mapping[str, Best],
    variables: int,
) -> int:
    """FLOPs that `stage` may spend.

    Args:
        sweep: the sweep file.
        stage: the stage that is about to begin.
        free: FLOPs in the sweep's account, all hold-backs already taken out.
        held: FLOPs in the stage's own account: its hold-back, and what it was allowed before its plan was written down.
        best: winners of earlier stages, by stage.
        variables: how many variables the series have.

    Raises:
        BudgetTooSmall: the stage's price is fixed and there is not that much.
    """
    most = _most(sweep, stage, free, held, best, variables)
    if stage.share is not None:
        # Not on top of all that is held: a driver that died just here may have moved the share already.
        share = int(sweep.budget * Fraction(str(stage.share)))
        return max(held, min(most, hold_back(sweep, stage) + share))
    need = _fixed_price(sweep, stage, best, variables)
    if need is None:
        return most
    if need > held + free:
        raise BudgetTooSmall(
            f"stage {stage.name} costs {format_flops(need)} FLOPs and {format_flops(held + free)} are left "
            f"of the budget of {format_flops(sweep.budget)}"
        )
    return need


def spare(
    sweep: Sweep,
    stage: StageSpec,
    *,
    free: int,
    held: int,
    best: Mapping[str, Best],
    variables: int,
) -> int:
    """FLOPs beyond its allowance that `stage` may draw to do lost work again; arguments as for `allowance`.

    A stage of a known price would otherwise lose a trial with every crash while the sweep has FLOPs to
    spare. One that takes what there is, or a share, has no claim on more.
    """
    need = _fixed_price(sweep, stage, best, variables)
    if need is None or stage.share is not None:
        return 0
    return max(0, _most(sweep, stage, free, held, best, variables) - need)


def _most(
    sweep: Sweep,
    stage: StageSpec,
    free: int,
    held: int,
    best: Mapping[str, Best],
    variables: int,
) -> int:
    """What `stage` could have without taking from later stages what they will need."""
    later = sweep.stages[sweep.stages.index(stage) + 1 :]
    spoken_for = sum(_claim(sweep, other, best, variables) for other in later)
    return held + max(0, free - spoken_for)


def _claim(sweep: Sweep, stage: StageSpec, best: Mapping[str, Best], variables: int) -> int:
    """What a later stage will need of the sweep's account, hold-backs not included."""
    if stage.share is not None:
        return int(sweep.budget * Fraction(str(stage.share)))
    need = _fixed_price(sweep, stage, best, variables)
    return 0 if need is None else max(0, need - hold_back(sweep, stage))


def _fixed_price(
    sweep: Sweep, stage: StageSpec, best: Mapping[str, Best], variables: int
) -> int | None:
    """The price of a stage whose trials have a number of steps; None for one that takes what there is."""
    if stage.steps == "fill" or registered(stage.policy.name).lay_out is not None:
        return None
    return sum(plan.price for plan in _fixed_trials(sweep, stage, best, variables))


def plan_stage(
    sweep: Sweep, stage: StageSpec, *, allowed: int, best: Mapping[str, Best], variables: int
) -> StagePlan:
    """Lays out the trials of one stage, each with its milestones and its whole price.

    Args:
        sweep: the sweep file.
        stage: the stage.
        allowed: FLOPs that it may spend (`allowance`).
        best: winners of earlier stages; where one that `stage` is `from` is missing, the dearest
            config it could have is taken.
        variables: how many variables the series have.

    Raises:
        BudgetTooSmall: `allowed` does not pay for what the stage needs at the least.
        ModelError: the model's shape is not known, or a LoRA target is not in it.
    """
    lay_out = registered(stage.policy.name).lay_out
    if lay_out is not None:
        return lay_out(
            stage.name,
            _shuffled(_candidates(sweep, stage, best, variables), sweep.seed),
            allowance=allowed,
            final_run=sum(
                hold_back(sweep, other) for other in sweep.stages if other.from_stage == stage.name
            ),
            reduction_factor=stage.policy.reduction_factor or REDUCTION_FACTOR,
            most_steps=stage.steps if isinstance(stage.steps, int) else None,
        )
    if stage.steps == "fill":
        filling = _filling(sweep, stage, allowed, best, variables)
        return StagePlan(stage.name, (filling,), allowed, stage.policy.name)
    trials = _fixed_trials(sweep, stage, best, variables)
    dear = sum(plan.price for plan in trials)
    if dear > allowed:
        raise BudgetTooSmall(
            f"stage {stage.name}: its {len(trials)} trials cost {format_flops(dear)} FLOPs and it may spend "
            f"{format_flops(allowed)}; raise its share or the budget, or give it fewer or shorter trials"
        )
    return StagePlan(stage.name, trials, allowed, stage.policy.name)


def outline(sweep: Sweep, *, variables: int) -> tuple[StagePlan, ...]:
    """The plan of every stage if nothing ends early and nothing is lost, in order.

    Winners are not known yet, so a stage that is `from` another is priced with the dearest config it
    could get.

    Raises:
        BudgetTooSmall: the budget does not pay for some stage; the message says which budget would.
        ModelError: the model's shape is not known, or a LoRA target is not in it.
    """
    try:
        return _outline(sweep, variables)
    except BudgetTooSmall as error:
        enough = _least_budget(sweep, variables)
        remedy = (
            "no budget up to 1e30 would do"
            if enough is None
            else f"a budget of {format_flops(enough)} would do"
        )
        raise BudgetTooSmall(f"{error}; {remedy}, or fewer or shorter trials") from None


def step_prices(sweep: Sweep, stage: StageSpec, *, variables: int) -> tuple[StepPrices, ...]:
    """What the parts of each trial of `stage` cost, winners not known yet.

    Raises:
        ModelError: the model's shape is not known, or a LoRA target is not in it.
    """
    return tuple(plan.prices for plan in _candidates(sweep, stage, {}, variables))


def _least_budget(sweep: Sweep, variables: int) -> int | None:
    """A budget near the least, in steps of 5%, that pays for every stage."""
    budget = sweep.budget
    while budget <= LARGEST_FLOPS:
        budget += max(1, budget // 20)
        try:
            _outline(sweep.model_copy(update={"budget": budget}), variables)
        except BudgetTooSmall:
            continue
        return budget
    return None


def _outline(sweep: Sweep, variables: int) -> tuple[StagePlan, ...]:
    held = {stage.name: hold_back(sweep, stage) for stage in sweep.stages}
    free = sweep.budget - sum(held.values())
    plans: list[StagePlan] = []
    for stage in sweep.stages:
        own = held[stage.name]
        allowed = allowance(sweep, stage, free=free, held=own, best={}, variables=variables)
        plan = plan_stage(sweep, stage, allowed=allowed, best={}, variables=variables)
        plans.append(plan)
        free += own - plan.price
    return tuple(plans)


def _fixed_trials(
    sweep: Sweep, stage: StageSpec, best: Mapping[str, Best], variables: int
) -> tuple[TrialPlan, ...]:
    if stage.zero_shot:
        return tuple(
            _measured_once(plan, stage) for plan in _candidates(sweep, stage, best, variables)
        )
    assert isinstance(stage.steps, int), f"stage {stage.name} has no number of steps"
    stops = [(step, None) for step in evenly(stage.steps, stage.evaluations)]
    return tuple(
        replace(plan, milestones=unroll(plan.prices, stops, forecast=stage.forecasts))
        for plan in _candidates(sweep, stage, best, variables)
    )


def _measured_once(plan: TrialPlan, stage: StageSpec) -> TrialPlan:
    return replace(plan, milestones=unroll(plan.prices, [(0, None)], forecast=stage.forecasts))


def _filling(
    sweep: Sweep, stage: StageSpec, allowed: int, best: Mapping[str, Best], variables: int
) -> TrialPlan:
    """The one trial of a `steps: fill` stage, with as many whole steps as `allowed` buys."""
    (plan,) = _candidates(sweep, stage, best, variables)
    milestones = fill(plan.prices, allowed, evaluations=stage.evaluations, forecast=stage.forecasts)
    if milestones is None:
        least = price(plan.prices, steps=1, evaluations=1, forecast=stage.forecasts)
        raise BudgetTooSmall(
            f"stage {stage.name} may spend {format_flops(allowed)} FLOPs, and one step with its evaluation costs "
            f"{format_flops(least)}; raise its hold_back or the budget"
        )
    return replace(plan, milestones=milestones, fills=True)


def _candidates(
    sweep: Sweep, stage: StageSpec, best: Mapping[str, Best], variables: int
) -> tuple[TrialPlan, ...]:
    """The trials of a stage, not laid out yet: one milestone after one step stands for what is to come."""
    configs = tuple(_configs(sweep, stage, best, variables))
    parent = best.get(stage.from_stage) if stage.from_stage and stage.continues else None
    continues = parent.trial_id if parent else None
    chosen_later = stage.sampler in LATER
    highest = _highest(sweep, stage, best, variables) if chosen_later else None
    plans = []
    for index, config in enumerate(configs):
        prices = highest or _prices(sweep, stage, config, variables)
        trial_id = (
            stage.name
            if len(configs) == 1
            else f"{stage.name}-{index + 1:0{len(str(len(configs)))}d}"
        )
        milestones = unroll(prices, [(1, None)], forecast=False)
        plans.append(
            TrialPlan(
                trial_id,
                stage.name,
                config,
                milestones,
                prices,
                continues=continues,
                open=chosen_later,
            )
        )
    return tuple(plans)


LATER = frozenset({"tpe", "gp"})
"""Samplers that choose a trial's config when it starts."""


def _configs(
    sweep: Sweep, stage: StageSpec, best: Mapping[str, Best], variables: int
) -> Iterable[TrialConfig]:
    """The configs of a stage; where they are chosen later, as many times the dearest that there may be."""
    if stage.sampler == "grid":
        overrides: Iterable[dict[str, Any]] = grid(stage.space)
    elif stage.sampler == "random":
        overrides = drawn(stage.space, stage.samples or 1, sweep.seed)
    else:
        dearest = max(
            _corner_configs(sweep, stage, best, variables),
            key=lambda config: _dearness(_prices(sweep, stage, config, variables)),
        )
        return (dearest,) * int(min(stage.samples or 1, size(stage.space)))
    return (config_of(sweep, stage, best, variables, values) for values in overrides)


def config_of(
    sweep: Sweep,
    stage: StageSpec,
    best: Mapping[str, Best],
    variables: int,
    overrides: Mapping[str, Any],
) -> TrialConfig:
    """The config of a trial of `stage` with some of its space's values."""
    if stage.from_stage is None:
        return trial_config(sweep, stage, overrides)
    winner = best.get(stage.from_stage)
    if winner is not None:
        return overridden(winner.config, stage, overrides)
    earlier = next(other for other in sweep.stages if other.name == stage.from_stage)
    base = max(
        _configs(sweep, earlier, best, variables),
        key=lambda config: _dearness(_prices(sweep, stage, config, variables)),
    )
    return overridden(base, stage, overrides)


def _prices(sweep: Sweep, stage: StageSpec, config: TrialConfig, variables: int) -> StepPrices:
    return price_trial(sweep, config, variables, forecast=forecast_of(sweep, stage))


def _corner_configs(
    sweep: Sweep, stage: StageSpec, best: Mapping[str, Best], variables: int
) -> list[TrialConfig]:
    corners = grid(_corners(stage.space))
    return [config_of(sweep, stage, best, variables, corner) for corner in corners]


def _highest(
    sweep: Sweep, stage: StageSpec, best: Mapping[str, Best], variables: int
) -> StepPrices:
    """The highest price of each part of a trial, over all configs that the stage may come to choose."""
    every = [
        _prices(sweep, stage, config, variables)
        for config in _corner_configs(sweep, stage, best, variables)
    ]
    return StepPrices(
        train_step=max(prices.train_step for prices in every),
        evaluation=max(prices.evaluation for prices in every),
        forecast=max(prices.forecast for prices in every),
    )


PRICED = frozenset(
    {"lora.rank", "lora.targets", "lora.variant", "context_length", "batch_size", "loss"}
)
"""Fields on which the price of a trial depends."""


def _corners(space: Mapping[str, AxisSpec]) -> dict[str, AxisSpec]:
    """The space with what no price depends on left out, and of ranges their ends: the dearest config is among them."""
    return {
        key: AxisSpec(choices=tuple(as_field(key, end) for end in axis.ends), when=_priced(axis))
        if axis.choices is None
        else axis.model_copy(update={"when": _priced(axis)})
        for key, axis in space.items()
        if key in PRICED
    }


def _priced(axis: AxisSpec) -> dict[str, tuple[Any, ...]]:
    return {other: values for other, values in axis.when.items() if other in PRICED}


def _dearness(prices: StepPrices) -> tuple[int, int]:
    return prices.train_step, prices.evaluation


def _shuffled(plans: Sequence[TrialPlan], seed: int) -> tuple[TrialPlan, ...]:
    """The candidates in an order drawn by the sweep's seed, so that a budget for some of them takes no corner of the grid."""
    return tuple(random.Random(seed).sample(plans, len(plans)))
