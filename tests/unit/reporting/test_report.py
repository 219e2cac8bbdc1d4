"""The verb `report`: what it prints and how it ends."""

from __future__ import annotations

import pytest

from lvray.report import main


def test_it_says_where_the_report_is(unfinished, capsys):
    assert main([str(unfinished)]) == 0
    told = capsys.readouterr().out.split()
    assert told == [str(unfinished / "report.html"), str(unfinished / "report.md")]


def test_a_folder_that_is_none_is_one_clear_message(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("lvray report: ")
    assert "no run folder: nothing is there" in told.err
    assert told.err.count("\n") == 1


def test_no_folder_is_a_usage_error():
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
