"""`lvray.submit --dry-run` of each profile, and what a bad profile is told: whole text against files.

A text that changed on purpose is written anew by ``python tests/golden/test_submit.py``; the diff then shows what changed.
The user is ab123, the Python is PYTHON, and the folder has the sweeps, the profiles and a batch script.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lvray.core.errors import SpecError
from lvray.launcher.job import instructions
from lvray.launcher.profile import load_profile
from lvray.submit import _parser as parser_of_submit
from lvray.submit import main, prepared

ROOT = Path(__file__).parents[2]
PAGES = Path(__file__).parent / "submit"
ERRORS = Path(__file__).parent / "profile_errors"
BAD = sorted(path.stem for path in ERRORS.glob("*.yaml"))
USER = {"HOME": "/home/ab123", "USER": "ab123"}
CACHES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")

GPU = ["sweeps/coursework.yaml", "--cluster", "csd3-ampere"]
COMMANDS = {
    # One processor wherever this runs: the number of cores is that of the machine.
    "laptop": ["sweeps/grid.yaml", "--cluster", "laptop", "--set", "resources.workers=1"],
    "workstation": ["sweeps/coursework.yaml", "--cluster", "workstation"],
    "csd3-ampere": [*GPU, "--account", "PROJECT-SL3-GPU"],
    "csd3-ampere-four-nodes": [
        *GPU, "--account", "PROJECT-SL2-GPU", "--nodes", "4", "--time", "36:00:00", "--scale", "10",
        "--set", "question=Which rank's best?", "--set", "resources.trials_per_gpu=2",
    ],
    "csd3-icelake": ["sweeps/grid.yaml", "--cluster", "csd3-icelake", "--account", "PROJECT-SL3-CPU"],
    "slurm-gpu": ["sweeps/coursework.yaml", "--cluster", "cluster/slurm-gpu.yaml", "--partition", "a100"],
    "slurm-cpu": ["sweeps/grid.yaml", "--cluster", "slurm-cpu", "--runs", "/project/50% off/runs"],
    "csd3-ampere-json": [*GPU, "--account", "PROJECT-SL3-GPU", "--json"],
    "csd3-ampere-refused": [
        *GPU, "--account", "PROJECT-SL3-CPU", "--nodes", "9", "--gpus-per-node", "3", "--time", "36:00:00",
        "--runs", "/tmp/runs", "--speed", "1e9", "--set", "resources.device=cpu",
    ],
    # Each kind of mistake, of which none hides another.
    "csd3-ampere-all-wrong": [
        *GPU, "--account", "PROJECT-SL3-CPU", "--nodes", "91", "--time", "soon", "--speed", "fast", "--set", "bogus=1",
        "--runs", "/x/$NO_SUCH_VARIABLE",
    ],
    "csd3-ampere-too-dear": [*GPU, "--account", "PROJECT-SL3-CPU", "--set", "budget=1e9"],
    "csd3-ampere-warned": [
        *GPU, "--account", "PROJECT-SL3-GPU", "--speed", "1e11", "--set", "resources.device=cpu",
    ],
}  # fmt: skip


@contextlib.contextmanager
def neutral():
    """A folder as a checkout has it, and a user of whom nothing is this machine's."""
    before, here, python = dict(os.environ), Path.cwd(), sys.executable
    with TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "sweeps", Path(folder) / "sweeps")
        shutil.copytree(ROOT / "cluster", Path(folder) / "cluster")
        script = Path(folder) / "slurm" / "sweep.sbatch"
        script.parent.mkdir()
        script.write_text("#!/bin/bash\n", encoding="utf-8")
        os.chdir(folder)
        os.environ.update(USER)
        for name in CACHES:
            os.environ.pop(name, None)
        sys.executable = (
            "/home/ab123/python"  # wherever this checkout lies: on a disk that nodes see
        )
        try:
            yield
        finally:
            sys.executable = python
            os.chdir(here)
            os.environ.clear()
            os.environ.update(before)


def page_of(case: str) -> str:
    out, err = io.StringIO(), io.StringIO()
    with neutral(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*COMMANDS[case], "--dry-run"])
    text = f"{out.getvalue()}{err.getvalue()}exit code {code}\n"
    return text.replace("/home/ab123/python", "PYTHON")


def submitted() -> str:
    with neutral():
        arguments = parser_of_submit().parse_args([*COMMANDS["csd3-ampere"], "--dry-run"])
        job = prepared(arguments, variables=USER, python="PYTHON")
    return f"{instructions(job, '48123456')}\n"


def error_of(case: str) -> str:
    here = Path.cwd()
    os.chdir(ERRORS)  # messages name the file as it was given
    try:
        load_profile(f"{case}.yaml")
    except SpecError as error:
        return f"{error}\n"
    finally:
        os.chdir(here)
    return "no mistake was found\n"


@pytest.mark.parametrize("case", COMMANDS)
def test_a_dry_run_reads_as_it_did(case):
    assert page_of(case) == (PAGES / f"{case}.txt").read_text(encoding="utf-8")


def test_what_is_said_after_submitting_reads_as_it_did():
    assert submitted() == (PAGES / "submitted.txt").read_text(encoding="utf-8")


def test_every_profile_that_is_shipped_has_its_dry_run():
    assert {path.stem for path in (ROOT / "cluster").glob("*.yaml")} <= COMMANDS.keys()


@pytest.mark.parametrize("case", BAD)
def test_a_bad_profile_is_told_all_of_it(case):
    assert error_of(case) == (ERRORS / f"{case}.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    for name in COMMANDS:
        (PAGES / f"{name}.txt").write_text(page_of(name), encoding="utf-8")
    (PAGES / "submitted.txt").write_text(submitted(), encoding="utf-8")
    for name in BAD:
        (ERRORS / f"{name}.txt").write_text(error_of(name), encoding="utf-8")
