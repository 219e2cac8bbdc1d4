"""Which config is tried next? Optuna's samplers, asked when a trial starts, told what was heard by then.

A stage with `sampler: tpe` or `gp` plans its trials *open*: their number, milestones and highest price are known, their
configs are not. When the scheduler is about to start one, `Proposals` asks the sampler. Nothing is kept but what the
stage's journal says of its trials, so that a driver that is killed and started again goes on with the same study; each
question has a seed of its own for the same reason. What trials are told by is their loss at the first rung, where all of
them have used the same FLOPs. The study is written to the run folder in Optuna's own journal format: `optuna-dashboard
runs/<name>/<stage>.study.log` opens it.
"""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalChoiceType
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from lvray.core.trial import Milestone, StepPrices, Trial, TrialConfig, TrialPlan
from lvray.scheduler.milestones import steps_within, unroll
from lvray.scheduler.roster import Roster, rungs_of
from lvray.spec.schema import AxisSpec, StageSpec
from lvray.spec.space import applies, as_field, draw, whole

ASKED_AGAIN = 20
"""How often a sampler is asked again when it proposes a config that was tried before."""


class Proposals:
    """The study of one stage."""

    def __init__(
        self,
        stage: StageSpec,
        *,
        seed: int,
        config_of: Callable[[Mapping[str, Any]], TrialConfig],
        prices_of: Callable[[TrialConfig], StepPrices],
        file: Path | None,
    ) -> None:
        """Begins a study, in which nobody is known yet.

        Args:
            stage: its space and its sampler.
            seed: the sweep's.
            config_of: the whole config of a trial with some of the space's values.
            prices_of: what its parts cost.
            file: where the study is written; None keeps it in memory.
        """
        self._stage = stage
        self._seed = seed
        self._config_of = config_of
        self._prices_of = prices_of
        self._numbers: dict[str, int] = {}
        self._told: set[str] = set()
        self._asked = 0
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if file is not None:
            file.unlink(missing_ok=True)  # it is made again from what the journal says
        self._study = optuna.create_study(
            study_name=stage.name, direction="minimize", storage=_storage(file)
        )

    def choose(self, trial: Trial, trials: Roster) -> TrialPlan | None:
        """Gives an open trial a config that no other trial has, and milestones for it; None where none is left."""
        self.hear(trials)
        known = {other.plan.config for other in trials.values() if not other.plan.open}
        chosen = self._ask(trial.plan.trial_id, known)
        if chosen is None:
            return None
        return relaid(trial.plan, chosen, self._prices_of(chosen))

    def hear(self, trials: Roster) -> None:
        """Tells the study of trials and losses that it does not know yet."""
        for name, trial in trials.items():
            if trial.plan.open or name in self._told:
                continue
            if name not in self._numbers:
                self._enter(name, trial.plan.config)
            value = value_of(trial)
            if value is not None:
                self._study.tell(self._numbers[name], value)
                self._told.add(name)
            elif trial.status.final:
                self._study.tell(self._numbers[name], state=TrialState.FAIL)
                self._told.add(name)

    def _enter(self, name: str, config: TrialConfig) -> None:
        """Makes a config known that the sampler did not propose: another driver's, or one drawn."""
        self._study.enqueue_trial(_params(self._stage.space, config.to_json()))
        self._study.sampler = self._sampler()
        asked = self._study.ask()
        self._suggest(asked)
        self._remember(name, asked)

    def _remember(self, name: str, asked: optuna.Trial) -> None:
        asked.set_user_attr("trial_id", name)
        self._numbers[name] = asked.number

    def _ask(self, name: str, known: set[TrialConfig]) -> TrialConfig | None:
        for _ in range(ASKED_AGAIN):
            self._study.sampler = self._sampler()
            asked = self._study.ask()
            config = self._config_of(self._suggest(asked))
            if config not in known:
                self._remember(name, asked)
                return config
            self._study.tell(asked.number, state=TrialState.FAIL)
        return self._drawn(name, known)

    def _drawn(self, name: str, known: set[TrialConfig]) -> TrialConfig | None:
        """Any config that was not tried yet: a sampler that is sure of itself proposes the same one over and over."""
        chance = random.Random(f"{self._seed} {self._stage.name} {self._asked}")
        for _ in range(50 * ASKED_AGAIN):
            config = self._config_of(draw(self._stage.space, chance))
            if config not in known:
                self._enter(name, config)
                return config
        return None

    def _suggest(self, asked: optuna.Trial) -> dict[str, Any]:
        """The values that a trial of the study has on every axis that applies."""
        overrides: dict[str, Any] = {}
        for key, axis in self._stage.space.items():
            if applies(axis, overrides):
                overrides[key] = _suggested(asked, key, axis)
        return overrides

    def _sampler(self) -> BaseSampler:
        """A sampler that has never been asked: its seed says how often others were."""
        self._asked += 1
        seed = random.Random(f"{self._seed} {self._stage.name} {self._asked}").getrandbits(32)
        begin = max(4, (self._stage.samples or 1) // 4)
        with warnings.catch_warnings():
            # Both are marked as experimental; what may change is how well they choose.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self._stage.sampler == "gp":
                return GPSampler(seed=seed, n_startup_trials=begin)
            return TPESampler(seed=seed, n_startup_trials=begin, constant_liar=True)


def _storage(file: Path | None) -> BaseStorage:
    if file is None:
        return InMemoryStorage()
    file.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(file)))


def value_of(trial: Trial) -> float | None:
    """What a study is told of a trial: its loss at the first rung, or at its end where there are no rungs; None before that."""
    index = next((index for _, index in rungs_of(trial)), len(trial.plan.milestones) - 1)
    heard = next((heard for heard in trial.curve if heard.milestone == index), None)
    if heard is None or not math.isfinite(heard.validation_loss):
        return None
    return heard.validation_loss


def relaid(plan: TrialPlan, config: TrialConfig, prices: StepPrices) -> TrialPlan:
    """An open trial's plan with its config: where it is judged at rungs, at the same FLOPs; elsewhere at the same steps."""
    by_flops = any(milestone.rung is not None for milestone in plan.milestones)
    stops = [
        (_steps(milestone, index, prices) if by_flops else milestone.step, milestone.rung)
        for index, milestone in enumerate(plan.milestones)
    ]
    milestones = unroll(prices, stops, forecast=plan.milestones[-1].forecast)
    return replace(plan, config=config, prices=prices, milestones=milestones, open=False)


def _steps(milestone: Milestone, index: int, prices: StepPrices) -> int:
    return steps_within(prices, milestone.flops, evaluations=index + 1, forecast=milestone.forecast)


def _suggested(asked: optuna.Trial, key: str, axis: AxisSpec) -> object:
    if axis.choices is not None:
        words = {_word(choice): choice for choice in axis.choices}
        return words[asked.suggest_categorical(key, list(words))]
    low, high = axis.ends
    log = axis.log is not None
    if whole(key):
        return asked.suggest_int(key, round(low), round(high), log=log)
    return as_field(key, asked.suggest_float(key, low, high, log=log))


def _params(space: Mapping[str, AxisSpec], row: Mapping[str, Any]) -> dict[str, Any]:
    """A config's values on the axes of the space, as Optuna holds them."""
    params: dict[str, Any] = {}
    for key, axis in space.items():
        value: Any = row
        for part in key.split("."):
            value = value[part]
        params[key] = _word(value) if axis.choices is not None else value
    return params


def _word(choice: object) -> CategoricalChoiceType:
    """A choice as Optuna can hold it: lists, such as LoRA targets, as text."""
    if isinstance(choice, bool | int | float | str):
        return choice
    return json.dumps(choice)
