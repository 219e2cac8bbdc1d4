"""Configs chosen as a stage goes, by Optuna, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from lvray.core.trial import Status, StepPrices
from lvray.driver.walk import Run
from lvray.planner.proposals import Proposals
from lvray.scheduler.roster import Roster
from lvray.simulate import simulate
from lvray.simulator.landscapes import Reading
from lvray.simulator.world import Conditions, World
from lvray.spec.schema import Sweep
from lvray.spec.space import trial_config

SEARCH = {
    "name": "search",
    "policy": "halving",
    "sampler": "tpe",
    "samples": 24,
    "space": {
        "learning_rate": {"log": [1e-4, 1e-1]},
        "lora.rank": [1, 2, 4, 8],
        "batch_size": [1, 2],
    },
}


@dataclass(frozen=True)
class Valley:
    """A loss that is lowest at one learning rate."""

    def read(self, config, *, steps, flops):
        import math

        away = abs(math.log10(config.learning_rate) + 2)
        return Reading(0.3 + 0.2 * away + 1 / (10 + steps))


def sweep_of(**changes) -> Sweep:
    return Sweep.model_validate(
        {
            "name": "x",
            "budget": "2e14",
            "evaluation": {"windows": 2, "context_length": 200},
            "trial": {"context_length": 200, "stride": 200},
            "stages": [{**SEARCH, **changes}],
        }
    )


def played(*, kills: float = 0.0, **changes) -> Run:
    world = World(Valley(), Conditions(workers=2, kills=kills, seed=3))
    return simulate(sweep_of(**changes), world, keep=True)


def configs(run: Run) -> list:
    trials = run.history.trials.values()
    return [trial.plan.config for trial in trials if not trial.plan.open]


def test_every_trial_gets_a_config_of_its_own_at_no_more_than_its_planned_price():
    run = played()
    plan = run.history.stages["search"].plan
    assert {trial.open for trial in plan.trials} == {True}
    chosen = configs(run)
    assert len(chosen) == len(set(chosen)) == len(plan.trials) == 24
    for planned, trial in zip(plan.trials, run.history.trials.values(), strict=True):
        for dear, real in zip(planned.milestones, trial.plan.milestones, strict=True):
            assert real.flops <= dear.flops
            assert real.rung == dear.rung


def test_later_configs_are_nearer_to_what_was_good():
    rates = [config.learning_rate for config in configs(played())]

    def away(rate: float) -> float:
        return max(rate / 1e-2, 1e-2 / rate)

    early, late = sorted(map(away, rates[:8])), sorted(map(away, rates[-8:]))
    assert late[4] < early[4]


def test_a_driver_that_is_killed_goes_on_and_chooses_nothing_twice():
    run = played(kills=0.02)
    assert run.session > 1
    chosen = configs(run)
    assert len(chosen) == len(set(chosen))


def test_a_space_that_is_used_up_refuses_nobody_and_plans_no_more_than_it_has():
    run = played(space={"lora.rank": [1, 2, 4], "batch_size": [1, 2]}, samples=50)
    trials = run.history.trials.values()
    assert len(trials) == 6
    assert {trial.status for trial in trials} <= {Status.COMPLETED, Status.STOPPED}


def test_where_conditions_leave_fewer_configs_the_rest_is_refused_with_a_reason():
    space = {
        "batch_size": [1, 2],
        "lora.rank": {"choices": [1, 2, 4], "when": {"batch_size": [1]}},
    }
    run = played(space=space, samples=50)
    refused = [t for t in run.history.trials.values() if t.status is Status.REFUSED]
    assert len(configs(run)) == 4
    assert [trial.reason for trial in refused] == ["every config of the space has been tried"] * 2


@pytest.mark.parametrize("policy", ["halving", "freeze-thaw"])
def test_random_configs_are_known_before_anything_runs(policy):
    run = played(sampler="random", policy=policy)
    assert not any(trial.open for trial in run.history.stages["search"].plan.trials)
    assert len(set(configs(run))) == 24


def proposals(sweep: Sweep, file: Path) -> Proposals:
    stage = sweep.stages[0]
    return Proposals(
        stage,
        seed=0,
        config_of=lambda values: trial_config(sweep, stage, values),
        prices_of=lambda config: StepPrices(1, 1, 0),
        file=file,
    )


def test_the_study_is_a_file_that_optuna_opens_and_is_made_again_from_the_journal(tmp_path):
    run = played()
    file = tmp_path / "runs" / "search.study.log"
    for _ in range(2):
        proposals(sweep_of(), file).hear(Roster(run.history.trials.values()))
    storage = JournalStorage(JournalFileBackend(str(file)))
    study = optuna.load_study(study_name="search", storage=storage)
    assert len(study.trials) == 24
    told = {trial.user_attrs["trial_id"]: trial for trial in study.trials}
    for name, trial in run.history.trials.items():
        assert told[name].value == trial.curve[0].validation_loss
        assert told[name].params["learning_rate"] == trial.plan.config.learning_rate
        assert told[name].params["lora.rank"] == trial.plan.config.lora.rank
