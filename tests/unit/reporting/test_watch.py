from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from lvray.core.errors import JournalCorrupt, RunFolderError
from lvray.core.trial import Measurement, StagePlan, StepPrices, TrialConfig, TrialPlan
from lvray.ledger.ledger import Ledger, Transfer
from lvray.reporting.facts import read_facts
from lvray.reporting.live import Scene, render
from lvray.reporting.watch import POLL_SECONDS, Followed, watch
from lvray.scheduler.milestones import unroll
from lvray.scheduler.registry import policy_of
from lvray.scheduler.scheduler import Scheduler

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
"""When all records of the invented runs were written."""


class Time:
    """A clock that only sleeping moves. Each sleep first does the next thing that happens elsewhere."""

    def __init__(self, *happenings, at: datetime = BEGUN) -> None:
        self.now = at
        self.happenings = list(happenings)

    def clock(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds == POLL_SECONDS
        self.now += timedelta(seconds=seconds)
        if not self.happenings:
            raise KeyboardInterrupt
        self.happenings.pop(0)()

    def passes(self, seconds: float):
        def pass_by() -> None:
            self.now += timedelta(seconds=seconds)

        return pass_by


def watched(root: Path, time: Time, *, terminal: bool = False) -> str:
    """What a watch shows until it ends by itself, or by Ctrl-C when nothing more happens elsewhere."""
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=terminal, no_color=True, highlight=False)
    try:
        watch(root, console=console, clock=time.clock, sleep=time.sleep)
    except KeyboardInterrupt:
        console.print("^C")
    return re.sub(r"\x1b\[[\d;?]*\w", "", text.getvalue()) if terminal else text.getvalue()


def nothing() -> None:
    """Nothing happens."""


def begin(run, count: int = 2, *, stage: str = "search") -> Scheduler:
    """Begins a stage of `count` trials of three stretches, 100 steps of 100 FLOPs each."""
    prices = StepPrices(train_step=100, evaluation=400, forecast=1)
    stretches = unroll(prices, [(100, None), (200, None), (300, None)], forecast=False)
    plans = tuple(
        TrialPlan(f"{stage}-{index}", stage, TrialConfig(), stretches, prices)
        for index in range(count)
    )
    plan = StagePlan(stage, plans, sum(plan.price for plan in plans), "fixed")
    run.books.allow(stage, plan.allowance, key="1")
    run.record({"event": "stage", **plan.to_json()})
    return Scheduler(plan, policy_of(plan), run.books, run.record)


class Driver:
    """Works on the first stage of an invented run, a stretch at a time."""

    def __init__(self, run) -> None:
        self.run = run
        self.scheduler = begin(run)
        self.grant = None

    def start(self) -> None:
        self.grant = self.scheduler.next_grant()

    def report(self, milestone: int = 0, seconds: float = 60.0) -> None:
        plan = self.grant.plan
        reached = plan.milestones[milestone]
        self.scheduler.hear(
            Measurement(
                plan.trial_id,
                self.grant.attempt,
                milestone,
                reached.step,
                reached.flops,
                0.9 - milestone / 10,
                seconds,
            )
        )

    def end(self) -> None:
        self.run.record({"event": "sweep_end", "best": None, "reason": "enough"})


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
    }


def test_a_sweep_that_has_ended_is_shown_as_its_driver_showed_it_and_the_watch_ends(finished):
    text = watched(finished, Time(at=BEGUN + timedelta(hours=1)), terminal=True)
    facts = read_facts(finished)
    scene = Scene(facts.history, facts.ledger)
    picture = io.StringIO()
    Console(file=picture, width=100).print(
        render(scene, elapsed=0, spent_before=0, width=100), end=""
    )
    for line in picture.getvalue().splitlines():
        assert line.rstrip() in text
    assert "the sweep has ended: " in text
    assert f"report: {finished / 'report.html'}" in text.replace("\n", "")


def test_a_report_that_is_not_there_yet_is_being_made(finished, tmp_path):
    for name in ("journal.jsonl", "ledger.jsonl"):
        shutil.copy(finished / name, tmp_path)
    *_, last = watched(tmp_path, Time()).splitlines()
    assert last == f"report: {tmp_path / 'report.html'} (its driver is making it)"
    (tmp_path / "report.html").touch()
    *_, last = watched(tmp_path, Time()).splitlines()
    assert last == f"report: {tmp_path / 'report.html'}"


def test_in_a_log_each_event_is_a_line_when_it_happens(invented):
    driver = Driver(invented)
    time = Time(driver.start, driver.report, lambda: driver.report(1), driver.end)
    lines = watched(invented.root, time).splitlines()
    assert [line.split()[2:5] for line in lines[:-2]] == [
        ["search-0", "running", "0/3"],
        ["search-0", "running", "1/3"],
        ["search-0", "running", "2/3"],
    ]
    assert lines[-2].startswith("the sweep has ended")
    assert not any("\x1b" in line for line in lines)


def test_events_between_two_looks_are_told_one_by_one(invented):
    driver = Driver(invented)

    def much() -> None:
        driver.start()
        driver.report(0)
        driver.report(1)
        driver.report(2)

    told = watched(invented.root, Time(much))
    assert [line.split()[4] for line in told.splitlines() if "search-0" in line] == [
        "1/3",
        "2/3",
        "3/3",
    ]


def test_a_folder_that_is_not_there_is_waited_for_and_said_so_once(tmp_path, finished):
    root = tmp_path / "runs" / "invented"
    neighbour = tmp_path / "runs" / "grid"
    neighbour.mkdir(parents=True)
    (neighbour / "journal.jsonl").touch()
    time = Time(nothing, nothing, root.mkdir, lambda: shutil.copytree(finished, root, dirs_exist_ok=True))  # fmt: skip
    lines = watched(root, time).splitlines()
    assert lines[0].startswith(f"{root}: nothing is there; beside it: grid. Waiting for a driver")
    assert lines[1].startswith(f"{root}: no driver has begun in it. Waiting")
    assert lines[-1].startswith("report: ")
    assert sum("Waiting" in line for line in lines) == 2


def test_a_mistyped_folder_above_is_told(tmp_path):
    told = watched(tmp_path / "rums" / "grid", Time())
    assert f"nothing is there, nor is {tmp_path / 'rums'}" in told


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "grid").touch()
    with pytest.raises(RunFolderError, match="a file is there"):
        watched(tmp_path / "grid", Time())


def test_nothing_is_written_and_no_lock_is_taken(invented):
    driver = Driver(invented)
    driver.start()
    for lock in invented.root.glob("*.lock"):
        lock.unlink()
    before = snapshot(invented.root)
    watched(invented.root, Time(nothing, nothing))
    assert snapshot(invented.root) == before


def test_a_line_that_is_half_written_is_read_when_it_is_whole(invented):
    journal = invented.root / "journal.jsonl"
    driver = Driver(invented)
    driver.start()
    known = journal.stat().st_size
    driver.report()
    whole = journal.read_bytes()
    half = known + (len(whole) - known) // 2
    journal.write_bytes(whole[:half])
    time = Time(nothing, nothing, lambda: journal.write_bytes(whole), driver.end)
    told = watched(invented.root, time)
    assert "1/3" in told
    assert "the sweep has ended" in told


def test_a_damaged_line_is_an_error_only_if_it_stays(invented):
    journal = invented.root / "journal.jsonl"
    begin(invented)
    whole = journal.read_bytes()
    damaged = whole + b"\0\0\0\n"
    record = b'{"at":"2026-01-01T00:00:00+00:00","event":"sweep_end"}\n'
    mended = Time(lambda: journal.write_bytes(damaged), lambda: journal.write_bytes(whole + record))
    assert "the sweep has ended" in watched(invented.root, mended)
    journal.write_bytes(whole)
    with pytest.raises(JournalCorrupt, match=r"journal\.jsonl, line 3: not a whole record"):
        watched(invented.root, Time(lambda: journal.write_bytes(damaged), nothing, nothing))


def test_a_requeued_job_is_followed_and_its_time_counts_from_its_own_beginning(invented):
    driver = Driver(invented)
    driver.start()
    driver.report()
    later = BEGUN + timedelta(hours=3)
    again = {
        **json.loads((invented.root / "journal.jsonl").read_text().splitlines()[0]),
        "at": (later - timedelta(seconds=90)).isoformat(),
    }
    time = Time(lambda: invented.record(again), driver.end, at=later)
    text = watched(invented.root, time, terminal=True)
    assert "3 h 00 min gone" in text
    assert "driver 2 goes on with the sweep" in text
    assert "1 min 32 s gone" in text.split("driver 2")[1]


def test_silence_is_told_with_what_it_may_mean(invented):
    driver = Driver(invented)
    followed = Followed(invented.root, (time := Time()).clock)
    followed.look()
    time.now += timedelta(seconds=59)
    assert followed.note() == ""
    time.now += timedelta(minutes=11, seconds=1)
    assert followed.note().startswith("last heard of 12 min 00 s ago; no trial is running")
    driver.start()
    driver.report(seconds=300.0)
    followed.look()
    assert followed.note() == ""
    time.now += timedelta(seconds=600)
    assert followed.note() == "last heard of 10 min 00 s ago"
    time.now += timedelta(seconds=400)
    assert followed.note() == (
        "last heard of 16 min 40 s ago, and a stretch takes 5 min 00 s: its driver may be queued again, paused or dead"
    )
    driver.end()
    followed.look()
    assert followed.note() == ""


def test_a_pause_is_told_while_it_is_asked_for_and_as_a_good_end_when_it_is_done(invented):
    driver = Driver(invented)
    driver.start()
    followed = Followed(invented.root, (time := Time()).clock)
    followed.look()
    followed.folder.pause.touch()
    assert followed.note().endswith("it is asked to pause: its trials stop at their next step")
    driver.scheduler.interrupt("paused")
    followed.look()
    assert followed.note() == ""
    time.now += timedelta(minutes=12)
    assert followed.folder.pause.exists()
    assert followed.note().startswith("last heard of 12 min 00 s ago; its driver was interrupted")
    followed.folder.pause.unlink()  # as a driver does at its end, or the next one at its start
    driver.start()
    followed.look()
    time.now += timedelta(minutes=12)
    assert followed.note() == "last heard of 12 min 00 s ago"
    for milestone in range(3):
        driver.report(milestone)
    followed.look()
    time.now += timedelta(minutes=2)
    assert "no trial is running: its driver is between stages" in followed.note()


def test_in_a_log_silence_is_told_after_ten_minutes_then_after_twice_as_long(invented):
    begin(invented)
    time = Time()
    time.happenings = [time.passes(minutes * 60) for minutes in (5, 5, 5, 5, 5, 14, 2)]
    told = [line for line in watched(invented.root, time).splitlines() if "last heard" in line]
    assert [line.split("of ")[1].split(" ago")[0] for line in told] == [
        "10 min 04 s",
        "20 min 08 s",
        "41 min 14 s",
    ]


def test_a_driver_whose_clock_is_ahead_is_not_heard_of_in_the_future(invented):
    followed = Followed(invented.root, (time := Time(at=BEGUN - timedelta(minutes=5))).clock)
    followed.look()
    assert followed.quiet == 0
    assert followed.began == followed.seconds()
    time.now += timedelta(seconds=70)
    assert followed.note().startswith("last heard of 1 min 10 s ago")


def test_a_run_that_is_put_aside_makes_way_for_the_one_in_its_place(invented, finished):
    begin(invented)
    root = invented.root

    def fresh() -> None:
        root.rename(root.with_name("invented.1"))
        shutil.copytree(finished, root)

    told = watched(root, Time(fresh))
    assert f"{root} was put aside" in told
    assert "the sweep has ended" in told
    assert "final" in told


def test_what_was_spent_before_a_driver_began_is_none_of_its_pace(invented):
    begin(invented)
    invented.books.reserve("search", "search-0", 3000, key="a")
    path = invented.root / "ledger.jsonl"
    for key, flops, seconds in (("b", 1000, -1), ("c", 500, 1)):
        at = BEGUN + timedelta(seconds=seconds)
        ledger = Ledger.open(path, convention="coursework", clock=lambda at=at: at)
        trial = "trial:invented/search-0"
        ledger.transact([Transfer(flops, trial, "spent", "spend", "", key)])
    followed = Followed(invented.root, Time().clock)
    followed.look()
    assert followed.ledger.balance("spent") == 1500
    assert followed.spent_before == 1000


def test_a_shared_ledger_is_found_by_the_journal(retold, finished, tmp_path):
    shared = tmp_path / "team.jsonl"
    shutil.copy(finished / "ledger.jsonl", shared)

    def change(row):
        if row["event"] == "session":
            row["ledger"] = str(shared)

    root = retold(change)
    (root / "ledger.jsonl").unlink()
    assert "the sweep has ended" in watched(root, Time())
    shared.unlink()
    with pytest.raises(RunFolderError, match=r"team\.jsonl: no ledger is there"):
        watched(root, Time(nothing, nothing))


def command(root: Path) -> list[str]:
    return [sys.executable, "-m", "lvray.report", str(root), "--watch"]


def test_ctrl_c_ends_a_watch_well_and_says_that_the_sweep_goes_on(tmp_path):
    watcher = subprocess.Popen(
        command(tmp_path / "runs" / "grid"),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "100"},
    )
    first = watcher.stdout.readline()
    watcher.send_signal(signal.SIGINT)
    out, err = watcher.communicate(timeout=30)
    assert "Waiting for a driver" in first
    assert out == "\nno longer watching; the sweep goes on\n"
    assert err == ""
    assert watcher.returncode == 0


def test_watching_loads_nothing_heavy_and_a_reader_that_leaves_is_no_mistake(finished):
    program = (
        "import sys\n"
        "from lvray.report import main\n"
        f"code = main([{str(finished)!r}, '--watch'])\n"
        "heavy = {'torch', 'ray', 'transformers', 'matplotlib', 'scipy', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)\n"
    )
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    piped = subprocess.run(
        f"{sys.executable} -m lvray.report {finished} --watch | head -1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert piped.stderr == ""
