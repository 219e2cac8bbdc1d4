"""What docs/adding_a_policy.md says: one file and one line, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A copy of lvray with the documented policy added to it."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "lvray", folder / "lvray", ignore=shutil.ignore_patterns("__pycache__"))
    file, line = re.findall(
        r"```python\n(.*?)```", _text(ROOT / "docs" / "adding_a_policy.md"), re.S
    )
    (folder / "lvray" / "scheduler" / "median.py").write_text(file)
    policies = folder / "lvray" / "core" / "policies.py"
    known = _text(policies)
    assert known.count("}\n") == 1
    policies.write_text(known.replace("}\n", f"{line}}}\n"))
    return folder


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def simulate(package: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lvray.simulate", str(ROOT / "sweeps" / "grid.yaml"), *options]
    return subprocess.run(
        command,
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_sweep_runs_with_it_and_its_reasons_are_told(package):
    options = ["--set", "stages.search.policy=median", "--set", "stages.search.steps=60"]
    done = simulate(package, *options, "--json", "--runs", str(package / "runs"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"]
    search = next(stage for stage in told["stages"] if stage["name"] == "search")
    assert search["policy"] == "median"
    assert search["trials"]["stopped"] >= 1
    assert "is above the median" in _text(package / "runs" / "grid" / "journal.jsonl")


def test_a_sweep_file_that_misspells_it_is_told_what_was_meant(package):
    done = simulate(package, "--set", "stages.search.policy=medain")
    assert done.returncode == 2
    assert "did you mean median?" in done.stderr


def test_it_needs_steps_as_it_says(package):
    done = simulate(package, "--set", "stages.search.policy=median")
    assert done.returncode == 2
    assert "missing; the policy median needs a number of steps, or fill" in done.stderr
