"""Grids, and the whole config of one trial."""

import math
import random

import pytest

from lvray.core.trial import LoraConfig, TrialConfig
from lvray.spec.schema import Sweep
from lvray.spec.space import (
    apply,
    draw,
    drawn,
    fields,
    flat,
    grid,
    overridden,
    size,
    trial_config,
    whole,
)


def sweep_of(*stages, **parts):
    return Sweep.model_validate({"name": "x", "budget": 1, "stages": list(stages), **parts})


def space_of(**axes):
    """A space as a sweep file has it; "__" stands for a dot."""
    space = {key.replace("__", "."): values for key, values in axes.items()}
    return sweep_of({"name": "a", "steps": 1, "space": space}).stages[0].space


def test_the_last_key_of_a_grid_changes_fastest():
    assert grid(space_of(lora__rank=[2, 4], learning_rate=[1e-3, 1e-2])) == (
        {"lora.rank": 2, "learning_rate": 1e-3},
        {"lora.rank": 2, "learning_rate": 1e-2},
        {"lora.rank": 4, "learning_rate": 1e-3},
        {"lora.rank": 4, "learning_rate": 1e-2},
    )


def test_no_space_is_one_trial_without_overrides():
    assert grid({}) == ({},)


def test_overrides_are_put_in_without_touching_the_trial():
    trial = {"lora": {"rank": 8, "alpha": 16.0}, "seed": 0}

    assert apply(trial, {"lora.rank": 2, "seed": 1}) == {
        "lora": {"rank": 2, "alpha": 16.0},
        "seed": 1,
    }
    assert trial == {"lora": {"rank": 8, "alpha": 16.0}, "seed": 0}


def test_flat_values_put_into_nothing_are_the_nested_ones():
    nested = {"lora": {"rank": 8, "targets": ["q_proj"]}, "seed": 0}
    assert apply({}, flat(nested)) == nested


def test_fields_are_dotted_and_hold_one_value():
    assert {"lora.rank", "lora.targets", "learning_rate", "seed"} <= set(fields())
    assert "lora" not in fields()


def test_the_stage_goes_before_the_sweep_and_the_space_before_both():
    sweep = sweep_of(
        {"name": "a", "trial": {"lora": {"rank": 4, "alpha": 4}, "batch_size": 2}},
        trial={"lora": {"rank": 2, "targets": "all-linear"}, "batch_size": 1, "warmup_steps": 5},
        seed=7,
    )

    config = trial_config(sweep, sweep.stages[0], {"lora.rank": 8, "learning_rate": 1})

    assert config == TrialConfig(
        lora=LoraConfig(rank=8, alpha=4.0, targets=("all-linear",)),
        learning_rate=1.0,
        batch_size=2,
        warmup_steps=5,
        seed=7,
    )


def test_values_of_a_space_become_what_the_config_holds():
    sweep = sweep_of({"name": "a"})
    config = trial_config(sweep, sweep.stages[0], {"lora.targets": ["q_proj", "k_proj"]})
    assert config.lora.targets == ("q_proj", "k_proj")
    assert hash(config) == hash(TrialConfig.from_json(config.to_json()))


def test_a_zero_shot_stage_has_no_adapter():
    sweep = sweep_of({"name": "a", "zero_shot": True})
    assert trial_config(sweep, sweep.stages[0], {}).lora is None


def test_a_stride_that_is_not_given_is_half_the_context():
    sweep = sweep_of({"name": "a"})
    config = trial_config(sweep, sweep.stages[0], {"context_length": 128})
    assert config.stride == 64


def test_an_alpha_that_is_null_is_the_rank_of_each_trial():
    sweep = sweep_of({"name": "a", "steps": 1}, trial={"lora": {"rank": 4, "alpha": None}})
    stage = sweep.stages[0]
    assert trial_config(sweep, stage, {}).lora.alpha == 4.0
    assert trial_config(sweep, stage, {"lora.rank": 2}).lora.alpha == 2.0
    assert trial_config(sweep, stage, {"lora.rank": 2, "lora.alpha": 16}).lora.alpha == 16


def test_a_trial_may_have_a_seed_of_its_own():
    sweep = sweep_of({"name": "a"}, seed=7)
    assert trial_config(sweep, sweep.stages[0], {"seed": 0}).seed == 0


@pytest.mark.parametrize(("changes", "stride"), [({}, 300), ({"context_length": 128}, 128)])
def test_a_stage_that_is_from_another_changes_only_what_it_names(changes, stride):
    base = TrialConfig(lora=LoraConfig(rank=2), learning_rate=0.01, stride=300, seed=3)
    sweep = sweep_of({"name": "b", "from": "a", "trial": {"schedule": "wsd", **changes}}, seed=9)

    config = overridden(base, sweep.stages[0], {"weight_decay": 0.1})

    assert (config.lora, config.learning_rate, config.seed) == (base.lora, 0.01, 3)
    assert (config.schedule, config.weight_decay, config.stride) == ("wsd", 0.1, stride)


CONDITIONAL = {
    "batch_size": [1, 2, 4],
    "context_length": {"choices": [250, 500], "when": {"batch_size": [1, 2]}},
}


def test_an_axis_that_does_not_apply_is_left_out_of_a_grid_once():
    assert grid(space_of(**CONDITIONAL)) == (
        {"batch_size": 1, "context_length": 250},
        {"batch_size": 1, "context_length": 500},
        {"batch_size": 2, "context_length": 250},
        {"batch_size": 2, "context_length": 500},
        {"batch_size": 4},
    )


RANGES = {
    "learning_rate": {"log": [1e-4, 1e-2]},
    "lora__rank": {"log": [1, 32]},
    "lora__dropout": {"linear": [0.0, 0.5]},
}


def test_what_is_drawn_of_a_range_lies_in_it_on_its_scale_and_whole_where_it_must_be():
    values = drawn(space_of(**RANGES), 400, seed=0)
    assert len(values) == 400
    rates = [overrides["learning_rate"] for overrides in values]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 150 < sum(rate < 1e-3 for rate in rates) < 250  # the middle of the range by ratio
    ranks = [overrides["lora.rank"] for overrides in values]
    assert all(isinstance(rank, int) and 1 <= rank <= 32 for rank in ranks)
    dropouts = [overrides["lora.dropout"] for overrides in values]
    assert 150 < sum(dropout < 0.25 for dropout in dropouts) < 250


def test_the_same_seed_draws_the_same_and_nothing_twice():
    space = space_of(**RANGES)
    assert drawn(space, 20, seed=1) == drawn(space, 20, seed=1) != drawn(space, 20, seed=2)
    few = space_of(**CONDITIONAL)
    assert len(drawn(few, 100, seed=0)) == 5
    assert {repr(overrides) for overrides in drawn(few, 100, seed=0)} == set(map(repr, grid(few)))
    assert draw(few, random.Random(0)) in grid(few)


def test_whole_numbers_are_known_by_their_field_with_or_without_null():
    held = [key for key in fields() if whole(key)]
    assert held == [
        "lora.rank",
        "warmup_steps",
        "context_length",
        "stride",
        "batch_size",
        "train_systems",
        "seed",
    ]


def test_the_size_of_a_space_is_known_where_it_is_finite():
    assert size(space_of(lora__rank={"log": [1, 32]}, batch_size=[1, 2])) == 64
    assert size(space_of(**RANGES)) == math.inf
