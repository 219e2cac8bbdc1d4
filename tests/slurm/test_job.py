"""Whole sweeps as jobs of a real Slurm: two nodes, time limits, cancellations, a node that dies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
NODES = ("lvt1", "lvt2")
BOTH = ("--nodes=2", "--cpus-per-task=1")
ONE = ("--nodelist=lvt1", "--cpus-per-task=1")
LONGER = ("--set", "budget=4e11")
LONG = ("--set", "budget=9e11")
ENDLESS = ("--set", "budget=1e14")
"""Hours: of a job that is ended as soon as something has been seen."""


def wait_for_one_on_each(site, job):
    """Waits until a trial is at work on each node."""

    def one_on_each():
        return len(job.running()) == 2 and all(map(site.trials, NODES))

    job.wait_until(one_on_each, "a trial on each node")


def assert_finished(job):
    """A sweep that ended well, with its budget spent and its books in order."""
    assert job.end() == "COMPLETED", job.log()
    told = job.audit()
    assert told["ok"], told["findings"]
    assert told["reserved"] == "0"
    assert 0.9 * int(told["budget"]) <= int(told["spent"]) <= int(told["budget"])
    assert (job.folder / "report.html").exists()
    heard = [row["measurement"] for row in job.journal("measurement")]
    places = [(row["trial_id"], row["milestone"]) for row in heard]
    assert len(places) == len(set(places)), "a stretch that was heard of was trained again"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "slurm").glob("*.sbatch")), ids=lambda path: path.name
)
def test_slurm_takes_the_job_file_as_it_is(site, path):
    site.run("sbatch", "--test-only", str(path), "sweeps/coursework.yaml")


def test_a_sweep_runs_on_two_nodes(site, tmp_path):
    job = site.submit(tmp_path, *LONGER, options=BOTH)
    assert_finished(job)
    assert {row["measurement"]["host"] for row in job.journal("measurement")} == set(NODES)
    assert int(job.audit()["lost"]) == 0


def test_a_job_that_meets_its_time_limit_pauses_queues_itself_again_and_finishes(site, tmp_path):
    options = (*BOTH, "--time=30", "--signal=B:USR1@120")
    job = site.submit(tmp_path, *LONG, options=options, LVRAY_NOTICE="120")

    def on_its_way():  # to a rung that is three times as far as the one before
        return any(row["status"] == "running" for row in job.journal("decision"))

    job.wait_until(on_its_way, "a trial goes on to its second rung")
    before = site.seconds_worked()
    job.wait_until(lambda: site.seconds_worked() > before + 0.5, "some steps towards it")
    with site.frozen_trials():  # so that no machine is fast enough to be done before the notice
        limit = job.minutes() + 3  # the notice comes up to a minute early
        site.run("scontrol", "update", f"JobId={job.number}", f"TimeLimit={limit}")
        job.wait_until((job.folder / "pause").exists, "the trials are asked to pause")
    job.wait_until(lambda: "queued again" in job.log(), "it was queued again")
    site.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=30")  # once is enough
    told = job.audit()
    assert told["ok"], told["findings"]
    assert told["reserved"] == "0"
    milestones = {
        trial["trial_id"]: {milestone["step"] for milestone in trial["milestones"]}
        for row in job.journal("stage")
        for trial in row["trials"]
    }
    pauses = [row["pause"] for row in job.journal("pause")]
    assert any(each["step"] not in {0, *milestones[each["trial_id"]]} for each in pauses), (
        "no trial was paused between two milestones"
    )
    assert_finished(job)
    assert job.shown()["Restarts"] == "1"
    told = job.audit()
    assert told["lost"] == "0"
    priced = {
        trial["trial_id"]: trial["milestones"][-1]["flops"]
        for row in job.journal("stage")
        for trial in row["trials"]
    }
    ended = {row["trial_id"] for row in job.journal("decision") if row["status"] == "completed"}
    heard = {
        name: trial["heard"] for stage in told["stages"] for name, trial in stage["trials"].items()
    }
    assert ended
    assert {name: heard[name] for name in ended} == {name: priced[name] for name in ended}, (
        "steps that were done before the pause were done again"
    )


def test_a_notice_that_comes_before_anything_has_started_queues_the_job_again(site, tmp_path):
    job = site.submit(tmp_path, options=ONE, LVRAY_SETUP=f"touch {tmp_path}/begun; sleep 5")
    job.wait_until((tmp_path / "begun").exists, "its script began")
    site.run("scancel", "--batch", "--signal=USR1", job.number)
    job.wait_until(lambda: "queued again" in job.log(), "it was queued again")
    assert job.shown()["Restarts"] == "1"
    assert not job.folder.exists()
    job.cancel()
    assert job.end() == "CANCELLED"


def test_trials_that_do_not_pause_in_time_are_ended_and_the_job_is_queued_again(site, tmp_path):
    job = site.submit(tmp_path, *ENDLESS, options=BOTH, LVRAY_NOTICE="60")
    wait_for_one_on_each(site, job)
    before = site.seconds_worked()
    job.wait_until(lambda: site.seconds_worked() > before + 2, "the trials have begun")
    with site.frozen_trials():
        site.run("scancel", "--batch", "--signal=USR1", job.number)
        job.wait_until(lambda: "queued again" in job.log(), "it was queued again")
    assert "the driver did not pause within 10 s: ending it" in job.log()
    told = job.audit()
    assert told["ok"], told["findings"]
    assert told["reserved"] == "0"
    assert told["lost"] != "0", "what the trials had begun is charged"
    job.cancel()
    assert job.end() == "CANCELLED"


def test_a_cancelled_job_closes_its_books_and_the_same_command_goes_on(site, tmp_path):
    job = site.submit(tmp_path, options=BOTH)
    job.wait_for("measurement", 3)
    job.cancel()
    assert job.end() == "CANCELLED"
    told = job.audit()
    assert told["ok"], told["findings"]
    assert told["reserved"] == "0"
    assert "ended with 130" in job.log()
    heard = job.journal("measurement")
    again = site.submit(tmp_path, options=BOTH)
    assert_finished(again)
    assert again.journal("measurement")[: len(heard)] == heard


def test_a_node_that_dies_takes_its_trials_and_the_other_finishes_the_sweep(site, tmp_path):
    job = site.submit(tmp_path, *LONGER, options=BOTH)
    job.wait_for("measurement", 3)
    wait_for_one_on_each(site, job)
    try:
        with site.frozen_trials():
            site.kill("lvt2")
        assert_finished(job)
        assert job.audit()["lost"] != "0"
        assert job.journal("failure")
        assert job.journal("measurement")[-1]["measurement"]["host"] == "lvt1"
    finally:
        site.restart("lvt2")


@pytest.mark.long
def test_when_the_first_node_dies_and_the_driver_with_it_the_job_is_queued_again(site, tmp_path):
    job = site.submit(tmp_path, options=BOTH)
    job.wait_for("measurement", 3)
    try:
        site.kill("lvt1")
        job.wait_for_requeue()
    finally:
        site.restart("lvt1")
    assert_finished(job)
    assert job.audit()["lost"] != "0"


def test_two_jobs_of_one_user_on_one_node_do_not_end_each_other(site, tmp_path):
    homes = tmp_path / "first", tmp_path / "second"
    for home in homes:
        home.mkdir()
    first = site.submit(homes[0], *ENDLESS, options=ONE)
    first.wait_for("measurement")
    second = site.submit(homes[1], *LONGER, options=ONE)
    second.wait_for("measurement")
    first.cancel()
    assert first.end() == "CANCELLED"
    assert second.shown()["JobState"] == "RUNNING"
    assert_finished(second)
    assert second.journal("failure") == []
    assert second.audit()["lost"] == "0"


JOIN = """
import ray, sys
ray.init(address=sys.argv[1], logging_level="ERROR")
print("joined", ray.cluster_resources().get("GPU", 0))
"""


def joined(site, job, token):
    """What a client with that token is told, on the first node: whether it may join, and how many GPUs there are."""
    words = (os.fspath(site.environment["LVRAY_PYTHON"]), "-c", JOIN, job.address)
    client = site.on("lvt1", *words, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    assert job.shown()["JobState"] == "RUNNING"
    return client


def test_only_the_jobs_token_opens_its_ray_and_nobody_else_comes_near(site, tmp_path):
    job = site.submit(tmp_path, *ENDLESS, options=(*BOTH, "--gpus-per-node=1"))
    job.wait_for("measurement")
    file = site.disk("lvt1") / f"lvray-{job.number}" / "token"
    token = file.read_text()
    assert len(token) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700, "Ray opens its own folder to everyone"
    lines = [line for node in NODES for line in site.processes(node).values()]
    assert any("raylet" in line for line in lines)
    assert not any(token in line for line in lines)
    assert token not in job.log()

    assert "joined 2.0" in joined(site, job, token).stdout
    refused = joined(site, job, "0" * 64)
    assert refused.returncode != 0
    assert "joined" not in refused.stdout

    if find_spec("aiohttp_cors"):  # ray[default] is installed: there is a dashboard
        port = int(job.address.split(":")[1]) + 1
        assert f"127.0.0.1:{port} " in job.log()
        listening = site.on("lvt1", "ss", "--listening", "--tcp", "--numeric", "--no-header")
        places = [line.split()[3] for line in listening.stdout.splitlines()]
        assert [place for place in places if place.endswith(f":{port}")] == [f"127.0.0.1:{port}"]
    job.cancel()
    job.end()


@pytest.mark.parametrize(
    "asked",
    ["--gres=gpu:1", pytest.param("--gpus-per-task=1", marks=pytest.mark.long)],
)  # --gpus-per-node stands above
def test_ray_has_the_gpus_that_slurm_gave(site, tmp_path, asked):
    job = site.submit(tmp_path, *ENDLESS, options=(*BOTH, asked))
    job.wait_for("measurement")  # by then both nodes are there
    token = site.disk("lvt1") / f"lvray-{job.number}" / "token"
    assert "joined 2.0" in joined(site, job, token.read_text()).stdout
    job.cancel()
    job.end()


ONCE_IN_VAIN = """#!/bin/bash
if [[ "$*" == *"{when}"* ]] && mkdir {mark} 2>/dev/null; then
    echo "not this time" >&2
    exit 1
fi
{command} "$@" & pid=$!  # a process of its own, as containers have it
trap 'kill -USR1 $pid' USR1
trap 'kill -TERM $pid' TERM
wait $pid || {{ code=$?; wait $pid 2>/dev/null || code=$?; exit $code; }}
"""


def test_what_fails_once_as_ray_starts_or_slurm_is_busy_is_tried_again(site, tmp_path):
    commands = {
        "python": (site.environment["LVRAY_PYTHON"], "start --block"),
        "scontrol": (shutil.which("scontrol"), "show job"),
    }
    for name, (command, when) in commands.items():
        fails = tmp_path / "bin" / name
        fails.parent.mkdir(exist_ok=True)
        mark = tmp_path / f"{name}-was-asked"
        fails.write_text(ONCE_IN_VAIN.format(command=command, when=when, mark=mark))
        fails.chmod(0o755)
    path, python = tmp_path / "bin", tmp_path / "bin" / "python"
    set_up = f"PATH={path}:$PATH"
    job = site.submit(
        tmp_path, *ENDLESS, options=BOTH, LVRAY_SETUP=set_up, LVRAY_PYTHON=str(python)
    )
    job.wait_for("session")
    assert "once more in 3 s: scontrol show job" in job.log()
    assert "Ray did not start on lvt1 (attempt 1 of 3)" in job.log()
    assert "attempt 2 of 3" not in job.log()
    job.cancel()
    job.end()


LISTEN = "import socket, sys; s = socket.create_server(('', int(sys.argv[1]))); s.accept()"


def test_a_port_that_somebody_else_has_is_told(site, tmp_path):
    job = site.submit(tmp_path, options=(*ONE, "--hold"))
    port = 20000 + 10 * (int(job.number) % 1000) + 4
    enter = ["nsenter", "--all", f"--target={site.first_process('lvt1')}"]
    with subprocess.Popen([*enter, sys.executable, "-c", LISTEN, str(port)]) as other:
        try:
            site.run("scontrol", "release", job.number)
            assert job.end() == "FAILED"
        finally:
            other.kill()
    assert f"port {port} of lvt1 is taken" in job.log()
    assert job.log().count("Ray did not start on lvt1") == 1, "nothing is gained by another attempt"


@pytest.mark.parametrize(
    ("options", "environment", "told"),
    [
        ((), {"LVRAY_SCRATCH": "/tmp/" + 60 * "x"}, "is too long"),
        (("--time=4",), {}, "no time to work"),
        (("--gpus=1",), {}, "--gpus=1 leaves open which node has how many"),
        ((), {"LVRAY_PYTHON": "/usr/bin/false"}, "cannot import lvray and ray"),
    ],
    ids=["scratch", "time", "gpus", "python"],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    site, tmp_path, options, environment, told
):
    job = site.submit(tmp_path, options=(*ONE, *options), **environment)
    assert job.end() == "FAILED"
    assert job.shown()["ExitCode"] == "2:0"
    assert told in job.log()
    assert not job.folder.exists()


def test_what_the_script_is_told_to_set_up_is_there_for_the_driver(site, tmp_path):
    """Module files of sites use variables that are not set, and commands that fail."""
    setup = 'false; test -n "$NO_SUCH_THING"; export LVRAY_PYTHON=$PYTHON_OF_THE_SITE'
    job = site.submit(
        tmp_path,
        "--no-such-argument",
        options=ONE,
        LVRAY_SETUP=setup,
        LVRAY_PYTHON="/usr/bin/false",
        PYTHON_OF_THE_SITE=site.environment["LVRAY_PYTHON"],
    )
    assert job.end() == "FAILED"
    assert "unrecognized arguments: --no-such-argument" in job.log()
    assert job.shown()["ExitCode"] == "2:0"
