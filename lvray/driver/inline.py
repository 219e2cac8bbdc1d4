"""Trials one after the other, in this process: the same scheduler and ledger, no Ray."""

from __future__ import annotations

from collections.abc import Callable

from lvray.core.errors import LvrayError
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
        LvrayError: an attempt failed; what it held is lost, and no other is made here.
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
        try:
            task = run.task_of(grant, threads=threads)
            train(task, report, asked_to_pause=lambda: bool(run.preemption))
        except _Ended:
            pass
        except LvrayError as error:
            scheduler.fail(grant.plan.trial_id, str(error), retry=False)
            raise
        except KeyboardInterrupt:
            scheduler.interrupt("interrupted")
            raise
        if run.preemption is not None:
            run.preemption.ensure_not_asked()
