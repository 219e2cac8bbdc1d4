"""What a trial's parts cost is what its worker is told to compute."""

from pathlib import Path

import pytest

from lvray.core.run_folder import RunFolder
from lvray.core.task import DataTask
from lvray.flops.price import forward_pass, generation, train_step
from lvray.flops.shape import shape_of
from lvray.planner.prices import CHAT_TOKENS, forecast_tasks
from lvray.planner.stages import outline, step_prices
from lvray.planner.tasks import task_of
from lvray.scheduler.scheduler import Grant
from lvray.spec.load import load

QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
FILE = """
budget: 1e18
model: Qwen/Qwen2.5-0.5B-Instruct
quantization: nf4
resources: {device: cuda}
trial: {loss: numeric}
evaluation:
  loss: numeric
  windows: 5
  forecast: {systems: 7, context_steps: [40, 80], horizon: 10, windows: [3, 2], every: 5, samples: 6}
stages:
  - {name: zero, zero_shot: true, forecast: true}
  - {name: chat, zero_shot: true, forecast: {prompt: chat, context_steps: 60, windows: 1, samples: 0}}
  - {name: tuned, steps: 10, forecast: {systems: 4, samples: 2}}
"""


@pytest.fixture
def file(tmp_path) -> Path:
    place = tmp_path / "sweep.yaml"
    place.write_text(FILE)
    return place


def generated(lora, head, *rows):
    """FLOPs of forecasts: (systems × windows, context, samples, tokens of words around it) for each length."""
    return sum(
        generation(
            shape_of(QWEN),
            lora=lora,
            convention="coursework",
            prompt_tokens=12 * context + words,  # ten tokens a time step, and room for a fifth more
            new_tokens=120,
            batch_size=windows,
            samples=samples,
            head=head,
        )
        for windows, context, samples, words in rows
    )


@pytest.mark.parametrize("head", ["numeric", "full"])
def test_forecasts_cost_what_their_own_stage_asks_for(file, head):
    sweep = load(file, overrides=[f"evaluation.loss={head}"])
    zero, chat, tuned = (step_prices(sweep, stage, variables=2)[0] for stage in sweep.stages)
    lora = outline(sweep, variables=2)[2].trials[0].config.lora
    assert zero.forecast == generated(None, head, (21, 40, 6, 0), (14, 80, 6, 0))
    assert chat.forecast == generated(None, head, (7, 60, 1, CHAT_TOKENS))
    assert tuned.forecast == generated(lora, head, (12, 40, 2, 0), (8, 80, 2, 0))


@pytest.mark.parametrize(("training", "validation"), [("full", "numeric"), ("numeric", "full")])
def test_training_and_validation_cost_the_head_that_each_computes(file, training, validation):
    sweep = load(file, overrides=[f"trial.loss={training}", f"evaluation.loss={validation}"])
    (prices,) = step_prices(sweep, sweep.stages[2], variables=2)
    config = outline(sweep, variables=2)[2].trials[0].config
    how = {"lora": config.lora, "convention": "coursework", "context_length": 512}
    shape = shape_of(QWEN)
    assert prices.train_step == train_step(shape, **how, batch_size=4, head=training)
    assert prices.evaluation == forward_pass(shape, **how, batch_size=5, head=validation)


def test_a_sampler_that_may_choose_the_loss_is_planned_at_the_dearer_one(file):
    axis = "stages.tuned.space={loss: [numeric, full], learning_rate: {log: [1e-4, 1e-3]}}"
    how = ["stages.tuned.sampler=tpe", "stages.tuned.samples=3"]
    sweep = load(file, overrides=[axis, *how])
    full = load(file, overrides=["trial.loss=full"])
    (dear,) = step_prices(full, full.stages[2], variables=2)
    assert {prices.train_step for prices in step_prices(sweep, sweep.stages[2], variables=2)} == {
        dear.train_step
    }


def test_a_worker_is_told_what_was_priced_for_its_stage(file, tmp_path):
    sweep = load(file)
    codec = {"variables": 2, "decimals": 2}
    data = DataTask("a.h5", (0,), (1,), (2,), codec, test_path="b.h5", steps=80)
    for stage, plan in zip(sweep.stages, outline(sweep, variables=2), strict=True):
        (trial,) = plan.trials
        grant = Grant(trial, 1, -1, len(trial.milestones) - 1, trial.price)
        task = task_of(sweep, RunFolder(tmp_path), data, grant, threads=1)
        asked = sweep.evaluation.forecast.model_copy(
            update={name: getattr(stage.forecast, name) for name in stage.forecast.model_fields_set}
        )
        assert task.evaluation.forecasts == forecast_tasks(sweep, asked, 2)
        assert (task.evaluation.loss, task.quantization) == ("numeric", "nf4")
        assert (task.prices, task.milestones) == (trial.prices, trial.milestones)
        assert (task.data.steps, task.data.test_path) == (80, str(Path("b.h5").absolute()))
