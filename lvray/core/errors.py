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
    ├── TrialFailed             a trial that failed more often than it may
    ├── Superseded              an attempt that goes on though a later one of the same trial has begun
    └── Preempted               exit code 75: the session was asked to pause; the same command goes on
"""

from __future__ import annotations

from collections.abc import Sequence


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


class TrialFailed(LvrayError):
    """A trial that failed more often than it may."""


class Superseded(LvrayError):
    """An attempt that still runs, cut off from its driver, while a later one of the same trial has begun."""


class Preempted(LvrayError):
    """The session was asked to pause, and has: every trial waits at a checkpoint, the books are closed."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: run the same command again


def missing_model(model: str, reason: str) -> str:
    """What to do about a base model that is neither here nor to be had from the hub, in words."""
    return (
        f"{model} is neither a folder here nor to be had from the Hugging Face hub ({reason}). Where there is a network: "
        f"`hf download {model} --local-dir DIR`, copy DIR here, and name DIR as the model (in a sweep file `--set model=DIR`); "
        "or set HF_HOME to a cache that has it"
    )
