"""One stage on Ray Tune, from its first grant to its last measurement."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig, Tuner

from lvray.core.task import Task
from lvray.ray_tune.scheduler import Relay
from lvray.ray_tune.searcher import Admission
from lvray.ray_tune.session import Workers
from lvray.ray_tune.trainable import attempt
from lvray.scheduler.scheduler import Grant, Scheduler


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived, and the stage was ended with its books in order."""


def run_stage(
    scheduler: Scheduler,
    task_of: Callable[[Grant], Task],
    *,
    folder_of: Callable[[str], Path],
    workers: Workers,
    changed: Callable[[], None],
    tick: Callable[[], None],
) -> None:
    """Runs the trials of a stage until nothing more can be granted.

    Args:
        scheduler: the stage; it is told everything and decides everything.
        task_of: what a worker is told of a grant.
        folder_of: the folder of a trial, by its id.
        workers: how many trials at once, and what each gets.
        changed: called whenever the scheduler heard something.
        tick: called every time Tune's loop goes round, for a view that shows the time.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM; open reservations are lost, everything heard is kept.
    """
    interrupted = Event()
    admission = Admission(scheduler, task_of, workers.count, interrupted)
    resources = {"cpu": workers.cpus, "gpu": workers.gpus}
    with (
        tempfile.TemporaryDirectory(prefix="lvray-", ignore_cleanup_errors=True) as folder,
        _graceful(interrupted),
    ):
        # Tune insists on a folder of its own; nothing in it is ever read again.
        Tuner(
            tune.with_resources(attempt, resources),
            tune_config=TuneConfig(
                search_alg=admission,
                scheduler=Relay(scheduler, admission.attempts, folder_of, changed),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda trial: admission.attempts[trial.trial_id],
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=RunConfig(
                name=scheduler.stage.name,
                storage_path=folder,
                verbose=0,
                failure_config=FailureConfig(max_failures=0),
                callbacks=[_Tick(tick)],
            ),
        ).fit()
    if interrupted.is_set():
        scheduler.interrupt("interrupted")
        raise Interrupted


class _Tick(Callback):
    """Tells the driver that Tune's loop went round."""

    def __init__(self, tick: Callable[[], None]) -> None:
        super().__init__()
        self._tick = tick

    def on_step_end(self, iteration: int, trials: list[Any], **info: object) -> None:
        self._tick()

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles all it is given, to restore it in a way that we never use."""
        return {}


@contextmanager
def _graceful(interrupted: Event) -> Iterator[None]:
    """Turns Ctrl-C and SIGTERM into the signal that ends Tune between two events, in seconds."""

    def end(signum: int, frame: FrameType | None) -> None:
        interrupted.set()
        os.kill(os.getpid(), signal.SIGUSR1)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
