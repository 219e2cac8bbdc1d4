"""How long does a simulated sweep of very many trials take, and how much memory?

    python benchmarks/many_trials.py [--trials 20000 100000]

Each size is a process of its own on one core: a halving search of so many trials on invented curves, 64 workers, one in a hundred
stretches crashing. Memory must grow no faster than the trials.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

SWEEP = """
name: many
budget: {budget}
evaluation: {{windows: 4, context_length: 500}}
trial: {{context_length: 500, stride: 500}}
stages:
  - {{name: search, policy: halving, sampler: random, samples: {trials}, space: {{learning_rate: {{log: [1e-5, 1e-1]}}, lora.rank: {{log: [1, 64]}}, seed: {{linear: [0, 1000000]}}}}}}
  - {{name: final, from: search, continue: true, hold_back: 0.3, steps: fill}}
"""

CHILD = """
import resource, sys, time
begun = time.process_time()
from lvray.simulate import main
code = main([sys.argv[1], "--workers", "64", "--crashes", "0.01", "--json"])
used = time.process_time() - begun
print(used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
raise SystemExit(code)
"""


def measured(trials: int) -> tuple[float, float, dict[str, object]]:
    """CPU seconds, megabytes at most, and what was simulated."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "many.yaml"
        file.write_text(SWEEP.format(budget=trials * 10**15, trials=trials))
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(file)], capture_output=True, text=True, check=True
        )
    seconds, kilobytes = map(float, done.stderr.split()[-2:])
    return seconds, kilobytes / 1024, json.loads(done.stdout)


def main() -> None:
    """Prints a line a size, and how memory grew beside the trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="*", default=[20_000, 100_000])
    sizes = parser.parse_args().trials
    memory = {}
    for trials in sizes:
        seconds, megabytes, told = measured(trials)
        memory[trials] = megabytes
        print(
            f"{trials:>8} trials: {seconds:6.1f} s of CPU, {megabytes:7.0f} MB at most, "
            f"{told['reports']} reports, {told['crashes']} crashes, books in order: {told['ok']}"
        )
    small, large = min(sizes), max(sizes)
    print(f"trials × {large / small:.1f}, memory × {memory[large] / memory[small]:.1f}")


if __name__ == "__main__":
    main()
