"""The walk: plan, pay, run and judge each stage of a sweep in turn, whoever carries the trials out.

A run is opened anew or taken up where a driver before us left it; the two are the same code, since
replay is the only way to load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvray.core.errors import BudgetTooSmall, RunFolderError, TrialFailed
from lvray.core.preemption import Preemption
from lvray.core.run_folder import RunFolder, write_whole
from lvray.core.task import DataTask, Task
from lvray.core.trial import Trial
from lvray.core.units import format_flops
from lvray.driver.baselines import write_baselines
from lvray.driver.best import publish
from lvray.ledger.books import Books
from lvray.ledger.journal import Clock, Journal, Log, stamp, wall_clock
from lvray.ledger.ledger import Ledger
from lvray.planner.data import ensure_enough, prepare, variables_of
from lvray.planner.environment import environment
from lvray.planner.model import ensure_available
from lvray.planner.prices import price_trial
from lvray.planner.stages import (
    LATER,
    Best,
    allowance,
    config_of,
    hold_back,
    outline,
    plan_stage,
    spare,
)
from lvray.planner.tasks import task_of
from lvray.scheduler.registry import policy_of
from lvray.scheduler.replay import History, StageHistory, fold, take
from lvray.scheduler.scheduler import Grant, Scheduler
from lvray.spec.load import brought_up_to_date, difference, dump
from lvray.spec.schema import StageSpec, Sweep
from lvray.spec.space import forecast_of

if TYPE_CHECKING:
    from lvray.planner.proposals import Proposals

HOW_NOT_WHAT = frozenset({"resources", "wandb", "question"})
"""Parts of a sweep file that may change between two sessions: no price and no result depends on them."""

CarryOut = Callable[["Run", Scheduler], None]
"""Runs the trials of a stage until its scheduler has nothing more to grant."""


@dataclass(slots=True)
class Run:
    """A sweep under way: what was asked, where it is written down, and how it stands."""

    sweep: Sweep
    """As asked, save for its budget, which is what it could draw on a ledger that others share."""
    folder: RunFolder
    journal: Log
    history: History
    books: Books
    variables: int
    data: DataTask | None
    """Where the series are; None where nothing is trained."""
    publish: Callable[[Trial], None]
    """Puts the winner's adapter where people look for it."""
    clock: Clock = wall_clock
    """Tells the time of records."""
    preemption: Preemption | None = None
    """Whether this session was asked to pause; None where nobody can ask."""
    changed: Callable[[], None] = field(default=lambda: None)
    """Called when something was heard or decided."""
    stage_ended: Callable[[StageHistory], None] = field(default=lambda stage: None)
    """Called once a stage has its winner."""
    best: dict[str, Best] = field(default_factory=dict)
    """Winners by stage."""

    def record(self, row: Mapping[str, Any]) -> None:
        """Writes one line to the journal, then believes it."""
        stamped = {"at": stamp(self.clock), **row}
        self.journal.append(stamped)
        take(self.history, stamped)

    def task_of(self, grant: Grant, *, threads: int) -> Task:
        """What a worker with `threads` CPU threads is told of a grant."""
        assert self.data is not None, "nothing is trained in this run"
        began = self.history.began
        return task_of(self.sweep, self.folder, self.data, grant, threads=threads, run_began=began)

    @property
    def session(self) -> int:
        """Which driver of this sweep we are, from 1."""
        return len(self.history.sessions)


def open_run(sweep: Sweep, folder: RunFolder) -> Run:
    """Opens books, journal and data: anew, or as a driver before us left them.

    A budget that is too small, a model that cannot be had or a run folder of another sweep is refused
    before anything is written. A sweep that has ended is opened for reading: it gets no session.

    Raises:
        LvrayError: whatever a person can mend.
    """
    variables = variables_of(sweep)
    plans = outline(sweep, variables=variables)
    ensure_available(sweep.model, sweep.quantization)
    journal = Journal(folder.journal)
    history = fold(journal.replay())
    _same_sweep(sweep, folder, history)
    data = prepare(sweep, folder, again=bool(history.sessions))
    if not history.sessions:
        ensure_enough(sweep, plans, data)
    shared = Path(sweep.ledger.path) if sweep.ledger else folder.ledger
    books = Books(Ledger.open(shared, convention=sweep.convention), sweep.name)
    run = Run(
        sweep,
        folder,
        journal,
        history,
        books,
        variables,
        data,
        publish=lambda winner: publish(sweep, folder, winner),
    )
    if not history.ended:
        surroundings = environment()
        draw(run)
        write_whole(folder.sweep, dump(sweep))
        write_whole(folder.environment, surroundings.to_text())
        begin_session(run, sweep, surroundings.to_json())
    return run


def draw(run: Run) -> None:
    """Draws the sweep's budget on its ledger; what others have left must pay for the plan.

    Raises:
        BudgetTooSmall: it does not. Nothing stays drawn.
        RunFolderError: the ledger belongs to other sweeps than the file says.
    """
    sweep, shared = run.sweep, run.sweep.ledger
    if run.history.sessions:  # what was drawn then; by now the sweep may have given some of it back
        drawn = int(run.history.sessions[-1]["budget"])
        run.sweep = sweep.model_copy(update={"budget": drawn})
        return
    drawn = run.books.open_sweep(
        sweep.budget,
        total=shared.budget if shared else sweep.budget,
        place=str(run.folder.root.absolute()) if shared else "this run folder",
    )
    if drawn == sweep.budget:
        return
    run.sweep = sweep.model_copy(update={"budget": drawn})
    try:
        outline(run.sweep, variables=run.variables)
    except BudgetTooSmall as error:
        told = run.books.ledger.describe_sweeps(but=sweep.name)
        run.books.close_sweep()
        raise BudgetTooSmall(
            f"{run.books.ledger.path} has {format_flops(drawn)} FLOPs left for sweep {sweep.name}, which asks for "
            f"{format_flops(sweep.budget)} ({told}): {error}"
        ) from None


def begin_session(run: Run, asked: Sweep, surroundings: Mapping[str, Any]) -> None:
    """Writes down who goes on with the sweep, and sets aside what stages hold back.

    Args:
        run: the sweep, its budget drawn.
        asked: as the sweep file has it.
        surroundings: versions, commit and machine.
    """
    sweep = run.sweep
    run.record(
        {
            "event": "session",
            "spec": asked.to_json(),
            "budget": str(sweep.budget),
            "convention": sweep.convention,
            "ledger": str(run.books.ledger.path.absolute()) if sweep.ledger else None,
            "resumed": bool(run.history.stages),
            "environment": surroundings,
        }
    )
    for stage in sweep.stages:
        if hold_back(sweep, stage):
            run.books.allow(stage.name, hold_back(sweep, stage), key="hold-back")


def walk(run: Run, carry_out: CarryOut) -> None:
    """Runs every stage in order, then closes the books.

    Raises:
        Preempted: the session was asked to pause, and has.
        LvrayError: whatever a person can mend; what was heard until then is kept.
    """
    try:
        for stage in run.sweep.stages:
            if run.preemption is not None:
                run.preemption.ensure_not_asked()
            run_stage(run, stage, carry_out)
    except (TrialFailed, BudgetTooSmall):
        if run.sweep.ledger is not None:  # there is no way on, and others can use what is left
            for stage in run.sweep.stages:
                run.books.give_back(stage.name)
            run.books.close_sweep()
        raise
    end_sweep(run)


def run_stage(run: Run, stage: StageSpec, carry_out: CarryOut) -> None:
    """Runs one stage to its winner, from wherever the journal says that it stands."""
    told = run.history.stages.get(stage.name) or _begin_stage(run, stage)
    if not told.ended:
        proposals = _proposals(run, stage)
        scheduler = Scheduler(
            told.plan,
            policy_of(told.plan),
            run.books,
            run.record,
            session=run.session,
            most_failures=run.sweep.resources.max_failures,
            trials=told.trials,
            choose=None if proposals is None else proposals.choose,
        )
        scheduler.recover()
        if not scheduler.finished:
            carry_out(run, scheduler)
        scheduler.close()
        if proposals is not None:
            proposals.hear(scheduler.trials)
        run.changed()
        run.stage_ended(told)
    if told.best is not None:
        run.best[stage.name] = Best(told.best, told.trials[told.best].plan.config)


def _begin_stage(run: Run, stage: StageSpec) -> StageHistory:
    """Plans a stage with what is left, moves its allowance to its account, and journals the plan.

    Raises:
        TrialFailed: the stage it is `from` has no winner.
        BudgetTooSmall: what is left does not pay for it.
    """
    if stage.from_stage is not None and stage.from_stage not in run.best:
        told = run.history.stages[stage.from_stage]
        raise TrialFailed(
            f"stage {stage.name} starts from the winner of {stage.from_stage}, which has none: {told.reason}; "
            f"{format_flops(run.books.free + run.books.available(stage.name))} FLOPs are left"
        )
    free, held = run.books.free, run.books.available(stage.name)
    best, variables = run.best, run.variables
    allowed = allowance(run.sweep, stage, free=free, held=held, best=best, variables=variables)
    more = spare(run.sweep, stage, free=free, held=held, best=best, variables=variables)
    plan = plan_stage(run.sweep, stage, allowed=allowed, best=best, variables=variables)
    plan = replace(plan, spare=more)
    if allowed > held:
        run.books.allow(stage.name, allowed - held, key=f"{run.session}")
    run.record({"event": "stage", **plan.to_json()})
    return run.history.stages[stage.name]


def _proposals(run: Run, stage: StageSpec) -> Proposals | None:
    """Who chooses configs as the stage goes; None where all were known when it began."""
    if stage.sampler not in LATER:
        return None
    from lvray.planner.proposals import (
        Proposals,  # half a second of Optuna, which most sweeps need not pay
    )

    return Proposals(
        stage,
        seed=run.sweep.seed,
        config_of=lambda values: config_of(run.sweep, stage, run.best, run.variables, values),
        prices_of=lambda config: price_trial(
            run.sweep, config, run.variables, forecast=forecast_of(run.sweep, stage)
        ),
        file=None if run.data is None else run.folder.study(stage.name),
    )


def end_sweep(run: Run) -> None:
    """Puts the winner's adapter and the baselines where people look for them, then closes the books and the journal."""
    trained = [
        stage.name for stage in run.sweep.stages if stage.name in run.best and not stage.zero_shot
    ]
    best = run.best[trained[-1]].trial_id if trained else None
    if best is not None:
        run.publish(run.history.trials[best])
    if run.data is not None:
        write_baselines(run.sweep, run.folder, run.data, run.history.trials)
    run.books.close_sweep()
    reason = f"winner of stage {trained[-1]}" if trained else "no trial has a finite loss"
    run.record({"event": "sweep_end", "best": best, "reason": reason})


def _same_sweep(sweep: Sweep, folder: RunFolder, history: History) -> None:
    """Refuses a run folder of another sweep, showing how the two differ."""
    if not history.sessions:
        return
    old, new = (
        {key: value for key, value in spec.items() if key not in HOW_NOT_WHAT}
        for spec in (brought_up_to_date(history.sessions[0]["spec"]), sweep.to_json())
    )
    changes = difference(old, new)
    if changes:
        raise RunFolderError(
            f"{folder.root} belongs to another sweep file:\n"
            + "\n".join(f"  {change}" for change in changes)
            + "\nundo these changes to go on with it, give the sweep another name, or start anew with --fresh"
        )
