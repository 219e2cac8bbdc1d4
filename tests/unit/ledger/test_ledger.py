"""Each test is a few lines of a ledger."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from itertools import count

import pytest

from lvray.core.errors import BudgetTooSmall, JournalCorrupt, Overdraft, RunFolderError
from lvray.ledger.books import Books
from lvray.ledger.journal import Journal
from lvray.ledger.ledger import BUDGET, SOURCE, SPENT, Ledger, Transfer, sweep_account


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


def opened(path, budget=10**17):
    books = Books(Ledger.open(path, convention="coursework"), "s")
    books.open_sweep(budget)
    return books


def test_a_stretch_is_reserved_spent_and_the_rest_released(path):
    books = opened(path, 1000)
    books.allow("search", 600, key="1")
    books.reserve("search", "t", 100, key="t/0/1")
    books.spend("t", 70, key="t/0/1")
    books.release("t", "search", 30, key="t/0/1")
    assert (books.available("search"), books.held("t"), books.spent, books.free) == (
        530,
        0,
        70,
        400,
    )


def test_a_trial_can_never_spend_more_than_is_reserved(path):
    books = opened(path)
    books.allow("search", 600, key="1")
    books.reserve("search", "t", 100, key="t/0/1")
    before = path.read_bytes()
    with pytest.raises(Overdraft, match="trial:s/t has 100 FLOPs"):
        books.spend("t", 101, key="t/0/1")
    assert path.read_bytes() == before
    assert books.held("t") == 100


def test_a_search_cannot_touch_what_is_held_back(path):
    books = opened(path, 1000)
    books.allow("final", 300, key="hold-back")
    books.allow("search", 700, key="1")
    with pytest.raises(Overdraft):
        books.reserve("search", "t", 701, key="t/0/1")
    with pytest.raises(Overdraft):
        books.allow("search", 1, key="2")
    assert books.available("final") == 300


def test_saying_a_transfer_again_changes_nothing_and_saying_another_is_an_error(path):
    books = opened(path)
    books.allow("search", 600, key="1")
    books.reserve("search", "t", 100, key="t/0/1")
    books.reserve("search", "t", 100, key="t/0/1")
    assert books.held("t") == 100
    with pytest.raises(JournalCorrupt, match="t/0/1"):
        books.reserve("search", "t", 99, key="t/0/1")


def test_budgets_above_two_to_the_53_are_exact(path):
    budget = 10**26 + 1
    books = opened(path, budget)
    books.allow("search", budget, key="1")
    books.reserve("search", "t", budget, key="t")
    books.spend("t", budget - 1, key="t")
    assert Books(Ledger.open(path, convention="coursework"), "s").held("t") == 1


def test_transfers_of_one_transaction_stand_or_fall_together(path):
    books = opened(path, 1000)
    sweep = sweep_account("s")
    first = Transfer(400, sweep, "stage:s/a", "allow", "", "a")
    second = Transfer(700, sweep, "stage:s/b", "allow", "", "b")
    with pytest.raises(Overdraft):
        books.ledger.transact([first, second])
    assert books.free == 1000


def test_the_same_transfer_twice_in_one_transaction_is_made_once(path):
    books = opened(path, 1000)
    once = Transfer(400, sweep_account("s"), "stage:s/a", "allow", "", "a")
    books.ledger.transact([once, once])
    assert books.free == 600
    assert Ledger.read(path).balance(sweep_account("s")) == 600
    other = Transfer(500, sweep_account("s"), "stage:s/a", "allow", "", "b")
    with pytest.raises(JournalCorrupt, match="b was"):
        books.ledger.transact([other, replace(other, flops=100)])


@pytest.mark.parametrize(
    ("kind", "giver", "taker"),
    [
        ("spend", "stage:s/a", SPENT),
        ("grant", BUDGET, "sweep:s"),
        ("release", "trial:s/t", "sweep:s"),
        ("steal", SOURCE, SPENT),
    ],
)
def test_transfers_go_along_their_own_arrows_only(path, kind, giver, taker):
    books = opened(path)
    with pytest.raises(Overdraft, match="is no route"):
        books.ledger.transact([Transfer(1, giver, taker, kind, "", "k")])


def test_another_convention_is_refused(path):
    opened(path, 1000)
    with pytest.raises(RunFolderError, match="coursework, and the sweep by palm-lora"):
        Ledger.open(path, convention="palm-lora")


def sweep_of(path, name: str) -> Books:
    return Books(Ledger.open(path, convention="coursework"), name)


def test_sweeps_draw_on_one_ledger_what_they_ask_for_or_what_is_left(path):
    assert sweep_of(path, "one").open_sweep(600, total=1000, place="runs/one") == 600
    assert sweep_of(path, "two").open_sweep(600, total=1000, place="runs/two") == 400
    with pytest.raises(BudgetTooSmall, match="one took 600, two took 400"):
        sweep_of(path, "three").open_sweep(600, place="runs/three")


def test_what_one_sweep_gives_back_is_there_for_the_next(path):
    one, two = sweep_of(path, "one"), sweep_of(path, "two")
    one.open_sweep(600)
    with pytest.raises(BudgetTooSmall, match="nothing is left of 600 FLOPs"):
        two.open_sweep(500)
    one.allow("search", 100, key="1")
    one.close_sweep()
    assert one.drawn == 100
    assert two.open_sweep(500) == 500


def test_a_sweep_draws_once_unless_it_gave_all_of_it_back(path):
    books = sweep_of(path, "one")
    assert [books.open_sweep(300, total=1000) for _ in range(3)] == [300] * 3
    assert sweep_of(path, "one").open_sweep(300, total=1000) == 300
    books.close_sweep()
    assert books.open_sweep(700) == 700
    assert books.ledger.balance(BUDGET) == 300


def test_another_total_or_another_sweep_of_the_name_is_refused(path):
    sweep_of(path, "one").open_sweep(300, total=1000, place="runs/one")
    with pytest.raises(RunFolderError, match=r"1\.00e3 FLOPs, and sweep two takes it for 2\.00e3"):
        sweep_of(path, "two").open_sweep(300, total=2000)
    with pytest.raises(RunFolderError, match="of runs/one, and this one is of runs/other"):
        sweep_of(path, "one").open_sweep(300, place="runs/other")


def test_a_ledger_that_was_ever_overdrawn_is_not_believed(path):
    opened(path, 1000)
    row = (
        '{"key":"x","kind":"allow","flops":"1001","giver":"sweep:s","taker":"stage:s/a","memo":""}'
    )
    with path.open("a") as file:
        file.write(f'{{"at":"now","transfers":[{row}]}}\n')
    with pytest.raises(JournalCorrupt, match="sweep:s has"):
        Ledger.read(path)


GOOD = {
    "key": "x",
    "kind": "allow",
    "flops": "7",
    "giver": "sweep:s",
    "taker": "stage:s/a",
    "memo": "",
}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"at": "now"}, "transfers"),
        ({"transfers": 3}, "not iterable"),
        ({"transfers": ["text"]}, "a transfer has flops, giver, "),
        ({"transfers": [{**GOOD, "more": "1"}]}, "a transfer has flops, giver, "),
        (
            {"transfers": [{k: v for k, v in GOOD.items() if k != "giver"}]},
            "a transfer has flops, ",
        ),
        ({"transfers": [{**GOOD, "flops": 7}]}, "flops is a string, not 7"),
        ({"transfers": [{**GOOD, "flops": "1.7"}]}, "whole number above zero, not '1.7'"),
        ({"transfers": [{**GOOD, "flops": "-7"}]}, "whole number above zero, not '-7'"),
        ({"transfers": [{**GOOD, "flops": "0"}]}, "whole number above zero, not '0'"),
        ({"transfers": [{**GOOD, "flops": "٣"}]}, "whole number above zero"),
        ({"transfers": [{**GOOD, "giver": None}]}, "giver is a string, not None"),
        ({"transfers": [{**GOOD, "taker": "sweep:s"}]}, "x goes from sweep:s to itself"),
        ({"transfers": [{**GOOD, "key": "grant"}]}, "grant was "),
        ({"transfers": [GOOD, GOOD]}, "was made before"),
    ],
)
def test_a_strange_line_is_an_error_that_names_it_however_often_it_is_read(path, line, told):
    books = opened(path, 1000)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    for _ in range(2):
        with pytest.raises(JournalCorrupt, match=r"ledger\.jsonl, line 3: ") as error:
            books.ledger.refresh()
        assert told in str(error.value)
    with pytest.raises(JournalCorrupt, match="line 3"):
        books.allow("search", 1, key="1")


def test_a_file_without_the_head_of_a_ledger_is_refused(path):
    path.write_text('{"number": 1}\n')
    with pytest.raises(JournalCorrupt, match="line 1: not the head of a ledger"):
        Ledger.open(path, convention="coursework")
    path.write_text('{"format": "lvray-ledger/1"}\n')
    with pytest.raises(JournalCorrupt, match="line 1: not the head of a ledger"):
        Ledger.read(path)


def test_a_ledger_that_was_deleted_is_not_begun_again_under_a_driver(path):
    books = opened(path, 1000)
    path.unlink()
    for _ in range(2):
        with pytest.raises(JournalCorrupt, match="0 are left"):
            books.allow("search", 1, key="1")
    assert not path.exists()


def interrupted_after(method):
    """The method, with Ctrl-C arriving when it has done something and not yet said so."""

    def then_interrupt(self, *arguments):
        told = method(self, *arguments)
        if told != []:
            raise KeyboardInterrupt
        return told

    return then_interrupt


@pytest.mark.parametrize("place", ["append", "news"])
def test_ctrl_c_between_writing_and_believing_overdraws_nothing(path, monkeypatch, place):
    books = opened(path, 1000)
    books.allow("search", 1000, key="1")
    with monkeypatch.context() as patched:
        patched.setattr(Journal, place, interrupted_after(getattr(Journal, place)))
        with pytest.raises(KeyboardInterrupt):
            books.reserve("search", "t", 700, key="t/0/1")
    with pytest.raises(Overdraft):
        books.reserve("search", "u", 700, key="u/0/1")
    assert (books.held("t"), books.available("search")) == (700, 300)
    assert Ledger.read(path).balances == books.ledger.balances


def test_two_ledgers_on_one_file_see_each_other(path):
    one, two = opened(path, 1000), Books(Ledger.open(path, convention="coursework"), "s")
    one.allow("search", 700, key="1")
    with pytest.raises(Overdraft):
        two.allow("other", 400, key="1")
    two.allow("other", 300, key="2")
    one.ledger.refresh()
    assert one.free == 0


def hammer(path, name: str, together) -> None:
    """Draws on the stage that all share until nothing is left, beginning when all are there."""
    books = Books(Ledger.open(path, convention="coursework"), "s")
    together.wait(300)
    for number in count():
        try:
            books.reserve("search", name, 7, key=f"{name}/{number}")
        except Overdraft:
            return
        books.spend(name, 7, key=f"{name}/{number}")


def test_four_processes_one_of_them_killed_never_overdraw(path):
    books = opened(path, 2000)
    books.allow("search", 2000, key="1")
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(4)
    crowd = [context.Process(target=hammer, args=(path, f"t{n}", together)) for n in range(4)]
    for process in crowd:
        process.start()
    end = time.monotonic() + 300
    while path.read_text().count('"s/t0/') < 5:  # it draws, and not others alone
        assert crowd[0].is_alive(), "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.001)
    os.kill(crowd[0].pid, signal.SIGKILL)
    for process in crowd:
        process.join(300)
    assert [process.exitcode for process in crowd] == [-signal.SIGKILL, 0, 0, 0]
    ledger = Ledger.read(path)
    held = sum(flops for account, flops in ledger.balances.items() if account.startswith("trial:"))
    left = ledger.balance("stage:s/search")
    assert ledger.balance(SPENT) + held + left == 2000
    assert left < 7
    assert held in (0, 7)
