"""`lvray.submit` on a real Slurm: what it sends is a job that runs to its end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

SITE = Path(__file__).with_name("site.yaml")
SMALL = Path(__file__).parents[1] / "ray" / "small.yaml"


def test_what_submit_sends_finishes_and_lies_where_it_says(site, tmp_path):
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "lvray.submit", SMALL, f"--cluster={SITE}", f"--runs={runs}"]
    sent = subprocess.run(
        [*command, "--json"],
        cwd=tmp_path,
        env=site.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert sent.returncode == 0, sent.stderr
    job = site.submitted(str(json.loads(sent.stdout)["job"]), tmp_path, runs / "slurm-logs")
    assert job.end() == "COMPLETED", job.log()
    assert job.audit()["ok"]
    assert job.shown()["NumNodes"] == "2"
    assert {row["measurement"]["host"] for row in job.journal("measurement")} == {"lvt1", "lvt2"}
    assert "-J login.example" in job.log() or "ray[default] is not installed" in job.log()
