"""A sweep over several nodes, which join and leave: Ray's own cluster in one machine, every connection with a token."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from socket import gethostname
from time import monotonic, sleep
from typing import Any

import pytest
import torch

from lvray.core.preemption import Preemption
from lvray.core.run_folder import RunFolder
from lvray.driver import walk
from lvray.driver.walk import Run, open_run
from lvray.ray_tune import session  # first: it sets what Ray reads when it is imported
from lvray.ray_tune.backend import run_stage
from lvray.ray_tune.capacity import Room, Workers, workers_for
from lvray.scheduler.scheduler import Scheduler
from lvray.spec.load import load

import ray  # isort: skip
from ray._private.state import actors  # isort: skip
from ray.cluster_utils import Cluster  # isort: skip

pytestmark = [
    pytest.mark.ray,
    pytest.mark.torch,
    pytest.mark.filterwarnings("default"),  # Ray's own warnings are not ours to mend
]

SWEEP = Path(__file__).with_name("many_nodes.yaml")
STORE = 80 * 1024**2


class Nodes:
    """A head that gives trials nothing, and the nodes beside it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.there: dict[str, Any] = {}
        self.drivers: list[subprocess.Popen[str]] = []
        self.known = set(actors())
        """Processes of Ray that were there before."""

    def join(self, cpus: int, gpus: int = 0) -> str:
        node = self.cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=STORE)
        self.there[node.node_id] = node
        return node.node_id

    def lose(self, node: str) -> None:
        self.cluster.remove_node(self.there.pop(node), allow_graceful=False)

    def workers(self, node: str | None = None, *, alive: bool = False) -> list[dict]:
        """Every process that ran trials, as Ray's own table has it; of one node, or those that are alive."""
        return [
            row
            for name, row in actors().items()
            if name not in self.known
            and node in {None, row["Address"]["NodeID"]}
            and (row["State"] == "ALIVE" or not alive)
        ]

    def start(self, home: Path, *more: str) -> subprocess.Popen[str]:
        driver = subprocess.Popen(
            [sys.executable, "-m", "lvray.sweep", str(SWEEP), *more],
            cwd=home,
            env={**os.environ, "RAY_ADDRESS": self.cluster.address},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.drivers.append(driver)
        return driver


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head; this process looks on."""
    # Once a process: Ray reads it once.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    folder = tempfile.mkdtemp(prefix="lv", dir="/tmp")  # sockets' paths may have 107 bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_TMPDIR", folder)
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Where the workers of this test keep copies: a node gives its workers the variables that it was started with."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LVRAY_NODE_CACHE", str(folder))
    return folder


@pytest.fixture
def nodes(cluster, cache) -> Iterator[Nodes]:
    """Two nodes of one core and one make-believe GPU beside the head."""
    made = Nodes(cluster)
    made.join(cpus=1, gpus=1)
    made.join(cpus=1, gpus=1)
    yield made
    for driver in made.drivers:
        driver.kill()
        driver.communicate()
    for node in made.there.values():
        cluster.remove_node(node)


def journal(home: Path, event: str) -> list[dict]:
    path = home / "runs" / "many" / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [row for row in rows if row["event"] == event]


def audit(home: Path) -> dict:
    command = [sys.executable, "-m", "lvray.audit", str(home / "runs" / "many"), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)


def wait_until(true: Callable[[], bool], what: str, seconds: float = 120) -> None:
    end = monotonic() + seconds
    while not true():
        assert monotonic() < end, f"{what}: not in {seconds} s"
        sleep(0.05)


def most_at_once(rows: list[dict]) -> int:
    """The most processes that were alive at one time."""
    begun = [(row["StartTime"], 1) for row in rows]
    ended = [(row["EndTime"], -1) for row in rows]
    count = most = 0
    for _, change in sorted(begun + ended):  # of two things at one time, the end comes first
        count += change
        most = max(most, count)
    return most


def test_a_sweep_goes_on_when_a_node_is_lost_and_uses_one_that_joins(nodes, tmp_path):
    driver = nodes.start(tmp_path)
    wait_until(lambda: len(journal(tmp_path, "measurement")) >= 1, "the first measurement")
    (begun,) = journal(tmp_path, "workers")
    assert (begun["count"], begun["cpus"], begun["gpus"]) == (2, 1, 0)

    joined = nodes.join(cpus=1)
    wait_until(lambda: bool(nodes.workers(joined, alive=True)), "a worker on the node that joined")
    assert [row["count"] for row in journal(tmp_path, "capacity")] == [3]

    lost = next(node for node in nodes.there if node != joined and nodes.workers(node, alive=True))
    nodes.lose(lost)
    out, err = driver.communicate(timeout=240)
    assert driver.returncode == 0, err
    assert err == ""
    assert "report.html" in out

    failures = journal(tmp_path, "failure")
    assert failures
    for row in failures:
        assert row["reason"].startswith(f"the node {gethostname()} was lost"), row
        assert row["status"] in {"planned", "paused"}
    ended = [row for row in journal(tmp_path, "decision") if row["status"] == "completed"]
    assert len(ended) == 4, "what was lost was tried again elsewhere"
    told = audit(tmp_path)
    assert told["ok"], told["findings"]
    assert int(told["lost"]) > 0
    assert told["reserved"] == "0"


def search(home: Path, *overrides: str, capacity: Callable[[Room, Run], int]) -> None:
    """Runs the sweep's stage from this process, two trials on each GPU.

    Ray believes in these GPUs and torch does not, so trials are told to train on the CPU; beside that they are told what
    `lvray.sweep` tells them.
    """
    run = open_run(load(SWEEP, overrides=overrides), RunFolder(home / "runs" / "many"))

    def carry_out(run: Run, scheduler: Scheduler) -> None:
        told: list[str] = []
        trials = len(scheduler.trials)
        workers = workers_for(
            session.nodes, trials, trials_per_gpu=2, device="auto", tell=told.append
        )
        assert workers == Workers(cpus=0.5, gpus=0.5)
        room = Room(session.nodes, workers, trials, changed=lambda count: None, tell=told.append)
        run_stage(
            scheduler,
            lambda grant: replace(run.task_of(grant, threads=workers.threads), device="cpu"),
            workers=workers,
            capacity=lambda: capacity(room, run),
            changed=run.changed,
            tick=lambda: None,
            preemption=Preemption(run.folder.pause),
        )
        assert told == []

    walk.run_stage(run, run.sweep.stages[0], carry_out)
    assert journal(home, "failure") == []
    ended = [row for row in journal(home, "decision") if row["status"] == "completed"]
    assert len(ended) == 4
    assert audit(home)["ok"]


def test_trials_share_the_gpus_of_every_node_and_no_gpu_has_more_than_it_may(nodes, tmp_path):
    short = ("stages.search.steps=24", "stages.search.evaluations=2")
    search(tmp_path, *short, capacity=lambda room, run: room())
    used = Counter(row["Address"]["NodeID"] for row in nodes.workers())
    assert used.keys() == nodes.there.keys(), "every node had trials, the head none"
    assert {most_at_once(nodes.workers(node)) for node in used} == {2}


def test_the_first_worker_copies_the_data_and_all_others_read_that_copy(
    nodes, cache, tmp_path, monkeypatch
):
    """Once a first trial was heard the data are spoilt, size and time as they were: who copies or reads them again fails."""
    monkeypatch.setenv("LVRAY_CACHE", str(tmp_path / "data"))
    first: dict[str, int] = {}

    def one_then_all(room: Room, run: Run) -> int:
        if not first and any(trial.curve for trial in run.history.trials.values()):
            first.update(copies_in(cache))
            spoil(Path(run.data.path))
        return room() if first else 1

    search(tmp_path, capacity=one_then_all)
    assert len(nodes.workers()) > 1
    assert len(first) == 1
    assert copies_in(cache) == first, "what the first worker copied is still what there is"


def copies_in(cache: Path) -> dict[str, int]:
    """The inode of each file that workers copied, by its place."""
    return {str(file): file.stat().st_ino for file in cache.glob("*/*") if file.is_file()}


def spoil(file: Path) -> None:
    """Fills a file with nonsense and lets it look as it did."""
    seen = file.stat()
    file.write_bytes(secrets.token_bytes(seen.st_size))
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def test_workers_without_cuda_are_told_of_at_once_and_the_same_command_goes_on_when_that_is_mended(
    nodes, tmp_path
):
    """The command as it is, on GPUs that Ray believes in and torch does not find."""
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    short = ("--set", "stages.search.steps=24", "--set", "stages.search.evaluations=2")
    gpus = ("--set", "resources.device=auto", "--set", "resources.max_failures=1")
    driver = nodes.start(tmp_path, *short, *gpus)
    out, err = driver.communicate(timeout=240)
    assert driver.returncode == 1, (out, err)
    for words in (
        "failed 2 times in a row for the machine's sake",
        f"{gethostname()}: device cuda is not to be had",
        f"torch {torch.__version__}",
        "--set resources.device=cpu",
        "same command goes on",
    ):
        assert words in err, err
    assert len(err.splitlines()) == 1, err
    told = audit(tmp_path)
    assert told["ok"], told["findings"]
    assert (told["spent"], told["reserved"]) == ("0", "0"), "nothing was trained"
    failures = journal(tmp_path, "failure")
    assert {(row["blame"], row["status"]) for row in failures} == {("machine", "planned")}

    driver = nodes.start(tmp_path, *short)
    _, err = driver.communicate(timeout=240)
    assert driver.returncode == 0, err
    ended = [row for row in journal(tmp_path, "decision") if row["status"] == "completed"]
    assert len(ended) == 4
    told = audit(tmp_path)
    assert told["ok"], told["findings"]
    assert told["lost"] == "0"


def test_a_driver_that_names_no_cluster_starts_a_ray_of_its_own(nodes):
    program = "from lvray.ray_tune.session import *\nwith ray_session(): print(len(nodes()))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout == "1\n", "the two nodes and the head of another cluster are left alone"
    assert len(session.nodes()) >= 3
