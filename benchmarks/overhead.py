"""What does a sweep cost beyond its training steps? Its trials' wall time against the same steps in a bare loop.

    python benchmarks/overhead.py runs/grid

For each trial that trained, the run folder tells its steps and seconds. The same number of steps, of the
same rank, batch size and context length, is timed in a plain transformers + PEFT loop on one thread, in
pieces of `--steps` steps and scaled. The ratio says how much longer the sweep's own trials took; the
second ratio takes the whole wall time, Ray's start, imports, evaluations, forecasts and all, times the
number of trials that ran side by side.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from bare import bare_model, seconds_of_forward, seconds_of_steps


def main() -> None:
    """Prints a row a trial and the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed of each trial")
    parser.add_argument("--workers", type=int, default=2, help="trials that ran side by side")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records = [
        json.loads(line) for line in (arguments.run / "journal.jsonl").read_text().splitlines()
    ]
    evaluation = next(r for r in records if r["event"] == "session")["spec"]["evaluation"]
    plans = {t["trial_id"]: t for r in records if r["event"] == "stage" for t in r["trials"]}
    heard: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in records:
        if record["event"] == "measurement":
            row = record["measurement"]
            heard.setdefault((row["trial_id"], row["attempt"]), []).append(row)
    ours = bare = 0.0
    print(f"{'trial':<14} {'steps':>6} {'sweep s':>8} {'bare s':>8} {'ratio':>6}")
    for name in sorted({trial for trial, _ in heard}):
        config = plans[name]["config"]
        attempts = [rows for (trial, _), rows in heard.items() if trial == name]
        tokens = sum(rows[-1]["tokens"] for rows in attempts)
        steps = tokens // (config["batch_size"] * config["context_length"])
        if not steps:
            continue
        model = bare_model(config["lora"]["rank"])
        shape = {"batch_size": config["batch_size"], "context_length": config["context_length"]}
        seconds_of_steps(model, steps=2, **shape)
        step = seconds_of_steps(model, steps=arguments.steps, **shape) / arguments.steps
        passes = (
            sum(len(rows) for rows in attempts) * evaluation["windows"] / evaluation["batch_size"]
        )
        forward = seconds_of_forward(
            model.eval(),
            batch_size=evaluation["batch_size"],
            context_length=evaluation["context_length"],
        )
        mine = sum(rows[-1]["seconds"] for rows in attempts)
        theirs = steps * step + passes * forward
        ours, bare = ours + mine, bare + theirs
        print(f"{name:<14} {steps:>6} {mine:>8.1f} {theirs:>8.1f} {mine / theirs:>6.2f}")
    print(f"trials: {ours:.0f} s in the sweep, {bare:.0f} s bare, ratio {ours / bare:.2f}")
    begun, ended = (datetime.fromisoformat(record["at"]) for record in (records[0], records[-1]))
    whole = (ended - begun).total_seconds() * arguments.workers
    print(f"whole sweep: {whole:.0f} worker seconds, ratio {whole / bare:.2f}")


if __name__ == "__main__":
    main()
