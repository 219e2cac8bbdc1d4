"""The report: the question, the answer in one sentence, then what a reader asks next, in that order.

`report.md` and `report.html` say the same; the page is one file with its figures inside it. Both are
computed from the run folder alone and come out the same whenever they are made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeAlias

from lvray.core.run_folder import write_whole
from lvray.core.units import format_flops, format_seconds, format_share
from lvray.reporting.compared import Comparison, Kind, compare, mean_errors, standing
from lvray.reporting.facts import Facts, differences, read_facts
from lvray.reporting.tables import (
    Table,
    as_markdown,
    experiment_table,
    field_name,
    flops_csv,
    forecast_table,
    reason_table,
    scores_csv,
    seconds_of,
    stage_table,
    variable_table,
)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure and what it shows."""

    name: str
    caption: str


Part: TypeAlias = str | Table | Drawing
"""A paragraph, a table, or a figure."""


@dataclass(frozen=True, slots=True)
class Section:
    """What is told in answer to one question of a reader."""

    heading: str
    parts: tuple[Part, ...]


CAPTIONS = {
    "ledger": "Where the budget went.",
    "loss": "Every trial's validation loss: how badly it predicts the next token of series it was not trained on. "
    "The winner's path is drawn in full, from its search into its final run.",
    "grid": "The searched grid. Halving stops cells at different FLOPs, so compare losses with their steps in mind.",
    "horizon": "The error at each step into the future, beside forecasts that need no model (grey). "
    "Lower is better; errors grow with the distance.",
    "forecasts": "Three windows, an easy, a middling and a hard one: of all windows in order of the winner's "
    "error, those 10, 50 and 90 % of the way. Left of the dotted line is what the "
    "model was given (its end), right of it what it said. Bands, where samples were drawn, hold the middle 50 % (dark) "
    "and 80 % (light) of them.",
    "phase": "The same windows as paths: one variable against the other, from the point where the forecast begins.",
    "coverage": "Does the model know how far it may be wrong? Of honest bands that should hold 80 % of what happens, "
    "80 % of it lies inside. Below the dashed line a model is too sure of itself, above it too timid.",
}

STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --paper: #ffffff; --faint: #52606d; --line: #e4e7eb; --accent: #0b7285; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #12181f; --faint: #9aa5b1; --line: #323f4b; --accent: #3bc9db; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.4rem; }
.question { color: var(--faint); font-size: 1.1rem; margin-top: 0; }
.answer { border-left: 4px solid var(--accent); padding: .4rem 1rem; font-size: 1.1rem; }
.note { color: var(--faint); font-size: .88rem; max-width: 52rem; } td:first-child, td.right { white-space: nowrap; } h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; } tr.strong td { font-weight: 700; }
.facts { color: var(--faint); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--faint); font-weight: 600; } th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.figure, td.right, th.right { text-align: right; } .figure { text-align: left; margin: 1.4rem 0; background: #ffffff; border-radius: 6px; padding: .6rem; color: #1f2933; }
.figure svg { max-width: 100%; height: auto; } .figure p { margin: .3rem .4rem; font-size: .88rem; color: #52606d; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
"""


def write(root: Path) -> tuple[Path, Path]:
    """Writes ``report.md``, ``report.html``, ``figures/``, ``flops.csv`` and ``scores.csv`` into a run folder.

    Raises:
        RunFolderError: it is no run folder, or cannot be written.
        JournalCorrupt: its journal or ledger is damaged.
    """
    from lvray.reporting.figures import draw_all  # matplotlib, which only a report needs

    facts = read_facts(root)
    compared = compare(facts)
    figures = draw_all(facts, compared)
    sections = sections_of(facts, compared, figures)
    for name in CAPTIONS.keys() - figures.keys():  # of an earlier report of this folder
        (root / "figures" / f"{name}.svg").unlink(missing_ok=True)
    for name, svg in figures.items():
        write_whole(root / "figures" / f"{name}.svg", svg)
    markdown, page = root / "report.md", root / "report.html"
    write_whole(root / "flops.csv", flops_csv(facts))
    if compared:
        write_whole(root / "scores.csv", scores_csv(facts, compared))
    write_whole(markdown, as_text(facts, answer(facts, compared), sections))
    write_whole(page, as_html(facts, answer(facts, compared), sections, figures))
    return markdown, page


def answer(facts: Facts, compared: Sequence[Comparison]) -> str:
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
    return f"{sentence}{_forecasting(compared)}; {spent} were spent."


def _forecasting(compared: Sequence[Comparison]) -> str:
    """How well the winner forecasts, beside the base model and beside those who need none; empty if it does not."""
    errors = mean_errors(compared)
    rows = [row for each in compared for row in each.rows if row.name in errors]
    ours, theirs = (
        next((errors[row.name] for row in rows if row.kind is kind), None)
        for kind in (Kind.WINNER, Kind.BASE)
    )
    if ours is None:
        return ""
    won = [each for each in compared if each.first(Kind.WINNER) is not None]
    steps = "/".join(str(steps) for steps in sorted({each.horizon for each in won}))
    told = f", and its {steps}-step forecast error "
    if len(won) > 1:
        told += f"(mean over contexts of {' and '.join(str(each.context) for each in won)} steps) "
    told += f"{ours:.4f} is "
    if theirs:
        told += f"{ours / theirs:.2f} × the base's {theirs:.4f}, "
    return (told + standing(compared)).removesuffix(", ").removesuffix(" is ")


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
        f"FLOPs are counted by the convention {facts.spec['convention']}: accounted FLOPs, not hardware FLOPs."
        + _head(facts),
        f"Base model {facts.spec['model']}; data {facts.spec['data']['path'] or facts.spec['data']['source']}.",
        f"{format_seconds(seconds)} of trials in {sessions} session{'s' if sessions > 1 else ''}, at most {at_once} at once, "
        f"on {' and '.join(sorted(devices)) or 'no device yet'}; the driver on {seen['processor']} "
        f"({seen['cores']} cores), {seen['system']}.",
        f"lvray {seen['lvray']}{' at ' + seen['commit'] if seen['commit'] else ''}{with_what}.",
    ]


def _head(facts: Facts) -> str:
    """Where rows of the head are left out of the count, in words; empty where all are counted."""
    configs = [trial.plan.config for trial in facts.history.trials.values()]
    losses = {config.loss for config in configs if config.lora is not None}
    where = []
    if "numeric" in losses:
        where.append("training" if losses == {"numeric"} else "the training of some trials")
    if facts.spec["evaluation"].get("loss") == "numeric":
        where.append("validation and forecasts")
    if not where:
        return ""
    return f" In {' and in '.join(where)} only the rows of the head that numeric text needs are computed, and counted."


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


def sections_of(
    facts: Facts, compared: Sequence[Comparison], figures: Mapping[str, str]
) -> list[Section]:
    """What the report tells, in the order in which a reader asks; questions without an answer are left out."""

    def drawn(*names: str) -> list[Part]:
        return [Drawing(name, CAPTIONS[name]) for name in names if name in figures]

    forecasts: list[Part] = []
    if compared:
        variables = variable_table(facts, compared)
        forecasts = [
            *(forecast_table(facts, each) for each in compared),
            reading(compared),
            *drawn("horizon", "forecasts", "phase", "coverage"),
            *([variables] if variables else []),
        ]
    asked: list[tuple[str, list[Part]]] = [
        ("Where did the FLOPs go?", [*drawn("ledger"), stage_table(facts)]),
        ("Which trial learnt best?", drawn("loss", "grid")),
        ("How good are the forecasts?", forecasts),
        (
            "What was tried, what did it cost, and what became of it?",
            [experiment_table(facts), reason_table(facts)],
        ),
    ]
    return [Section(heading, tuple(parts)) for heading, parts in asked if parts]


def reading(compared: Sequence[Comparison]) -> str:
    """How the columns of the forecasts' tables are read, as far as they are there."""
    rows = [row for each in compared for row in each.rows]
    sentences = [
        "MAE is the mean absolute error, in the data's units; RMSE the root of the mean squared error, which minds "
        "large errors more.",
        "The rounding floor is the MAE that writing numbers with so few decimals makes by itself: no model that "
        "writes them so can be expected below it.",
        "MASE is the MAE over the mean change from one time step to the next in the context: 1 is as wrong as one "
        "ordinary step.",
        "CRPS scores all samples together, their spread included; of a single forecast it is the MAE.",
        "Scaled MAE is in units of the numbers that the model writes.",
    ]
    if any(row.scores.sampled for row in rows):
        sentences.append(
            "Band columns say how often what happened lay in the middle 50, 80 or 90 % of the samples: just as often, "
            "if a model knows what it does not know."
        )
    sentences += [
        "Too short are forecasts that broke off early and go on with their last value.",
        "Forecasts without a model are what anybody could do; a model that is behind them has learnt nothing of use.",
    ]
    if any(row.kind is Kind.BOUND for row in rows):
        sentences.append(
            "The true equations, fitted to the context by least squares, are known of generated data alone: a bound "
            "rather than a rival."
        )
    return " ".join(sentences)


def as_text(facts: Facts, told: str, sections: Sequence[Section]) -> str:
    """The report as Markdown; its figures lie beside it."""
    parts = [f"# {facts.spec['name']}", facts.spec["question"], f"**{told}**", state(facts)]
    for section in sections:
        parts.append(f"## {section.heading}")
        for part in section.parts:
            parts += _text(part)
    parts += ["## How was it run?", "\n".join(f"- {line}" for line in circumstances(facts))]
    before, after = again_text(facts)
    parts.append(f"{before}`{again(facts)}`{after}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(part: Part) -> list[str]:
    match part:
        case Table():
            return [f"### {part.caption}", as_markdown(part), part.note]
        case Drawing():
            return [f"![{part.name}](figures/{part.name}.svg)", f"*{part.caption}*"]
        case _:
            return [part]


def as_html(
    facts: Facts, told: str, sections: Sequence[Section], figures: Mapping[str, str]
) -> str:
    """The report as one page, figures inside it, nothing loaded from elsewhere."""
    parts = [
        f"<h1>{escape(facts.spec['name'])}</h1>",
        f'<p class="question">{escape(facts.spec["question"])}</p>',
        f'<p class="answer">{escape(told)}</p>',
        f"<p>{escape(state(facts))}</p>" if state(facts) else "",
    ]
    for section in sections:
        parts.append(f"<h2>{escape(section.heading)}</h2>")
        parts += [_html(part, figures) for part in section.parts]
    parts.append("<h2>How was it run?</h2>")
    parts += [f'<p class="facts">{escape(line)}</p>' for line in circumstances(facts)]
    before, after = again_text(facts)
    parts.append(f"<p>{before}<code>{escape(again(facts))}</code>{escape(after)}</p>")
    title = escape(facts.spec["name"])
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def _html(part: Part, figures: Mapping[str, str]) -> str:
    match part:
        case Table():
            return _html_table(part)
        case Drawing():
            return f'<div class="figure">{figures[part.name]}<p>{escape(part.caption)}</p></div>'
        case _:
            return f'<p class="note">{escape(part)}</p>'


def _html_table(table: Table) -> str:
    def line(cells: tuple[str, ...], tag: str, row: int = -1) -> str:
        inner = "".join(
            f"<{tag}{' class=right' if column in table.right else ''}>{escape(cell)}</{tag}>"
            for column, cell in enumerate(cells)
        )
        return f"<tr{' class=strong' if row in table.strong else ''}>{inner}</tr>"

    rows = "\n".join(line(cells, "td", row) for row, cells in enumerate(table.rows))
    note = f'\n<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f'<h3>{escape(table.caption)}</h3>\n<div class="wide"><table>\n{line(table.header, "th")}\n{rows}\n</table></div>{note}'
