"""Replays a run's ledger, checks the books, and prints the statement.

    python -m lvray.audit runs/grid [--json]

Takes a run folder or a ledger file. Exit code 0 when the books are in order, 1 when they are not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvray.core.errors import LvrayError, RunFolderError
from lvray.core.run_folder import RunFolder
from lvray.core.trial import Status
from lvray.core.units import format_flops, format_share
from lvray.ledger.journal import Journal
from lvray.ledger.ledger import BUDGET, SOURCE, SPENT, Ledger, Transfer, trial_account
from lvray.scheduler.replay import History, fold


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the checks look at: the ledger, and the journal of the run folder if there is one."""

    ledger: Ledger
    history: History | None
    sweep: str | None
    """The run folder's sweep; None when a ledger file was given alone."""

    @property
    def reserved(self) -> int:
        """FLOPs in the accounts of trials."""
        return sum(
            flops for account, flops in self.ledger.balances.items() if account.startswith("trial:")
        )

    def by_giver(self, kind: str) -> Counter[str]:
        """FLOPs of all transfers of one kind, by the account that gave them."""
        return self._sums(kind, lambda transfer: transfer.giver)

    def by_taker(self, kind: str) -> Counter[str]:
        """FLOPs of all transfers of one kind, by the account that took them."""
        return self._sums(kind, lambda transfer: transfer.taker)

    def _sums(self, kind: str, account: Callable[[Transfer], str]) -> Counter[str]:
        sums: Counter[str] = Counter()
        for transfer in self.ledger.transfers:
            if transfer.kind == kind:
                sums[account(transfer)] += transfer.flops
        return sums


def conserved(evidence: Evidence) -> Iterator[str]:
    """All balances add up to zero."""
    total = sum(evidence.ledger.balances.values())
    if total:
        yield f"the balances add up to {total} FLOPs, not to 0"


def within_budget(evidence: Evidence) -> Iterator[str]:
    """No account but source is below zero, so spent is at most the budget."""
    for account, flops in evidence.ledger.balances.items():
        if account != SOURCE and flops < 0:
            yield f"{account} stands at {flops} FLOPs"
    granted, spent = -evidence.ledger.balance(SOURCE), evidence.ledger.balance(SPENT)
    if spent > granted:
        yield f"{spent} FLOPs are spent of {granted}"


def spent_is_heard_and_lost(evidence: Evidence) -> Iterator[str]:
    """What is spent was heard of or lost."""
    spent = evidence.ledger.balance(SPENT)
    heard, lost = evidence.by_giver("spend").total(), evidence.by_giver("lose").total()
    if spent != heard + lost:
        yield f"spent {spent} is not heard {heard} + lost {lost}"


def the_idle_hold_nothing(evidence: Evidence) -> Iterator[str]:
    """A trial that is not running holds no reservation."""
    if evidence.history is None or evidence.sweep is None:
        return
    for name, trial in evidence.history.trials.items():
        held = evidence.ledger.balance(trial_account(evidence.sweep, name))
        if held and trial.status is not Status.RUNNING:
            yield f"trial {name} is {trial.status} and holds {held} FLOPs"


def heard_is_what_was_measured(evidence: Evidence) -> Iterator[str]:
    """Each trial was charged what its measurements say; of one that runs, the last may not be paid yet."""
    if evidence.history is None or evidence.sweep is None:
        return
    charged = evidence.by_giver("spend")
    for name, trial in evidence.history.trials.items():
        account = trial_account(evidence.sweep, name)
        paid, heard = charged.get(account, 0), trial.flops_heard
        unpaid = evidence.ledger.balance(account) if trial.status is Status.RUNNING else 0
        if not paid <= heard <= paid + unpaid:
            yield f"trial {name} was charged {paid} FLOPs and its measurements say {heard}"


CHECKS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    conserved,
    within_budget,
    spent_is_heard_and_lost,
    the_idle_hold_nothing,
    heard_is_what_was_measured,
)
"""Every check; the first line of each one's docstring says what holds when it finds nothing."""


@dataclass(frozen=True, slots=True)
class StageLine:
    """One stage in the statement; everything in FLOPs."""

    name: str
    """``<sweep>/<stage>``."""
    allowance: int
    heard: int
    lost: int
    returned: int
    reserved: int
    available: int
    trials: Mapping[str, tuple[int, int, int]]
    """Heard, lost and reserved, by trial."""

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values, FLOPs as strings."""
        sweep, _, stage = self.name.partition("/")
        return {
            "name": stage,
            "sweep": sweep,
            "allowance": str(self.allowance),
            "spent": str(self.heard + self.lost),
            "heard": str(self.heard),
            "lost": str(self.lost),
            "returned": str(self.returned),
            "reserved": str(self.reserved),
            "available": str(self.available),
            "trials": {
                name: {"heard": str(heard), "lost": str(lost), "reserved": str(reserved)}
                for name, (heard, lost, reserved) in self.trials.items()
            },
        }


def statement(ledger: Ledger) -> list[StageLine]:
    """What each stage got, used and gave back, and each of its trials, in the order of their first transfer."""
    evidence = Evidence(ledger, None, None)
    spent, lost, returned = (evidence.by_giver(kind) for kind in ("spend", "lose", "return"))
    allowed = evidence.by_taker("allow")
    trials: dict[str, dict[str, None]] = {}
    for transfer in ledger.transfers:
        if transfer.kind == "reserve":
            trials.setdefault(transfer.giver, {})[transfer.taker] = None
    lines = []
    for stage in (account for account in ledger.balances if account.startswith("stage:")):
        mine = {
            trial.partition("/")[2]: (spent[trial], lost[trial], ledger.balance(trial))
            for trial in trials.get(stage, ())
        }
        lines.append(
            StageLine(
                name=stage.removeprefix("stage:"),
                allowance=allowed[stage],
                heard=sum(heard for heard, _, _ in mine.values()),
                lost=sum(gone for _, gone, _ in mine.values()),
                returned=returned[stage],
                reserved=sum(held for _, _, held in mine.values()),
                available=ledger.balance(stage),
                trials=mine,
            )
        )
    return lines


def findings(evidence: Evidence) -> list[str]:
    """What the checks find wrong, a sentence each; empty when the books are in order."""
    return [finding for check in CHECKS for finding in check(evidence)]


def to_json(evidence: Evidence) -> dict[str, Any]:
    """The audit for programs; FLOPs are strings."""
    wrong = findings(evidence)
    budget, spent = -evidence.ledger.balance(SOURCE), evidence.ledger.balance(SPENT)
    return {
        "ok": not wrong,
        "findings": wrong,
        "convention": evidence.ledger.convention,
        "budget": str(budget),
        "spent": str(spent),
        "lost": str(evidence.by_giver("lose").total()),
        "reserved": str(evidence.reserved),
        "available": str(budget - spent - evidence.reserved),
        "stages": [line.to_json() for line in statement(evidence.ledger)],
    }


def describe(evidence: Evidence) -> str:
    """The statement as text."""
    budget, spent = -evidence.ledger.balance(SOURCE), evidence.ledger.balance(SPENT)
    lines = [
        f"{evidence.ledger.path}: {len(evidence.ledger.transfers)} transfers, convention {evidence.ledger.convention}",
        f"budget {format_flops(budget)}  spent {format_flops(spent)} ({format_share(spent, budget)})  "
        f"reserved {format_flops(evidence.reserved)}  in {BUDGET} {format_flops(evidence.ledger.balance(BUDGET))}",
        "",
        f"{'':<24} {'allowance':>10} {'heard':>10} {'lost':>10} {'reserved':>10} {'returned':>10}",
    ]
    for stage in statement(evidence.ledger):
        figures = (stage.allowance, stage.heard, stage.lost, stage.reserved, stage.returned)
        lines.append(
            f"{stage.name:<24} " + " ".join(f"{format_flops(flops):>10}" for flops in figures)
        )
        for name, (heard, lost, reserved) in stage.trials.items():
            row = " ".join(f"{format_flops(flops):>10}" for flops in (heard, lost, reserved))
            lines.append(f"  {name:<22} {'':>10} {row}")
    wrong = findings(evidence)
    lines += ["", *(f"WRONG: {finding}" for finding in wrong)]
    lines.append("the books are in order" if not wrong else f"{len(wrong)} findings")
    return "\n".join(lines)


def gather(path: Path) -> Evidence:
    """Reads a run folder or a ledger file.

    Raises:
        RunFolderError: there is no ledger.
        JournalCorrupt: the ledger or the journal is damaged, or was ever overdrawn.
    """
    if path.is_file():
        return Evidence(Ledger.read(path), None, None)
    folder = RunFolder(path)
    if not folder.journal.exists():
        raise RunFolderError(f"{path}: no run folder: it has no {folder.journal.name}")
    history = fold(Journal(folder.journal).replay())
    spec = history.sessions[0]["spec"] if history.sessions else {}
    ledger = Path(history.shared_ledger or folder.ledger)
    return Evidence(Ledger.read(ledger), history, spec.get("name", folder.name))


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; 0 in order, 1 not in order or damaged, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="lvray audit", description="Checks the books of a run and prints the statement."
    )
    parser.add_argument("path", type=Path, help="a run folder, or a ledger file")
    parser.add_argument("--json", action="store_true", help="for programs; FLOPs as strings")
    arguments = parser.parse_args(argv)
    try:
        evidence = gather(arguments.path)
    except LvrayError as error:
        print(
            json.dumps({"ok": False, "findings": [str(error)]})
            if arguments.json
            else f"lvray audit: {error}",
            file=sys.stdout if arguments.json else sys.stderr,
        )
        return error.exit_code
    print(json.dumps(to_json(evidence), indent=1) if arguments.json else describe(evidence))
    return 1 if findings(evidence) else 0


if __name__ == "__main__":
    raise SystemExit(main())
