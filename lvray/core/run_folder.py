"""Where does each thing of a run lie, and how is a file written whole or not at all?

runs/<name>/
    sweep.yaml          the sweep, resolved: every default written out
    environment.json    versions, commit, device
    split.json          which systems train, validate, test; the codec fitted on the training ones
    ledger.jsonl        transfers (or wherever `ledger:` points)
    journal.jsonl       measurements and decisions
    <stage>.study.log   Optuna's study, of a stage whose configs it chose
    pause               there while running trials are asked to pause
    trials/<id>/        config.json  forecasts/80+20.npz  checkpoints/step-00000123/ (with the adapter/ as peft reads it)
    baselines/          80+20.npz: what needs no model, on the windows that were forecast
    best/               the winner's adapter and its card
    report.html  report.md  figures/  flops.csv  scores.csv
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from socket import gethostname
from time import monotonic, sleep

from lvray.core.errors import RunFolderError

ADAPTER = "adapter"
"""In a checkpoint: the folder that peft reads."""

HEAD_BIAS = "head_bias.safetensors"
"""Beside an adapter: the trained bias of the head, which peft itself does not read."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one sweep. Everything that happened is in it."""

    root: Path

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.root.name

    @property
    def sweep(self) -> Path:
        """The resolved sweep file."""
        return self.root / "sweep.yaml"

    @property
    def environment(self) -> Path:
        """Versions, commit, device."""
        return self.root / "environment.json"

    @property
    def split(self) -> Path:
        """Roles of the systems, and the codec."""
        return self.root / "split.json"

    @property
    def ledger(self) -> Path:
        """Transfers of FLOPs, unless the sweep shares a ledger elsewhere."""
        return self.root / "ledger.jsonl"

    @property
    def journal(self) -> Path:
        """Measurements and decisions."""
        return self.root / "journal.jsonl"

    def study(self, stage: str) -> Path:
        """Optuna's journal of the configs that a stage chose as it went."""
        return self.root / f"{stage}.study.log"

    @property
    def pause(self) -> Path:
        """A file that asks running trials to pause."""
        return self.root / "pause"

    @property
    def best(self) -> Path:
        """The winner's adapter."""
        return self.root / "best"

    def trial(self, trial_id: str) -> Path:
        """The folder of one trial."""
        return self.root / "trials" / trial_id

    def forecasts(self, trial_id: str) -> tuple[Path, ...]:
        """The files of forecasts that a trial has made, in the order of their names."""
        return tuple(sorted((self.trial(trial_id) / "forecasts").glob("*.npz")))

    @property
    def baselines(self) -> Path:
        """Forecasts without a model, a file for each name of forecasts."""
        return self.root / "baselines"

    def put_aside(self) -> None:
        """Renames the folder if it is there, so that a fresh run loses nothing.

        Raises:
            RunFolderError: a driver is at work in it.
        """
        if self.root.exists():
            with self.locked():
                names = (self.root.with_name(f"{self.name}.{number}") for number in count(1))
                self.root.rename(next(name for name in names if not name.exists()))

    @contextmanager
    def locked(self, *, wait: float = 0.0) -> Iterator[None]:
        """Holds the folder for one driver; the lock ends with the process, however it ends.

        Args:
            wait: seconds to wait while another process holds it.

        Raises:
            RunFolderError: another process holds it, or the folder cannot be written, or has no locks.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunFolderError(f"{self.root}: cannot be written: {error.strerror}") from error
        try:
            until = monotonic() + wait
            while True:
                try:
                    take_lock(handle, self.root, wait=False)
                    break
                except BlockingIOError:
                    if monotonic() >= until:
                        raise self._in_use(handle) from None
                sleep(min(1.0, max(until - monotonic(), 0.0)))
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {gethostname()}\n".encode())
            yield
        finally:
            os.close(handle)

    def _in_use(self, handle: int) -> RunFolderError:
        said = os.pread(handle, 512, 0).decode(errors="replace").strip()
        holder = said or "a process unknown"
        return RunFolderError(f"{self.root} is in use by {holder}; wait for it, or end it first")


def take_lock(handle: int, path: Path, *, wait: bool = True) -> None:
    """Locks an open file for this process alone; the lock ends with the process, however it ends.

    Args:
        handle: the file's descriptor.
        path: what is locked with it, for messages.
        wait: whether to wait while another process holds it.

    Raises:
        BlockingIOError: another process holds it, and `wait` is off.
        RunFolderError: the file system has no such locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        raise RunFolderError(
            f"{path}: cannot be locked: {error.strerror}. Two drivers must never write there at once, so it has to lie on "
            "a file system that has flock (Lustre has it when mounted with -o flock; docs/ledger.md tells of others): "
            "--runs puts run folders elsewhere, `ledger: {path: …}` a shared ledger"
        ) from error


def is_there(file: Path) -> bool:
    """Whether a file is there, as its server knows: asked by name, a network file system may answer from what it saw a minute ago.

    A folder that cannot be read now has it not.
    """
    try:
        return file in file.parent.iterdir()
    except OSError:
        return False


def checkpoint_path(trial: Path, step: int) -> Path:
    """Gives the place of a trial's checkpoint after `step` optimizer steps."""
    return trial / "checkpoints" / f"step-{step:08d}"


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: to a name beside it, flushed to the disk, then renamed; text in UTF-8.

    Raises:
        RunFolderError: the disk is full or the folder cannot be written; the old file stays as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):  # what broke the writing may break this too
            beside.unlink(missing_ok=True)
        raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error
