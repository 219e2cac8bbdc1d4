"""The report's tables: rows of plain text, the first one the header."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lvray.core.trial import Trial
from lvray.core.units import format_flops, format_seconds, format_share
from lvray.reporting.compared import Comparison, Kind, Row, listed
from lvray.reporting.facts import Facts, differences

SHARES = (50, 80, 90)
"""Central bands whose coverage stands in the table, in percent."""


@dataclass(frozen=True, slots=True)
class Table:
    """A caption, a header, and rows of text."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    """Columns of figures, which are set flush right."""
    strong: frozenset[int] = frozenset()
    """Rows that are set in bold."""
    note: str = ""
    """What the table does not say by itself."""


def stage_table(facts: Facts) -> Table:
    """FLOPs by stage: asked, allowed, spent, lost, returned."""
    rows = [
        (
            stage.name,
            format_flops(stage.asked),
            format_flops(stage.allowed),
            format_flops(stage.heard),
            format_flops(stage.lost),
            format_flops(stage.returned),
            format_share(stage.heard + stage.lost, facts.budget),
        )
        for stage in facts.stages
    ]
    heard, lost = (
        sum(stage.heard for stage in facts.stages),
        sum(stage.lost for stage in facts.stages),
    )
    rows.append(
        (
            "all",
            "",
            format_flops(facts.budget),
            format_flops(heard),
            format_flops(lost),
            "",
            format_share(heard + lost, facts.budget),
        )
    )
    header = ("stage", "asked", "allowed", "spent", "lost", "returned", "of budget")
    return Table("FLOPs by stage", header, tuple(rows), frozenset(range(1, 7)))


def experiment_table(facts: Facts) -> Table:
    """Every experiment with its FLOPs, seconds and accounted rate."""
    apart = differences(facts)
    rows = []
    for name, trial in facts.history.trials.items():
        seconds = seconds_of(trial)
        flops = trial.flops_heard
        lost = facts.lost(trial)
        rows.append(
            (
                name,
                trial.plan.stage,
                _told(apart[name]),
                f"{trial.step} of {trial.plan.steps}",
                "" if trial.loss is None else f"{trial.loss:.4f}",
                format_flops(flops),
                format_flops(lost) if lost else "",
                format_seconds(seconds) if seconds else "",
                format_flops(round(flops / seconds)) if seconds else "",
            )
        )
    header = (
        "experiment",
        "stage",
        "config",
        "steps",
        "validation loss",
        "FLOPs",
        "lost",
        "time",
        "accounted FLOP/s",
    )
    return Table("Every experiment", header, tuple(rows), frozenset({3, 4, 5, 6, 7, 8}))


def reason_table(facts: Facts) -> Table:
    """What became of each trial, and why, word for word from the journal."""
    rows = tuple(
        (name, trial.status.value, str(trial.attempt), str(trial.failures), trial.reason)
        for name, trial in facts.history.trials.items()
    )
    return Table(
        "What became of each trial",
        ("trial", "status", "attempts", "failures", "reason"),
        rows,
        frozenset({2, 3}),
    )


def forecast_table(facts: Facts, each: Comparison) -> Table:
    """Everyone who forecast so many steps from so many, the best first."""
    banded = any(row.scores.sampled for row in each.rows)
    columns = ("MAE", "rounding floor", "RMSE", "MASE", "CRPS", "MAE, scaled")
    bands = tuple(f"in {share} % band" for share in SHARES) if banded else ()
    rows = []
    for row in each.rows:
        own, scaled = row.scores.summary(), row.scaled.summary()
        made, model = row.made, row.kind.model
        figures = [
            f"{own['mae']:.4f}",
            f"{made.floor.mean():.4f}" if model else "",
            f"{own['rmse']:.4f}",
            f"{own['mase']:.2f}" if "mase" in own else "",
            f"{own['crps']:.4f}",
            f"{scaled['mae']:.4f}",
        ]
        covered = [own.get(f"coverage_{share}") for share in SHARES] if banded else []
        figures += ["" if share is None else f"{100 * share:.0f} %" for share in covered]
        draws = len(made.systems) * max(1, made.samples.shape[1])
        figures.append(f"{made.short.sum()} of {draws}" if model else "")
        rows.append((row.name, row.kind.value, *figures))
    header = ("forecast", "what it is", *columns, *bands, "too short")
    return Table(
        f"{each.horizon} time steps ahead, from {each.context}",
        header,
        tuple(rows),
        frozenset(range(2, len(header))),
        _winners(each),
        _windows_note(facts, each),
    )


def variable_table(facts: Facts, compared: Sequence[Comparison]) -> Table | None:
    """Mean absolute error of each variable alone, from every length of context; None where nobody forecast."""
    if not compared:
        return None
    first = compared[-1]
    names = variable_names(first, facts.variables)
    several = len(compared) > 1
    header = ["forecast"] + [
        f"{name}, {each.name}" if several else name for each in compared for name in names
    ]
    rows = []
    everyone = dict.fromkeys(row.name for each in reversed(compared) for row in each.rows)
    for name in everyone:
        cells = []
        for each in compared:
            row = each.row(name)
            if row is None:
                cells += [""] * len(names)
            else:
                cells += [f"{error:.4f}" for error in row.scores.by_variable()["mae"]]
        rows.append((name, *cells))
    rows.append(("rounding floor", *(cell for each in compared for cell in _floors(each))))
    means = [
        f"{name} {mean:.4g}"
        for name, mean in zip(names, first.made.truth.mean(axis=(0, 1)), strict=True)
    ]
    strong = frozenset(
        place
        for place, name in enumerate(everyone)
        if any(
            name == row.name for each in compared for row in each.rows if row.kind is Kind.WINNER
        )
    )
    note = (
        f"Mean absolute error of each variable, in the data's units. To compare with: the mean of what happened is "
        f"{', '.join(means)}."
        + (
            f" {first.name} is {first.horizon} time steps ahead, from {first.context}."
            if several
            else ""
        )
    )
    right = frozenset(range(1, len(header)))
    return Table(
        "The same error, variable by variable", tuple(header), tuple(rows), right, strong, note
    )


def _winners(each: Comparison) -> frozenset[int]:
    return frozenset(place for place, row in enumerate(each.rows) if row.kind is Kind.WINNER)


def _windows_note(facts: Facts, each: Comparison) -> str:
    """Which windows, made how, and what is not in the table."""
    systems = len(set(each.made.systems.tolist()))
    windows = len(each.made.systems)
    of = f"{windows} windows of {systems}" if windows != systems else f"{systems}"
    ways: dict[str, list[str]] = {}
    for row in each.rows:
        if row.kind.model:
            ways.setdefault(made_how(facts, row), []).append(row.name)
    parts = [f"Means over {of} systems, the best forecast first. {chosen_on(facts)}"]
    if len(ways) == 1:
        parts.append(f"Every model's forecast is {next(iter(ways))}.")
    else:
        told = "; ".join(f"of {listed(names)} {way}" for way, names in ways.items())
        parts.append(f"The forecast is {told}.")
    fewer = {
        row.name: len(row.made.systems) for row in each.rows if len(row.made.systems) < windows
    }
    if fewer:
        parts.append(
            f"Scored on fewer windows, since it takes long, evenly spread: "
            f"{', '.join(f'{name} on {count}' for name, count in fewer.items())}."
        )
    if each.left_out:
        parts.append(
            f"Not in the table, since they forecast other windows: {', '.join(each.left_out)}."
        )
    if not each.complete:
        parts.append(
            "Only baselines that need nothing but the context are here; the others are computed when a sweep has ended."
        )
    elif each.missing:
        told = "; ".join(f"{name} ({reason})" for name, reason in each.missing.items())
        parts.append(f"Not to be had: {told}.")
    return " ".join(parts)


def chosen_on(facts: Facts) -> str:
    """Whether a decision of the sweep saw the systems that were forecast."""
    data = facts.spec["data"]
    if data["split"]["test"] != "validation" or data.get("test_path") is not None:
        return "No decision of the sweep saw them."
    return (
        "These are the validation systems, on which trials were judged: the winner's error is smaller than it would "
        "be on others."
    )


def made_how(facts: Facts, row: Row) -> str:
    """How a model's forecasts were made, in words."""
    stage = facts.history.trials[row.name].plan.stage
    asked = dict(facts.spec["evaluation"]["forecast"])
    changes = next(each for each in facts.spec["stages"] if each["name"] == stage).get("forecast")
    if isinstance(changes, Mapping):
        asked |= changes
    draws = row.made.samples.shape[1]
    prompt = ", asked for in the chat template" if asked.get("prompt") == "chat" else ""
    if not draws:
        return f"the greedy one (at every place the likeliest token){prompt}"
    return f"the median of {draws} samples at temperature {asked.get('temperature', 1.0):g}{prompt}"


def variable_names(each: Comparison, told: Sequence[str]) -> list[str]:
    """The variables' names, or numbers where the data has other ones."""
    count = each.made.truth.shape[2]
    return list(told) if len(told) == count else [f"variable {n + 1}" for n in range(count)]


def flops_csv(facts: Facts) -> str:
    """The FLOP table of every experiment, exact, for a spreadsheet."""
    apart = differences(facts)
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(
        [
            "experiment",
            "stage",
            "status",
            "config",
            "steps",
            "validation_loss",
            "flops",
            "flops_lost",
            "share_of_budget",
            "seconds",
        ]
    )
    for name, trial in facts.history.trials.items():
        flops, lost = trial.flops_heard, facts.lost(trial)
        rows.writerow(
            [
                name,
                trial.plan.stage,
                trial.status.value,
                _told(apart[name]),
                trial.step,
                "" if trial.loss is None else trial.loss,
                flops,
                lost,
                f"{(flops + lost) / facts.budget:.6f}",
                f"{seconds_of(trial):.3f}",
            ]
        )
    return written.getvalue()


SCORES = (
    "mae",
    "rounding_floor",
    "mse",
    "rmse",
    "mase",
    "crps",
    "quantile_loss",
    "coverage_50",
    "coverage_80",
    "coverage_90",
)
"""What ``scores.csv`` has of every forecaster: the floor only of those that write numbers as text, the last four only
where there were samples."""


def _floors(each: Comparison) -> list[str]:
    """The rounding floor of each variable for the first model of a comparison, the winner if it is there."""
    model = (each.first(Kind.WINNER) or each.shown[0]).made
    return [f"{floor:.4f}" for floor in model.floors.mean(axis=0)]


def scores_csv(facts: Facts, compared: Sequence[Comparison]) -> str:
    """Every score of everyone, over all windows and by step, variable and window, in both units, for a spreadsheet."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(["context", "horizon", "forecast", "units", "over", "which", *SCORES])
    for each in compared:
        names = variable_names(each, facts.variables)
        for row in each.rows:
            made = row.made
            windows = [
                f"{system}" if start == 0 else f"{system} from {start}"
                for system, start in zip(made.systems, made.starts, strict=True)
            ]
            for units, scores in (("data", row.scores), ("scaled", row.scaled)):
                floors = made.floors if units == "data" else made.floors / made.scale
                if not row.kind.model:
                    floors = np.full_like(floors, np.nan)
                everywhere = [floors.mean()] * each.horizon
                kinds = (
                    ("step", range(1, each.horizon + 1), scores.by_step(), everywhere),
                    ("variable", names, scores.by_variable(), floors.mean(axis=0)),
                    ("system", windows, scores.by_system(), floors.mean(axis=1)),
                )
                begin = (each.context, each.horizon, row.name, units)
                all_over = {**scores.summary(), "rounding_floor": float(floors.mean())}
                rows.writerow([*begin, "all", "", *_written(all_over)])
                for over, labels, means, least in kinds:
                    for place, label in enumerate(labels):
                        cells = {name: float(values[place]) for name, values in means.items()}
                        cells["rounding_floor"] = float(least[place])
                        rows.writerow([*begin, over, label, *_written(cells)])
    return written.getvalue()


def _written(scores: Mapping[str, float]) -> list[str]:
    found = (scores.get(name, math.nan) for name in SCORES)
    return ["" if math.isnan(score) else f"{score:.6g}" for score in found]


def seconds_of(trial: Trial) -> float:
    """Wall-clock seconds of all attempts that were heard of, model loading not included."""
    by_attempt = {measurement.attempt: measurement.seconds for measurement in trial.curve}
    return sum(by_attempt.values())


def as_markdown(table: Table) -> str:
    """A table as Markdown; a reason of several lines stays in its row."""
    rule = ["---:" if column in table.right else "---" for column in range(len(table.header))]
    lines: list[Sequence[str]] = [table.header, rule, *table.rows]
    strong = {place + 2 for place in table.strong}  # below header and rule
    return "\n".join(
        "| " + " | ".join(_cell(cell, strong=place in strong) for cell in line) + " |"
        for place, line in enumerate(lines)
    )


def _cell(cell: str, *, strong: bool) -> str:
    text = " ".join(cell.replace("|", "\\|").split())
    return f"**{text}**" if strong and text else text


def _told(config: dict[str, object]) -> str:
    return ", ".join(f"{field_name(name)} {_value(value)}" for name, value in config.items())


def field_name(field: str) -> str:
    """A field of a trial's config in words: ``learning rate`` for ``learning_rate``, ``rank`` for ``lora.rank``."""
    return field.removeprefix("lora.").replace("_", " ")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
