"""The report's tables: rows of plain text, the first one the header."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from lvray.core.trial import Trial
from lvray.core.units import format_flops, format_seconds, format_share
from lvray.reporting.facts import Facts, differences


@dataclass(frozen=True, slots=True)
class Table:
    """A caption, a header, and rows of text."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    """Columns of figures, which are set flush right."""


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


def forecast_table(facts: Facts) -> Table | None:
    """Forecast errors of held-out systems, in the data's units; None where nobody forecast."""
    rows = []
    for name in facts.forecasts:
        metrics = (
            facts.history.trials[name].curve[-1].metrics if facts.history.trials[name].curve else {}
        )
        if "forecast_mae" not in metrics:
            continue
        loss = facts.history.trials[name].loss
        rows.append(
            (
                name,
                "" if loss is None else f"{loss:.4f}",
                f"{metrics['forecast_mae']:.4f}",
                f"{metrics['forecast_rmse']:.4f}",
                f"{metrics.get('forecast_short', 0):.0f} of {len(facts.longest[name].systems)}",
            )
        )
    rows += [
        (name, "", f"{error:.4f}", f"{root:.4f}", "")
        for name, error, root in baseline_errors(facts)
    ]
    if not rows:
        return None
    wanted = facts.spec["evaluation"]["forecast"]
    caption = f"Forecasts of held-out systems: {wanted['horizon']} steps ahead, in the data's units"
    return Table(
        caption,
        ("trial", "validation loss", "MAE", "RMSE", "too short"),
        tuple(rows),
        frozenset({1, 2, 3, 4}),
    )


def baseline_errors(facts: Facts) -> list[tuple[str, float, float]]:
    """MAE and RMSE of forecasts without a model, on the same windows as the trials' own."""
    from lvray.series.baselines import context_mean, last_value, seasonal_naive
    from lvray.series.metrics import mae, rmse

    if not facts.forecasts:
        return []
    made = next(iter(facts.longest.values()))
    horizon = made.truth.shape[1]
    rivals = {
        "last value": last_value,
        "context mean": context_mean,
        "seasonal naive": seasonal_naive,
    }
    guesses = {name: rival(made.history, horizon) for name, rival in rivals.items()}
    return [
        (name, float(mae(guess, made.truth)), float(rmse(guess, made.truth)))
        for name, guess in guesses.items()
    ]


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


def seconds_of(trial: Trial) -> float:
    """Wall-clock seconds of all attempts that were heard of, model loading not included."""
    by_attempt = {measurement.attempt: measurement.seconds for measurement in trial.curve}
    return sum(by_attempt.values())


def as_markdown(table: Table) -> str:
    """A table as Markdown; a reason of several lines stays in its row."""
    rule = ["---:" if column in table.right else "---" for column in range(len(table.header))]
    lines: list[Sequence[str]] = [table.header, rule, *table.rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |"
        for line in lines
    )


def _told(config: dict[str, object]) -> str:
    return ", ".join(f"{field_name(name)} {_value(value)}" for name, value in config.items())


def field_name(field: str) -> str:
    """A field of a trial's config in words: ``learning rate`` for ``learning_rate``, ``rank`` for ``lora.rank``."""
    return field.removeprefix("lora.").replace("_", " ")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
