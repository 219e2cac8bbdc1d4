"""Following a job to its end."""

from __future__ import annotations

from dataclasses import replace

from lvray.core.errors import LvrayError
from lvray.launcher.follow import Log, follow
from lvray.launcher.slurm import Seen

WAITS = Seen("PENDING", "Priority", "", 0, 0)
RUNS = Seen("RUNNING", "", "n1", 0, 0)
DONE = Seen("COMPLETED", "", "n1", 0, 0)


class Cluster:
    """A job whose states are given, one a look; the log grows by a line at each."""

    def __init__(self, path, *states):
        self.path, self.states, self.looks = path, states, 0
        self.told, self.shown = [], []

    def look(self):
        state = self.states[min(self.looks, len(self.states) - 1)]
        self.looks += 1
        with self.path.open("a", encoding="utf-8") as log:
            log.write(f"line {self.looks}\n")
        if isinstance(state, str):
            raise LvrayError(state)
        return state

    def follow(self):
        return follow(
            self.look,
            Log(self.path),
            say=self.told.append,
            show=self.shown.append,
            runs_on=lambda node: f"on {node}",
            wait=lambda seconds: None,
        )


def test_states_are_told_once_and_the_log_is_shown_whole(tmp_path):
    job = Cluster(tmp_path / "log", WAITS, WAITS, RUNS, RUNS, DONE, DONE)
    assert job.follow() == DONE
    assert job.told == ["pending (Priority)", "running", "on n1", "completed"]
    assert "".join(job.shown) == (tmp_path / "log").read_text(encoding="utf-8")


def test_a_requeued_job_is_followed_to_its_next_run(tmp_path):
    again = replace(WAITS, restarts=1, reason="BeginTime")
    elsewhere = replace(RUNS, restarts=1, node="n2")
    job = Cluster(
        tmp_path / "log", RUNS, Seen("COMPLETING", "", "n1", 0, 0), again, elsewhere, DONE, DONE
    )
    job.follow()
    assert job.told == [
        "running", "on n1", "completing", "requeued, the 1st time", "pending (BeginTime)", "running", "on n2", "completed",
    ]  # fmt: skip


def test_an_end_that_is_none_is_passed_through(tmp_path):
    """A job that loses its node is NODE_FAIL for a moment before it is requeued."""
    lost = Seen("NODE_FAIL", "", "n1", 0, 0)
    job = Cluster(tmp_path / "log", RUNS, lost, replace(WAITS, restarts=1), DONE, DONE)
    assert job.follow() == DONE


def test_a_job_that_ends_badly_is_given_as_it_was_seen(tmp_path):
    failed = Seen("FAILED", "NonZeroExitCode", "n1", 0, 2)
    job = Cluster(tmp_path / "log", RUNS, failed, failed)
    assert job.follow() == failed
    assert job.told[-1] == "failed (NonZeroExitCode)"


def test_a_job_that_slurm_has_forgotten_has_ended(tmp_path):
    assert Cluster(tmp_path / "log", None).follow() is None
    assert Cluster(tmp_path / "log", RUNS, None).follow() == RUNS


def test_a_scheduler_that_is_silent_for_a_while_is_no_end(tmp_path):
    job = Cluster(tmp_path / "log", DONE, "no answer", "no answer", "no answer", DONE)
    assert job.follow() == DONE
    assert job.told == ["completed", "no answer; still trying", "the scheduler answers again"]
    assert job.looks == 5


def test_a_log_that_is_not_there_yet_is_empty_and_then_read_from_its_start(tmp_path):
    log = Log(tmp_path / "log")
    assert log.more() == ""
    (tmp_path / "log").write_text("a\n", encoding="utf-8")
    assert (log.more(), log.more()) == ("a\n", "")


def test_a_letter_that_is_half_written_waits_for_its_other_half(tmp_path):
    path = tmp_path / "log"
    path.write_bytes("×".encode()[:1])
    log = Log(path)
    assert log.more() == ""
    with path.open("ab") as file:
        file.write("×".encode()[1:])
    assert log.more() == "×"
