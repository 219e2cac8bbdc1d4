"""Rules across fields: what they let pass. What they refuse stands in tests/golden/spec_errors."""

import pytest

from lvray.spec.rules import RULES, check
from lvray.spec.schema import Sweep


def mistakes(*stages, **parts):
    sweep = Sweep.model_validate({"name": "x", "budget": 1, "stages": list(stages), **parts})
    return [".".join(map(str, mistake.path)) for mistake in check(sweep)]


SEARCH = {"name": "search", "policy": "halving", "space": {"lora.rank": [2, 4]}}


def test_every_rule_is_asked():
    from lvray.spec import rules

    functions = [
        value
        for name, value in vars(rules).items()
        if getattr(value, "__module__", "") == rules.__name__
        and callable(value)
        and not name.startswith("_")
        and name != "check"
    ]
    assert functions == list(RULES)


def test_the_sweep_that_the_project_is_for_breaks_no_rule():
    final = {"name": "final", "from": "search", "continue": True, "steps": "fill", "hold_back": 0.3}
    assert mistakes({"name": "baseline", "zero_shot": True}, SEARCH, final) == []


def test_shares_are_summed_as_they_are_written():
    # As floats, 0.1 + 0.2 + 0.7 is 0.9999999999999999 and 0.7 + 0.2 + 0.1 + 1e-17 is 1.
    stages = [{"name": f"s{share}", "steps": 1, "share": share / 10} for share in (1, 2, 7)]
    assert mistakes(*({**stage, "name": f"a{i}"} for i, stage in enumerate(stages))) == []
    more = {"name": "b", "steps": 1, "hold_back": 1e-17}
    assert mistakes(*({**stage, "name": f"a{i}"} for i, stage in enumerate(stages)), more) == [
        "stages.3.hold_back"
    ]


@pytest.mark.parametrize(
    "split", [{"train": 0.7, "validation": 0.2}, {"train": 800}, {"train": 1, "test": 1}]
)
def test_splits_that_fit_are_let_pass(split):
    assert mistakes(SEARCH, data={"split": split}) == []


def test_a_file_may_have_any_number_of_systems():
    split = {"train": 5000, "validation": 1, "test": 1}
    assert mistakes(SEARCH, data={"path": "a.csv", "split": split}) == []
    assert mistakes(SEARCH, data={"split": split}) == ["data.split"]


def test_fill_is_for_one_trial_with_or_without_from():
    assert mistakes({"name": "a", "steps": "fill"}) == []
    assert mistakes({"name": "a", "steps": "fill", "space": {"lora.rank": [4]}}) == []
    assert mistakes({"name": "a", "steps": "fill", "space": {"lora.rank": [4, 8]}}) == [
        "stages.0.steps"
    ]


def test_a_stage_may_be_called_like_a_trial_that_there_is_not():
    assert mistakes(SEARCH, {"name": "search-b", "steps": 1}) == []
    assert mistakes({"name": "a", "steps": 1}, {"name": "a-1", "steps": 1}) == []
    assert mistakes(SEARCH, {"name": "search-1", "steps": 1}) == ["stages.1.name"]


def test_a_stage_that_continues_may_change_anything_but_the_shape_of_the_adapter():
    final = {"name": "final", "from": "search", "continue": True, "steps": 9}
    assert (
        mistakes(SEARCH, {**final, "trial": {"lora": {"dropout": 0.1}, "learning_rate": 1e-4}})
        == []
    )
    assert mistakes(SEARCH, {**final, "trial": {"lora": {"variant": "dora"}}}) == [
        "stages.1.trial.lora.variant"
    ]


def test_a_context_shorter_than_an_earlier_stages_stride_is_told():
    search = {**SEARCH, "space": {"stride": [128, 256]}}
    final = {"name": "final", "from": "search", "steps": 9}
    assert mistakes(search, {**final, "trial": {"context_length": 256}}) == []
    assert mistakes(search, {**final, "trial": {"context_length": 128}}) == [
        "stages.1.trial.context_length"
    ]


@pytest.mark.parametrize("name", ["grid", "lynx_hare", "S2.replica-1", "7"])
def test_names_that_can_be_folders_are_let_pass(name):
    assert mistakes(SEARCH, name=name) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "a:b", "-x", "a b", "x" * 65, "grid\n"])
def test_names_that_cannot_be_folders_or_accounts_are_refused(name):
    assert mistakes(SEARCH, name=name) == ["name"]


def test_two_ways_to_write_one_value_are_one_value():
    space = {"lora.targets": ["all-linear", ["all-linear"]], "learning_rate": [1, 1.0]}
    assert mistakes({**SEARCH, "space": space}) == [
        "stages.0.space.lora.targets.1",
        "stages.0.space.learning_rate.1",
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rank", 16),
        ("alpha", 4.0),
        ("targets", ["k_proj"]),
        ("variant", "dora"),
        ("head_bias", True),
    ],
)
def test_what_a_checkpoint_would_be_refused_for_is_refused_before_anything_is_paid(field, value):
    final = {"name": "final", "from": "search", "continue": True, "steps": "fill"}
    changed = {**final, "trial": {"lora": {field: value}}}
    assert mistakes(SEARCH, changed) == [f"stages.1.trial.lora.{field}"]
    assert mistakes(SEARCH, {**changed, "continue": False}) == []


@pytest.mark.parametrize(("field", "value"), [("dropout", 0.1), ("init", "gaussian")])
def test_what_an_adapter_may_go_on_with_is_let_pass(field, value):
    final = {"name": "final", "from": "search", "continue": True, "steps": "fill"}
    assert mistakes(SEARCH, {**final, "trial": {"lora": {field: value}}}) == []
