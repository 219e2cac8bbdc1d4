"""How long does each verb take to start? As a ratio to Python doing nothing, median of several runs.

python benchmarks/startup.py [--runs 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]

COMMANDS = {
    "plan": ["-m", "lvray.plan", "sweeps/grid.yaml", "--json"],
    "price": ["-m", "lvray.price", "--json"],
    "audit": ["-m", "lvray.audit", "--help"],
    "generate": ["-m", "lvray.generate", "--help"],
    "report": ["-m", "lvray.report", "--help"],
    "train": ["-m", "lvray.train", "--help"],
    "sweep": ["-m", "lvray.sweep", "--help"],
    "submit": ["-m", "lvray.submit", "sweeps/grid.yaml", "--cluster", "laptop", "--dry-run"],
}


def seconds(arguments: list[str]) -> float:
    """Wall-clock seconds of one run of this Python with `arguments`."""
    begun = perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - begun


def main() -> None:
    """Prints a row a verb."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    commands = {"(nothing)": ["-c", "pass"], **COMMANDS}
    for arguments in commands.values():
        seconds(arguments)  # once, to warm the disk cache
    # Taken in turn, so that a slow moment of the machine falls on all of them.
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, arguments in commands.items():
            taken[name].append(seconds(arguments))
    bare = statistics.median(taken["(nothing)"])
    print(f"{'verb':<10} {'seconds':>8} {'ratio':>6}")
    for name, times in taken.items():
        middle = statistics.median(times)
        print(f"{name:<10} {middle:>8.3f} {middle / bare:>6.1f}")


if __name__ == "__main__":
    main()
