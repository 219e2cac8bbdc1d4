"""Trials one after the other, in this process: the same scheduler and ledger, no Ray."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from lvray.core.errors import LvrayError, blame_of
from lvray.core.preemption import REASON
from lvray.core.trial import Action, Measurement, Pause
from lvray.driver.walk import Run
from lvray.scheduler.scheduler import Scheduler


class _Ended(SystemExit):
    """The scheduler's answer was not to go on; the trainer lets it through."""


def run_inline(
    run: Run, scheduler: Scheduler, *, heard: Callable[[Measurement], None], threads: int
) -> None:
    """Runs the trials of a stage here until nothing more can be granted.

    Args:
        run: the sweep.
        scheduler: the stage.
        heard: told of every measurement once it is in the books.
        threads: CPU threads that torch may use.

    Raises:
        Preempted: the session was asked to pause, and the trial has.
        LvrayError: an attempt failed, and no other is made here. The trial is given up, save where the machine is to blame.
    """
    from lvray.trainer.loop import run as train  # seconds of imports

    def report(told: Measurement | Pause) -> None:
        if isinstance(told, Pause):
            scheduler.pause(told)
            return
        if run.preemption:
            scheduler.hold(REASON)
        decision = scheduler.hear(told)
        heard(told)
        if decision.action is not Action.CONTINUE:
            raise _Ended

    while (grant := scheduler.next_grant()) is not None:
        begun = Event()
        try:
            task = run.task_of(grant, threads=threads)
            train(task, report, asked_to_pause=lambda: bool(run.preemption), begun=begun.set)
        except _Ended:
            pass
        except LvrayError as error:
            name, unused = grant.plan.trial_id, not begun.is_set()
            scheduler.fail(name, str(error), blame=blame_of(error), unused=unused)
            raise
        except KeyboardInterrupt:
            scheduler.interrupt("interrupted")
            raise
        if run.preemption is not None:
            run.preemption.ensure_not_asked()
