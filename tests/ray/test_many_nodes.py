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
from pathlib import Path
from socket import gethostname
from time import monotonic, sleep
from typing import Any

import pytest

from lvray.ray_tune import session  # first: it sets what Ray reads when it is imported

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
        patch.setenv("LVRAY_NODE_CACHE", f"{folder}/cache")
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
def nodes(cluster) -> Iterator[Nodes]:
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


def test_trials_share_the_gpus_of_every_node_and_no_gpu_has_more_than_it_may(nodes, tmp_path):
    settings = (
        "resources.trials_per_gpu=2",
        "resources.device=auto",
        "stages.search.steps=24",
        "stages.search.evaluations=2",
    )
    driver = nodes.start(tmp_path, *(word for each in settings for word in ("--set", each)))
    _, err = driver.communicate(timeout=240)
    assert driver.returncode == 0, err
    (begun,) = journal(tmp_path, "workers")
    assert (begun["count"], begun["cpus"], begun["gpus"]) == (4, 0.5, 0.5)
    used = Counter(row["Address"]["NodeID"] for row in nodes.workers())
    assert used.keys() == nodes.there.keys(), "every node had trials, the head none"
    assert {most_at_once(nodes.workers(node)) for node in used} == {2}
    copies = [place for place in Path(os.environ["LVRAY_NODE_CACHE"]).iterdir() if not place.suffix]
    assert len(copies) == 1, "four workers read the data from one copy"
    assert audit(tmp_path)["ok"]


def test_a_driver_that_names_no_cluster_starts_a_ray_of_its_own(nodes):
    program = "from lvray.ray_tune.session import *\nwith ray_session(): print(len(nodes()))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout == "1\n", "the two nodes and the head of another cluster are left alone"
    assert len(session.nodes()) >= 3
