"""One driver at a time, and what another one is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from socket import gethostname
from threading import Timer

import pytest

from lvray.core.errors import RunFolderError
from lvray.core.run_folder import RunFolder, take_lock, write_whole

HOLDER = (
    "import sys; from pathlib import Path; from lvray.core.run_folder import RunFolder\n"
    "with RunFolder(Path(sys.argv[1])).locked(): print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def held(folder):
    """Another process holds the folder; it leaves when it is told something or killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout.readline() == "held\n"
        yield driver


def test_a_folder_in_use_is_refused_with_the_host_and_process_of_its_driver(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "s")
    with held(folder) as driver:
        with pytest.raises(RunFolderError) as refused, folder.locked():
            pass
        driver.communicate()
    assert f"in use by process {driver.pid} on {gethostname()};" in str(refused.value)
    with folder.locked():
        pass


def test_a_folder_in_use_is_waited_for_as_long_as_asked(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "s")
    with held(folder) as driver:
        Timer(0.5, driver.kill).start()
        with folder.locked(wait=60):
            assert driver.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize("wait", [True, False])
def test_a_file_that_cannot_be_locked_is_told_with_what_to_do(tmp_path, wait):
    place = tmp_path / ".lock"
    place.touch()
    handle = os.open(place, os.O_PATH)  # which the kernel does not lock, as a file system may not
    try:
        with pytest.raises(RunFolderError, match=r"\.lock: cannot be locked: .*-o flock.*--runs"):
            take_lock(handle, place, wait=wait)
    finally:
        os.close(handle)


def test_a_file_where_a_folder_should_be_is_told_and_not_what_clearing_up_met(tmp_path):
    (tmp_path / "trials").write_text("a file")
    with pytest.raises(RunFolderError, match=r"trials/t/config\.json: cannot be written"):
        write_whole(tmp_path / "trials" / "t" / "config.json", "{}")
