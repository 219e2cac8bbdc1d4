"""How fast is this machine, and how long will a plan take on it? Told from a run that was made on it, or from a given rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lvray.core.errors import RunFolderError
from lvray.core.run_folder import RunFolder
from lvray.core.trial import StagePlan
from lvray.ledger.journal import Journal
from lvray.scheduler.replay import StageHistory, fold


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a stage runs."""

    flops_per_second: float
    """Accounted FLOP/s of one trial."""
    workers: int
    """Trials at once."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast the stages of a sweep run."""

    usual: Pace
    stages: Mapping[str, Pace] = field(default_factory=dict)
    """Those that were measured, by name: two trials on two cores are slower each than one alone."""
    source: str = ""
    """Where it was measured, in words."""

    def of(self, stage: str) -> Pace:
        """The pace of a stage."""
        return self.stages.get(stage, self.usual)


def measured(root: Path) -> Speed | None:
    """The speed of the trials of a run folder; None where nothing was measured yet.

    Raises:
        RunFolderError: there is no run folder.
        JournalCorrupt: its journal is damaged.
    """
    folder = RunFolder(root)
    if not folder.journal.exists():
        raise RunFolderError(f"{root}: no run folder: it has no {folder.journal.name}")
    history = fold(Journal(folder.journal).replay())
    stages = {name: pace for name, stage in history.stages.items() if (pace := _pace(stage))}
    if not stages:
        return None
    trained = [name for name in stages if history.stages[name].plan.trials[-1].steps] or list(
        stages
    )
    slowest = min((stages[name] for name in trained), key=lambda pace: pace.flops_per_second)
    return Speed(slowest, stages, f"as in {root}")


def _pace(stage: StageHistory) -> Pace | None:
    flops = sum(trial.flops_heard for trial in stage.trials.values())
    seconds = sum(trial.seconds_heard for trial in stage.trials.values())
    return Pace(flops / seconds, stage.workers) if flops and seconds else None


def seconds(plan: StagePlan, pace: Pace) -> float:
    """How long a stage takes if it runs as planned, its start and the workers' waiting left out.

    A rung takes as many turns as its trials need workers; without rungs, no stage is quicker than its longest trial.
    """
    if plan.rungs and not plan.spends_all:
        flops = 0
        for count, widest in zip(plan.rungs, plan.stretches, strict=True):
            flops += -(-count // pace.workers) * widest
        return flops / pace.flops_per_second
    at_once = min(pace.workers, len(plan.trials))
    longest = max(trial.price for trial in plan.trials) if not plan.spends_all else 0
    return max(longest, plan.price / at_once) / pace.flops_per_second
