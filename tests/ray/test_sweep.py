"""A small sweep as a person runs it: the command, in a process of its own, on a real local Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from socket import gethostname
from time import monotonic, sleep

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
SMALL = Path(__file__).with_name("small.yaml")


def start(home: Path, *more: str) -> subprocess.Popen[str]:
    """The command as people give it: where they stand, with run folders in ``runs``."""
    command = [sys.executable, "-m", "lvray.sweep", str(SMALL), *more]
    return subprocess.Popen(
        command, cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"lvray.{verb}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def audit(folder: Path) -> dict:
    return json.loads(run("audit", folder, "--json").stdout)


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def wait_for(folder: Path, event: str, count: int = 1, seconds: float = 120) -> None:
    """Waits until the journal holds `count` records of `event`."""
    end = monotonic() + seconds
    while monotonic() < end:
        if (folder / "journal.jsonl").exists():
            text = (folder / "journal.jsonl").read_text()
            if text.count(f'"event":"{event}"') >= count:
                return
        sleep(0.1)
    pytest.fail(f"no {count} records of {event} in {seconds} s")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run folder of the small sweep, run to its end."""
    home = tmp_path_factory.mktemp("home")
    driver = start(home)
    out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    assert err == ""
    assert "report.html" in out
    return home / "runs" / "small"


def test_the_books_of_a_finished_sweep_are_in_order_and_its_budget_is_used(finished):
    told = audit(finished)
    assert told["ok"], told["findings"]
    spent, budget = int(told["spent"]), int(told["budget"])
    assert 0.97 * budget <= spent <= budget
    assert told["lost"] == told["reserved"] == "0"


def test_stages_that_end_nothing_early_spend_their_plan_to_the_flop(finished):
    plan = json.loads(run("plan", SMALL, "--json").stdout)
    planned = {stage["name"]: stage for stage in plan["stages"]}
    spent = {stage["name"]: stage for stage in audit(finished)["stages"]}
    assert spent["baseline"]["spent"] == planned["baseline"]["flops"]
    ledger_of_final = int(spent["final"]["spent"])
    assert ledger_of_final >= int(
        planned["final"]["flops"]
    )  # it also gets what the search returned
    assert int(spent["search"]["spent"]) <= int(planned["search"]["flops"])


def test_trials_share_two_workers_that_live_on(finished):
    trials = [row for row in journal(finished) if row["event"] == "start"]
    assert len({row["trial_id"] for row in trials}) == 6
    assert len(trials) > 6 or any(row["event"] == "decision" for row in journal(finished))


def test_what_a_person_wants_lies_in_the_run_folder(finished):
    for name in (
        "sweep.yaml",
        "environment.json",
        "split.json",
        "report.html",
        "report.md",
        "flops.csv",
    ):
        assert (finished / name).stat().st_size > 0, name
    assert (finished / "best" / "adapter_model.safetensors").exists()
    assert "validation_loss" in (finished / "best" / "README.md").read_text()
    assert "FLOPs by stage" in (finished / "report.md").read_text()
    assert "<svg" in (finished / "report.html").read_text()


def test_a_finished_sweep_is_not_run_again(finished):
    names = ("ledger.jsonl", "journal.jsonl", "environment.json", "report.md", "report.html")
    before = {name: (finished / name).read_text() for name in names}
    driver = start(finished.parents[1], "--set", "resources.workers=1")
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    assert {name: (finished / name).read_text() for name in names} == before


def test_another_sweep_file_is_refused_with_the_difference(finished):
    driver = start(finished.parents[1], "--set", "budget=3e11")
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert "budget" in err
    assert "250000000000" in err
    assert "300000000000" in err
    assert "Traceback" not in err


def test_a_driver_killed_twice_goes_on_and_charges_what_was_lost(tmp_path):
    folder = tmp_path / "runs" / "small"
    for event, count in (("start", 1), ("measurement", 6)):
        driver = start(tmp_path)
        wait_for(folder, event, count)
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
        assert audit(folder)["ok"]
    driver = start(tmp_path)
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    told = audit(folder)
    assert told["ok"], told["findings"]
    assert int(told["lost"]) > 0
    assert int(told["spent"]) <= int(told["budget"])
    heard = [row["measurement"] for row in journal(folder) if row["event"] == "measurement"]
    places = [(row["trial_id"], row["milestone"]) for row in heard]
    assert len(places) == len(set(places)), "a stretch that was heard of was trained again"
    assert "baseline" in {row["trial_id"] for row in heard}, (
        "what was lost first was not done again"
    )


def test_every_attempt_says_of_which_run_it_is(finished):
    began = journal(finished)[0]["at"]
    claims = [path.read_text().split() for path in (finished / "trials").glob("*/attempt")]
    assert len(claims) == 6
    assert {run for _, run in claims} == {began}


def test_ctrl_c_ends_in_seconds_and_says_how_to_go_on(tmp_path):
    driver = start(tmp_path)
    wait_for(tmp_path / "runs" / "small", "measurement", 2)
    begun = monotonic()
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=60)
    assert monotonic() - begun < 30
    assert driver.returncode == 130
    assert "goes on from here" in out
    assert "Traceback" not in err
    told = audit(tmp_path / "runs" / "small")
    assert told["ok"], told["findings"]
    assert told["reserved"] == "0"


def test_a_worker_that_is_killed_is_tried_again_from_its_checkpoint(tmp_path):
    folder = tmp_path / "runs" / "small"
    driver = start(tmp_path)
    wait_for(folder, "measurement", 3)
    workers = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    family = {driver.pid}
    rows = [line.split(None, 2) for line in workers.splitlines()[1:]]
    for _ in range(4):  # driver → raylet → worker
        family |= {int(pid) for pid, parent, _ in rows if int(parent) in family}
    victims = [
        int(pid) for pid, _, args in rows if int(pid) in family and "ray::ImplicitFunc" in args
    ]
    assert victims, "no worker of this driver was found"
    os.kill(victims[0], signal.SIGKILL)
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    failures = [row for row in journal(folder) if row["event"] == "failure"]
    assert failures
    assert failures[0]["status"] in {"planned", "paused"}
    assert failures[0]["reason"] == f"the worker process on {gethostname()} ended without a word"
    assert audit(folder)["ok"]


def test_a_sweep_that_is_asked_to_pause_loses_nothing_and_goes_on_where_it_stood(tmp_path):
    folder = tmp_path / "runs" / "small"
    stops = (
        ("start", 2),
        ("measurement", 5),
    )  # while the workers load the model, and as they train
    for times, (event, count) in enumerate(stops, 1):
        driver = start(tmp_path)
        wait_for(folder, event, count)
        driver.send_signal(signal.SIGUSR1)
        out, err = driver.communicate(timeout=120)
        assert driver.returncode == 75, (out, err)
        assert "goes on from here" in err
        assert "Traceback" not in err
        told = audit(folder)
        assert told["ok"], told["findings"]
        assert (told["lost"], told["reserved"]) == ("0", "0")
        rows = [row["event"] for row in journal(folder)]
        assert rows.count("session") == times
    driver = start(tmp_path)
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    told = audit(folder)
    assert told["ok"], told["findings"]
    assert told["lost"] == "0"
    assert int(told["spent"]) >= 0.97 * int(told["budget"])


def test_a_trial_that_paused_between_milestones_does_none_of_its_steps_again(tmp_path):
    """One long stretch, without Ray: the driver and the trial are one process."""
    command = [sys.executable, "-m", "lvray.train", str(SMALL), "--steps", "1000"]
    command += ["--evaluations", "1", "--set", "budget=1e13"]
    folder = tmp_path / "runs" / "small-train"
    steps = []
    for _ in range(2):
        driver = subprocess.Popen(
            command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_for(folder, "start", len(steps) + 1)
        place = folder / "trials" / "train"
        while driver.poll() is None and not (place / "attempt").exists():
            sleep(0.1)
        sleep(4)
        driver.send_signal(signal.SIGUSR1)
        _, err = driver.communicate(timeout=60)
        assert driver.returncode == 75, err
        steps = [row["pause"]["step"] for row in journal(folder) if row["event"] == "pause"]
    assert 0 < steps[0] < steps[1] < 1000, steps
    last = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    plan = next(row for row in journal(folder) if row["event"] == "stage")
    told = audit(folder)
    assert told["ok"], told["findings"]
    assert told["spent"] == plan["trials"][0]["milestones"][-1]["flops"]
