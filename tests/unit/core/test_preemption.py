"""A driver is asked to pause by a signal, its trials by a file."""

from __future__ import annotations

import os
import signal

import pytest

from lvray.core.errors import Preempted
from lvray.core.preemption import SIGNAL, Preemption, asked_by


@pytest.fixture
def preemption(tmp_path):
    return Preemption(tmp_path / "pause")


def test_the_signal_asks_the_driver_and_through_a_file_the_trials(preemption):
    asked = asked_by(str(preemption.file), every=0.0)
    with preemption.listening():
        preemption.ensure_not_asked()
        assert not asked()
        os.kill(os.getpid(), SIGNAL)
        assert preemption
        preemption.tell_trials()
        assert asked()
        with pytest.raises(Preempted, match="same command goes on") as told:
            preemption.ensure_not_asked()
    assert told.value.exit_code == 75


def test_what_an_earlier_session_was_asked_is_forgotten(preemption):
    preemption.file.touch()
    with preemption.listening():
        assert not preemption.file.exists()
        preemption.tell_trials()
    assert not preemption.file.exists()


def test_a_full_disk_does_not_break_the_driver_and_the_trials_are_asked_when_there_is_room(
    tmp_path,
):
    preemption = Preemption(tmp_path / "runs" / "pause")
    asked = asked_by(str(preemption.file), every=0.0)
    preemption.ask()
    preemption.tell_trials()  # there is no such folder, as there is no room on a full disk
    assert preemption
    assert not asked()
    preemption.file.parent.mkdir()
    preemption.tell_trials()
    assert asked()


def test_afterwards_the_signal_does_what_it_did_before(preemption):
    heard = []
    before = signal.signal(SIGNAL, lambda signum, frame: heard.append(signum))
    try:
        with preemption.listening():
            os.kill(os.getpid(), SIGNAL)
        assert heard == []
        os.kill(os.getpid(), SIGNAL)
        assert heard == [SIGNAL]
    finally:
        signal.signal(SIGNAL, before)


def test_the_file_is_looked_at_once_a_second_and_a_trial_that_was_asked_stays_asked(tmp_path):
    file, now = tmp_path / "pause", 100.0
    asked = asked_by(str(file), clock=lambda: now, every=1.0)
    assert not asked()
    file.touch()
    now = 100.9
    assert not asked()
    now = 101.0
    assert asked()
    file.unlink()
    now = 110.0
    assert asked()


def test_a_trial_that_nobody_can_ask_is_never_asked():
    assert not asked_by(None)()
