"""Whole sweeps as jobs of a real Slurm: two nodes, time limits, cancellations, a node that dies."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
NODES = ("lvt1", "lvt2")
BOTH = ("--nodes=2", "--cpus-per-task=1")
ONE = ("--nodelist=lvt1", "--cpus-per-task=1")
LONG = ("--set", "budget=4e11")


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
    job = site.submit(tmp_path, options=BOTH)
    assert_finished(job)
    assert {row["measurement"]["host"] for row in job.journal("measurement")} == set(NODES)
    assert int(job.audit()["lost"]) == 0


def test_a_job_that_meets_its_time_limit_pauses_queues_itself_again_and_finishes(site, tmp_path):
    options = (*BOTH, "--time=30", "--signal=B:USR1@60")
    job = site.submit(tmp_path, "--set", "budget=9e11", options=options, LVRAY_NOTICE="60")

    def on_its_way():  # to a rung that is three times as far as the one before
        return [row for row in job.journal("decision") if row["status"] == "running"]

    job.wait_until(on_its_way, "a trial goes on to its second rung", 240)
    with site.frozen_trials():  # so that no machine is fast enough to be done before the notice
        limit = job.minutes() + 2  # the notice comes up to a minute early
        site.run("scontrol", "update", f"JobId={job.number}", f"TimeLimit={limit}")
        job.wait_until((job.folder / "pause").exists, "the trials are asked to pause", 150)
    job.wait_until(lambda: "queued again" in job.log(), "it was queued again", 60)
    told = job.audit()
    assert told["ok"], told["findings"]
    assert told["reserved"] == "0"
    used = [int(row["pause"]["flops"]) for row in job.journal("pause")]
    assert any(used), "no trial was paused between two milestones"
    site.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=30")  # once is enough
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
    assert job.end(60) == "CANCELLED"


def test_a_cancelled_job_closes_its_books_and_the_same_command_goes_on(site, tmp_path):
    job = site.submit(tmp_path, options=BOTH)
    job.wait_for("measurement", 3)
    job.cancel()
    assert job.end(60) == "CANCELLED"
    told = job.audit()
    assert told["ok"], told["findings"]
    assert told["reserved"] == "0"
    assert "ended with 130" in job.log()
    heard = job.journal("measurement")
    again = site.submit(tmp_path, options=BOTH)
    assert_finished(again)
    assert again.journal("measurement")[: len(heard)] == heard


def test_a_node_that_dies_takes_its_trials_and_the_other_finishes_the_sweep(site, tmp_path):
    job = site.submit(tmp_path, *LONG, options=BOTH)
    job.wait_for("measurement", 3)
    while not site.trials("lvt2"):
        job.wait_for("start")
    try:
        site.kill("lvt2")
        assert_finished(job)
        assert job.audit()["lost"] != "0"
        assert job.journal("failure")
        assert job.journal("measurement")[-1]["measurement"]["host"] == "lvt1"
    finally:  # the node comes back, as after a boot
        for path in site.disk("lvt2").iterdir():
            shutil.rmtree(path)
        site.restart("lvt2")


@pytest.mark.long
def test_when_the_first_node_dies_and_the_driver_with_it_the_job_is_queued_again(site, tmp_path):
    job = site.submit(tmp_path, options=BOTH)
    job.wait_for("measurement", 3)
    try:
        site.kill("lvt1")
        job.wait_for_requeue()
    finally:  # the node comes back, as after a boot
        for path in site.disk("lvt1").iterdir():
            shutil.rmtree(path)
        site.restart("lvt1")
    assert_finished(job)
    assert job.audit()["lost"] != "0"


def test_two_jobs_of_one_user_on_one_node_do_not_end_each_other(site, tmp_path):
    homes = tmp_path / "first", tmp_path / "second"
    for home in homes:
        home.mkdir()
    first, second = (site.submit(home, options=ONE) for home in homes)
    for job in (first, second):
        job.wait_for("measurement")
    first.cancel()
    assert first.end(60) == "CANCELLED"
    assert second.shown()["JobState"] == "RUNNING"
    assert_finished(second)
    assert second.journal("failure") == []
    assert second.audit()["lost"] == "0"


JOIN = "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR'); print('joined')"


def test_only_the_jobs_token_opens_its_ray_and_nobody_else_comes_near(site, tmp_path):
    job = site.submit(tmp_path, *LONG, options=BOTH)
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

    def client(token):
        words = (os.fspath(site.environment["LVRAY_PYTHON"]), "-c", JOIN, job.address)
        return site.on("lvt1", *words, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)

    assert "joined" in client(token).stdout
    refused = client("0" * 64)
    assert refused.returncode != 0
    assert "joined" not in refused.stdout

    if find_spec("aiohttp_cors"):  # ray[default] is installed: there is a dashboard
        port = int(job.address.split(":")[1]) + 1
        assert f"127.0.0.1:{port} " in job.log()
        listening = site.on("lvt1", "ss", "--listening", "--tcp", "--numeric", "--no-header")
        places = [line.split()[3] for line in listening.stdout.splitlines()]
        assert [place for place in places if place.endswith(f":{port}")] == [f"127.0.0.1:{port}"]
    job.cancel()
    job.end(60)


@pytest.mark.parametrize(
    ("options", "environment", "told"),
    [
        ((), {"LVRAY_SCRATCH": "/tmp/" + 60 * "x"}, "is too long"),
        (("--time=4",), {}, "no time to work"),
        ((), {"LVRAY_PYTHON": "/usr/bin/false"}, "cannot import lvray and ray"),
    ],
    ids=["scratch", "time", "python"],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    site, tmp_path, options, environment, told
):
    job = site.submit(tmp_path, options=(*ONE, *options), **environment)
    assert job.end(60) == "FAILED"
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
    assert job.end(120) == "FAILED"
    assert "unrecognized arguments: --no-such-argument" in job.log()
    assert job.shown()["ExitCode"] == "2:0"
