"""Weights & Biases: one run a trial, grouped by sweep, written by the driver when a stage has ended.

Ray's own callback keeps two processes a trial alive, paused trials included; this keeps none. Without an
API key runs are written offline into the run folder (`wandb sync` uploads them later). Nothing prompts.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from lvray.core.trial import Trial
from lvray.scheduler.replay import StageHistory

HOST = "api.wandb.ai"


def has_key(environment: Mapping[str, str], home: Path) -> bool:
    """Whether there is an API key: in WANDB_API_KEY, or in ~/.netrc where `wandb login` puts it."""
    if environment.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(home / ".netrc").authenticators(HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def log_stage(stage: StageHistory, *, sweep: str, project: str, folder: Path) -> None:
    """Writes a run for each trial of `stage` that was heard of.

    Args:
        stage: the stage, which has ended.
        sweep: the group.
        project: the project.
        folder: where offline runs are kept.
    """
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    online = has_key(os.environ, Path.home())
    for trial in stage.trials.values():
        if trial.curve:
            _log_trial(wandb, trial, sweep=sweep, project=project, folder=folder, online=online)


def _log_trial(
    wandb: ModuleType,
    trial: Trial,
    *,
    sweep: str,
    project: str,
    folder: Path,
    online: bool,
) -> None:
    run = wandb.init(
        project=project,
        group=sweep,
        job_type=trial.plan.stage,
        name=trial.plan.trial_id,
        config=trial.plan.config.to_json(),
        dir=str(folder),
        mode="online" if online else "offline",
        reinit="finish_previous",
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, init_timeout=30),
    )
    for heard in trial.curve:
        figures = {
            "validation_loss": heard.validation_loss,
            "seconds": heard.seconds,
            **heard.metrics,
        }
        flops = float(trial.plan.milestones[heard.milestone].flops)
        run.log({**figures, "flops": flops}, step=heard.step)
    run.summary.update(
        {"status": trial.status.value, "reason": trial.reason, "flops": float(trial.flops_heard)}
    )
    run.finish()
