"""Which configs does a grid span, and what is the whole config of one trial?

Overrides are dotted: ``{"lora.rank": 4, "learning_rate": 1e-3}`` changes two fields of a trial.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from lvray.core.trial import LoraConfig, TrialConfig
from lvray.spec.schema import StageSpec, Sweep, TrialSpec


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


def grid(space: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], ...]:
    """Every combination of the values, the last key changing fastest; one without overrides if `space` is empty."""
    return tuple(
        dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())
    )


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
    return TrialConfig(
        **{
            **row,
            "lora": LoraConfig(**row["lora"]),
            "stride": trial.context_length // 2 if trial.stride is None else trial.stride,
            "seed": seed if trial.seed is None else trial.seed,
        }
    )


def _untrained(config: TrialConfig) -> TrialConfig:
    return replace(config, lora=None)
