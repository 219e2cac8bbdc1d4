"""The verb: what is submitted, run here, refused and followed. Dry runs stand in tests/golden/submit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lvray.submit import main
from lvray.sweep import _parser as parser_of_sweep

ROOT = Path(__file__).parents[2]
SITE = """
site: a test site
time: 0:30:00
nodes: 2
cores_per_node: 2
runs: {runs}
shared: [{shared}]
flops_per_second: 4e10
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A checkout with a profile of a site of its own, whose sbatch says yes."""
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "sweep.sbatch").write_text("#!/bin/bash\n", encoding="utf-8")
    shutil.copy(ROOT / "sweeps" / "grid.yaml", tmp_path)
    runs = tmp_path / "runs"
    (tmp_path / "site.yaml").write_text(SITE.format(runs=runs, shared=tmp_path), encoding="utf-8")
    (tmp_path / "bin").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    program(
        tmp_path,
        "sbatch",
        f'env > {tmp_path}/env; printf "%s\\n" "$@" > {tmp_path}/args; echo 1234',
    )
    return tmp_path


def program(folder, name, text):
    path = folder / "bin" / name
    path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def test_a_job_is_submitted_and_its_id_told(here, capsys):
    assert main(["grid.yaml", "--cluster", "site.yaml", "--set", "seed=3"]) == 0

    told = capsys.readouterr().out
    for words in (
        "job 1234",
        "scancel 1234",
        "scancel --batch --signal=USR1 1234",
        "22341",
        "--watch",
    ):
        assert words in told
    args = (here / "args").read_text(encoding="utf-8").splitlines()
    at = args.index("slurm/sweep.sbatch")
    assert args[at:] == [
        "slurm/sweep.sbatch", "grid.yaml", "--set", "seed=3", "--runs", f"{here}/runs",
    ]  # fmt: skip
    assert "--nodes=2" in args[:at]
    assert f"LVRAY_PYTHON={sys.executable}\n" in (here / "env").read_text(encoding="utf-8")
    assert (here / "runs" / "slurm-logs").is_dir()


def test_json_tells_programs_what_was_submitted(here, capsys):
    assert main(["grid.yaml", "--cluster", "site.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["job"], told["workers"], told["requeues"]) == ("1234", 4, 0)
    assert told["log"] == f"{here}/runs/slurm-logs/grid-1234.log"
    assert told["command"][0] == "sbatch"


def test_nothing_is_submitted_or_made_by_a_dry_run(here, capsys):
    assert main(["grid.yaml", "--cluster", "site.yaml", "--dry-run"]) == 0
    assert not (here / "args").exists()
    assert not (here / "runs").exists()


def test_a_dry_run_that_is_pasted_submits_the_same_job(here, capsys):
    main(
        ["grid.yaml", "--cluster", "site.yaml", "--set", "question=Which one's best?", "--dry-run"]
    )
    subprocess.run(["bash", "-c", capsys.readouterr().out], check=True, capture_output=True)
    pasted = (here / "args").read_text(encoding="utf-8")
    main(["grid.yaml", "--cluster", "site.yaml", "--set", "question=Which one's best?"])
    assert (here / "args").read_text(encoding="utf-8") == pasted


def offline(here, *setup):
    """The site without a way to the hub, and a sweep that only the model keeps from being submitted."""
    with (here / "site.yaml").open("a", encoding="utf-8") as site:
        site.write(f"offline: true\nsetup: {json.dumps(setup)}\n")
    shutil.copy(ROOT / "sweeps" / "coursework.yaml", here)
    return ["coursework.yaml", "--cluster", "site.yaml", "--speed", "4e12"]


QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
WHOLE = ("config.json", "tokenizer_config.json", "model.safetensors")


def cached(cache, *names):
    """A hub's cache with one snapshot of Qwen, as its client lays it out."""
    place = cache / "hub" / "models--Qwen--Qwen2.5-0.5B-Instruct"
    snapshot = place / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123abcd", encoding="utf-8")
    for name in names:
        (snapshot / name).touch()
    return snapshot


def test_a_model_that_offline_nodes_could_not_get_is_refused_and_a_dry_run_warns(here, capsys):
    argv = offline(here)
    told = (
        f"model {QWEN}: is not in {here}/hf/hub, and nodes cannot ask the hub (offline: true); where there is a network, "
        f"`hf download {QWEN} --local-dir models/qwen2.5-0.5b-instruct`, then --set model=models/qwen2.5-0.5b-instruct"
    )
    assert main([*argv, "--dry-run"]) == 0
    assert f"# warning: {told}\n" in capsys.readouterr().out
    assert main(argv) == 2
    assert capsys.readouterr().err == f"lvray submit: {told}\n"
    assert not (here / "args").exists()


def test_a_model_of_which_only_a_part_was_downloaded_is_refused(here, capsys):
    snapshot = cached(here / "hf", "config.json", "tokenizer_config.json")
    assert main(offline(here)) == 2
    assert f"is not whole in {snapshot} (no model.safetensors)" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["cache", "cache of the job", "folder", "package"])
def test_a_model_that_the_nodes_will_find_is_no_reason_to_refuse(here, capsys, where):
    setup, model = (), QWEN
    if where == "cache":
        cached(here / "hf", *WHOLE)
    elif where == "cache of the job":  # which is not this shell's
        setup = (f"export HF_HOME={here}/elsewhere",)
        cached(here / "elsewhere", *WHOLE)
    elif where == "folder":
        model = "mine"
        shutil.copytree(ROOT / "lvray" / "trainer" / "tiny", here / "mine")
        (here / "mine" / "tokenizer_config.json").touch()
    else:
        model = "tiny"
    scale = [] if model == QWEN else ["--scale", "2e-4"]
    assert main([*offline(here, *setup), "--set", f"model={model}", *scale]) == 0
    assert "model" not in capsys.readouterr().err


def test_a_cache_that_only_this_shell_knows_is_not_the_jobs(here, capsys):
    cached(here / "hf", *WHOLE)
    assert main(offline(here, f"export HF_HOME={here}/elsewhere")) == 2
    assert f"is not in {here}/elsewhere/hub" in capsys.readouterr().err


def test_nodes_with_a_way_to_the_hub_get_their_model_themselves(here):
    argv = offline(here)
    site = (here / "site.yaml").read_text(encoding="utf-8")
    (here / "site.yaml").write_text(site.replace("offline: true", ""), encoding="utf-8")
    assert main(argv) == 0


def test_a_model_on_a_disk_that_the_nodes_cannot_see_is_warned_of(here, capsys):
    argv = offline(here)
    site = (here / "site.yaml").read_text(encoding="utf-8")
    (here / "site.yaml").write_text(site.replace(f"[{here}]", "[]"), encoding="utf-8")
    cached(here / "hf", *WHOLE)
    assert main([*argv, "--runs", "/rds/runs", "--dry-run"]) == 0
    assert "0123abcd seems to be on this machine's own disk" in capsys.readouterr().out


def test_mistakes_of_both_files_and_the_command_line_are_told_together(here, capsys):
    (here / "site.yaml").write_text("site: a site\n", encoding="utf-8")
    argv = ["grid.yaml", "--cluster", "site.yaml", "--set", "bogus=1", "--speed", "fast"]
    assert main(argv) == 2
    told = capsys.readouterr().err
    for words in ("flops_per_second: missing", "--set bogus=1: bogus: unknown key", "--speed fast"):
        assert words in told


def test_a_sweep_is_started_anew_where_it_is_asked_for(here):
    assert main(["grid.yaml", "--cluster", "site.yaml", "--fresh", "--set", "seed=3"]) == 0
    args = (here / "args").read_text(encoding="utf-8").splitlines()
    handed_on = parser_of_sweep().parse_args(args[args.index("slurm/sweep.sbatch") + 1 :])
    assert handed_on.fresh
    assert (str(handed_on.sweep), handed_on.runs) == ("grid.yaml", here / "runs")
    assert main(["grid.yaml", "--cluster", "site.yaml"]) == 0
    assert "--fresh" not in (here / "args").read_text(encoding="utf-8")


def test_a_job_tells_what_an_allocation_costs_at_the_most(here, capsys):
    argv = ["grid.yaml", "--cluster", "site.yaml", "--dry-run"]
    main([*argv, "--speed", "4e9"])
    assert (
        "an allocation costs at most 2 core-hours (4 cores × 0.5 h); the plan takes about 8.6, in 6 allocations\n"
        in capsys.readouterr().out
    )
    main([*argv, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["charged"], told["most_an_allocation"]) == ("core-hours", 2.0)
    main(["grid.yaml", "--cluster", "laptop", "--dry-run"])
    assert "costs" not in capsys.readouterr().out


def test_a_login_host_that_the_profile_does_not_name_has_its_word(here, capsys):
    main(["grid.yaml", "--cluster", "site.yaml"])
    told = capsys.readouterr().out
    assert "@LOGIN " in told
    assert "LOGIN is the host that you log in to" in told


def test_a_refusal_of_sbatch_is_one_message_and_exit_code_1(here, capsys):
    program(here, "sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    assert main(["grid.yaml", "--cluster", "site.yaml"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("lvray submit: sbatch refused the job: invalid partition")


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--set", "budget=1e5"], 1, "budget"),
        (["--set", "model=tyni"], 1, "tyni"),
        (["--set", "seed=x", "--set", "budgett=1"], 2, "budgett"),
        (["--nodes", "2", "--set", "resources.device=cuda"], 2, "asks for no GPUs"),
        (["--gpus-per-node", "1"], 2, "has none"),
        (["--speed", "fast"], 2, "--speed fast"),
        (["--speed", "0"], 2, "--speed 0"),
        (["--speed", "1e6"], 2, "would never get past it"),
        (["--time", "soon"], 2, "--time soon"),
        (["--runs", "/dev/shm/runs"], 2, "a node's own disk"),
        (["--runs", "/x/$NO_SUCH_VARIABLE"], 2, "$NO_SUCH_VARIABLE is not set"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_submitted(here, capsys, argv, code, message):
    assert main(["grid.yaml", "--cluster", "site.yaml", *argv]) == code
    assert message in capsys.readouterr().err
    assert not (here / "args").exists()


def test_a_run_folder_that_cannot_be_made_is_told(here, capsys):
    (here / "file").write_text("", encoding="utf-8")
    assert main(["grid.yaml", "--cluster", "site.yaml", "--runs", f"{here}/file"]) == 1
    assert "cannot be made: Not a directory" in capsys.readouterr().err


def test_trials_of_a_gpu_are_the_sweep_files_if_it_says_how_many(here, capsys):
    with (here / "site.yaml").open("a", encoding="utf-8") as site:
        site.write("gpus_per_node: 1\ntrials_per_gpu: 3\n")
    argv = ["grid.yaml", "--cluster", "site.yaml", "--dry-run", "--json"]
    for scale in ([], ["--scale", "2"]):
        main([*argv, *scale])
        told = json.loads(capsys.readouterr().out)
        assert "resources.trials_per_gpu=3" in told["command"]
        assert told["workers"] == 6
    sweep = (here / "grid.yaml").read_text(encoding="utf-8")
    (here / "grid.yaml").write_text(
        f"{sweep}\nresources: {{trials_per_gpu: 2}}\n", encoding="utf-8"
    )
    for scale in ([], ["--scale", "2"]):
        main([*argv, *scale])
        told = json.loads(capsys.readouterr().out)
        assert not any("trials_per_gpu" in word for word in told["command"])
        assert told["workers"] == 4


def submit(here, *argv, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "lvray.submit", "grid.yaml", "--cluster", *argv],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        **more,
    )


def test_a_local_profile_runs_the_sweep_here_and_ends_as_it_ends(here):
    program(here, "python", 'echo "$HF_HUB_OFFLINE $*"; exit 75')
    (here / "mine.yaml").write_text(
        f"site: mine\nscheduler: local\noffline: true\nflops_per_second: 4e10\npython: {here}/bin/python\n",
        encoding="utf-8",
    )
    done = submit(here, "mine.yaml", "--runs", "elsewhere")
    told, _ = done.communicate(timeout=60)
    assert told.splitlines()[-1] == "1 -m lvray.sweep grid.yaml --runs elsewhere"
    assert done.returncode == 75


def test_a_local_profile_asks_no_scheduler(here, capsys):
    assert main(["grid.yaml", "--cluster", "laptop", "--time", "1:00:00", "--follow"]) == 2
    assert "--time, --follow: laptop runs the sweep here" in capsys.readouterr().err


def test_a_local_python_that_is_not_there_is_told(here, capsys):
    (here / "mine.yaml").write_text(
        "site: mine\nscheduler: local\nflops_per_second: 4e10\npython: /no/python\n",
        encoding="utf-8",
    )
    assert main(["grid.yaml", "--cluster", "mine.yaml"]) == 1
    assert "/no/python: cannot be run: No such file" in capsys.readouterr().err


def test_a_job_is_followed_to_its_end(here):
    logs = here / "runs" / "slurm-logs"
    program(
        here,
        "scontrol",
        f"""if [ -e {here}/looked ]; then echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1; fi
touch {here}/looked; echo "what the sweep prints" >> {logs}/grid-1234.log
echo JobId=1234 JobState=FAILED Reason=NonZeroExitCode Restarts=0 ExitCode=2:0 BatchHost=n1""",
    )
    done = submit(here, "site.yaml", "--follow")
    told, _ = done.communicate(timeout=60)
    assert done.returncode == 1
    assert "[job 1234] failed (NonZeroExitCode)\nwhat the sweep prints\n" in told
    assert "job 1234 ended as FAILED, exit code 2" in told


def test_a_job_that_slurm_never_knew_is_not_taken_for_one_that_ended_well(here):
    program(here, "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    done = submit(here, "site.yaml", "--follow")
    told, _ = done.communicate(timeout=60)
    assert done.returncode == 1
    assert "job 1234 is not known to Slurm any more" in told


def test_what_the_site_says_of_the_job_is_passed_on(here, capsys):
    program(here, "sbatch", "echo 'sbatch: 12 GPU hours are left' >&2; echo 1234")
    assert main(["grid.yaml", "--cluster", "site.yaml"]) == 0
    assert capsys.readouterr().err == "sbatch: 12 GPU hours are left\n"


def test_a_python_that_the_nodes_cannot_see_is_warned_of(here, capsys):
    site = (here / "site.yaml").read_text(encoding="utf-8")
    for python, warned in (("/dev/shm/env/bin/python", True), ("/home/ab123/env/python", False)):
        (here / "site.yaml").write_text(f"{site}python: {python}\n", encoding="utf-8")
        assert main(["grid.yaml", "--cluster", "site.yaml", "--dry-run"]) == 0
        told = capsys.readouterr().out
        assert (
            f"warning: python {python} seems to be on this machine's own disk" in told
        ) is warned


def test_ctrl_c_stops_following_and_not_the_job(here):
    program(
        here, "scontrol", "echo JobId=1234 JobState=RUNNING Reason=None Restarts=0 BatchHost=n1"
    )
    program(here, "scancel", f"touch {here}/cancelled")
    going = submit(here, "site.yaml", "--follow", start_new_session=True)
    seen = ""
    while (
        "[job 1234] on n1; dashboard: http://127.0.0.1:8265 after ssh -N -L 8265:127.0.0.1:22341 "
        not in seen
    ):
        line = going.stdout.readline()
        assert line, seen
        seen += line
    time.sleep(0.2)  # it prints, then it waits
    going.send_signal(signal.SIGINT)
    rest, _ = going.communicate(timeout=60)
    assert going.returncode == 0
    assert "no longer followed; job 1234 goes on" in rest
    assert not (here / "cancelled").exists()
