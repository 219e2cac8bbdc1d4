"""A base model of random weights, a small data set, and tasks on both: no test here needs the shipped model."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from lvray.core.task import DataTask, EvaluationTask, ForecastTask, Task
from lvray.core.trial import LoraConfig, Milestone, StepPrices, TrialConfig
from lvray.series.codec import Codec

SYSTEMS, TIMES = 12, 40
TRAIN, VALIDATION, TEST = tuple(range(8)), (8, 9), (10, 11)
PRICES = StepPrices(train_step=1000, evaluation=70, forecast=9)
EVALUATION = EvaluationTask(
    validation_windows=3,
    validation_context=64,
    batch_size=2,
    forecasts=(
        ForecastTask(
            systems=2,
            context_steps=10,
            horizon=3,
            windows=1,
            every=3,
            samples=0,
            temperature=1.0,
            prompt="raw",
            prompt_tokens=128,
            new_tokens=48,
        ),
    ),
)
CONFIG = TrialConfig(
    lora=LoraConfig(rank=2, alpha=4.0, targets=("all-linear",)),
    learning_rate=5e-3,
    warmup_steps=3,
    context_length=64,
    stride=64,
    batch_size=2,
    seed=3,
)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A folder with a Qwen2 of random weights and a tokenizer of single characters."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("base")
    words = ["<pad>", *"0123456789.-,;"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>"
    ).save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=16,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=0,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def values():
    """Two waves a system, [12, 40, 2], all above zero."""
    random = np.random.default_rng(5)
    phase, speed = random.uniform(0, 6, (SYSTEMS, 1, 2)), random.uniform(0.2, 0.5, (SYSTEMS, 1, 1))
    return 3.0 + 2.0 * np.sin(phase + speed * np.arange(TIMES)[None, :, None])


@pytest.fixture(scope="session")
def data(values, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "waves.h5"
    with h5py.File(path, "w") as file:
        file["trajectories"] = values
        file["time"] = np.arange(TIMES, dtype=np.float64)
    codec = Codec.fit(values[list(TRAIN)], decimals=2, method="percentile", percentile=99.7, to=10)
    return DataTask(str(path), TRAIN, VALIDATION, TEST, codec.to_json())


def milestones(*steps, forecast=False):
    """Milestones at these steps, at their true price; the last one forecasts if asked."""
    made = []
    for number, step in enumerate(steps, 1):
        last = forecast and number == len(steps)
        flops = step * PRICES.train_step + number * PRICES.evaluation + last * PRICES.forecast
        made.append(Milestone(step, flops, forecast=last))
    return tuple(made)


@pytest.fixture
def make_task(model, data, tmp_path):
    """Gives a function that makes a task: `make_task(4, 8, name="a", learning_rate=1e-2)`."""

    def make(*steps, name="t", forecast=False, lora=None, folder=None, **changes):
        config = replace(CONFIG, **{k: v for k, v in changes.items() if hasattr(CONFIG, k)})
        if lora:
            config = replace(config, lora=replace(config.lora, **lora))
        task = Task(
            trial_id=name,
            attempt=1,
            model=model,
            device="cpu",
            data=data,
            evaluation=EVALUATION,
            config=config,
            milestones=milestones(*steps, forecast=forecast),
            prices=PRICES,
            folder=str(folder or tmp_path / name),
            threads=1,
        )
        return replace(task, **{k: v for k, v in changes.items() if not hasattr(CONFIG, k)})

    return make


@pytest.fixture
def trial_folder(tmp_path):
    return lambda name: Path(tmp_path) / name
