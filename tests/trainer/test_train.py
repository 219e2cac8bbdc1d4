"""The verb `train`: one trial in this process, under the same ledger and scheduler as a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lvray import audit, train
from lvray.core.errors import DataError
from lvray.trainer import loop

pytestmark = pytest.mark.torch

SMALL = Path(__file__).parents[1] / "ray" / "small.yaml"


@pytest.fixture
def command(tmp_path):
    """Runs the verb on the small sweep file, with run folders in the test's own folder."""

    def run(*more: str) -> int:
        return train.main([str(SMALL), "--runs", str(tmp_path), *more])

    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "small-train"


def books(folder: Path, capsys) -> dict:
    capsys.readouterr()
    audit.main([str(folder), "--json"])
    told: dict = json.loads(capsys.readouterr().out)
    return told


def test_a_trial_is_priced_trained_measured_and_saved(command, folder, capsys):
    assert command("--steps", "4", "--evaluations", "2", "--forecast") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("step")] == ["2", "4"]
    assert "forecast_mae" in lines[1]
    assert (folder / "best" / "adapter_model.safetensors").exists()
    with np.load(folder / "baselines" / "20+2.npz") as baselines:
        assert baselines["true equations"].shape == (2, 2, 2)
    told = books(folder, capsys)
    assert told["ok"], told["findings"]
    assert told["lost"] == "0"
    assert int(told["spent"]) == int(told["stages"][0]["spent"]) > 0


def test_another_number_of_steps_is_another_run(command, folder, tmp_path, capsys):
    assert command("--steps", "2", "--evaluations", "1") == 0
    assert command("--steps", "3", "--evaluations", "1") == 1
    assert "--fresh" in capsys.readouterr().err
    assert command("--steps", "3", "--evaluations", "1", "--fresh") == 0
    assert (tmp_path / "small-train.1" / "best").exists()
    assert books(folder, capsys)["ok"]


def test_a_batch_job_that_is_queued_again_keeps_the_fresh_run_that_it_began(
    command, folder, tmp_path, capsys, monkeypatch
):
    short = ("--steps", "2", "--evaluations", "1", "--fresh")
    assert command(*short) == 0
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # before its driver had begun
    assert command(*short) == 0
    assert (tmp_path / "small-train.1").exists()
    began = (folder / "journal.jsonl").read_text()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert command(*short) == 0
    assert (folder / "journal.jsonl").read_text() == began, "it was done again"
    assert not (tmp_path / "small-train.2").exists()
    monkeypatch.setenv(
        "SLURM_RESTART_COUNT", "0"
    )  # somebody's command in an allocation of their own
    assert command(*short) == 0
    assert (tmp_path / "small-train.2").exists()


def test_ctrl_c_loses_the_open_stretch_and_the_same_command_goes_on(
    command, folder, monkeypatch, capsys
):
    evaluate = loop.validate
    evaluations = []

    def interrupt_the_second(*arguments, **options):
        evaluations.append(1)
        if len(evaluations) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)

    monkeypatch.setattr(loop, "validate", interrupt_the_second)
    assert command("--steps", "4", "--evaluations", "2") == 130
    assert "goes on from here" in capsys.readouterr().out
    first = books(folder, capsys)
    assert first["ok"], first["findings"]
    assert int(first["lost"]) > 0
    assert first["reserved"] == "0"
    assert command("--steps", "4", "--evaluations", "2") == 0
    assert [
        line.split()[1] for line in capsys.readouterr().out.splitlines() if "step " in line
    ] == ["4"]
    last = books(folder, capsys)
    assert last["ok"], last["findings"]
    assert last["lost"] == first["lost"]


def test_a_trial_that_breaks_is_told_and_its_reservation_lost(command, folder, monkeypatch, capsys):
    def broken(*arguments, **options):
        raise DataError("the data are gone")

    monkeypatch.setattr(loop, "validate", broken)
    assert command("--steps", "4") == 1
    assert "lvray train: the data are gone" in capsys.readouterr().err
    told = books(folder, capsys)
    assert told["ok"], told["findings"]
    assert told["spent"] == told["lost"] != "0"
    for _ in range(2):
        assert command("--steps", "4") == 1
        assert (
            "train failed: the data are gone; mend that, and start anew" in capsys.readouterr().err
        )


def test_a_disk_that_is_mended_lets_the_same_command_go_on(command, folder, capsys):
    trial = folder / "trials" / "train"
    trial.mkdir(parents=True)
    in_the_way = trial / "checkpoints"
    in_the_way.write_text("a file where the folder should be")
    assert command("--steps", "4", "--evaluations", "2") == 1
    assert "cannot write" in capsys.readouterr().err
    first = books(folder, capsys)
    assert first["ok"], first["findings"]
    assert int(first["lost"]) > 0

    in_the_way.unlink()
    assert command("--steps", "4", "--evaluations", "2") == 0
    assert (folder / "best" / "adapter_model.safetensors").exists()
    last = books(folder, capsys)
    assert last["ok"], last["findings"]
    assert last["lost"] == first["lost"]


@pytest.mark.parametrize(
    ("steps", "told"), [("0", "0 is not above 0"), ("many", "many is no whole number")]
)
def test_steps_that_cannot_be_are_a_usage_error(command, capsys, steps, told):
    with pytest.raises(SystemExit, match="2"):
        command("--steps", steps)
    assert told in capsys.readouterr().err
