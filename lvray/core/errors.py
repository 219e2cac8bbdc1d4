"""What can go wrong that a person can mend?

Every deliberate error is one sentence (or one a mistake): what, where, the value, what would have been
right. The verbs turn them into an exit code; anything that is not an `LvrayError` is a bug of ours.

    LvrayError                  exit code 1
    ├── UsageError              exit code 2: the command line
    │   └── SpecError           exit code 2: a sweep file, every mistake of it at once
    ├── DataError               a data set that cannot be read, split, scaled or written as text
    ├── ModelError              a base model or adapter that cannot be had, or does not fit what is asked
    ├── CheckpointError         a checkpoint that is missing or damaged
    ├── BudgetTooSmall          a plan that the FLOPs at hand cannot pay for
    ├── Overdraft               a transfer that would leave an account below zero
    ├── JournalCorrupt          a journal line that is neither whole nor a torn last line
    ├── RunFolderError          a run folder that belongs to another sweep, is in use, or cannot be written
    ├── MachineError            a machine that cannot do its part: no such device, or trials fail there again and again
    ├── TrialFailed             a trial that failed more often than it may
    ├── Superseded              an attempt that goes on though a later one of the same trial has begun
    └── Preempted               exit code 75: the session was asked to pause; the same command goes on
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum


class LvrayError(Exception):
    """A mistake or mishap outside lvray's own code, told in words."""

    exit_code = 1


class UsageError(LvrayError):
    """A command line that asks for something that does not exist."""

    exit_code = 2


class SpecError(UsageError):
    """A sweep file with mistakes; `mistakes` holds one sentence for each, in file order."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class DataError(LvrayError):
    """A data set that cannot be read, split, scaled or written as text."""


class ModelError(LvrayError):
    """A base model or an adapter that cannot be had or does not fit what is asked of it."""


class CheckpointError(LvrayError):
    """A checkpoint that is missing or damaged."""


class BudgetTooSmall(LvrayError):
    """A plan that the FLOPs at hand cannot pay for; the message says how many would do."""


class Overdraft(LvrayError):
    """A transfer that would leave an account below zero. Nothing of its transaction was written."""


class JournalCorrupt(LvrayError):
    """A journal line that is neither whole nor a torn last line; the message names the line."""


class RunFolderError(LvrayError):
    """A run folder that belongs to another sweep file, is in use, or cannot be written."""


class MachineError(LvrayError):
    """A machine that cannot do its part: it lacks a device, or trials fail there again and again. Mended, it goes on."""


class TrialFailed(LvrayError):
    """A trial that failed more often than it may."""


class Superseded(LvrayError):
    """An attempt that still runs, cut off from its driver, while a later one of the same trial has begun."""


class Preempted(LvrayError):
    """The session was asked to pause, and has: every trial waits at a checkpoint, the books are closed."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: run the same command again


class Blame(StrEnum):
    """Whose doing it was that an attempt at a trial failed, which decides whether there is another."""

    TRIAL = "trial"
    """What was asked: it would fail again, anywhere."""
    MACHINE = "machine"
    """A disk, a file system, a device, a node: elsewhere it may go well, and here once that is mended."""
    UNKNOWN = "unknown"
    """A crash: another attempt tells."""


OF_THE_MACHINE = (OSError, ImportError, RunFolderError, MachineError)
"""What a worker meets that is no fault of its trial. The driver has seen model and data before it paid for anything, so
where a worker does not, the worker's node is to blame."""


def blame_of(error: BaseException) -> Blame:
    """Whose doing an error in a worker was, told from its kind and from what it was raised from."""
    if any(isinstance(each, OF_THE_MACHINE) for each in _with_causes(error)):
        return Blame.MACHINE
    return Blame.TRIAL if isinstance(error, LvrayError) else Blame.UNKNOWN


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def missing_model(model: str, reason: str) -> str:
    """What to do about a base model that is neither here nor to be had from the hub, in words."""
    return (
        f"{model} is neither a folder here nor to be had from the Hugging Face hub ({reason}). Where there is a network: "
        f"`hf download {model} --local-dir DIR`, copy DIR here, and name DIR as the model (in a sweep file `--set model=DIR`); "
        "or set HF_HOME to a cache that has it"
    )
