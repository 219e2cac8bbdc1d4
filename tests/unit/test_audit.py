"""The auditor finds each kind of disorder, and nothing in a run that went well."""

from __future__ import annotations

import json
import shutil

import pytest

from lvray.audit import gather, main
from lvray.driver.accounts import CHECKS, Evidence, findings, statement
from lvray.ledger.journal import Journal
from lvray.ledger.ledger import BUDGET, SOURCE, SPENT, Ledger


def test_books_that_are_in_order_add_up(finished, capsys):
    assert main([str(finished), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    assert told["findings"] == []
    flops = {key: int(told[key]) for key in ("budget", "spent", "reserved", "available", "lost")}
    assert flops["budget"] == flops["spent"] + flops["reserved"] + flops["available"]
    assert flops["spent"] == sum(int(stage["spent"]) for stage in told["stages"])
    for stage in told["stages"]:
        in_trials = sum(int(t["heard"]) + int(t["lost"]) for t in stage["trials"].values())
        assert int(stage["spent"]) == in_trials
        assert int(stage["allowance"]) == in_trials + int(stage["returned"])


def test_the_statement_reads_well(finished, capsys):
    assert main([str(finished)]) == 0
    text = capsys.readouterr().out
    assert "the books are in order" in text
    for stage in statement(Ledger.read(finished / "ledger.jsonl")):
        assert f"  {stage.stage} " in text
    assert "invented: took 1.00e6" in text


def test_a_ledger_file_alone_is_audited_too(finished, capsys):
    assert main([str(finished / "ledger.jsonl")]) == 0
    assert "in order" in capsys.readouterr().out


def test_a_shared_ledger_is_found_from_anywhere(finished, tmp_path, monkeypatch):
    root = tmp_path / "runs" / "invented"
    shutil.copytree(finished, root)
    shared = tmp_path / "team.jsonl"
    (root / "ledger.jsonl").rename(shared)
    rows = [json.loads(line) for line in (root / "journal.jsonl").read_text().splitlines()]
    for row in rows:
        if row["event"] == "session":
            row["ledger"] = str(shared)
    (root / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path.parent)
    assert gather(root).ledger.path == shared
    assert main([str(root)]) == 0


def test_a_measurement_that_was_never_paid_for_is_found(retold, capsys):
    def dearer(row):
        if row["event"] == "measurement" and row["measurement"]["trial_id"] == "baseline":
            row["measurement"]["flops"] = str(int(row["measurement"]["flops"]) + 1)

    assert main([str(retold(dearer))]) == 1
    assert "WRONG: trial baseline was charged" in capsys.readouterr().out


def test_what_is_reserved_now_is_told(invented):
    invented.books.allow("search", 1000, key="1")
    invented.books.reserve("search", "t", 300, key="t")
    evidence = gather(invented.root)
    assert evidence.reserved == 300
    (stage,) = statement(evidence.ledger)
    assert (stage.reserved, stage.available, stage.trials) == (
        300,
        700,
        {"t": (0, 0, 300)},
    )


@pytest.mark.parametrize(
    ("check", "account", "flops", "told"),
    [
        ("conserved", BUDGET, 1, "the balances add up to 1 FLOPs"),
        ("within_budget", "stage:invented/search", -(10**9), "stands at -"),
        ("within_budget", SPENT, 10**9, "FLOPs are spent of"),
        ("spent_is_heard_and_lost", SPENT, 1, "is not heard"),
        ("the_idle_hold_nothing", "trial:invented/baseline", 5, "is completed and holds 5 FLOPs"),
    ],
)
def test_each_check_finds_what_it_is_for(finished, check, account, flops, told):
    evidence = gather(finished)
    assert findings(evidence) == []
    ledger = evidence.ledger
    ledger.balances[account] = ledger.balance(account) + flops
    (named,) = [wanted for wanted in CHECKS if wanted.__name__ == check]
    assert any(told in finding for finding in named(evidence))


def test_a_damaged_ledger_is_a_finding_in_words(finished, tmp_path, capsys):
    copy = tmp_path / "ledger.jsonl"
    lines = (finished / "ledger.jsonl").read_text().splitlines()
    copy.write_text("\n".join([lines[0], lines[1][:-5], *lines[2:]]) + "\n")
    assert main([str(copy)]) == 1
    assert "line 2" in capsys.readouterr().err
    assert main([str(copy), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert "line 2" in told["findings"][0]


def test_a_folder_that_is_no_run_is_told_so(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no run folder" in capsys.readouterr().err


def test_an_empty_ledger_is_in_order(tmp_path):
    Journal(tmp_path / "l.jsonl").append({"format": "lvray-ledger/1", "convention": "coursework"})
    evidence = Evidence(Ledger.read(tmp_path / "l.jsonl"), None, None)
    assert findings(evidence) == []
    assert evidence.ledger.balance(SOURCE) == 0
