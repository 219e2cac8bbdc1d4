"""Options, environment and command line of a job. Whole dry runs stand in tests/golden/submit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvray.launcher.profile import Profile, load_profile
from lvray.launcher.request import Request
from lvray.launcher.sbatch import (
    as_shell,
    command,
    environment,
    exported,
    local_command,
    local_environment,
    options,
    ports,
    tunnel,
    words,
)

ROOT = Path(__file__).parents[3]
SLURM = [
    path.stem
    for path in sorted((ROOT / "cluster").glob("*.yaml"))
    if load_profile(str(path))[0].scheduler == "slurm"
]
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


def profile(**fields) -> Profile:
    base = {"site": "s", "time": "1:00:00", "cores_per_node": 8, "flops_per_second": 10**12}
    return Profile.model_validate({**base, **fields})


def job(**fields) -> Request:
    base = {
        "name": "grid",
        "arguments": (("sweeps/grid.yaml",), ("--runs", "/rds/runs")),
        "nodes": 1,
        "gpus_per_node": 0,
        "seconds": 3600,
        "account": None,
        "partition": None,
        "runs": "/rds/runs",
        "scratch": "/tmp",
        "python": "/env/bin/python",
    }
    return Request(**{**base, **fields})


def test_every_job_is_told_to_pause_is_requeued_and_goes_on_in_its_log():
    given_options = options(profile(notice_seconds=120), job())
    assert {
        "--signal=B:USR1@120",
        "--requeue",
        "--no-kill",
        "--open-mode=append",
        "--ntasks-per-node=1",
        "--export=ALL",
        "--output=/rds/runs/slurm-logs/grid-%j.log",
    } <= set(given_options)


def test_what_is_not_said_is_not_asked_for():
    text = " ".join(options(profile(), job()))
    for word in ("account", "partition", "qos", "gpu", "gres", "mem", "exclusive"):
        assert word not in text


@pytest.mark.parametrize(
    ("fields", "gpus", "option"),
    [
        ({}, 2, "--gpus-per-node=2"),
        ({"gpu_type": "a100"}, 2, "--gpus-per-node=a100:2"),
        ({"gpus_by": "gres"}, 4, "--gres=gpu:4"),
        ({"gpus_by": "gres", "gpu_type": "a100"}, 4, "--gres=gpu:a100:4"),
        ({"memory_per_gpu": "60G"}, 2, "--mem-per-gpu=60G"),
        ({"memory_per_node": 0}, 0, "--mem=0"),
        ({"memory_per_node": "240G"}, 2, "--mem=240G"),
        ({"exclusive": True}, 0, "--exclusive"),
        ({"qos": "long"}, 0, "--qos=long"),
        ({"options": ["--constraint=rome"]}, 0, "--constraint=rome"),
    ],
)
def test_each_field_becomes_its_option(fields, gpus, option):
    asked = job(gpus_per_node=gpus)
    assert option in options(profile(gpus_per_node=gpus, **fields), asked)


def test_memory_for_gpus_is_not_asked_for_without_them():
    assert not any("mem" in option for option in options(profile(memory_per_gpu="60G"), job()))


def test_a_percent_sign_in_a_folder_is_no_pattern():
    (output,) = [o for o in options(profile(), job(runs="/x/5%j")) if o.startswith("--output")]
    assert output == "--output=/x/5%%j/slurm-logs/grid-%j.log"


def test_the_script_is_told_what_the_site_needs():
    site = profile(
        setup=["module load python", "source 'my env/bin/activate'"],
        login="login.example",
        offline=True,
    )
    assert environment(site, job(scratch="/local")) == {
        "LVRAY_SETUP": "module load python\nsource 'my env/bin/activate'",
        "LVRAY_PYTHON": "/env/bin/python",
        "LVRAY_SCRATCH": "/local",
        "LVRAY_NOTICE": "300",
        "LVRAY_LOGIN": "login.example",
        "HF_HUB_OFFLINE": "1",
    }
    assert environment(profile(), job()).keys() == {"LVRAY_PYTHON", "LVRAY_SCRATCH", "LVRAY_NOTICE"}


def test_the_sweep_file_and_its_arguments_follow_the_script():
    line = words(command(profile(), job(), Path("slurm/sweep.sbatch")))
    assert line[:2] == ["sbatch", "--parsable"]
    at = line.index("slurm/sweep.sbatch")
    assert line[at + 1 :] == ["sweeps/grid.yaml", "--runs", "/rds/runs"]
    assert all(word.startswith("--") for word in line[1:at])


def test_here_the_same_arguments_go_to_the_sweep_itself():
    assert words(local_command(job())) == [
        "/env/bin/python", "-m", "lvray.sweep", "sweeps/grid.yaml", "--runs", "/rds/runs",
    ]  # fmt: skip
    assert local_environment(profile(offline=True)) == {"HF_HUB_OFFLINE": "1"}


def test_two_jobs_of_a_node_have_ports_of_their_own():
    assert ports("48123456") == (24560, 24561)
    assert ports("1000") == (20000, 20001)
    taken = {port for number in range(1000) for port in ports(str(number))}
    assert len(taken) == 2000
    assert max(taken) < 32768  # where Linux begins to give out ports by itself


@pytest.mark.parametrize(
    ("login", "jump"),
    [("login.example", "ab123@login.example"), (None, "ab123@LOGIN")],
)
def test_the_tunnel_names_the_user_on_both_hosts(login, jump):
    """ssh takes one's own machine's name for a host without one, on the way too."""
    assert tunnel("5", user="ab123", node="gpu-q-1", login=login) == (
        f"ssh -N -L 8265:127.0.0.1:20051 -J {jump} ab123@gpu-q-1"
    )


def test_csd3_is_asked_for_gpus_as_its_own_script_asks():
    site = load_profile(str(ROOT / "cluster" / "csd3-ampere.yaml"))[0]
    asked = options(site, job(gpus_per_node=4))
    assert [option for option in asked if "gpu" in option] == ["--gres=gpu:4"]


def test_what_setup_lines_export_is_known_as_far_as_they_say_it():
    site = profile(
        setup=[
            "module load python; export HF_HOME=$HOME/hf; export A=1",
            'export B="$HF_HOME/a b"',
            "export HF_HOME=~/other && export C='$HOME'",
            "NOT=exported",
            "export D=$SET_BY_A_MODULE/d",
        ]
    )
    assert exported(site, {"HOME": "/home/ab123"}) == {
        "HF_HOME": "/home/ab123/other",
        "A": "1",
        "B": "/home/ab123/hf/a b",
        "C": "$HOME",
    }


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cs"]))


@settings(max_examples=25)
@given(TEXT, st.lists(TEXT, max_size=3), TEXT)
def test_what_is_printed_does_when_pasted_what_would_have_been_done(value, lines, word):
    variables = {"LVRAY_TEST_A": value, "LVRAY_TEST_B": "\n".join(lines)}
    asked = ((sys.executable, "-I", "-c", SHOW, "x"), ("--set", word), ("--runs", "a b'c"))
    with TemporaryDirectory() as folder:  # were a word not quoted, it might do anything
        done = subprocess.run(
            ["bash", "-c", as_shell(variables, asked)],
            capture_output=True,
            check=True,
            text=True,
            cwd=folder,
        )
    arguments, seen = json.loads(done.stdout)
    assert arguments == ["x", "--set", word, "--runs", "a b'c"]
    assert {name: seen[name] for name in variables} == variables


def test_a_pasted_command_makes_the_folder_of_its_log_first(tmp_path):
    folder = tmp_path / "my runs" / "slurm-logs"
    pasted = as_shell({"A": "1"}, (("test", "-d", str(folder)),), folder=str(folder))
    assert subprocess.run(["bash", "-c", pasted], check=False).returncode == 0


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="needs Slurm's sbatch, no cluster")
@pytest.mark.parametrize("name", [*SLURM, "everything"])
def test_sbatch_itself_understands_every_option(name, tmp_path):
    """It reads the options before it looks for the controller, of which this configuration has none."""
    (tmp_path / "slurm.conf").write_text(
        "ClusterName=none\nSlurmctldHost=localhost\nSlurmctldPort=1\nAuthType=auth/none\nMessageTimeout=2\n"
        "SlurmctldTimeout=1\nSelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nGresTypes=gpu\n"
        "NodeName=a CPUs=1\nPartitionName=p Nodes=a\n",
        encoding="utf-8",
    )
    script = tmp_path / "sweep.sbatch"
    script.write_text("#!/bin/bash\n", encoding="utf-8")
    if name == "everything":
        site = profile(
            qos="q", gpus_per_node=4, gpu_type="a100", gpus_by="gres", memory_per_gpu="60G", exclusive=True,
            options=["--constraint=rome"],
        )  # fmt: skip
    else:
        site = load_profile(str(ROOT / "cluster" / f"{name}.yaml"))[0]
    asked = job(nodes=2, gpus_per_node=site.gpus_per_node, account="P-SL3-GPU", partition="p")
    line = words(command(site, asked, script))
    line.insert(1, "--test-only")
    done = subprocess.run(
        line,
        env={**os.environ, "SLURM_CONF": str(tmp_path / "slurm.conf")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Unable to contact slurm controller" in done.stderr, done.stderr
