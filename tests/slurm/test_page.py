"""docs/cluster.md, step by step, as somebody follows it who has nothing yet: from `git clone` to the report."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
PATIENCE = 1200

OURS = f"""
site=tests/slurm/site.yaml
account=anybody
size="--nodes 2"
runs=$HOME/lvray/runs
model=tiny
sweep="tests/ray/small.yaml --set model=$model --set name=coursework --set budget=4e11"
LVRAY={ROOT}
"""
"""What the first block says, for this site and a model that needs no download."""

INSTEAD = {
    # Minutes of pip, which the environment that runs this test has behind it.
    "make install\n": f"ln -s {Path(sys.prefix)} .venv\n",
    'hf download Qwen/Qwen2.5-0.5B-Instruct --local-dir "$model"\n': "",
}


def steps() -> list[str]:
    """The blocks of commands under "Step by step", in order."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    section = page.split("## Step by step on CSD3\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def test_the_page_leads_from_a_clone_to_a_report(site, tmp_path):
    first, *rest = steps()
    named = set(re.findall(r"^(\w+)=", first, re.MULTILINE))
    assert named <= set(re.findall(r"^(\w+)=", OURS, re.MULTILINE))
    walk = "".join(rest)
    for told, ours in INSTEAD.items():
        assert told in walk
        walk = walk.replace(told, ours)
    environment = {name: value for name, value in site.environment.items() if name != "PYTHONPATH"}
    for name in ("LVRAY_PYTHON", "LVRAY_SCRATCH"):  # the profile says these
        environment.pop(name)
    runs = tmp_path / "lvray" / "runs"
    told, mistakes = tmp_path / "told", tmp_path / "mistakes"
    with told.open("w") as out, mistakes.open("w") as err:
        followed = subprocess.Popen(
            ["bash", "-euxc", OURS + walk],
            cwd=tmp_path,
            env={**environment, "HOME": str(tmp_path), "USER": "somebody"},
            stdout=out,
            stderr=err,
        )
        try:
            code = followed.wait(PATIENCE)
        finally:
            followed.kill()
            said = told.read_text()
            for number in re.findall(r"^job (\d+)$", said, re.MULTILINE):
                job = site.submitted(number, tmp_path, runs / "slurm-logs")
    assert code == 0, (said, mistakes.read_text())

    assert "sbatch --parsable" in said, "the dry run"
    assert f"[job {number}] on lvt1; dashboard: http://127.0.0.1:8265 after ssh -N -L" in said
    assert f"[job {number}] completed" in said
    assert "the sweep has ended" in said, "the watch"
    assert "reserved 0" in said, "the audit"
    assert f"{runs}/coursework/report.html" in said

    assert job.shown()["NumNodes"] == "2"
    rows = [row for row in _journal(runs / "coursework") if '"event":"measurement"' in row]
    assert {re.search(r'"host":"(\w+)"', row)[1] for row in rows} == {"lvt1", "lvt2"}
    assert "-J root@login.example" in job.log() or "ray[default] is not installed" in job.log()


def _journal(folder: Path) -> list[str]:
    return (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()
