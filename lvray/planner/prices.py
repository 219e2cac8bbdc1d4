"""What do one trial's steps, evaluations and forecasts cost under the sweep's convention?"""

from __future__ import annotations

import math
from collections.abc import Iterable

from lvray.core.task import ForecastTask
from lvray.core.trial import StepPrices, TrialConfig
from lvray.flops.price import forward_pass, generation, train_step
from lvray.flops.shape import shape_of
from lvray.spec.schema import ForecastSpec, Sweep

ROOM = 1.2
"""A forecast may take this many times the usual tokens: values past the scale have more digits.

The same room is priced for its prompt; what does not fit is cut from the prompt's oldest end."""

CHAT_TOKENS = 128
"""Most tokens of the words around the series in a chat prompt."""


def step_tokens(sweep: Sweep, variables: int) -> int:
    """Tokens of a usual time step: per variable one digit, ".", the decimals, and one separator."""
    return variables * (1 + sweep.text.point + sweep.text.decimals + 1)


def forecast_tasks(sweep: Sweep, asked: ForecastSpec, variables: int) -> tuple[ForecastTask, ...]:
    """What is forecast from each length of context, and how many tokens it may take."""
    usual = step_tokens(sweep, variables)
    return tuple(
        ForecastTask(
            systems=asked.systems,
            context_steps=context,
            horizon=asked.horizon,
            windows=count,
            every=asked.every or asked.horizon,
            samples=asked.samples,
            temperature=asked.temperature,
            prompt=asked.prompt,
            prompt_tokens=math.ceil(ROOM * context * usual)
            + (asked.prompt == "chat") * CHAT_TOKENS,
            new_tokens=math.ceil(ROOM * asked.horizon * usual),
        )
        for context, count in asked.windows_by_context
    )


def price_trial(
    sweep: Sweep, config: TrialConfig, variables: int, *, forecast: ForecastSpec | None = None
) -> StepPrices:
    """Prices the parts of a trial of `sweep` with `config`, in FLOPs.

    Args:
        sweep: the sweep file.
        config: the trial's.
        variables: how many variables the series have.
        forecast: what is forecast; None is the sweep's `evaluation.forecast`.

    Raises:
        ModelError: the model's shape is not known, or it has no layer of a name in `lora.targets`.
    """
    shape, evaluation = shape_of(sweep.model), sweep.evaluation
    lora, convention = config.lora, sweep.convention
    tasks = forecast_tasks(sweep, forecast or evaluation.forecast, variables)
    return StepPrices(
        train_step=train_step(
            shape,
            lora=lora,
            convention=convention,
            context_length=config.context_length,
            batch_size=config.batch_size,
            head=config.loss,
        ),
        evaluation=forward_pass(
            shape,
            lora=lora,
            convention=convention,
            context_length=evaluation.context_length,
            batch_size=evaluation.windows,
            head=evaluation.loss,
        ),
        forecast=_price_forecasts(sweep, config, tasks),
    )


def _price_forecasts(sweep: Sweep, config: TrialConfig, tasks: Iterable[ForecastTask]) -> int:
    shape = shape_of(sweep.model)
    return sum(
        generation(
            shape,
            lora=config.lora,
            convention=sweep.convention,
            prompt_tokens=task.prompt_tokens,
            new_tokens=task.new_tokens,
            batch_size=task.systems * task.windows,
            samples=max(1, task.samples),
            head=sweep.evaluation.loss,
        )
        for task in tasks
    )
