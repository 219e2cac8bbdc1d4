"""What `ray_tune` takes for granted about Ray Tune. A new Ray that fails here needs another `ray_tune`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from lvray.ray_tune.session import nodes, ray_session

from ray import tune  # isort: skip -- after lvray.ray_tune, which sets what Ray reads when it is imported
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("default"),  # Ray's own warnings are not ours to mend
]


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with ray_session():
        yield


class Queue(Searcher):
    """Suggests what `script` says, one entry a call: a config, None or FINISHED."""

    def __init__(self, script: list[dict | str | None]) -> None:
        super().__init__()
        self.script = script
        self.completed: list[tuple[str, bool]] = []
        self.asked = 0

    def set_search_properties(self, metric, mode, config, **spec) -> bool:
        return True

    def suggest(self, trial_id):
        self.asked += 1
        return self.script.pop(0) if self.script else Searcher.FINISHED

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.completed.append((trial_id, error))

    def save(self, checkpoint_path):
        pass

    def restore(self, checkpoint_path):
        pass

    def __getstate__(self):
        return {}


class Ear(FIFOScheduler):
    """Notes everything that Tune says, and answers with `answer`."""

    _supports_buffered_results = False

    def __init__(self, answer: Callable[[dict], str]) -> None:
        super().__init__()
        self.heard: list[tuple[str, Any]] = []
        self.answer = answer

    def on_trial_result(self, tune_controller, trial, result):
        self.heard.append(("result", result))
        return self.answer(result)

    def on_trial_error(self, tune_controller, trial):
        self.heard.append(("error", trial.config))

    def on_trial_complete(self, tune_controller, trial, result):
        self.heard.append(("complete", trial.config))

    def __getstate__(self):
        return {}

    def of(self, kind: str) -> list[Any]:
        return [what for name, what in self.heard if name == kind]


def go_on(result: dict) -> str:
    return TrialScheduler.CONTINUE


def stop(result: dict) -> str:
    return TrialScheduler.STOP


def run(
    work: Callable[[dict], None],
    script: list[dict | str | None],
    folder: Path,
    *,
    answer: Callable[[dict], str] = go_on,
    cpu: float = 1,
) -> tuple[Queue, Ear]:
    queue, ear = Queue(script), Ear(answer)
    Tuner(
        tune.with_resources(work, {"cpu": cpu}),
        tune_config=TuneConfig(search_alg=queue, scheduler=ear, num_samples=-1, reuse_actors=True),
        run_config=RunConfig(
            storage_path=str(folder), verbose=0, failure_config=FailureConfig(max_failures=0)
        ),
    ).fit()
    return queue, ear


def tell_where(config):
    place = {"pid": os.getpid(), "cwd": str(Path.cwd()), "nice": os.nice(0)}
    tune.report({"n": config["n"], "text": "10" * 20, **place})


def test_nothing_starts_before_it_is_suggested_and_none_only_waits(tmp_path):
    script = [{"n": 1}, None, None, None, {"n": 2}, Searcher.FINISHED]
    queue, ear = run(tell_where, script, tmp_path)
    # a trial is begun while the worker of the one before may still be starting: either may speak first
    assert sorted(result["n"] for result in ear.of("result")) == [1, 2]
    assert queue.script == []
    assert [error for _, error in queue.completed] == [False, False]


def test_one_process_carries_attempt_after_attempt_and_stop_reaches_it_as_system_exit(tmp_path):
    told = tmp_path / "told"

    def work(config):
        try:
            tune.report({"pid": os.getpid()})
        except SystemExit:
            with told.open("a") as file:
                file.write(f"{config['n']} ")
            raise
        raise AssertionError("went on after STOP")

    script = [{"n": n} for n in range(4)]
    _, ear = run(work, script, tmp_path / "tune", answer=stop, cpu=tune_cores())
    assert len({result["pid"] for result in ear.of("result")}) == 1
    assert ear.of("error") == []
    # the last one's process is ended with the stage, and may not come to write
    assert told.read_text().split()[:3] == ["0", "1", "2"]


@pytest.mark.parametrize("waits", [True, False])
def test_a_worker_slow_to_leave_an_attempt_is_waited_for_or_the_next_is_given_up_without_a_word(
    tmp_path, waits
):
    """The thread of an attempt hears of STOP when its worker is to be reset, so that both clocks start at once."""

    def work(config):
        if not waits:
            os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "0"
        try:
            tune.report({"n": config["n"], "pid": os.getpid()})
        finally:
            sleep(5)  # Ray itself would wait for 2 s

    script = [{"n": 1}, {"n": 2}, Searcher.FINISHED]
    _, ear = run(work, script, tmp_path, answer=stop, cpu=tune_cores())
    told = [1, 2] if waits else [1]
    assert [result["n"] for result in ear.of("result")] == told
    assert [config["n"] for config in ear.of("complete")] == told
    assert len({result["pid"] for result in ear.of("result")}) == 1, "no worker was handed on"
    # A Ray that tells of it makes `Relay.look_for_given_up` needless.
    assert ear.of("error") == []


def tune_cores() -> int:
    """All cores of this machine: one trial at a time."""
    return max(node.cpus for node in nodes())


def test_a_worker_stands_elsewhere_is_not_nice_and_brings_text_unchanged(tmp_path):
    _, ear = run(tell_where, [{"n": 1}], tmp_path)
    (result,) = ear.of("result")
    assert Path(result["cwd"]) != Path.cwd()
    assert result["nice"] == os.nice(0)
    assert result["text"] == "10" * 20


def test_a_process_that_is_killed_is_an_error_once_and_is_not_tried_again(tmp_path):
    def work(config):
        if config["n"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        tune.report({"n": config["n"]})

    queue, ear = run(work, [{"n": 1}, {"n": 2}], tmp_path)
    assert [config["n"] for config in ear.of("error")] == [1]
    assert [result["n"] for result in ear.of("result")] == [2]
    assert sorted(error for _, error in queue.completed) == [False, True]


def test_an_exception_is_an_error_and_a_return_is_a_completion(tmp_path):
    def work(config):
        if config["n"] == 1:
            raise ValueError(config["n"])
        tune.report({"n": config["n"]})

    _, ear = run(work, [{"n": 1}, {"n": 2}], tmp_path)
    assert [config["n"] for config in ear.of("error")] == [1]
    assert [config["n"] for config in ear.of("complete")] == [2]


def test_sigusr1_ends_tune_between_two_events(tmp_path):
    def work(config):
        while True:
            tune.report({"n": 1})

    heard = []

    def interrupt(result):
        heard.append(result)
        if len(heard) == 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        return TrialScheduler.CONTINUE

    before = signal.getsignal(signal.SIGUSR1)
    try:
        run(work, [{"n": 1}, None, None], tmp_path, answer=interrupt)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(heard) < 10
