"""One stage on Ray Tune, from its first grant to its last measurement."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from types import FrameType

from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial as TuneTrial

from lvray.core.errors import MachineError
from lvray.core.preemption import REASON, SIGNAL, Preemption
from lvray.core.task import Task
from lvray.core.trial import Pause, Status
from lvray.ray_tune.capacity import Capacity, Workers
from lvray.ray_tune.scheduler import Relay
from lvray.ray_tune.searcher import Admission
from lvray.ray_tune.trainable import attempt
from lvray.scheduler.scheduler import Grant, Scheduler

ENDING = (signal.SIGINT, signal.SIGTERM)
"""Signals that end a session now."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived, and the stage was ended with its books in order."""


def run_stage(
    scheduler: Scheduler,
    task_of: Callable[[Grant], Task],
    *,
    workers: Workers,
    capacity: Capacity,
    changed: Callable[[], None],
    tick: Callable[[], None],
    preemption: Preemption,
) -> None:
    """Runs the trials of a stage until nothing more can be granted.

    Args:
        scheduler: the stage; it is told everything and decides everything.
        task_of: what a worker is told of a grant; where it holds a GPU, the device ``auto`` becomes ``cuda``.
        workers: what each trial gets.
        capacity: how many trials may run at once; asked before every grant, since nodes join and leave.
        changed: called whenever the scheduler heard something.
        tick: called every time Tune's loop goes round, for a view that shows the time.
        preemption: whether this session was asked to pause.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM; open reservations are lost, everything heard is kept.
        Preempted: the session was asked to pause, and every trial has.
        MachineError: the machine failed a trial too often in a row; every other trial has paused.
    """
    interrupted = Event()

    def told(grant: Grant) -> Task:
        task = task_of(grant)
        return replace(task, device=workers.device(task.device))

    admission = Admission(
        scheduler, told, capacity, ending=lambda: interrupted.is_set() or bool(preemption)
    )
    resources = {"cpu": workers.cpus, "gpu": workers.gpus}
    relay = Relay(scheduler, admission.attempts, changed, asked=preemption.ask)
    stage = _Stage(scheduler, admission.attempts, relay, interrupted, preemption, tick)
    with (
        tempfile.TemporaryDirectory(prefix="lvray-", ignore_cleanup_errors=True) as folder,
        _signals_restored(),
    ):
        # Tune insists on a folder of its own; nothing in it is ever read again.
        Tuner(
            tune.with_resources(attempt, resources),
            tune_config=TuneConfig(
                search_alg=admission,
                scheduler=relay,
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
                callbacks=[stage],
            ),
        ).fit()
    if interrupted.is_set():
        scheduler.interrupt("interrupted")
        raise Interrupted
    if not scheduler.finished:
        preemption.ask()  # the signal came in the moment in which Tune's own handler stood in for ours
    if preemption:
        scheduler.interrupt("asked to pause, and ended before it was heard of")  # in that moment
    if scheduler.breakdown:
        raise MachineError(scheduler.breakdown)
    preemption.ensure_not_asked()


class _Stage(Callback):
    """What is done whenever Tune's loop goes round: look at how things stand, whether the session is to end, and show it.

    While Tune runs a stage, its own handler of SIGUSR1 is what ends its loop between two events, in a fraction of a
    second. It is kept, to be called from here; the signals themselves come to us.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        attempts: Mapping[str, str],
        relay: Relay,
        interrupted: Event,
        preemption: Preemption,
        tick: Callable[[], None],
    ) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._attempts = attempts
        self._relay = relay
        self._interrupted = interrupted
        self._preemption = preemption
        self._tick = tick
        self._end_tune: Callable[[int, FrameType | None], object] = lambda signum, frame: None

    def setup(self, **info: object) -> None:
        """Takes the signals over, once Tune has installed its handlers."""
        tunes = signal.getsignal(signal.SIGUSR1)
        assert callable(tunes), f"Tune handles SIGUSR1 by {tunes}"
        self._end_tune = tunes
        for number in ENDING:
            signal.signal(number, lambda signum, frame: self._interrupted.set())
        signal.signal(SIGNAL, self._preemption.ask)

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: object) -> None:
        """Looks for what Tune does not tell, ends the stage if the session is to end, then shows how things stand."""
        self._relay.look_for_given_up(trials)
        if self._interrupted.is_set():
            # Before Tune takes its workers down, which may take long on a cluster that is being ended too.
            self._scheduler.interrupt("interrupted")
            self._end_tune(SIGNAL, None)
        elif self._preemption or self._scheduler.breakdown:
            self._preemption.ask()  # whichever it is, all trials pause
            self._preemption.tell_trials()
            self._scheduler.hold(REASON)
            if not any(trial.status == TuneTrial.RUNNING for trial in trials):
                self._put_down_those_not_begun()
                self._end_tune(SIGNAL, None)
        self._tick()

    def _put_down_those_not_begun(self) -> None:
        """Trials that were granted a stretch and found no worker since: they have used nothing."""
        for name in self._attempts.values():
            trial = self._scheduler.trials[name]
            if trial.status is Status.RUNNING:
                place = trial.paused_at or trial.step
                self._scheduler.pause(Pause(name, trial.attempt, place, flops=0, seconds=0.0))

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles all it is given, to restore it in a way that we never use."""
        return {}


@contextmanager
def _signals_restored() -> Iterator[None]:
    """Puts every handler back that a stage, ours or Tune's, has replaced."""
    before = {number: signal.getsignal(number) for number in (*ENDING, SIGNAL)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
