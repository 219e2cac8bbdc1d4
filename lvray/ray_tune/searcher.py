"""Admission: a Tune trial exists once its stretch is paid for.

Ray starts every trial that is pending, whatever its scheduler returns from `choose_trial_to_run`; so
what must be held back must not be suggested yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from lvray.core.task import Task
from lvray.ray_tune.capacity import Capacity
from lvray.scheduler.scheduler import Grant, Scheduler


class Admission(Searcher):
    """Suggests the attempt that the scheduler grants next, as soon as a worker is free."""

    def __init__(
        self,
        scheduler: Scheduler,
        task_of: Callable[[Grant], Task],
        capacity: Capacity,
        ending: Callable[[], bool],
    ) -> None:
        """Makes the searcher of a stage.

        Args:
            scheduler: grants.
            task_of: what a worker is told of a grant.
            capacity: how many trials may run at once.
            ending: whether the session is to end, so that nothing more is suggested. While no trial is there and none fits,
                Tune asks this searcher alone, for minutes.
        """
        super().__init__()
        self.attempts: dict[str, str] = {}
        """Our trial's id by Tune's."""
        self._scheduler = scheduler
        self._task_of = task_of
        self._capacity = capacity
        self._ending = ending

    def set_search_properties(
        self,
        metric: str | None,
        mode: str | None,
        config: dict[str, Any],
        **spec: object,
    ) -> bool:
        """Accepts Tune's metric and mode, which we do not use."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A config once it is paid for, None to wait, FINISHED for no more."""
        if self._ending():
            return str(Searcher.FINISHED)
        if self._scheduler.running >= self._capacity():
            return str(Searcher.FINISHED) if self._scheduler.finished else None
        grant = self._scheduler.next_grant()
        if grant is None:
            return str(Searcher.FINISHED) if self._scheduler.finished else None
        self.attempts[trial_id] = grant.plan.trial_id
        return {"task": json.dumps(self._task_of(grant).to_json())}

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 -- Ray's signature
    ) -> None:
        """Nothing: the scheduler heard of it already."""

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles all it is given, to restore it in a way that we never use."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: our journal is the only state there is."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed sweep replays its journal."""
