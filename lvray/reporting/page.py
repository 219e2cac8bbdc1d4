"""The report: the question, the answer in one sentence, where the FLOPs went, every trial with its reason.

`report.md` and `report.html` say the same; the page is one file with its figures inside it. Both are
computed from the run folder alone and come out the same whenever they are made again.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from lvray.core.run_folder import write_whole
from lvray.core.units import format_flops, format_seconds, format_share
from lvray.reporting.facts import Facts, differences, read_facts
from lvray.reporting.tables import (
    Table,
    as_markdown,
    experiment_table,
    field_name,
    flops_csv,
    forecast_table,
    reason_table,
    seconds_of,
    stage_table,
)

CAPTIONS = {
    "ledger": "Where the budget went.",
    "loss": "Every trial's validation loss; the winner's path is drawn in full, from its search into its final run.",
    "grid": "The searched grid. Halving stops cells at different FLOPs, so compare losses with their steps in mind.",
    "forecasts": "Forecasts of held-out systems that no decision saw.",
    "horizon": "Forecast error by step, beside rivals that need no model.",
}

STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --paper: #ffffff; --faint: #52606d; --line: #e4e7eb; --accent: #0b7285; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #12181f; --faint: #9aa5b1; --line: #323f4b; --accent: #3bc9db; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.4rem; }
.question { color: var(--faint); font-size: 1.1rem; margin-top: 0; }
.answer { border-left: 4px solid var(--accent); padding: .4rem 1rem; font-size: 1.1rem; }
.facts { color: var(--faint); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--faint); font-weight: 600; } th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.figure, td.right, th.right { text-align: right; } .figure { text-align: left; margin: 1.4rem 0; background: #ffffff; border-radius: 6px; padding: .6rem; color: #1f2933; }
.figure svg { max-width: 100%; height: auto; } .figure p { margin: .3rem .4rem; font-size: .88rem; color: #52606d; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
"""


def write(root: Path) -> tuple[Path, Path]:
    """Writes ``report.md``, ``report.html``, ``figures/`` and ``flops.csv`` into a run folder.

    Raises:
        RunFolderError: it is no run folder, or cannot be written.
        JournalCorrupt: its journal or ledger is damaged.
    """
    from lvray.reporting.figures import draw_all  # matplotlib, which only a report needs

    facts = read_facts(root)
    figures = draw_all(facts)
    for name, svg in figures.items():
        write_whole(root / "figures" / f"{name}.svg", svg)
    markdown, page = root / "report.md", root / "report.html"
    write_whole(root / "flops.csv", flops_csv(facts))
    write_whole(markdown, as_text(facts, figures))
    write_whole(page, as_html(facts, figures))
    return markdown, page


def answer(facts: Facts) -> str:
    """The answer in one sentence."""
    best, base = facts.best, facts.baseline
    spent = f"{format_flops(facts.spent)} of {format_flops(facts.budget)} FLOPs"
    if best is None or best.loss is None:
        state = "No trained trial has a finite loss" if facts.history.ended else "No winner yet"
        return f"{state}; {spent} are spent."
    config = differences(facts)[best.plan.trial_id]
    what = ", ".join(
        f"{field_name(name)} {value}" for name, value in config.items() if name in searched(facts)
    )
    sentence = f"{what.capitalize() if what else best.plan.trial_id} is best: validation loss {best.loss:.4f}"
    if base is not None and base.loss:
        sentence += f", {_change(best.loss, base.loss)} the zero-shot base's {base.loss:.4f}"
        ours, theirs = (trial.curve[-1].metrics.get("forecast_mae") for trial in (best, base))
        if ours is not None and theirs:
            horizon = facts.spec["evaluation"]["forecast"]["horizon"]
            sentence += f", and its {horizon}-step forecast error {ours:.4f} is {ours / theirs:.2f} × the base's {theirs:.4f}"
    return f"{sentence}; {spent} were spent."


def _change(ours: float, theirs: float) -> str:
    percent = 100 * (1 - ours / theirs)
    return f"{abs(percent):.1f}% {'below' if percent >= 0 else 'above'}"


def searched(facts: Facts) -> set[str]:
    """Every field that some stage of the sweep varies."""
    return {field for stage in facts.spec["stages"] for field in stage["space"]}


def circumstances(facts: Facts) -> list[str]:
    """How FLOPs were counted and on what the sweep ran, a sentence each."""
    seen = facts.environment
    versions = {"Python": seen["python"], **seen["packages"]}
    with_what = "".join(f", {name} {number}" for name, number in versions.items() if number)
    seconds = sum(seconds_of(trial) for trial in facts.history.trials.values())
    sessions = len(facts.history.sessions)
    devices = {heard.device for trial in facts.history.trials.values() for heard in trial.curve}
    at_once = max((stage.workers for stage in facts.history.stages.values()), default=1)
    return [
        f"FLOPs are counted by the convention {facts.spec['convention']}: accounted FLOPs, not hardware FLOPs.",
        f"Base model {facts.spec['model']}; data {facts.spec['data']['path'] or facts.spec['data']['source']}.",
        f"{format_seconds(seconds)} of trials in {sessions} session{'s' if sessions > 1 else ''}, at most {at_once} at once, "
        f"on {' and '.join(sorted(devices)) or 'no device yet'}; the driver on {seen['processor']} "
        f"({seen['cores']} cores), {seen['system']}.",
        f"lvray {seen['lvray']}{' at ' + seen['commit'] if seen['commit'] else ''}{with_what}.",
    ]


def state(facts: Facts) -> str:
    """Whether the sweep is over, in words; empty when it is."""
    if facts.history.ended:
        return ""
    return (
        f"This sweep is not finished: {format_share(facts.spent, facts.budget)} of its budget is spent. "
        "The command below goes on with it."
    )


def again(facts: Facts) -> str:
    """How to run the same sweep again, or go on with it: the run folder keeps its sweep file, every default written out."""
    root = facts.folder.root.resolve()
    runs = root.parent.name
    command = f"python -m lvray.sweep {runs}/{root.name}/{facts.folder.sweep.name}"
    command += "" if runs == "runs" else f" --runs {runs}"
    return command + (" --fresh" if facts.history.ended else "")


def again_text(facts: Facts) -> tuple[str, str]:
    """What stands before and after that command."""
    verb = "run it again from the start" if facts.history.ended else "go on with it"
    kept = "; this folder is put aside, not lost" if facts.history.ended else ""
    return (
        f"To {verb}: ",
        f" in the folder that holds {facts.folder.root.resolve().parent.name}/{kept}.",
    )


def tables(facts: Facts) -> list[Table]:
    """Every table, in the order of the report."""
    forecasts = forecast_table(facts)
    return [
        stage_table(facts),
        *([forecasts] if forecasts else []),
        experiment_table(facts),
        reason_table(facts),
    ]


def as_text(facts: Facts, figures: dict[str, str]) -> str:
    """The report as Markdown."""
    parts = [
        f"# {facts.spec['name']}",
        facts.spec["question"],
        f"**{answer(facts)}**",
        state(facts),
    ]
    for table in tables(facts):
        parts += [f"## {table.caption}", as_markdown(table)]
    parts.append("## Figures")
    parts += [f"![{CAPTIONS[name]}](figures/{name}.svg)" for name in figures]
    parts += ["## How it was run", "\n".join(f"- {line}" for line in circumstances(facts))]
    before, after = again_text(facts)
    parts.append(f"{before}`{again(facts)}`{after}")
    return "\n\n".join(part for part in parts if part) + "\n"


def as_html(facts: Facts, figures: dict[str, str]) -> str:
    """The report as one page, figures inside it, nothing loaded from elsewhere."""
    parts = [
        f"<h1>{escape(facts.spec['name'])}</h1>",
        f'<p class="question">{escape(facts.spec["question"])}</p>',
        f'<p class="answer">{escape(answer(facts))}</p>',
        f"<p>{escape(state(facts))}</p>" if state(facts) else "",
        *(_figure(name, figures) for name in ("ledger", "loss", "grid")),
    ]
    shown = tables(facts)
    parts += [_html_table(table) for table in shown[:-2]]
    parts += [_figure(name, figures) for name in ("forecasts", "horizon")]
    parts += [_html_table(table) for table in shown[-2:]]
    parts.append("<h2>How it was run</h2>")
    parts += [f'<p class="facts">{escape(line)}</p>' for line in circumstances(facts)]
    before, after = again_text(facts)
    parts.append(f"<p>{before}<code>{escape(again(facts))}</code>{escape(after)}</p>")
    title = escape(facts.spec["name"])
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def _figure(name: str, figures: dict[str, str]) -> str:
    if name not in figures:
        return ""
    return f'<div class="figure">{figures[name]}<p>{escape(CAPTIONS[name])}</p></div>'


def _html_table(table: Table) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        inner = "".join(
            f"<{tag}{' class=right' if column in table.right else ''}>{escape(cell)}</{tag}>"
            for column, cell in enumerate(cells)
        )
        return f"<tr>{inner}</tr>"

    rows = "\n".join(line(row, "td") for row in table.rows)
    return f'<h2>{escape(table.caption)}</h2>\n<div class="wide"><table>\n{line(table.header, "th")}\n{rows}\n</table></div>'
