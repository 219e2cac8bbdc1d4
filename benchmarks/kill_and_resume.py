"""Does a sweep survive `kill -9`? The driver is killed at random moments and started again, over and over.

    python benchmarks/kill_and_resume.py [--kills 20] [--sweep tests/ray/small.yaml] [--seed 0]

After every kill, and again after every resumed driver that was let run to its end, the books are audited.
A sweep that ends is begun anew until the kills are used up. Exit code 1 if any audit is not clean.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

BUDGET = "budget=1.5e12"
"""Enough that many lost stretches leave something to go on with."""


def start(sweep: Path, runs: Path, *more: str) -> subprocess.Popen[bytes]:
    """A driver in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "lvray.sweep",
        str(sweep),
        "--runs",
        str(runs),
        "--set",
        BUDGET,
        *more,
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def audit(folder: Path) -> dict[str, Any]:
    """What `lvray audit --json` says of a run folder."""
    command = [sys.executable, "-m", "lvray.audit", str(folder), "--json"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    answer: dict[str, Any] = json.loads(told.stdout)
    return answer


def main() -> int:
    """Prints a line a kill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--sweep", type=Path, default=ROOT / "tests" / "ray" / "small.yaml")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=30.0, help="seconds until a kill, at most")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    clean = kills = 0
    with TemporaryDirectory() as place:
        runs = Path(place)
        folder = runs / arguments.sweep.stem
        fresh: tuple[str, ...] = ()
        while kills < arguments.kills:
            wait = chance.uniform(1, arguments.longest)
            driver = start(arguments.sweep, runs, *fresh)
            fresh = ()
            begun = perf_counter()
            try:
                driver.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                os.kill(driver.pid, signal.SIGKILL)
                driver.wait()
                if not (folder / "ledger.jsonl").exists():
                    continue  # killed before there was anything to audit
                kills += 1
                told = audit(folder)
                clean += told["ok"]
                print(
                    f"kill {kills:>2} after {perf_counter() - begun:5.1f} s: ok {told['ok']}  spent {told['spent']}  "
                    f"lost {told['lost']}  of {told['budget']}  {told['findings']}",
                    flush=True,
                )
            else:
                print(
                    f"ended by itself with {driver.returncode}: ok {audit(folder)['ok']}",
                    flush=True,
                )
                fresh = ("--fresh",)
        driver = start(arguments.sweep, runs)
        _, trouble = driver.communicate()
        told = audit(folder)
        print(
            f"the last resume ended with {driver.returncode}: ok {told['ok']}, spent {told['spent']}, lost {told['lost']}"
        )
        if driver.returncode:
            print(trouble.decode())
    print(f"{clean} clean audits after {kills} kills")
    return 0 if clean == kills and told["ok"] and driver.returncode == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
