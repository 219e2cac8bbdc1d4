"""What runs in a worker: one attempt at one trial, told by a `Task`."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from threading import Event
from typing import Any

from ray import tune

from lvray.core.errors import Blame, LvrayError, RunFolderError, Superseded, blame_of
from lvray.core.preemption import asked_by
from lvray.core.run_folder import write_whole
from lvray.core.task import Task
from lvray.core.trial import Measurement, Pause

MEASUREMENT, PAUSE = "measurement", "pause"
"""Under which of these a report to the driver holds, as JSON, what it is."""

FAILURE = "failure.json"
"""In the trial's folder: what broke its last attempt, for whoever looks into it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed."""

    reason: str
    """In one line; where the machine is to blame, its name comes first."""
    blame: Blame = Blame.UNKNOWN
    unused: bool = False
    """Whether it failed before it had used any FLOPs."""


class AttemptFailed(Exception):
    """What a worker raises, for the driver: Ray carries it there, also where no disk can be written."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def attempt(config: Mapping[str, Any]) -> None:
    """Trains until the driver says stop, which arrives as SystemExit out of `report`.

    The process lives on for the next attempt, with the base model still in its memory.

    Raises:
        AttemptFailed: it broke.
        Superseded: a later attempt at the trial has begun.
    """
    task = Task.from_json(json.loads(config["task"]))
    # Read when torch is imported, just below. A thread that waits by spinning takes the core that the others
    # wait for: on two busy cores a step of two spinning threads took 25 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    place, begun = Path(task.folder) / FAILURE, Event()
    try:
        place.unlink(missing_ok=True)
        from lvray.trainer.loop import run  # seconds of imports, which only a worker pays

        run(task, report, asked_to_pause=asked_by(task.pause_file), begun=begun.set)
    except Superseded:
        raise  # the folder is another's, and nobody waits for word of this one
    except Exception as error:
        failure = Failure(reason_of(error), blame_of(error), unused=not begun.is_set())
        told = {"attempt": task.attempt, "reason": failure.reason, "blame": failure.blame.value}
        row = {**told, "host": gethostname(), "traceback": traceback.format_exc()}
        # That folder may be what broke; the driver hears of it all the same.
        with suppress(OSError, RunFolderError):
            write_whole(place, json.dumps(row, indent=1) + "\n")
        raise AttemptFailed(failure) from error


def reason_of(error: Exception) -> str:
    """The error in one line; its kind first where that is not one of our own, and the machine before it where that is to blame."""
    text = " ".join(str(error).split())
    named = text if isinstance(error, LvrayError) else f"{type(error).__name__}: {text}"
    return f"{gethostname()}: {named}" if blame_of(error) is Blame.MACHINE else named


def report(heard: Measurement | Pause) -> None:
    """Hands what a trial says to the driver and waits for its answer.

    Ray's own views show the flat figures; the driver reads the whole from the text.
    """
    told = {"step": heard.step, "flops": float(heard.flops)}
    if isinstance(heard, Pause):
        tune.report({PAUSE: json.dumps(heard.to_json()), **told})
        return
    row = json.dumps(heard.to_json())
    tune.report({MEASUREMENT: row, "validation_loss": heard.validation_loss, **told})
