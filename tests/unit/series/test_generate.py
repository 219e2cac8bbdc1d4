"""The command that writes a data set: what it writes, what it says, what it refuses."""

import subprocess
import sys

import pytest

from lvray import generate
from lvray.series import readers


def test_a_data_set_is_written_and_spoken_of(tmp_path, capsys):
    out = tmp_path / "lv.h5"
    assert (
        generate.main(["lotka-volterra", "--out", str(out), "--seed", "2", "--systems", "3"]) == 0
    )
    assert readers.read(out).values.shape == (3, 100, 2)
    said = capsys.readouterr().out
    assert said.startswith(
        f"{out}: 3 systems of 100 steps, prey and predator (lotka-volterra, seed 2)"
    )


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path, capsys):
    out = tmp_path / "course.h5"
    out.write_bytes(b"mine")
    command = ["coursework", "--out", str(out), "--systems", "2"]
    assert generate.main(command) == 1
    assert out.read_bytes() == b"mine"
    assert "--force overwrites it" in capsys.readouterr().err
    assert generate.main([*command, "--force"]) == 0
    assert readers.read(out).systems == 2


def test_a_file_that_cannot_be_written_is_one_message(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert (
        generate.main(["coursework", "--out", str(tmp_path / "file" / "a.h5"), "--systems", "1"])
        == 1
    )
    said = capsys.readouterr().err
    assert said.startswith("lvray generate: ")
    assert "could not be written" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["weather", "--out", "a.h5"],
        ["coursework"],
        ["coursework", "--out", "a.h5", "--seed", "-1"],
        ["coursework", "--out", "a.h5", "--systems", "0"],
        ["coursework", "--out", "a.h5", "--systems", "²"],
    ],
)
def test_a_wrong_command_line_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        generate.main(arguments)
    assert ended.value.code == 2


def test_only_hdf5_is_written(tmp_path, capsys):
    assert generate.main(["coursework", "--out", str(tmp_path / "a.csv")]) == 2
    assert ".h5 or .hdf5" in capsys.readouterr().err


def test_the_command_loads_nothing_heavy_before_it_must():
    code = "import sys, lvray.generate, lvray.series.codec; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert not loaded & {"scipy", "h5py", "torch", "ray", "pydantic"}
