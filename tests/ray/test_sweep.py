"""A small sweep as a person runs it: the command, in a process of its own, on a real local Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import gethostname
from time import monotonic, sleep

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
SMALL = Path(__file__).with_name("small.yaml")
PATIENCE = 1200
"""Seconds until something that a test waits for is taken to never come: a machine may be slow, and its cores others'."""

_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _none_goes_on() -> Iterator[None]:
    """A test that fails leaves no driver that trains for hours."""
    yield
    while _started:
        driver = _started.pop()
        if driver.poll() is None:
            driver.kill()
            driver.communicate()


def start(home: Path, *more: str) -> subprocess.Popen[str]:
    """The command as people give it: where they stand, with run folders in ``runs``."""
    command = [sys.executable, "-m", "lvray.sweep", str(SMALL), *more]
    driver = subprocess.Popen(
        command, cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _started.append(driver)
    return driver


def run(verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"lvray.{verb}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def audit(folder: Path) -> dict:
    return json.loads(run("audit", folder, "--json").stdout)


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def wait_until(driver: subprocess.Popen[str], what: str, happened: Callable[[], bool]) -> None:
    """Waits until something has happened, unless the driver ends before it."""
    end = monotonic() + PATIENCE
    while True:
        ended = driver.poll()
        if happened():
            return
        if ended is not None:
            pytest.fail(f"the driver ended with {ended} before {what}: {driver.communicate()[1]}")
        if monotonic() > end:
            pytest.fail(f"not in {PATIENCE} s: {what}")
        sleep(0.05)


def wait_for(
    driver: subprocess.Popen[str], folder: Path, event: str, count: int = 1, *, of: str = ""
) -> None:
    """Waits until the journal holds `count` records of `event`, of one trial if it is named."""
    told = (f'"event":"{event}"', f'"trial_id":"{of}"' if of else "")

    def happened() -> bool:
        place = folder / "journal.jsonl"
        lines = place.read_text().splitlines() if place.exists() else []
        return sum(all(word in line for word in told) for line in lines) >= count

    wait_until(driver, f"{count} records of {event} {of}", happened)


def workers_of(driver: subprocess.Popen[str]) -> list[int]:
    """Ids of the processes in which the driver's trials run."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    family = {driver.pid}
    for _ in range(4):  # driver → raylet → worker
        family |= {int(pid) for pid, parent, _ in rows if int(parent) in family}
    return [int(pid) for pid, _, args in rows if int(pid) in family and "ray::ImplicitFunc" in args]


def wait_for_work(driver: subprocess.Popen[str], seconds: float) -> None:
    """Waits until one of the workers that are there has computed for so long: what its trial does by then is training."""
    begun = {worker: seconds_computed(worker) for worker in workers_of(driver)}
    wait_until(
        driver,
        f"{seconds} s of work",
        lambda: any(seconds_computed(worker) - had >= seconds for worker, had in begun.items()),
    )


def seconds_computed(worker: int) -> float:
    """Of CPU, by all threads of a process; 0 once it has ended."""
    try:
        told = Path(f"/proc/{worker}/stat").read_text()
    except OSError:
        return 0.0
    user, system = told.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run folder of the small sweep, run to its end."""
    home = tmp_path_factory.mktemp("home")
    driver = start(home)
    out, err = driver.communicate(timeout=PATIENCE)
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
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    assert {name: (finished / name).read_text() for name in names} == before


def test_another_sweep_file_is_refused_with_the_difference(finished):
    driver = start(finished.parents[1], "--set", "budget=3e11")
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 1
    assert "budget" in err
    assert "250000000000" in err
    assert "300000000000" in err
    assert "Traceback" not in err


def test_a_driver_killed_twice_goes_on_and_charges_what_was_lost(tmp_path):
    folder = tmp_path / "runs" / "small"
    lost = []
    # while the first trial loads the model, and with a stretch of the last one behind it and three ahead
    for event, of in (("start", "baseline"), ("decision", "final")):
        driver = start(tmp_path)
        wait_for(driver, folder, event, of=of)
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
        told = audit(folder)
        assert told["ok"], told["findings"]
        assert int(told["reserved"]) > 0, "nothing ran when the driver was killed"
        lost.append(int(told["lost"]))
    driver = start(tmp_path)
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    told = audit(folder)
    assert told["ok"], told["findings"]
    assert 0 == lost[0] < lost[1] < int(told["lost"])
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
    folder = tmp_path / "runs" / "small"
    driver = start(tmp_path, "--set", "budget=1e15")  # a stretch takes half an hour
    claims = folder / "trials"
    wait_until(driver, "two trials", lambda: len(list(claims.glob("search-*/attempt"))) == 2)
    wait_for_work(driver, 3)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 130
    assert "goes on from here" in out
    assert "Traceback" not in err
    ended = [row["trial_id"] for row in journal(folder) if row["event"] == "interruption"]
    assert len(ended) == 2, "no trials ran when Ctrl-C came"
    told = audit(folder)
    assert told["ok"], told["findings"]
    assert told["reserved"] == "0"


def test_a_worker_that_is_killed_is_tried_again_from_its_checkpoint(tmp_path):
    folder = tmp_path / "runs" / "small"
    driver = start(tmp_path)
    wait_for(driver, folder, "measurement", 3)
    victims: list[int] = []

    def found() -> bool:
        victims[:] = workers_of(driver)
        return bool(victims)

    wait_until(driver, "a worker", found)
    for victim in victims:  # all: one alone may be idle
        os.kill(victim, signal.SIGKILL)
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    failures = [row for row in journal(folder) if row["event"] == "failure"]
    assert failures
    assert failures[0]["status"] in {"planned", "paused"}
    assert failures[0]["reason"] == f"the worker process on {gethostname()} ended without a word"
    assert audit(folder)["ok"]


def pauses_between_milestones(folder: Path) -> list[tuple[str, int]]:
    """Trials that paused when they had trained, and not at a milestone, each with its step."""
    rows = journal(folder)
    planned = [trial for row in rows if row["event"] == "stage" for trial in row["trials"]]
    stops = {
        trial["trial_id"]: {0, *(milestone["step"] for milestone in trial["milestones"])}
        for trial in planned
    }
    pauses = [row["pause"] for row in rows if row["event"] == "pause"]
    places = [(pause["trial_id"], pause["step"]) for pause in pauses]
    return [(name, step) for name, step in places if step not in stops[name]]


def test_a_sweep_that_is_asked_to_pause_loses_nothing_and_goes_on_where_it_stood(tmp_path):
    folder = tmp_path / "runs" / "small"
    larger = ("--set", "budget=2e12")  # trials look once a second whether they are asked
    # while the workers load the model, and as they train
    for times, (event, count) in enumerate((("start", 2), ("measurement", 5)), 1):
        driver = start(tmp_path, *larger)
        wait_for(driver, folder, event, count)
        if event == "measurement":
            wait_for_work(driver, 0.5)
        driver.send_signal(signal.SIGUSR1)
        out, err = driver.communicate(timeout=PATIENCE)
        assert driver.returncode == 75, (out, err)
        assert "goes on from here" in err
        assert "Traceback" not in err
        told = audit(folder)
        assert told["ok"], told["findings"]
        assert (told["lost"], told["reserved"]) == ("0", "0")
        rows = [row["event"] for row in journal(folder)]
        assert rows.count("session") == times
    assert pauses_between_milestones(folder), "no trial paused as it trained"
    driver = start(tmp_path, *larger)
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    told = audit(folder)
    assert told["ok"], told["findings"]
    assert told["lost"] == "0"
    assert int(told["spent"]) >= 0.97 * int(told["budget"])


TRAIN = """
import os, signal, sys
from lvray import train
from lvray.trainer.batches import Batches
at = Batches.at
def ask_on_the_way(self, step):
    with open("steps", "a") as done:
        print(step, file=done)
    if step == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGUSR1)
    return at(self, step)
Batches.at = ask_on_the_way
raise SystemExit(train.main(sys.argv[2:]))
"""
"""`lvray.train` that notes its steps and is asked to pause in the midst of one: driver and trial are one process here."""


def test_a_trial_that_paused_between_milestones_does_none_of_its_steps_again(tmp_path):
    """One long stretch in three sessions."""
    folder = tmp_path / "runs" / "small-train"
    sweep = [str(SMALL), "--steps", "200", "--evaluations", "1", "--set", "budget=1e13"]

    def train(asked_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", TRAIN, str(asked_at), *sweep]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    for asked_at in (60, 120):
        paused = train(asked_at)
        assert paused.returncode == 75, paused.stderr
    steps = [row["pause"]["step"] for row in journal(folder) if row["event"] == "pause"]
    assert steps == [61, 121]
    last = train(-1)
    assert last.returncode == 0, last.stderr
    assert (tmp_path / "steps").read_text().split() == [str(step) for step in range(200)]
    plan = next(row for row in journal(folder) if row["event"] == "stage")
    told = audit(folder)
    assert told["ok"], told["findings"]
    assert told["spent"] == plan["trials"][0]["milestones"][-1]["flops"]
