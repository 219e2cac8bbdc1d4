"""From a file to a sweep, and back. What bad files are told stands in tests/golden/spec_errors."""

import copy
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lvray.core.errors import SpecError
from lvray.spec.files import LARGEST_BYTES
from lvray.spec.load import brought_up_to_date, difference, dump, load
from lvray.spec.schema import Sweep

ROOT = Path(__file__).parents[3]
GRID = ROOT / "sweeps" / "grid.yaml"
SWEEPS = sorted((ROOT / "sweeps").rglob("*.yaml"))


@pytest.fixture
def file(tmp_path):
    def write(text, name="sweep.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


SMALLEST = "budget: 1e13\nstages: [{name: only, steps: 10}]\n"


def told(path, *overrides):
    with pytest.raises(SpecError) as error:
        load(path, overrides=overrides)
    assert "\n".join(error.value.mistakes) == str(error.value)
    return str(error.value)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_projects_own_sweeps_load_and_survive_a_dump(path, file):
    sweep = load(path)
    assert load(file(dump(sweep))) == sweep


def test_the_smallest_sweep_is_named_by_its_file(file):
    sweep = load(file(SMALLEST, "first_try.yaml"))

    assert (sweep.name, sweep.budget, sweep.model) == ("first_try", 10**13, "tiny")
    assert load(file(f"name: other\n{SMALLEST}")).name == "other"


def test_a_file_that_cannot_name_a_sweep_is_told_so(file):
    assert "name: 'my sweep' names the run folder" in told(file(SMALLEST, "my sweep.yaml"))


def test_budgets_are_exact_where_floats_are_not(file):
    text = SMALLEST.replace("1e13", "1.23456789012345678e20")
    assert load(file(text)).budget == 123456789012345678000
    assert load(file(SMALLEST), overrides=["budget=1.00000000000000000001e20"]).budget == 10**20 + 1


def test_a_shared_ledgers_budget_is_read_like_the_sweeps_own(file):
    text = f"ledger: {{path: team.jsonl, budget: 1.23456789012345678e20}}\n{SMALLEST}"
    assert load(file(text)).ledger.budget == 123456789012345678000
    override = "ledger={path: team.jsonl, budget: 3e14}"
    assert load(file(SMALLEST), overrides=[override]).ledger.budget == 3 * 10**14


def test_a_resolved_sweep_is_plain_json_with_the_budget_as_text():
    row = load(GRID).to_json()

    assert row["budget"] == str(load(GRID).budget)
    assert row["wandb"] is False
    assert row["resources"]["workers"] == "auto"
    assert row["stages"][2]["from"] == "search"
    assert row["stages"][2]["trial"]["schedule"] == "wsd"
    assert Sweep.model_validate(row) == load(GRID)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=100)
@given(
    question=words,
    ledger=words.filter(bool),
    targets=st.lists(words.filter(bool), min_size=1, unique=True),
)
def test_any_text_survives_a_dump(tmp_path_factory, question, ledger, targets):
    row = {"name": "x", "budget": 1, "stages": [{"name": "a", "steps": 1}]}
    trial = {"lora": {"targets": [name for name in targets if name != "all-linear"] or ["q"]}}
    sweep = Sweep.model_validate(
        {**row, "question": question, "ledger": {"path": ledger}, "trial": trial}
    )
    path = tmp_path_factory.mktemp("dump") / "x.yaml"
    path.write_text(dump(sweep), encoding="utf-8")

    assert load(path) == sweep


@pytest.mark.parametrize(
    "word", ["1e5", "no", "true", "null", "~", "0o7", "12", "2024-01-01", "a: b", "", "*x"]
)
def test_text_that_looks_like_something_else_survives_a_dump(word, file):
    sweep = Sweep.model_validate({**yaml.safe_load(SMALLEST), "name": "x", "question": word})
    assert load(file(dump(sweep))).question == word


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("model=Qwen/Qwen2.5-0.5B", lambda sweep: sweep.model == "Qwen/Qwen2.5-0.5B"),
        ("data.path=a.csv", lambda sweep: (sweep.data.path, sweep.data.source) == ("a.csv", "coursework")),
        ("trial.lora.rank=4", lambda sweep: (sweep.trial.lora.rank, sweep.trial.lora.alpha) == (4, 16.0)),
        ("trial.learning_rate=1e-4", lambda sweep: sweep.trial.learning_rate == 1e-4),
        ("stages.search.steps=100", lambda sweep: sweep.stages[1].steps == 100),
        ("stages.search.space.lora.rank=[16, 32]", lambda sweep: sweep.stages[1].space["lora.rank"].choices == (16, 32)),
        ("stages.search.policy.reduction_factor=2", lambda sweep: sweep.stages[1].policy.reduction_factor == 2),
        ("stages.final.trial.lora.dropout=0.5", lambda sweep: sweep.stages[2].trial.given()["lora"] == {"dropout": 0.5}),
        ("text.scaling=max", lambda sweep: sweep.text.scaling.method == "max"),
        ("data=lotka-volterra", lambda sweep: sweep.data.source == "lotka-volterra"),
        ("wandb.project=mine", lambda sweep: sweep.wandb.project == "mine"),
        ("question=a = b", lambda sweep: sweep.question == "a = b"),
        ("ledger=", lambda sweep: sweep.ledger is None),
        ("resources.workers=2", lambda sweep: sweep.resources.workers == 2),
    ],
)  # fmt: skip
def test_an_override_changes_one_field(override, value):
    sweep = load(GRID, overrides=[override])

    assert value(sweep)
    changed = difference(load(GRID).to_json(), sweep.to_json())
    root = override.split("=")[0].split(".")[0]
    assert all(line.startswith(root) for line in changed)


def test_the_last_override_of_a_field_counts():
    assert load(GRID, overrides=["seed=1", "seed=2"]).seed == 2


def test_an_override_mends_a_mistake_of_the_file(file):
    path = file(SMALLEST.replace("1e13", "much"))
    assert load(path, overrides=["budget=1e12"]).budget == 10**12


def test_a_mistake_in_an_override_names_the_override():
    assert told(GRID, "trial.lora.rank=0") == (
        "--set trial.lora.rank=0: trial.lora.rank: 0: must be from 1 to 4096"
    )
    assert told(GRID, "seed=[1").startswith("--set seed=[1: not YAML: ")


def test_a_missing_file_is_told_with_those_near_it(file, monkeypatch):
    monkeypatch.chdir(file(SMALLEST, "grid.yaml").parent)
    file(SMALLEST, "other.yaml")

    assert told("gird.yaml") == "gird.yaml: there is no such file; near it: grid.yaml, other.yaml"
    assert told("sweps/grid.yaml") == (
        "sweps/grid.yaml: there is no such file; there is no folder sweps either"
    )
    assert told(".") == ".: is a folder, not a sweep file; near it: grid.yaml, other.yaml"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; a sweep file has at least budget: and stages:"),
        (b"# nothing\n", "is empty; a sweep file has at least budget: and stages:"),
        (b"- a\n- b\n", "holds no keys; a sweep file has at least budget: and stages:"),
        (b"a: 1\nb: \xff\n", "2: not UTF-8 text; save it as UTF-8"),
        (b"#" * (LARGEST_BYTES + 1), f"more than {LARGEST_BYTES} bytes; that is no sweep file"),
    ],
)
def test_what_is_no_sweep_file_at_all_is_told_in_one_line(content, message, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)

    assert told(path).removeprefix(str(path)).lstrip(": ") == message


def test_windows_files_are_read(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())
    assert load(path).budget == 10**13


def test_mistakes_come_in_the_order_of_the_lines(file):
    lines = told(file("seed: x\nstages: []\nbudget: 0\nmodel: 3\n")).splitlines()
    assert [line.split(":")[1] for line in lines] == ["1", "2", "3", "4"]


def test_a_rule_keeps_quiet_about_fields_that_are_mistakes_themselves(file):
    text = "budget: 1\nstages: [{name: a, policy: halvin, space: {lora.rank: [2, 4]}}]\n"
    assert told(file(text)).count("\n") == 0  # not: fixed, which stands in for it, needs steps


def test_a_rule_speaks_about_fields_beside_a_mistake(file):
    text = "budget: 1\nmodle: tiny\nstages:\n - {name: a, steps: 1, from: b}\n - 7\n - {steps: 3, from: c}\n"
    lines = told(file(text)).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "modle",
        "stages.a.from",
        "stages[2]",
        "stages[3].name",
        "stages[3].from",
    ]


WEIRD = [
    None,
    True,
    -1,
    0,
    1,
    2.5,
    1e300,
    10**40,
    "",
    "fill",
    "halving",
    [],
    [1],
    {},
    {"a": 1},
    ["a", {}],
]


def branches(value, path=()):
    """The path of everything in nested data."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from branches(below, (*path, key))


def spoilt(row, rng):
    """A resolved sweep with a few values, and maybe a few keys, that do not belong there."""
    for _ in range(rng.randint(1, 4)):
        *way, last = rng.choice(list(branches(row)))
        place = row
        for key in way:
            place = place[key]
        key = rng.choice([last, last, "surprise"]) if isinstance(place, dict) else last
        place[key] = copy.deepcopy(rng.choice(WEIRD))
    return row


@pytest.mark.parametrize("seed", range(150))
def test_whatever_stands_in_a_sweep_file_it_loads_or_its_mistakes_are_told(seed, file):
    path = file(yaml.safe_dump(spoilt(load(GRID).to_json(), random.Random(seed))))
    mistakes = ()

    try:
        sweep = load(path)
    except SpecError as error:
        mistakes = error.mistakes
    else:
        assert load(file(dump(sweep), "again.yaml")) == sweep

    assert all(line.startswith(f"{path}:") for line in mistakes)
    assert len(set(mistakes)) == len(mistakes)


def test_differences_are_told_by_dotted_path():
    old = load(GRID)
    new = load(GRID, overrides=["seed=3", "trial.lora.targets=[q_proj]", "stages.search.steps=50"])

    assert difference(old.to_json(), old.to_json()) == []
    assert difference(old.to_json(), new.to_json()) == [
        "seed: 0 → 3",
        "trial.lora.targets: [all-linear] → [q_proj]",
        "stages.search.steps: null → 50",
    ]


def test_stages_that_came_and_went_are_told(file):
    one = file(
        "name: x\nbudget: 1\nstages: [{name: a, steps: 1}, {name: b, steps: 2}]\n", "one.yaml"
    )
    two = file(
        "name: x\nbudget: 1\nstages: [{name: b, steps: 2}, {name: a, steps: 1}]\n", "two.yaml"
    )
    three = file("name: x\nbudget: 1\nstages: [{name: a, steps: 1}]\n", "three.yaml")

    assert difference(load(one).to_json(), load(two).to_json()) == ["stages: [a, b] → [b, a]"]
    gone = difference(load(one).to_json(), load(three).to_json())
    assert {"stages: [a, b] → [a]", "stages.b.steps: 2 → not there"} <= set(gone)


def test_a_sweep_loads_without_numpy_torch_or_ray():
    program = (
        "import sys; from lvray.spec.load import load; load(sys.argv[1]); "
        "print(sorted({'numpy', 'torch', 'ray', 'scipy', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, GRID], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_run_of_an_earlier_version_is_of_the_same_sweep():
    row = load(GRID).to_json()
    earlier = {**row, "text": {**row["text"]}, "trial": {**row["trial"]}}
    del earlier["quantization"], earlier["text"]["point"], earlier["trial"]["loss"]
    assert difference(brought_up_to_date(earlier), row) == []
    earlier["trial"]["learning_rate"] = 0.5
    assert difference(brought_up_to_date(earlier), row) == ["trial.learning_rate: 0.5 → 0.005"]


def test_a_run_that_this_version_cannot_read_is_shown_as_it_is():
    row = {**load(GRID).to_json(), "model": 7}
    assert brought_up_to_date(row) == row
