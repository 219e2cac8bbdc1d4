"""The edge to Slurm. Programs of Slurm's names stand in for it: they say what Slurm 22.05 says."""

from __future__ import annotations

import json

import pytest

from lvray.core.errors import LvrayError
from lvray.launcher.slurm import Seen, Submitted, look, refused, seen, submit

LINE = (
    "JobId=7 JobName=lvray-grid UserId=ab123(1000) Account=p-sl3-gpu QOS=gpu2 JobState=RUNNING Reason=None Dependency=(null) "
    "Requeue=1 Restarts=2 BatchFlag=2 Reboot=0 ExitCode=0:0 RunTime=00:00:05 TimeLimit=12:00:00 BatchHost=gpu-q-9 NumNodes=1 "
    "Command=/home/ab123/slurm/sweep.sbatch sweeps/grid.yaml StdOut=/rds/runs/slurm-logs/grid-7.log Power="
)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Gives a function that puts a program of Slurm's on the PATH, and nothing else of Slurm's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(name, text):
        (folder / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (folder / name).chmod(0o755)

    return put


def test_the_job_id_is_what_sbatch_prints(slurm):
    slurm("sbatch", "echo 48123456")
    assert submit(["sbatch"], {}, login=None).job == "48123456"
    slurm("sbatch", "echo '48123457;csd3'")
    assert submit(["sbatch"], {}, login=None).job == "48123457"


def test_what_the_site_says_of_a_job_that_it_takes_is_not_lost(slurm):
    slurm("sbatch", "echo 'sbatch: 12 GPU hours are left' >&2; echo 7")
    assert submit(["sbatch"], {}, login=None) == Submitted("7", "sbatch: 12 GPU hours are left")


def test_sbatch_gets_its_words_and_its_environment(slurm, tmp_path):
    told = tmp_path / "told.json"
    slurm("sbatch", f'printf "%s\\n%s\\n" "$LVRAY_SETUP" "$*" > {told}; echo 1')
    submit(["sbatch", "--parsable", "a b"], {"LVRAY_SETUP": "module load x"}, login=None)
    assert told.read_text(encoding="utf-8") == "module load x\n--parsable a b\n"


def test_a_machine_without_sbatch_is_told_where_to_go(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LvrayError, match=r"login node \(login\.example\).*--dry-run"):
        submit(["sbatch"], {}, login="login.example")


def test_a_refusal_is_told_in_sbatchs_own_words_with_the_remedy(slurm):
    slurm(
        "sbatch",
        "echo 'sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified' >&2; exit 1",
    )
    with pytest.raises(LvrayError) as told:
        submit(["sbatch"], {}, login=None)
    assert str(told.value) == (
        "sbatch refused the job: Batch job submission failed: Invalid account or account/partition combination specified; "
        "`sacctmgr show associations user=$USER` has your accounts; give one with --account"
    )


def test_a_refusal_of_two_lines_is_one():
    said = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition name specified\n"
    assert refused(said) == (
        "sbatch refused the job: invalid partition specified: x; Batch job submission failed: Invalid partition name specified; "
        "`sinfo --summarize` has the partitions; give one with --partition"
    )


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("sbatch: error: invalid partition specified: gpux", "sinfo --summarize"),
        ("sbatch: error: Requested node configuration is not available", "fewer GPUs or nodes"),
        ("sbatch: error: Requested time limit is invalid (missing or exceeds some limit)", "shorter --time"),
        ("sbatch: error: Invalid generic resource (gres) specification", "gpu_type"),
        ("sbatch: fatal: Could not establish a configuration source", "submit from a login node"),
        ("sbatch: unrecognized option '--bogus'", "options: in the profile"),
        ("sbatch: error: something new", "--dry-run"),
        ("", "without a word"),
    ],
)  # fmt: skip
def test_each_refusal_has_a_remedy(said, remedy):
    assert remedy in refused(said)


def test_something_else_called_sbatch_is_found_out(slurm):
    slurm("sbatch", "echo Submitted batch job 5")
    with pytest.raises(LvrayError, match="no job id but 'Submitted batch job 5'"):
        submit(["sbatch"], {}, login=None)


def test_a_job_is_read_from_what_scontrol_shows(slurm):
    slurm("scontrol", f'[ "$*" = "show job --oneliner 7" ] && echo {json.dumps(LINE)}')
    assert look("7") == Seen("RUNNING", "", "gpu-q-9", 2, 0)


def test_a_job_that_waits_has_no_node_yet():
    text = "JobId=7 JobState=PENDING Reason=Resources Restarts=0 ExitCode=0:0 NumNodes=1-1"
    assert seen(text) == Seen("PENDING", "Resources", "", 0, 0)


def test_a_job_that_failed_has_its_exit_code():
    text = "JobId=7 JobState=FAILED Reason=NonZeroExitCode Restarts=0 ExitCode=2:0 BatchHost=n1"
    assert seen(text) == Seen("FAILED", "NonZeroExitCode", "n1", 0, 2)


def test_a_job_that_slurm_has_forgotten_is_none(slurm):
    slurm("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert look("7") is None


def test_a_scheduler_that_does_not_answer_is_an_error_and_no_end(slurm):
    slurm(
        "scontrol", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    )
    with pytest.raises(LvrayError, match="Unable to contact"):
        look("7")
