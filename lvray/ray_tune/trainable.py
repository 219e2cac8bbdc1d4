"""What runs in a worker: one attempt at one trial, told by a `Task`."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from lvray.core.errors import LvrayError, Superseded
from lvray.core.preemption import asked_by
from lvray.core.run_folder import write_whole
from lvray.core.task import Task
from lvray.core.trial import Measurement, Pause

MEASUREMENT, PAUSE = "measurement", "pause"
"""Under which of these a report to the driver holds, as JSON, what it is."""

FAILURE = "failure.json"
"""In the trial's folder: what broke its last attempt, for the driver and for whoever looks into it."""


def attempt(config: Mapping[str, Any]) -> None:
    """Trains until the driver says stop, which arrives as SystemExit out of `report`.

    The process lives on for the next attempt, with the base model still in its memory.
    """
    task = Task.from_json(json.loads(config["task"]))
    # Read when torch is imported, just below. A thread that waits by spinning takes the core that the others
    # wait for: on two busy cores a step of two spinning threads took 25 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    failure = Path(task.folder) / FAILURE
    failure.unlink(missing_ok=True)
    try:
        from lvray.trainer.loop import run  # seconds of imports, which only a worker pays

        run(task, report, asked_to_pause=asked_by(task.pause_file))
    except Superseded:
        raise  # the folder is another's, and nobody waits for word of this one
    except Exception as error:
        row = {
            "attempt": task.attempt,
            "reason": reason_of(error),
            "retry": not isinstance(error, LvrayError),
            "traceback": traceback.format_exc(),
        }
        write_whole(failure, json.dumps(row, indent=1) + "\n")
        raise


def reason_of(error: Exception) -> str:
    """The error in one line, its kind first where that is not one of our own."""
    text = " ".join(str(error).split())
    return text if isinstance(error, LvrayError) else f"{type(error).__name__}: {text}"


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
