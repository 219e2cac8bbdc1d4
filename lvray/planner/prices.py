"""What do one trial's steps, evaluations and forecasts cost under the sweep's convention?"""

from __future__ import annotations

import math

from lvray.core.trial import StepPrices, TrialConfig
from lvray.flops.price import forward_pass, generation, train_step
from lvray.flops.shape import shape_of
from lvray.spec.schema import Sweep

ROOM = 1.2
"""A forecast may take this many times the usual tokens: values past the scale have more digits.

The same room is priced for its prompt; what does not fit is cut from the prompt's oldest end."""


def step_tokens(sweep: Sweep, variables: int) -> int:
    """Tokens of a usual time step: per variable one digit, ".", the decimals, and one separator."""
    return variables * (1 + 1 + sweep.text.decimals + 1)


def forecast_tokens(sweep: Sweep, variables: int) -> tuple[int, int]:
    """The most tokens of a forecast's prompt, and the most that it may generate."""
    usual = step_tokens(sweep, variables)
    forecast = sweep.evaluation.forecast
    return math.ceil(ROOM * forecast.context_steps * usual), math.ceil(
        ROOM * forecast.horizon * usual
    )


def price_trial(sweep: Sweep, config: TrialConfig, variables: int) -> StepPrices:
    """Prices the parts of a trial of `sweep` with `config`, in FLOPs.

    Raises:
        ModelError: the model's shape is not known, or it has no layer of a name in `lora.targets`.
    """
    shape = shape_of(sweep.model)
    evaluation, forecast = sweep.evaluation, sweep.evaluation.forecast
    prompt, new = forecast_tokens(sweep, variables)
    lora, convention = config.lora, sweep.convention
    return StepPrices(
        train_step=train_step(
            shape,
            lora=lora,
            convention=convention,
            context_length=config.context_length,
            batch_size=config.batch_size,
        ),
        evaluation=forward_pass(
            shape,
            lora=lora,
            convention=convention,
            context_length=evaluation.context_length,
            batch_size=evaluation.windows,
        ),
        forecast=generation(
            shape,
            lora=lora,
            convention=convention,
            prompt_tokens=prompt,
            new_tokens=new,
            batch_size=forecast.systems,
        ),
    )
