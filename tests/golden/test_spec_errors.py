"""What a bad sweep file is told, whole text against files.

A sweep file's overrides stand in its first lines, as ``# --set path=value``. A message that changed on purpose is
written anew by ``python -m lvray.plan FILE.yaml --set … 2> FILE.txt``, without its first words; the diff then
shows what changed.
"""

from pathlib import Path

import pytest

from lvray.core.errors import SpecError
from lvray.spec.load import load

FOLDER = Path(__file__).parent / "spec_errors"
CASES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("case", CASES)
def test_a_bad_sweep_file_is_told_all_of_it(case, monkeypatch):
    monkeypatch.chdir(FOLDER)  # messages name the file as it was given
    lines = Path(f"{case}.yaml").read_text(encoding="utf-8").splitlines()
    overrides = [line.removeprefix("# --set ") for line in lines if line.startswith("# --set ")]

    with pytest.raises(SpecError) as told:
        load(f"{case}.yaml", overrides=overrides)

    assert f"{told.value}\n" == Path(f"{case}.txt").read_text(encoding="utf-8")


def test_ten_mistakes_are_told_at_once():
    told = (FOLDER / "ten_mistakes.txt").read_text(encoding="utf-8").splitlines()
    assert len(told) == 10


def test_no_message_is_left_without_its_file():
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == CASES
