"""The Ray that a driver starts for itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray


def test_a_ray_that_someone_else_started_on_the_machine_is_left_alone():
    program = (
        "from lvray.ray_tune.session import ray_session\n"
        "import ray\n"
        "with ray_session() as dashboard:\n"
        "    print(ray.get_runtime_context().gcs_address, repr(dashboard))\n"
    )
    # Ray's sockets lie in this folder, and their paths may have 107 bytes.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray-", ignore_cleanup_errors=True) as home:
        (Path(home) / "ray").mkdir()
        for folder in (Path(home), Path(home) / "ray"):
            (folder / "ray_current_cluster").write_text("127.0.0.1:1")
        asked = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "RAY_TMPDIR": home, "RAY_ADDRESS": ""},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert asked.returncode == 0, asked.stderr
    address, dashboard = asked.stdout.split()
    assert address != "127.0.0.1:1"
    assert dashboard == "''"


def test_a_ray_that_is_slow_to_start_is_started_again():
    """The first node is not known to its own server before Ray's 30 seconds, which pass at once, are over."""
    program = (
        "import time\n"
        "from itertools import count\n"
        "from types import SimpleNamespace\n"
        "from lvray.ray_tune.session import nodes, ray_session\n"
        "from ray._private import node, services\n"
        "known, begun = services.get_node, []\n"
        "node.time = SimpleNamespace(**{**vars(time), 'monotonic': count(0, 31).__next__})\n"
        "def slow(address, node_id):\n"
        "    begun.append(node_id)\n"
        "    if node_id == begun[0]:\n"
        "        raise RuntimeError('not known yet')\n"
        "    node.time = time\n"
        "    return known(address, node_id)\n"
        "services.get_node = slow\n"
        "with ray_session():\n"
        "    print(len(nodes()), begun[0] != begun[-1])\n"
    )
    asked = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "RAY_ADDRESS": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.split() == ["1", "True"]
