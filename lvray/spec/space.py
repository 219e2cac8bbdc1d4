"""Which configs does a grid span, and what is the whole config of one trial?

Overrides are dotted: ``{"lora.rank": 4, "learning_rate": 1e-3}`` changes two fields of a trial.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from pydantic import BaseModel

from lvray.core.trial import LoraConfig, TrialConfig
from lvray.spec.schema import AxisSpec, ForecastSpec, StageSpec, Sweep, TrialSpec


def fields(model: type[BaseModel] = TrialSpec) -> tuple[str, ...]:
    """The dotted names of all fields of a trial that hold one value, such as ``lora.rank``."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += [f"{name}.{deeper}" for deeper in fields(inner)]
        else:
            names.append(name)
    return tuple(names)


def whole(key: str) -> bool:
    """Whether a field, by its dotted name, holds a whole number."""
    model: type[BaseModel] = TrialSpec
    *tables, name = key.split(".")
    for table in tables:
        inner = model.model_fields[table].annotation
        assert isinstance(inner, type), f"{key}: {table} holds no fields"
        model = inner
    return _has_int(model.model_fields[name].annotation)


def _has_int(annotation: object) -> bool:
    """Whether a type is `int`, with or without limits, or may be one."""
    return annotation is int or any(_has_int(part) for part in get_args(annotation))


def applies(axis: AxisSpec, overrides: Mapping[str, Any]) -> bool:
    """Whether an axis is varied, given the values of the axes before it."""
    return all(overrides.get(other) in values for other, values in axis.when.items())


def grid(space: Mapping[str, AxisSpec]) -> tuple[dict[str, Any], ...]:
    """Every combination of the choices, the last key changing fastest; one without overrides if `space` is empty.

    An axis that does not apply is left out, and what becomes the same by that stands once.
    """
    combinations: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*(axis.ends for axis in space.values())):
        overrides: dict[str, Any] = {}
        for (key, axis), value in zip(space.items(), values, strict=True):
            if applies(axis, overrides):
                overrides[key] = value
        combinations.setdefault(repr(overrides), overrides)
    return tuple(combinations.values())


def draw(space: Mapping[str, AxisSpec], chance: random.Random) -> dict[str, Any]:
    """One config of the space, each axis drawn on its own: choices evenly, ranges evenly on their scale."""
    overrides: dict[str, Any] = {}
    for key, axis in space.items():
        if not applies(axis, overrides):
            continue
        if axis.choices is not None:
            overrides[key] = chance.choice(axis.choices)
        elif axis.log is not None:
            low, high = map(math.log, axis.log)
            overrides[key] = as_field(key, math.exp(chance.uniform(low, high)))
        else:
            overrides[key] = as_field(key, chance.uniform(*axis.ends))
    return overrides


def as_field(key: str, value: float) -> float:
    """A number as a field holds it: whole where it must be, else to four digits, which is all that anybody reads."""
    return round(value) if whole(key) else float(f"{value:.4g}")


def size(space: Mapping[str, AxisSpec]) -> float:
    """How many configs there are at most; infinite where a range is not of whole numbers."""
    count: float = 1
    for key, axis in space.items():
        if axis.choices is not None:
            count *= len(axis.choices)
        else:
            low, high = axis.ends
            count *= round(high) - round(low) + 1 if whole(key) else math.inf
    return count


def drawn(space: Mapping[str, AxisSpec], count: int, seed: int) -> tuple[dict[str, Any], ...]:
    """Different configs of the space, drawn by the seed: `count`, or all of them where there are no more.

    A space of few configs is drawn from its grid; elsewhere draws that came before are drawn again.
    """
    chance = random.Random(f"space {seed}")
    if all(axis.choices is not None for axis in space.values()) and size(space) <= 10 * count:
        combinations = grid(space)
        return tuple(chance.sample(combinations, min(count, len(combinations))))
    found: dict[str, dict[str, Any]] = {}
    for _ in range(20 * count):
        overrides = draw(space, chance)
        found.setdefault(repr(overrides), overrides)
        if len(found) == count:
            break
    return tuple(found.values())


def apply(trial: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a trial's nested values with dotted `overrides` put in; `trial` stays as it is."""
    changed = dict(trial)
    for key, value in overrides.items():
        first, _, rest = key.partition(".")
        changed[first] = apply(changed.get(first) or {}, {rest: value}) if rest else value
    return changed


def flat(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a trial's nested values by dotted name."""
    values: dict[str, Any] = {}
    for name, value in trial.items():
        if isinstance(value, Mapping):
            values |= {f"{name}.{deeper}": inner for deeper, inner in flat(value).items()}
        else:
            values[name] = value
    return values


def forecast_of(sweep: Sweep, stage: StageSpec) -> ForecastSpec:
    """What `stage` forecasts where it forecasts: the sweep's `evaluation.forecast` with the stage's changes."""
    changes = stage.forecast.given() if stage.forecast is not None else {}
    return ForecastSpec.model_validate(
        {**sweep.evaluation.forecast.model_dump(mode="json"), **changes}
    )


def trial_config(sweep: Sweep, stage: StageSpec, overrides: Mapping[str, Any]) -> TrialConfig:
    """The config of a trial of `stage`: the sweep's trial, what the stage changes, then `overrides`.

    A zero-shot stage has no adapter. A stage that is `from` another starts from that one's best config
    instead: see `overridden`.
    """
    values = apply(sweep.trial.model_dump(), {**flat(stage.trial.given()), **overrides})
    config = _config(values, seed=sweep.seed)
    return _untrained(config) if stage.zero_shot else config


def overridden(base: TrialConfig, stage: StageSpec, overrides: Mapping[str, Any]) -> TrialConfig:
    """The config of a trial of a stage that starts from `base`: what the stage changes, then `overrides`.

    A shorter context length shortens the stride with it, so that no token is passed over.
    """
    assert base.lora is not None, "nothing starts from a zero-shot stage"
    changes = {**flat(stage.trial.given()), **overrides}
    values = apply(base.to_json(), changes)
    if "context_length" in changes and "stride" not in changes:
        values["stride"] = min(base.stride, values["context_length"])
    return _config(values, seed=base.seed)


def _config(values: Mapping[str, Any], *, seed: int) -> TrialConfig:
    trial = TrialSpec.model_validate(values)
    row = trial.model_dump()
    lora = row["lora"]
    alpha = float(lora["rank"]) if lora["alpha"] is None else lora["alpha"]
    return TrialConfig(
        **{
            **row,
            "lora": LoraConfig(**{**lora, "alpha": alpha}),
            "stride": trial.context_length // 2 if trial.stride is None else trial.stride,
            "seed": seed if trial.seed is None else trial.seed,
        }
    )


def _untrained(config: TrialConfig) -> TrialConfig:
    return replace(config, lora=None)
