"""What does a journal say of the trials?

Replay is the only way to load: a stage begun by a driver that is gone stands as its records say, in
the order in which they were written. Folding is pure; the books are put in order by `Scheduler.recover`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lvray.core.errors import Blame
from lvray.core.trial import Measurement, Pause, StagePlan, Status, Trial, TrialPlan


@dataclass(slots=True)
class StageHistory:
    """One stage as its journal tells it."""

    plan: StagePlan
    trials: dict[str, Trial]
    ended: bool = False
    best: str | None = None
    """The winner's id, once the stage has ended with one."""
    reason: str = ""
    returned: int = 0
    """FLOPs that went back to the sweep when the stage ended."""
    workers: int = 1
    """How many trials ran at once, at most, when the stage was last worked on."""


@dataclass(slots=True)
class History:
    """A whole sweep as its journal tells it."""

    sessions: list[Mapping[str, Any]] = field(default_factory=list)
    """One record a driver that worked on the sweep."""
    stages: dict[str, StageHistory] = field(default_factory=dict)
    ended: bool = False

    @property
    def began(self) -> str:
        """When the first driver began, ISO 8601."""
        return str(self.sessions[0]["at"])

    @property
    def shared_ledger(self) -> str | None:
        """The whole path of the ledger that the sweep shares with others; None when it has its own."""
        return self.sessions[-1].get("ledger") if self.sessions else None

    @property
    def trials(self) -> dict[str, Trial]:
        """Every trial of every stage by id, in order of the plans."""
        return {
            name: trial for stage in self.stages.values() for name, trial in stage.trials.items()
        }


def fold(records: Iterable[Mapping[str, Any]]) -> History:
    """Gives the sweep in the state in which `records` leave it."""
    history = History()
    for record in records:
        take(history, record)
    return history


def take(history: History, record: Mapping[str, Any]) -> None:
    """Brings `history` forward by one record; kinds of records that say nothing of trials pass."""
    match record["event"]:
        case "session":
            history.sessions.append(record)
        case "stage":
            plan = StagePlan.from_json(record)
            history.stages[plan.name] = StageHistory(
                plan, {trial.trial_id: Trial(trial) for trial in plan.trials}
            )
        case "stage_end":
            stage = history.stages[record["name"]]
            stage.ended, stage.best, stage.reason = True, record["best"], record["reason"]
            stage.returned = int(record["returned"])
        case "workers":
            history.stages[record["stage"]].workers = record["count"]
        case "capacity":
            stage = history.stages[record["stage"]]
            stage.workers = max(stage.workers, record["count"])
        case "sweep_end":
            history.ended = True
        case "replan":
            plan_of_trial = TrialPlan.from_json(record["trial"])
            stage = history.stages[plan_of_trial.stage]
            name = plan_of_trial.trial_id
            stage.trials[name] = replace(stage.trials[name], plan=plan_of_trial)
        case "measurement":
            measurement = Measurement.from_json(record["measurement"])
            trials = _stage_of(history, measurement.trial_id).trials
            trial = trials[measurement.trial_id]
            trials[measurement.trial_id] = replace(trial, curve=(*trial.curve, measurement))
        case "pause":
            pause = Pause.from_json(record["pause"])
            trials = _stage_of(history, pause.trial_id).trials
            trial = trials[pause.trial_id]
            trials[pause.trial_id] = replace(trial, pauses=(*trial.pauses, pause))
        case "start" | "decision" | "failure" | "interruption" | "close":
            trials = _stage_of(history, record["trial_id"]).trials
            trials[record["trial_id"]] = _after(trials[record["trial_id"]], record)


def _after(trial: Trial, record: Mapping[str, Any]) -> Trial:
    if record["event"] == "start":
        return replace(
            trial,
            status=Status.RUNNING,
            attempt=record["attempt"],
            granted=record["granted"],
            reason="",
        )
    # Journals of earlier versions blame nobody.
    counts = record["event"] == "failure" and record.get("blame") != Blame.MACHINE
    return replace(
        trial,
        status=Status(record["status"]),
        granted=record["granted"],
        reason=record["reason"],
        failures=trial.failures + counts,
    )


def _stage_of(history: History, trial_id: str) -> StageHistory:
    return next(stage for stage in history.stages.values() if trial_id in stage.trials)
