"""Do several drivers on one ledger ever overdraw it? Four sweeps begin at once, one of them is killed, and the books are audited.

    python benchmarks/shared_ledger.py [--drivers 4] [--seed 0]

Each driver is a process of its own that runs `lvray train` on a sweep of its own, on the tiny model, with `ledger:`
pointing at one file. Together the four ask for its whole budget. One
is killed with -9 at a random moment while it trains. Then the same command is run again for it. Exit code 1
if an audit finds anything, or more was spent than the budget.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from lvray.ledger.ledger import SPENT, Ledger

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 1_200_000_000_000
"""FLOPs of the ledger."""
ASKED = 300_000_000_000
"""FLOPs that each sweep asks for: four of them ask for all that there is."""

SWEEP = """
budget: {asked}
model: tiny
ledger: {{path: {ledger}, budget: {budget}}}
evaluation: {{windows: 4, context_length: 250, forecast: {{systems: 2}}}}
trial: {{lora: {{rank: 4, targets: all-linear}}, context_length: 250, stride: 250, batch_size: 2, padding: drop}}
stages: [{{name: only, steps: 100}}]
"""


def begin(folder: Path, name: str, steps: int) -> subprocess.Popen[bytes]:
    """Starts a driver."""
    file = folder / f"{name}.yaml"
    file.write_text(SWEEP.format(asked=ASKED, ledger=folder / "ledger.jsonl", budget=BUDGET))
    command = [sys.executable, "-m", "lvray.train", str(file), "--runs", str(folder / "runs")]
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--steps", str(steps), "--evaluations", "6"],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def audit(path: Path) -> dict[str, object]:
    """What `audit --json` says of a run folder or a ledger."""
    done = subprocess.run(
        [sys.executable, "-m", "lvray.audit", str(path), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told: dict[str, object] = json.loads(done.stdout)
    return told


def spent(path: Path) -> int:
    """FLOPs that stand in the ledger as spent; 0 before it is there."""
    return Ledger.read(path).balance(SPENT) if path.exists() else 0


def main() -> int:
    """Runs them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drivers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with TemporaryDirectory() as name:
        folder = Path(name)
        ledger = folder / "ledger.jsonl"
        names = [f"sweep-{number}" for number in range(arguments.drivers)]
        drivers = {name: begin(folder, name, arguments.steps) for name in names}
        victim = chance.choice(names)
        while not (folder / "runs" / f"{victim}-train" / "journal.jsonl").exists() or (
            spent(ledger) < BUDGET // 50
        ):
            time.sleep(0.2)
            if drivers[victim].poll() is not None:
                break
        time.sleep(chance.uniform(0, 5))
        drivers[victim].send_signal(signal.SIGKILL)
        codes = {name: driver.wait() for name, driver in drivers.items()}
        print(f"{victim} was killed; exit codes {codes}")
        wrong = report(folder, names, "after the kill")
        again = begin(folder, victim, arguments.steps).wait()
        print(f"{victim} again: exit code {again}")
        wrong += report(folder, names, "at the end")
        for told in (folder / f"{name}.log" for name in names):
            last = told.read_text().strip().splitlines()[-1:]
            print(f"{told.stem}: {last[0][:200] if last else ''}")
        print(
            subprocess.run(
                [sys.executable, "-m", "lvray.audit", str(ledger)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            ).stdout
        )
    return 1 if wrong else 0


def report(folder: Path, names: list[str], when: str) -> int:
    """Audits the ledger and every run folder; gives how many are not in order."""
    wrong = 0
    whole = audit(folder / "ledger.jsonl")
    print(
        f"{when}: ledger ok {whole['ok']}, spent {whole['spent']} of {whole['budget']}, reserved {whole['reserved']}"
    )
    wrong += not whole["ok"] or int(str(whole["spent"])) > BUDGET
    for name in names:
        run = folder / "runs" / f"{name}-train"
        if (run / "journal.jsonl").exists():
            told = audit(run)
            wrong += not told["ok"]
            print(f"  {name}: ok {told['ok']} {told['findings'] or ''}")
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
