"""What a person is told who finds the winner's folder."""

from dataclasses import replace

import pytest

from lvray.core.trial import (
    LoraConfig,
    Measurement,
    Milestone,
    StepPrices,
    Trial,
    TrialConfig,
    TrialPlan,
)
from lvray.driver.best import card
from lvray.spec.schema import Sweep


def winner(lora):
    config = replace(TrialConfig(), lora=lora)
    plan = TrialPlan("final", "final", config, (Milestone(5, 50),), StepPrices(9, 5, 0))
    heard = Measurement("final", 1, 0, 5, 50, validation_loss=0.5, seconds=1.0)
    return Trial(plan, curve=(heard,))


@pytest.mark.parametrize("bias", [False, True])
def test_the_card_says_of_a_bias_that_plain_peft_passes_it_over(bias):
    sweep = Sweep.model_validate({"name": "x", "budget": 100, "stages": []})
    told = card(sweep, winner(LoraConfig(rank=2, head_bias=bias)))
    assert ("Plain PEFT does not read it" in told) == bias
    assert ("head_bias.safetensors" in told) == bias
