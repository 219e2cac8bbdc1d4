"""Weights & Biases without an account: files in the run folder, no network, no prompt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lvray.reporting.wandb_runs import has_key

SCRIPT = """
import sys
from pathlib import Path
from lvray.ledger.journal import Journal
from lvray.reporting.wandb_runs import log_stage
from lvray.scheduler.replay import fold

root = Path(sys.argv[1])
history = fold(Journal(root / "journal.jsonl").replay())
for stage in history.stages.values():
    log_stage(stage, sweep="invented", project="lvray", folder=root)
"""


def test_each_trial_that_was_heard_of_is_an_offline_run(retold, tmp_path):
    root = retold(lambda row: None)
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root)],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HTTPS_PROXY": "http://127.0.0.1:9"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout == ""
    runs = sorted((root / "wandb").glob("offline-run-*"))
    heard = [path.name for path in (root / "trials").iterdir()]
    assert heard
    assert len(runs) == len(_trials(root))
    for run in runs:
        (written,) = run.glob("run-*.wandb")
        content = written.read_bytes()
        assert b"validation_loss" in content
        assert b"invented" in content


def _trials(root: Path) -> set[str]:
    text = (root / "journal.jsonl").read_text().splitlines()
    return {
        line.split('"trial_id": "')[1].split('"')[0] for line in text if '"measurement"' in line
    }


@pytest.mark.parametrize(
    ("environment", "netrc", "key"),
    [
        ({}, None, False),
        ({"WANDB_API_KEY": "k"}, None, True),
        ({"WANDB_API_KEY": ""}, None, False),
        ({}, "machine api.wandb.ai login user password k\n", True),
        ({}, "machine example.org login user password k\n", False),
        ({}, "not a netrc file {", False),
    ],
)
def test_a_key_is_looked_for_where_wandb_puts_it(tmp_path, environment, netrc, key):
    if netrc is not None:
        (tmp_path / ".netrc").write_text(netrc)
        (tmp_path / ".netrc").chmod(0o600)
    assert has_key(environment, tmp_path) is key
