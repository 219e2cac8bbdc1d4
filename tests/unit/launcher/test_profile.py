"""Profiles: found, read, expanded. What bad ones are told stands in tests/golden/profile_errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvray.core.errors import LvrayError, UsageError
from lvray.launcher.profile import (
    Profile,
    as_wall_time,
    expanded,
    find_profile,
    load_profile,
    wall_time,
)
from lvray.launcher.shipped import PROFILES, candidates, found

ROOT = Path(__file__).parents[3]
NAMES = sorted(path.stem for path in (ROOT / "cluster").glob("*.yaml"))
SMALLEST = "site: here\ntime: 1:00:00\ncores_per_node: 2\nflops_per_second: 4e10\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_profiles_that_are_shipped_are_found_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    profile, file = load_profile(name)
    assert file == ROOT / "cluster" / f"{name}.yaml"
    assert profile.flops_per_second > 0


@pytest.mark.parametrize("name", NAMES)
def test_what_a_user_may_change_stands_first_in_every_profile(name):
    text = (ROOT / "cluster" / f"{name}.yaml").read_text(encoding="utf-8")
    mine, sites = text.index("# --- What you may change"), text.index("# --- What the site decides")
    assert mine < text.index("\nruns:") < sites < text.index("\nsite:") < text.index("\nscheduler:")


def test_ones_own_profile_of_a_name_wins_over_the_one_that_is_shipped(tmp_path, monkeypatch):
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "laptop.yaml").write_text(SMALLEST, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_profile("laptop")[0].site == "here"


def test_an_installed_package_has_its_profiles_inside(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "lvray"
    inside = package / "shipped" / PROFILES
    inside.mkdir(parents=True)
    (package.parent / PROFILES).mkdir()  # somebody else's package of that name
    monkeypatch.chdir(tmp_path)
    assert found(PROFILES, package=package) == inside


def test_what_is_not_shipped_is_told_with_the_places_that_were_looked_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LvrayError) as told:
        found("slurm/none.sbatch", package=tmp_path / "lvray")
    assert all(
        str(place) in str(told.value)
        for place in candidates("slurm/none.sbatch", package=tmp_path / "lvray")
    )


def test_a_name_that_is_nearly_right_is_told_the_right_one():
    with pytest.raises(UsageError, match="did you mean csd3-icelake"):
        find_profile("csd3-icelak")


def test_a_name_that_is_like_no_other_is_told_all_of_them():
    with pytest.raises(UsageError) as told:
        find_profile("archer")
    assert all(name in str(told.value) for name in NAMES)


def test_a_file_that_is_not_there_is_told_the_files_beside_it(tmp_path):
    (tmp_path / "ours.yaml").write_text(SMALLEST, encoding="utf-8")
    with pytest.raises(UsageError, match=r"near it: .*ours\.yaml"):
        load_profile(str(tmp_path / "our.yaml"))


def test_every_field_has_its_text():
    schema = Profile.__doc__
    assert schema
    text = (ROOT / "lvray" / "launcher" / "profile.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    for name in Profile.model_fields:
        at = next(i for i, line in enumerate(lines) if line.startswith(f"    {name}: "))
        assert lines[at + 1].startswith('    """'), name


@given(st.integers(1, 999 * 3600))
def test_a_wall_time_that_is_written_is_read_back(seconds):
    assert wall_time(as_wall_time(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12:00:00", 43200), ("1-12:00:00", 129600), ("0:05:30", 330), ("100:00:00", 360000)],
)
def test_wall_times_as_slurm_writes_them(text, seconds):
    assert wall_time(text) == seconds


@pytest.mark.parametrize("text", ["12", "12:00", "1:60:00", "0:00:00", "-1:00:00", "36h", 12, None])
def test_other_times_are_refused(text):
    with pytest.raises(ValueError, match=r"12:00:00|above 0"):
        wall_time(text)


def test_variables_are_filled_in():
    known = {"HOME": "/home/ab123", "USER": "ab123"}
    assert expanded("/rds/$USER/x${USER}y", known, field="runs") == "/rds/ab123/xab123y"
    assert expanded("~/runs", known, field="runs") == "/home/ab123/runs"
    assert expanded("a~b", known, field="runs") == "a~b"


def test_a_variable_that_is_not_set_is_one_clear_error():
    with pytest.raises(UsageError, match=r"runs: /x/\$PROJECT/runs: \$PROJECT is not set"):
        expanded("/x/$PROJECT/runs", {}, field="runs")


def profile(**fields):
    return Profile.model_validate({"site": "a site", "flops_per_second": 10**12, **fields})


def test_limits_are_those_of_the_service_level_in_the_accounts_name():
    csd3 = load_profile(str(ROOT / "cluster" / "csd3-ampere.yaml"))[0]
    assert csd3.limits_of("HEP-SL3-GPU").time == 12 * 3600
    assert csd3.limits_of("HEP-SL2-GPU").time == 36 * 3600
    assert csd3.limits_of("HEP-SL2-GPU").nodes == 90
    assert (csd3.limits_of("HEP-SL3-GPU").gpus, csd3.limits_of("HEP-SL1-GPU").gpus) == (32, 64)
    assert csd3.limits_of("HEPSL3-GPU").time is None  # no level of its own word
    assert csd3.limits_of(None) == csd3.limits


def test_of_two_limits_the_narrower_holds():
    both = profile(
        time="1:00:00",
        cores_per_node=4,
        limits={"nodes": 4, "time": "6:00:00"},
        levels={"SL1": {"nodes": 8, "time": "2:00:00"}},
    )
    assert (both.limits_of("A-SL1").nodes, both.limits_of("A-SL1").time) == (4, 7200)
