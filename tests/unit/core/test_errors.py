"""Whose doing an error is, told from its kind and from what it was raised from."""

from __future__ import annotations

import errno

import pytest

from lvray.core.errors import (
    Blame,
    CheckpointError,
    DataError,
    LvrayError,
    MachineError,
    ModelError,
    RunFolderError,
    blame_of,
)


def raised_from(error: Exception, *causes: Exception) -> Exception:
    """`error` as it is after ``raise … from …``, cause behind cause."""
    behind = error
    for cause in causes:
        behind.__cause__ = cause
        behind = cause
    return error


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        FileNotFoundError("gone"),
        ImportError("libcudart.so.12: cannot open shared object file"),
        RunFolderError("the folder cannot be written"),
        MachineError("no such device"),
        raised_from(CheckpointError("cannot be read"), FULL),
        raised_from(ModelError("cannot be had"), OSError("no such folder")),
        raised_from(DataError("cannot be read"), RuntimeError("h5py"), FULL),
    ],
    ids=repr,
)
def test_disks_devices_and_what_is_not_installed_are_the_machines_doing(error):
    assert blame_of(error) is Blame.MACHINE


@pytest.mark.parametrize(
    "error",
    [
        ModelError("no such layer"),
        LvrayError("anything else that was told in words"),
        raised_from(CheckpointError("damaged"), ValueError("sha256")),
    ],
    ids=repr,
)
def test_what_would_fail_anywhere_is_the_trials_doing(error):
    assert blame_of(error) is Blame.TRIAL


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), ValueError("a bug"), MemoryError()])
def test_of_a_crash_nobody_knows(error):
    assert blame_of(error) is Blame.UNKNOWN
