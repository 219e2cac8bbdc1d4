"""The sweep file's fields are those of the rooms that use them, and each is described."""

import ast
import inspect
from dataclasses import fields

import pytest
from pydantic import ValidationError

from lvray.core.policies import POLICIES
from lvray.core.trial import LoraConfig, TrialConfig
from lvray.flops.conventions import CONVENTIONS
from lvray.scheduler.policy import Registered
from lvray.scheduler.registry import registered
from lvray.series.codec import METHODS
from lvray.spec import schema
from lvray.spec.schema import LoraSpec, PolicySpec, Sweep, TextSpec, TrialChanges, TrialSpec

SMALLEST = {"name": "x", "budget": "1e13", "stages": [{"name": "only", "steps": 10}]}


def sweep(**changes):
    return Sweep.model_validate({**SMALLEST, **changes})


def choices(model, field):
    return set(model.model_fields[field].annotation.__args__)


def test_a_trial_has_the_fields_and_defaults_of_a_trial_config():
    own = {name: field.default for name, field in TrialSpec.model_fields.items()}
    config = {field.name: getattr(TrialConfig(), field.name) for field in fields(TrialConfig)}

    assert own.keys() == config.keys()
    resolved = {"lora": config["lora"], "stride": config["stride"], "seed": config["seed"]}
    assert {**own, **resolved} == config


def test_an_adapter_has_the_fields_and_defaults_of_a_lora_config():
    assert LoraConfig(**LoraSpec().model_dump()) == LoraConfig()


def test_choices_are_those_of_the_rooms_that_know_them():
    assert choices(Sweep, "convention") == set(CONVENTIONS)
    assert choices(PolicySpec, "name") == set(POLICIES)
    assert all(isinstance(registered(name), Registered) for name in POLICIES)


@pytest.mark.parametrize("method", METHODS)
def test_scalings_have_the_parameters_and_defaults_of_the_codec(method):
    scaling = TextSpec.model_validate({"scaling": method}).scaling.model_dump()
    assert {name: scaling[name] for name in scaling.keys() - {"method", "per"}} == METHODS[method]


def test_every_field_is_described():
    module = ast.parse(inspect.getsource(schema))
    bare = []
    for model in (node for node in module.body if isinstance(node, ast.ClassDef)):
        assert ast.get_docstring(model), model.name
        for field, after in zip(model.body, [*model.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and field.target.id != "method":
                described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                bare += [] if described else [f"{model.name}.{field.target.id}"]
    assert set(bare) <= {"FixedPolicy.name", "HalvingPolicy.name"}  # the words that choose them


@pytest.mark.parametrize("text", ["1e17", "1.0e17", 10**17, "100_000_000_000_000_000"])
def test_a_budget_is_a_whole_number_however_it_is_written(text):
    assert sweep(budget=text).budget == 10**17


def test_a_large_budget_is_exact():
    assert sweep(budget="123456789012345678901").budget == 123456789012345678901


def test_one_word_is_short_for_its_keys():
    short = sweep(
        data="lotka-volterra", text={"scaling": "max"}, stages=[{"name": "a", "policy": "halving"}]
    )
    long = sweep(
        data={"source": "lotka-volterra"},
        text={"scaling": {"method": "max"}},
        stages=[{"name": "a", "policy": {"name": "halving"}}],
    )
    assert short == long


def test_a_path_alone_is_a_file():
    assert sweep(data={"path": "a.csv"}).data.source == "file"
    assert sweep(data={"path": "a.h5", "source": "coursework"}).data.source == "coursework"
    assert sweep(data={"path": None}).data.source == "coursework"


def test_a_split_tells_one_system_from_all_of_them():
    split = sweep(data={"split": {"train": 1.0, "validation": 1}}).data.split
    assert (split.train, type(split.train)) == (1.0, float)
    assert (split.validation, type(split.validation)) == (1, int)


@pytest.mark.parametrize(
    ("given", "project"),
    [(False, None), (None, None), (True, "lvray"), ({"project": "mine"}, "mine")],
)
def test_wandb_is_a_word_or_keys(given, project):
    wandb = sweep(wandb=given).wandb
    assert (None if wandb is None else wandb.project) == project


def test_targets_may_be_one_name():
    assert LoraSpec.model_validate({"targets": "all-linear"}).targets == ("all-linear",)


def test_only_what_a_stage_was_given_counts_as_a_change():
    changes = TrialChanges.model_validate({"schedule": "wsd", "lora": {"rank": 8}})
    assert changes.given() == {"lora": {"rank": 8}, "schedule": "wsd"}
    assert TrialChanges().given() == {}


def test_a_sweep_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        sweep().seed = 3


def test_the_test_systems_may_be_those_of_validation():
    data = {"split": {"train": 850, "validation": 150, "test": "validation"}}
    assert sweep(data=data).data.split.test == "validation"


@pytest.mark.parametrize(("part", "value"), [("test", "train"), ("validation", "validation")])
def test_no_other_part_may_be_named_instead_of_counted(part, value):
    with pytest.raises(ValidationError, match=r"must be a fraction such as 0\.8"):
        sweep(data={"split": {part: value}})
