import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lvray.core.errors import CheckpointError, RunFolderError
from lvray.core.run_folder import checkpoint_path
from lvray.core.trial import LoraConfig
from lvray.trainer.checkpoint import (
    keep_checkpoints,
    latest_checkpoint,
    put_file,
    put_folder,
    read_checkpoint,
    restore_generators,
    restore_weights,
    write_checkpoint,
)

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
LORA = LoraConfig(rank=2)


def learner(width=3):
    """A model of one frozen and one trainable layer, after one optimizer step."""
    torch.manual_seed(width)
    model = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 2))
    model[0].requires_grad_(False)
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=0.1)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def write(trial, step, width=3):
    model, optimizer = learner(width)
    return write_checkpoint(
        trial, model, optimizer, step=step, lora=LORA, device=CPU, export=Path.mkdir
    )


def names(trial):
    return sorted(path.name for path in (trial / "checkpoints").iterdir())


def test_what_was_written_comes_back(tmp_path):
    model, optimizer = learner()
    path = write_checkpoint(
        tmp_path, model, optimizer, step=7, lora=LORA, device=CPU, export=Path.mkdir
    )
    expected = torch.rand(3)

    other, other_optimizer = learner()
    with torch.no_grad():
        other[1].weight.zero_()
    other_optimizer.state.clear()
    checkpoint = read_checkpoint(path)
    restore_weights(checkpoint, other, other_optimizer)
    restore_generators(checkpoint, CPU)

    assert (checkpoint.step, checkpoint.lora) == (7, LORA)
    assert torch.equal(other[1].weight, model[1].weight)
    assert str(other_optimizer.state_dict()) == str(optimizer.state_dict())
    assert torch.equal(torch.rand(3), expected)


def test_frozen_weights_are_not_in_a_checkpoint(tmp_path):
    assert set(read_checkpoint(write(tmp_path, 1)).adapter) == {"1.weight", "1.bias"}


def test_hyperparameters_are_the_trials_own(tmp_path):
    path = write(tmp_path, 1)
    model, _ = learner()
    trainable = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=0.5, weight_decay=0.25)
    restore_weights(read_checkpoint(path), model, optimizer)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (
        0.5,
        0.25,
    )
    assert optimizer.state_dict()["state"][0]["step"] == 1


def test_another_shape_is_told_in_words(tmp_path):
    path = write(tmp_path, 1, width=3)
    with pytest.raises(CheckpointError, match=r"1\.weight, \(2, 3\) there and \(2, 5\) here"):
        restore_weights(read_checkpoint(path), *learner(width=5))


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.pt", "state.json"])
def test_one_changed_byte_is_found(tmp_path, name):
    path = write(tmp_path, 1)
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.pt", "state.json"])
def test_a_missing_file_is_named(tmp_path, name):
    path = write(tmp_path, 1)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="step-00000009"):
        read_checkpoint(checkpoint_path(tmp_path, 9))


def test_the_latest_is_the_one_with_the_most_steps(tmp_path):
    for step in (9, 100, 20):
        write(tmp_path, step)
    assert latest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 100)


def test_no_checkpoint_to_continue_from_is_told_in_words(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        latest_checkpoint(tmp_path)


def test_only_what_shall_be_kept_is_kept(tmp_path):
    for step in (5, 10, 15):
        write(tmp_path, step)
    keep_checkpoints(tmp_path, keep={10, 15, 20})
    assert names(tmp_path) == ["step-00000010", "step-00000015"]


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_checkpoint import write
Path.replace = lambda *_: os._exit(9)  # the moment between the files and their name
write(Path({trial!r}), 2)
"""


def test_a_kill_before_the_rename_leaves_the_old_checkpoint_and_no_half_of_the_new(tmp_path):
    old = write(tmp_path, 1)
    program = KILLED.format(tests=str(Path(__file__).parent), trial=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == 9
    left_behind = [name for name in names(tmp_path) if name.endswith(".partial")]
    assert len(left_behind) == 1, "the kill must come after the files, or this tests nothing"
    assert latest_checkpoint(tmp_path) == old
    assert read_checkpoint(old).step == 1

    keep_checkpoints(tmp_path, keep={1})
    assert names(tmp_path) == [old.name]
    assert read_checkpoint(write(tmp_path, 2)).step == 2


@contextmanager
def full_disk():
    """No file may grow beyond 100 bytes, as on a full disk. No longer than needed: pytest writes files too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_in_words_and_leaves_nothing(tmp_path):
    with (
        full_disk(),
        pytest.raises(RunFolderError, match=r"cannot write .*step-00000001.*too large"),
    ):
        write(tmp_path, 1)
    assert names(tmp_path) == []


def test_a_file_on_a_full_disk_stays_as_it_was(tmp_path):
    put_file(tmp_path / "a.npz", b"old")
    with full_disk(), pytest.raises(RunFolderError, match="cannot write"):
        put_file(tmp_path / "a.npz", b"x" * 200)
    assert (tmp_path / "a.npz").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_takes_the_place_of_another(tmp_path):
    for content in ("old", "new"):
        put_folder(
            tmp_path / "adapter", lambda folder, c=content: (folder / c).write_text(c) and None
        )
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
