"""What Tune hears of a trial goes to our scheduler, and its answer back to Tune."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from lvray.core.trial import Action, Measurement, Pause
from lvray.ray_tune.lost import failure_of
from lvray.ray_tune.trainable import MEASUREMENT, PAUSE
from lvray.scheduler.scheduler import Scheduler

GIVEN_UP = "its worker did not leave the attempt before, and Ray gave it up"
"""Why an attempt failed that never began."""


class Relay(FIFOScheduler):
    """Passes measurements and failures on. Pausing ends the attempt: to Tune, both are STOP."""

    _supports_buffered_results = False

    def __init__(
        self,
        scheduler: Scheduler,
        attempts: Mapping[str, str],
        changed: Callable[[], None],
        *,
        asked: Callable[[], None],
    ) -> None:
        """Makes the relay of a stage.

        Args:
            scheduler: hears.
            attempts: our trial's id by Tune's.
            changed: called when the scheduler has heard something.
            asked: called when a trial has paused. It may have been asked by a file that this driver did not make.
        """
        super().__init__()
        self._asked = asked
        self._scheduler = scheduler
        self._attempts = attempts
        self._changed = changed
        self._told: set[str] = set()

    def on_trial_result(
        self, tune_controller: TuneController, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Asks what the trial does after this milestone; one that paused has ended."""
        if PAUSE in result:
            self._scheduler.pause(Pause.from_json(json.loads(result[PAUSE])))
            self._asked()
            go_on = False
        else:
            heard = Measurement.from_json(json.loads(result[MEASUREMENT]))
            go_on = self._scheduler.hear(heard).action is Action.CONTINUE
        self._changed()
        return str(TrialScheduler.CONTINUE if go_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: TuneController, trial: TuneTrial) -> None:
        """Notes that the attempt broke. Tune itself never retries: a retry must be paid for first."""
        self._told.add(trial.trial_id)
        name = self._attempts[trial.trial_id]
        failure = failure_of(trial)
        self._scheduler.fail(name, failure.reason, blame=failure.blame, unused=failure.unused)
        self._changed()

    def on_trial_complete(
        self, tune_controller: TuneController, trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        """Notes an attempt that ended without being told to, before the milestone it was paid for."""
        self._scheduler.fail(
            self._attempts[trial.trial_id], "the worker ended before its milestone"
        )
        self._changed()

    def look_for_given_up(self, trials: Iterable[TuneTrial]) -> None:
        """Notes attempts that Tune gave up without a word, since their worker did not leave the attempt before in time.

        Tune puts such a trial in error and calls nobody.
        """
        for trial in trials:
            if trial.status == TuneTrial.ERROR and trial.trial_id not in self._told:
                self._told.add(trial.trial_id)
                self._scheduler.fail(self._attempts[trial.trial_id], GIVEN_UP)
                self._changed()

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles all it is given, to restore it in a way that we never use."""
        return {}
