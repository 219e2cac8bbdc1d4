"""What is a worker told of one attempt at one trial?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lvray.core.run_folder import RunFolder
from lvray.core.task import DataTask, EvaluationTask, Task
from lvray.planner.model import TINY
from lvray.planner.prices import forecast_tasks
from lvray.scheduler.scheduler import Grant
from lvray.spec.schema import Sweep
from lvray.spec.space import forecast_of


def task_of(
    sweep: Sweep,
    folder: RunFolder,
    data: DataTask,
    grant: Grant,
    *,
    threads: int,
    run_began: str = "",
) -> Task:
    """Everything a worker needs to carry out `grant`, its paths absolute: a worker starts in a folder of its own.

    Args:
        sweep: the sweep file.
        folder: its run folder, on storage that the worker sees too.
        data: the prepared series.
        grant: the stretch that is paid for.
        threads: CPU threads the worker may use.
        run_began: when the run began, ISO 8601.
    """
    plan = grant.plan
    variables = int(data.codec["variables"])
    stage = next(stage for stage in sweep.stages if stage.name == plan.stage)
    evaluation = sweep.evaluation
    return Task(
        trial_id=plan.trial_id,
        attempt=grant.attempt,
        model=located(sweep.model),
        device=sweep.resources.device,
        data=replace(
            data,
            path=str(Path(data.path).absolute()),
            test_path=data.test_path and str(Path(data.test_path).absolute()),
        ),
        evaluation=EvaluationTask(
            validation_windows=evaluation.windows,
            validation_context=evaluation.context_length,
            batch_size=evaluation.batch_size,
            loss=evaluation.loss,
            forecasts=forecast_tasks(sweep, forecast_of(sweep, stage), variables),
        ),
        config=plan.config,
        milestones=plan.milestones,
        prices=plan.prices,
        folder=str(folder.trial(plan.trial_id).absolute()),
        run_began=run_began,
        reached=grant.reached,
        paused_at=grant.paused_at,
        pause_file=str(folder.pause.absolute()),
        continues=None if plan.continues is None else str(folder.trial(plan.continues).absolute()),
        quantization=sweep.quantization,
        threads=threads,
    )


def located(model: str) -> str:
    """A model in a folder by its whole path; any other by its name."""
    return str(Path(model).absolute()) if model != TINY and Path(model).is_dir() else model
