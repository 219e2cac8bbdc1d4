from __future__ import annotations

import multiprocessing
import os
import resource
import signal

import pytest

from lvray.core.errors import JournalCorrupt, RunFolderError
from lvray.ledger import journal as journal_module
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
    assert other.lines == 1
    journal.append({"number": 2})
    journal.append({"number": 3})
    assert [row["number"] for row in other.news()] == [2, 3]
    assert other.news() == []


@pytest.mark.parametrize("left", ["", None])
def test_a_file_that_became_shorter_or_is_gone_is_an_error_and_is_not_begun_again(journal, left):
    journal.append({"number": 1})
    journal.replay()
    journal.path.unlink()
    if left is not None:
        journal.path.write_text(left)
    with pytest.raises(JournalCorrupt, match="13 bytes were read and 0 are left"):
        journal.news()
    with pytest.raises(JournalCorrupt, match="13 bytes were read and 0 are left"):
        journal.append({"number": 2})


def test_a_file_that_cannot_be_read_is_told_in_words(tmp_path):
    with pytest.raises(RunFolderError, match="cannot be read: Is a directory"):
        Journal(tmp_path).replay()


def write_until_full(path, results) -> None:
    """Appends in a process whose files may not grow past 4000 bytes, then lets them grow and ends."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    journal = Journal(path)
    told = None
    number = 0
    while told is None:
        before = path.read_bytes() if path.exists() else b""
        try:
            journal.append({"number": number, "text": "x" * 100})
        except RunFolderError as error:
            told = str(error)
        number += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    results.put((told, before))


def test_a_file_that_can_grow_no_more_stays_as_it_was_even_when_there_is_room_again(journal):
    """The kernel's own limit on a file's size: a write that stops half way, as on a full disk."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=write_until_full, args=(journal.path, results))
    process.start()
    told, before = results.get(timeout=60)
    process.join()
    assert "journal.jsonl: cannot be written: File too large; nothing was recorded" in told
    assert journal.path.read_bytes() == before
    assert 3800 < len(before) <= 4000


@pytest.mark.parametrize("broken", ["write", "fsync"])
def test_a_write_that_is_interrupted_leaves_nothing(journal, monkeypatch, broken):
    journal.append({"number": 1})
    before = journal.path.read_bytes()

    def write_half(file, line: bytes) -> None:
        file.write(line[:7])
        raise KeyboardInterrupt

    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    if broken == "write":
        monkeypatch.setattr(journal_module, "_write_all", write_half)
    else:
        monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        journal.append({"number": 2})
    assert journal.path.read_bytes() == before


def test_a_number_that_json_lacks_is_refused_before_anything_is_written(journal):
    journal.append({"number": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append({"number": float("nan")})
    assert journal.replay() == [{"number": 1}]
