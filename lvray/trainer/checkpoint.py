"""How does a trial go on where it stopped, on another day and another machine?

    <trial>/checkpoints/step-00000123/
        adapter.safetensors   trainable weights by name
        optimizer.pt          AdamW's moments, and the states of the random generators
        state.json            format, step, adapter config, sums of a stretch that paused, sha256 of the two files above
        adapter/              the same weights as peft reads them; nothing here reads it

The step is also the place in the data (`trainer.batches`) and in the learning-rate schedule. A
checkpoint is written whole or not at all: into a folder beside its place, flushed to the disk, then
renamed. Whatever a killed attempt leaves behind is swept away by the next one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from lvray.core.errors import CheckpointError, RunFolderError, Superseded
from lvray.core.run_folder import ADAPTER, checkpoint_path, write_whole
from lvray.core.task import Claim
from lvray.core.trial import LoraConfig

FORMAT = "lvray-checkpoint/1"

CLAIM = "attempt"
"""In a trial's folder: number and run of the attempt that may write there."""

_ADAPTER, _OPTIMIZER, _STATE = "adapter.safetensors", "optimizer.pt", "state.json"
_PARTIAL = re.compile(r"\..+\.partial")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds, read and found undamaged; tensors on the CPU."""

    path: Path
    step: int
    """Optimizer steps done."""
    lora: LoraConfig
    adapter: Mapping[str, Tensor]
    """Trainable weights by their names in the model."""
    moments: Mapping[str, Any]
    """`state_dict` of the optimizer without its hyperparameters, which are the trial's own."""
    generators: Mapping[str, Tensor]
    """States of the random generators, by device type."""
    sums: Mapping[str, float]
    """What the trainer had summed up since the last milestone, by name; empty at a milestone."""


def latest_checkpoint(trial: Path) -> Path:
    """Gives the checkpoint of a trial with the most steps.

    Raises:
        CheckpointError: the trial has none.
    """
    checkpoints = sorted(_checkpoints(trial))
    if not checkpoints:
        raise CheckpointError(
            f"no checkpoint in {trial / 'checkpoints'}; the trial to continue from must have "
            "reached a milestone with its adapter trained"
        )
    return checkpoints[-1][1]


def write_checkpoint(
    trial: Path,
    model: Module,
    optimizer: Optimizer,
    *,
    step: int,
    lora: LoraConfig,
    device: torch.device,
    export: Callable[[Path], object],
    sums: Mapping[str, float] = MappingProxyType({}),
) -> Path:
    """Writes the trial's state after `step` optimizer steps, whole or not at all, and gives its place.

    A checkpoint that stands there already is replaced: an attempt wrote it that died before it was heard.

    Args:
        trial: the trial's folder.
        model: its trainable weights are written.
        optimizer: its moments are.
        step: optimizer steps done.
        lora: what the adapter is.
        device: whose random generator is written too.
        export: writes the adapter as peft reads it into the folder that it is given.
        sums: what was summed up since the last milestone, for the attempt that goes on from here.

    Raises:
        RunFolderError: the disk is full, or the folder cannot be written.
    """
    place = checkpoint_path(trial, step)
    state = {"moments": optimizer.state_dict()["state"], "generators": _generators(device)}
    files = {
        _ADAPTER: safetensors.torch.save(_trainable(model)),
        _OPTIMIZER: _torch_bytes(state),
    }
    head = {
        "format": FORMAT,
        "step": step,
        "lora": lora.to_json(),
        "sums": dict(sums),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    files[_STATE] = (json.dumps(head, indent=2) + "\n").encode()

    def fill(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        export(folder / ADAPTER)

    put_folder(place, fill)
    return place


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks every byte of it.

    Raises:
        CheckpointError: it is missing, damaged, or of another format.
    """
    try:
        head = json.loads((path / _STATE).read_bytes())
        if head["format"] != FORMAT:
            raise CheckpointError(f"{path} has the format {head['format']!r}, not {FORMAT!r}")
        contents = {name: (path / name).read_bytes() for name in (_ADAPTER, _OPTIMIZER)}
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != head["sha256"][name]:
                raise CheckpointError(
                    f"{path / name} is damaged: its sha256 is not the one written"
                )
        state = torch.load(io.BytesIO(contents[_OPTIMIZER]), map_location="cpu", weights_only=True)
        return Checkpoint(
            path=path,
            step=int(head["step"]),
            lora=LoraConfig.from_json(head["lora"]),
            adapter=safetensors.torch.load(contents[_ADAPTER]),
            moments=state["moments"],
            generators=state["generators"],
            sums=head.get("sums", {}),  # earlier versions kept none
        )
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read: {error.strerror} ({error.filename})"
        ) from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {error!r}") from error


def restore_weights(checkpoint: Checkpoint, model: Module, optimizer: Optimizer) -> None:
    """Puts a checkpoint's adapter and moments into a model and its optimizer.

    The optimizer keeps its own hyperparameters: learning rate and weight decay belong to the trial
    that goes on, not to the one that wrote.

    Raises:
        CheckpointError: the model has other trainable weights than the checkpoint.
    """
    own = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    shapes = {name: tuple(weight.shape) for name, weight in own.items()}
    saved = {name: tuple(weight.shape) for name, weight in checkpoint.adapter.items()}
    if shapes != saved:
        unlike = sorted(name for name in shapes | saved if shapes.get(name) != saved.get(name))
        raise CheckpointError(
            f"the adapter of {checkpoint.path} does not fit this trial's: {len(unlike)} weights "
            f"differ, the first is {unlike[0]}, {saved.get(unlike[0])} there and "
            f"{shapes.get(unlike[0])} here; rank, targets and variant must be the same"
        )
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(checkpoint.adapter[name])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": checkpoint.moments, "param_groups": groups})


def restore_generators(checkpoint: Checkpoint, device: torch.device) -> None:
    """Puts the random generators back to where they were when the checkpoint was written."""
    torch.set_rng_state(checkpoint.generators["cpu"])
    if device.type == "cuda" and "cuda" in checkpoint.generators:
        torch.cuda.set_rng_state(checkpoint.generators["cuda"], device)
    if device.type == "mps" and "mps" in checkpoint.generators:
        torch.mps.set_rng_state(checkpoint.generators["mps"])


def claim(trial: Path, own: Claim) -> None:
    """Notes that the attempt `own` is the one that writes in the trial's folder from now on.

    Raises:
        RunFolderError: the folder cannot be written.
        Superseded: a later attempt has begun.
    """
    _ensure_latest(trial, own, _claimed(trial) or own)
    write_whole(trial / CLAIM, f"{own[1]} {own[0]}\n")


def ensure_claimed(trial: Path, own: Claim) -> None:
    """Refuses an attempt that another has taken over from: its node was cut off, given up as lost, and works on.

    Raises:
        Superseded: a later attempt has begun, or the run folder was put aside and another stands in its place.
    """
    latest = _claimed(trial)
    if latest is None:
        raise Superseded(
            f"attempt {own[1]} works on though {trial} is another run's by now; it ends here"
        )
    _ensure_latest(trial, own, latest)


def _ensure_latest(trial: Path, own: Claim, latest: Claim) -> None:
    if latest > own:
        another = "" if latest[0] == own[0] else f" of the run that began {latest[0]}"
        raise Superseded(
            f"attempt {own[1]} in {trial} works on though attempt {latest[1]}{another} has begun; it ends here"
        )


def _claimed(trial: Path) -> Claim | None:
    """Gives the latest attempt that has begun at a trial; None before the first."""
    try:
        number, _, began = (trial / CLAIM).read_text(encoding="utf-8").strip().partition(" ")
    except FileNotFoundError:
        return None
    return began, int(number)


def keep_checkpoints(trial: Path, *, keep: Collection[int]) -> None:
    """Removes every checkpoint of a trial but those after the steps in `keep`, and what killed attempts left."""
    folder = trial / "checkpoints"
    for step, path in _checkpoints(trial):
        if step not in keep:
            _remove(path)
    if folder.is_dir():
        for path in folder.iterdir():
            if _PARTIAL.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)  # another attempt may be sweeping too


def put_folder(place: Path, fill: Callable[[Path], None]) -> None:
    """Makes the folder `place` appear at once with all that `fill` writes into the folder it is given.

    What stood there before is removed, last of all.

    Raises:
        RunFolderError: the disk is full, or the folder cannot be written.
    """
    partial = _beside(place)
    with _writing(place):
        try:
            partial.mkdir(parents=True)
            fill(partial)
            for path in sorted(partial.rglob("*")):
                _flush(path)
            _flush(partial)
            if place.exists():
                _remove(place)
            partial.replace(place)
            _flush(place.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # gone already when all went well


def put_file(place: Path, content: bytes) -> None:
    """Makes the file `place` hold `content`, or leaves what was there before.

    Raises:
        RunFolderError: the disk is full, or the file cannot be written.
    """
    partial = _beside(place)
    with _writing(place):
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            _flush(partial)
            partial.replace(place)
            _flush(place.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Turns what the system says about a write into words."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"cannot write {place}: {error.strerror}; nothing of it was kept, what stood there "
            "before stands there still. Make room (or mend the folder) and run the same command again"
        ) from error


def _beside(place: Path) -> Path:
    """Gives a name that no other attempt uses, on the same disk as `place`."""
    return place.with_name(f".{place.name}.{uuid.uuid4().hex}.partial")


def _flush(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Removes a folder so that no half of it is ever seen under its name."""
    leaving = _beside(path)
    with _writing(path):
        path.replace(leaving)
        shutil.rmtree(leaving)


def _checkpoints(trial: Path) -> list[tuple[int, Path]]:
    return [
        (int(path.name.removeprefix("step-")), path)
        for path in (trial / "checkpoints").glob("step-" + "[0-9]" * 8)
    ]


def _trainable(model: Module) -> dict[str, Tensor]:
    return {
        name: weight.detach().cpu().contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _torch_bytes(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()
