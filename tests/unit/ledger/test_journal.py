from __future__ import annotations

import errno
import os

import pytest

from lvray.core.errors import JournalCorrupt, RunFolderError
from lvray.ledger.journal import Journal


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "folder" / "journal.jsonl")


def test_what_was_appended_is_replayed_in_order(journal):
    for number in range(5):
        journal.append({"number": number, "flops": str(10**26 + number)})
    assert [row["number"] for row in Journal(journal.path).replay()] == [0, 1, 2, 3, 4]
    assert Journal(journal.path).replay()[-1]["flops"] == str(10**26 + 4)


def test_a_file_that_is_not_there_is_an_empty_journal(journal):
    assert journal.replay() == []


@pytest.mark.parametrize("torn", ['{"number": 2', "{", '{"number": 2}', "\x00\x00"])
def test_a_torn_last_line_is_dropped_and_cut_off_by_the_next_append(journal, torn):
    journal.append({"number": 1})
    with journal.path.open("a") as file:
        file.write(torn)
    again = Journal(journal.path)
    assert again.replay() == [{"number": 1}]
    again.append({"number": 3})
    assert Journal(journal.path).replay() == [{"number": 1}, {"number": 3}]


def test_a_torn_first_line_leaves_an_empty_journal(journal):
    journal.path.parent.mkdir()
    journal.path.write_text('{"format": "lvray-led')
    assert journal.replay() == []
    journal.append({"number": 1})
    assert journal.path.read_text() == '{"number":1}\n'


@pytest.mark.parametrize("damaged", ["{not json}", "", "[1, 2]", '"text"'])
def test_a_damaged_line_elsewhere_is_an_error_that_names_it(journal, damaged):
    journal.path.parent.mkdir()
    journal.path.write_text(f'{{"number": 1}}\n{damaged}\n{{"number": 3}}\n')
    with pytest.raises(JournalCorrupt, match=r"journal\.jsonl, line 2"):
        journal.replay()


def test_news_are_what_others_appended_since(journal):
    journal.append({"number": 1})
    other = Journal(journal.path)
    assert len(other.replay()) == 1
    journal.append({"number": 2})
    journal.append({"number": 3})
    assert [row["number"] for row in other.news()] == [2, 3]
    assert other.news() == []


def test_a_file_that_became_shorter_is_an_error(journal):
    journal.append({"number": 1})
    journal.path.write_text("")
    with pytest.raises(JournalCorrupt, match="0 are left"):
        journal.news()


def test_a_full_disk_leaves_the_file_as_it_was(journal, monkeypatch):
    journal.append({"number": 1})
    before = journal.path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match=r"journal\.jsonl: cannot be written: No space left"):
        journal.append({"number": 2})
    assert journal.path.read_bytes() == before


def test_a_number_that_json_lacks_is_refused_before_anything_is_written(journal):
    journal.append({"number": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append({"number": float("nan")})
    assert journal.replay() == [{"number": 1}]
