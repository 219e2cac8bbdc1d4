"""Replays a run's ledger, checks the books, and prints the statement.

    python -m lvray.audit runs/grid [--json]

Takes a run folder or a ledger file. Exit code 0 when the books are in order, 1 when they are not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lvray.core.errors import LvrayError, RunFolderError
from lvray.core.output import say
from lvray.core.run_folder import RunFolder
from lvray.core.units import format_flops, format_share
from lvray.driver.accounts import Evidence, findings, statement
from lvray.ledger.journal import Journal
from lvray.ledger.ledger import BUDGET, SOURCE, SPENT, Ledger
from lvray.scheduler.replay import fold


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
    sweep = ""
    for stage in statement(evidence.ledger):
        if stage.sweep != sweep:
            sweep = stage.sweep
            lines.append(f"{sweep}: {evidence.ledger.describe_sweep(sweep)}")
        figures = (stage.allowance, stage.heard, stage.lost, stage.reserved, stage.returned)
        lines.append(
            f"  {stage.stage:<22} " + " ".join(f"{format_flops(flops):>10}" for flops in figures)
        )
        for name, (heard, lost, reserved) in stage.trials.items():
            row = " ".join(f"{format_flops(flops):>10}" for flops in (heard, lost, reserved))
            lines.append(f"    {name:<20} {'':>10} {row}")
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
    say(json.dumps(to_json(evidence), indent=1) if arguments.json else describe(evidence))
    return 1 if findings(evidence) else 0


if __name__ == "__main__":
    raise SystemExit(main())
