"""Draws what `policies.py` found, and prints it as Markdown tables.

    python benchmarks/policies_figure.py ROWS.jsonl … --out docs/policies.png

A panel for each table and kind of cost, a line for each contender: mean regret of the final model against the budget, at
four workers; the band is the 95% bootstrap interval of `halving`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from policies import Row

LINES: dict[str, dict[str, Any]] = {
    "grid": {"color": "#c92a2a", "linestyle": ":"},
    "equal-FLOP": {"color": "#f08c00", "linestyle": ":"},
    "random": {"color": "#868e96", "linestyle": ":"},
    "Hyperband": {"color": "#868e96", "linestyle": "--"},
    "ASHA": {"color": "#364fc7", "linestyle": "--"},
    "halving": {"color": "#0b7285", "linewidth": 2.2},
    "freeze-thaw": {"color": "#9c36b5", "linewidth": 1.4},
}
NAMES = {
    "lotka_volterra_tiny": "Lotka–Volterra, LoRA (ours)",
    "imdb_patch128_LSTM128_avg_bs64": "TaskSet LSTM128",
    "imdb_patch32_GRU64_avg_bs128": "TaskSet GRU64",
    "imdb_patch32_IRNN64_relu_last_bs128": "TaskSet IRNN64",
    "imdb_patch32_VRNN128_tanh_bs128": "TaskSet VRNN128",
}


def read(paths: Sequence[Path]) -> list[Row]:
    """Rows of all files."""
    return [Row(**json.loads(line)) for path in paths for line in path.read_text().splitlines()]


def figure(rows: Sequence[Row], *, workers: int = 4) -> Figure:
    """The panels."""
    chosen = [row for row in rows if row.workers == workers]
    tables = sorted({row.table for row in chosen}, key=list(NAMES).index)
    drawn = Figure(figsize=(3.0 * len(tables), 5.6), layout="constrained")
    axes = drawn.subplots(2, len(tables), squeeze=False, sharex=True)
    for column, table in enumerate(tables):
        for line, unequal in enumerate((False, True)):
            axis = axes[line][column]
            axis.set_title(
                f"{NAMES[table]}\n{'unequal' if unequal else 'equal'} costs", fontsize=9, loc="left"
            )
            for contender, style in LINES.items():
                mine = sorted(
                    (
                        r
                        for r in chosen
                        if (r.table, r.unequal, r.contender) == (table, unequal, contender)
                    ),
                    key=lambda row: row.budget,
                )
                budgets = [row.budget for row in mine]
                axis.plot(
                    budgets,
                    [row.mean for row in mine],
                    label=contender,
                    marker="o",
                    markersize=3,
                    **style,
                )
                if contender == "halving":
                    axis.fill_between(
                        budgets,
                        [r.low for r in mine],
                        [r.high for r in mine],
                        color=style["color"],
                        alpha=0.15,
                    )
            axis.set_xscale("log")
            axis.set_xticks([1.5, 3, 6, 12], ["1.5", "3", "6", "12"])
            axis.set_xticks([], minor=True)
            axis.set_ylim(bottom=0)
            axis.grid(color="#e4e7eb")
            axis.spines[["top", "right"]].set_visible(False)
            if line:
                axis.set_xlabel("budget, full runs")
            if not column:
                axis.set_ylabel("mean regret of the final model")
    handles, labels = axes[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return drawn


def tables(rows: Sequence[Row], *, workers: int = 4) -> str:
    """Mean regret, and its 90th percentile, as Markdown: one table for each kind of cost."""
    parts = []
    for unequal in (False, True):
        chosen = [r for r in rows if r.workers == workers and r.unequal is unequal]
        budgets = sorted({row.budget for row in chosen})
        parts.append(f"**{'Unequal' if unequal else 'Equal'} costs, {workers} workers**\n")
        for table in sorted({row.table for row in chosen}, key=list(NAMES).index):
            head = " | ".join(f"{budget:g}" for budget in budgets)
            parts.append(f"| {NAMES[table]} | {head} |\n|---|{'---|' * len(budgets)}")
            here = [row for row in chosen if row.table == table]
            best = {b: min(row.mean for row in here if row.budget == b) for b in budgets}
            for contender in LINES:
                cells = []
                for budget in budgets:
                    (row,) = [r for r in here if (r.contender, r.budget) == (contender, budget)]
                    cell = f"{row.mean:.3f} ({row.worst:.2f})"
                    cells.append(f"**{cell}**" if row.mean == best[budget] else cell)
                parts.append(f"| {contender} | {' | '.join(cells)} |")
            parts.append("")
    return "\n".join(parts)


def main() -> None:
    """Reads rows, draws, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = read(arguments.rows)
    with mpl.rc_context({"font.size": 9}):
        figure(rows).savefig(arguments.out, dpi=130)
    print(tables(rows))
    unused = {
        contender: sum(r.unused for r in rows if r.contender == contender)
        / sum(r.contender == contender for r in rows)
        for contender in LINES
    }
    print("unused share of the budget: " + ", ".join(f"{n} {s:.1%}" for n, s in unused.items()))
    for workers in sorted({row.workers for row in rows}):
        means = {
            contender: [r.mean for r in rows if (r.contender, r.workers) == (contender, workers)]
            for contender in LINES
        }
        told = ", ".join(f"{n} {sum(m) / len(m):.3f}" for n, m in means.items() if m)
        print(
            f"mean over tables, costs and budgets, {workers} worker{'s' if workers > 1 else ''}: {told}"
        )


if __name__ == "__main__":
    main()
