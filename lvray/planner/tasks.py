"""What is a worker told of one attempt at one trial?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lvray.core.run_folder import RunFolder
from lvray.core.task import DataTask, EvaluationTask, Task
from lvray.planner.model import TINY
from lvray.planner.prices import forecast_tokens
from lvray.scheduler.scheduler import Grant
from lvray.spec.schema import Sweep


def task_of(sweep: Sweep, folder: RunFolder, data: DataTask, grant: Grant, *, threads: int) -> Task:
    """Everything a worker needs to carry out `grant`, its paths absolute: a worker starts in a folder of its own.

    Args:
        sweep: the sweep file.
        folder: its run folder, on storage that the worker sees too.
        data: the prepared series.
        grant: the stretch that is paid for.
        threads: CPU threads the worker may use.
    """
    plan = grant.plan
    variables = (
        len(data.codec["variables"])
        if isinstance(data.codec.get("variables"), list)
        else int(data.codec["variables"])
    )
    prompt, new = forecast_tokens(sweep, variables)
    evaluation, forecast = sweep.evaluation, sweep.evaluation.forecast
    return Task(
        trial_id=plan.trial_id,
        attempt=grant.attempt,
        model=_located(sweep.model),
        device=sweep.resources.device,
        data=replace(data, path=str(Path(data.path).absolute())),
        evaluation=EvaluationTask(
            validation_windows=evaluation.windows,
            validation_context=evaluation.context_length,
            batch_size=evaluation.batch_size,
            forecast_systems=forecast.systems,
            forecast_context_steps=forecast.context_steps,
            forecast_horizon=forecast.horizon,
            forecast_prompt_tokens=prompt,
            forecast_tokens=new,
        ),
        config=plan.config,
        milestones=plan.milestones,
        prices=plan.prices,
        folder=str(folder.trial(plan.trial_id).absolute()),
        reached=grant.reached,
        continues=None if plan.continues is None else str(folder.trial(plan.continues).absolute()),
        threads=threads,
    )


def _located(model: str) -> str:
    """A model in a folder by its whole path; any other by its name."""
    return str(Path(model).absolute()) if model != TINY and Path(model).is_dir() else model
