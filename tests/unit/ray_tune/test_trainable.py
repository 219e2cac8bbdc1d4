"""What a worker says of an attempt that broke, wherever it can still be said."""

from __future__ import annotations

import json
from pathlib import Path
from socket import gethostname

import pytest

from lvray.core.errors import Blame
from lvray.core.task import DataTask, EvaluationTask, Task
from lvray.core.trial import LoraConfig, StepPrices, TrialConfig
from lvray.ray_tune.capacity import Workers
from lvray.ray_tune.trainable import FAILURE, AttemptFailed, Failure, attempt
from lvray.scheduler.milestones import unroll

from ray import cloudpickle  # isort: skip  (the room sets what Ray reads when it is imported)
from ray.exceptions import RayTaskError  # isort: skip

pytestmark = [pytest.mark.ray, pytest.mark.torch]

PRICES = StepPrices(10, 100, 0)


def failure(folder: Path, **more) -> Failure:
    """How an attempt at a trial in `folder` fails."""
    values = {"device": "cpu", "model": "tiny"} | more
    task = Task(
        "t0",
        3,
        data=DataTask(str(folder / "nowhere.h5"), (), (), (), {}),
        evaluation=EvaluationTask(0, 0, 0),
        config=TrialConfig(LoraConfig()),
        milestones=unroll(PRICES, [(10, None)], forecast=False),
        prices=PRICES,
        folder=str(folder),
        **values,
    )
    with pytest.raises(AttemptFailed) as told:
        attempt({"task": json.dumps(task.to_json())})
    return told.value.failure


def test_an_attempt_without_its_device_blames_the_node_by_name_and_has_used_nothing(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    told = failure(tmp_path, device="cuda")
    assert (told.blame, told.unused) == (Blame.MACHINE, True)
    assert told.reason.startswith(f"{gethostname()}: device cuda")
    assert torch.__version__ in told.reason
    row = json.loads((tmp_path / FAILURE).read_text())
    assert (row["attempt"], row["reason"], row["blame"]) == (3, told.reason, "machine")
    assert "Traceback" in row["traceback"]


def test_an_attempt_that_cannot_write_its_folder_is_heard_of_all_the_same(tmp_path):
    (tmp_path / "no-folder").write_text("a file stands there")
    told = failure(tmp_path / "no-folder" / "t0")
    assert (told.blame, told.unused) == (Blame.MACHINE, True)
    assert told.reason.startswith(f"{gethostname()}: ")


def test_data_that_the_driver_has_read_and_the_node_does_not_see_are_the_nodes_doing(tmp_path):
    told = failure(tmp_path)
    assert (told.blame, told.unused) == (Blame.MACHINE, True)
    assert "nowhere.h5: there is no such data file" in told.reason


def test_a_model_that_the_driver_has_read_and_the_node_does_not_see_is_the_nodes_doing(tmp_path):
    told = failure(tmp_path, model=str(tmp_path / "model"))
    assert told.blame is Blame.MACHINE


def test_ray_brings_the_failure_to_the_driver_as_it_is():
    error = AttemptFailed(Failure("no room", Blame.MACHINE, unused=True))
    carried = RayTaskError("attempt", "Traceback …", error).as_instanceof_cause()
    again = cloudpickle.loads(cloudpickle.dumps(carried))
    assert isinstance(again, RayTaskError)
    assert again.cause.failure == error.failure


@pytest.mark.parametrize("asked", ["auto", "cpu", "cuda", "mps"])
def test_a_trial_that_holds_a_gpu_is_never_left_to_find_a_device_itself(asked):
    assert Workers(cpus=1, gpus=0.5).device(asked) == ("cuda" if asked == "auto" else asked)
    assert Workers(cpus=1, gpus=0).device(asked) == asked
