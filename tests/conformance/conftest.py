"""Two backends that carry out one stage, the simulator and Ray, and what is left when they have.

What a trial learns is made up in both. A real Ray worker comes to the trainer by importing
`lvray.trainer.loop`; `give_a_made_up_trainer` puts a module of that name into every worker as it starts,
and all else in the worker is what a sweep runs.
"""

from __future__ import annotations

import json
import logging
import os
import random
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import ModuleType

import pytest

from lvray.core.errors import CheckpointError
from lvray.core.preemption import Preemption
from lvray.core.task import DataTask, EvaluationTask, Task
from lvray.core.trial import Measurement, StagePlan, Status, Trial, TrialConfig
from lvray.ledger.books import Books
from lvray.ledger.journal import Journal
from lvray.ledger.ledger import Ledger, trial_account
from lvray.scheduler.policy import Winner
from lvray.scheduler.registry import policy_of
from lvray.scheduler.replay import fold
from lvray.scheduler.scheduler import Grant, Scheduler
from lvray.simulator.landscapes import Reading
from lvray.simulator.world import Conditions, DriverKilled, World

SWEEP = "s"
WORKERS = 2
MOST_FAILURES = 1
"""How often a trial may break before it is given up."""
HELD_BACK = 1_000_000
"""FLOPs set aside for a later stage, before anything runs."""
PATIENCE = "TUNE_FUNCTION_THREAD_TIMEOUT_S"
"""Seconds that Tune gives a worker to leave an attempt, before it gives the next one up."""
TOO_FAST = 1.0
"""A learning rate at which a trial diverges."""


@dataclass(frozen=True)
class Slope:
    """A landscape: a higher learning rate is better, and losses rise with the steps.

    So those that climb highest have not the lowest losses of all, and only who compares like with like finds
    the best. At every reading it looks into the ledger, as a worker that comes to a milestone might, and notes
    what its trial holds there.
    """

    folder: Path

    def read(self, config: TrialConfig, *, steps: int, flops: int) -> Reading:
        name = f"t{config.seed}"
        held = Ledger.read(self.folder / "ledger.jsonl").balance(trial_account(SWEEP, name))
        with (self.folder / "looks.jsonl").open("a") as file:
            file.write(json.dumps({"trial": name, "step": steps, "held": held}) + "\n")
        diverged = config.learning_rate >= TOO_FAST and steps > 10
        return Reading(
            float("nan") if diverged else 1 / (1 + 10 * config.learning_rate) + steps / 1000
        )


@dataclass(frozen=True)
class Scene:
    """A stage, and what goes wrong with it."""

    stage: StagePlan
    crashes: float = 0.0
    """Probability that the worker breaks on its way to a milestone."""
    ends_after: int | None = None
    """The driver ends once it has heard so much; another takes the stage up."""
    seed: int = 0
    lingers: str = ""
    """How long the first attempt that begins takes to end when it is told to, on Ray: ``long``, or for ``ever`` and Tune gives it no time."""


@dataclass
class Outcome:
    """What a backend left behind."""

    scene: Scene
    folder: Path
    winner: Winner | None = None
    idle_holders: list[str] = field(default_factory=list)
    """Trials that were seen to hold FLOPs while they did not run, when a driver began and after each event."""
    sessions: int = 0

    @property
    def stage(self) -> StagePlan:
        return self.scene.stage

    @property
    def ledger(self) -> Ledger:
        return Ledger.read(self.folder / "ledger.jsonl")

    @property
    def records(self) -> list[dict]:
        return Journal(self.folder / "journal.jsonl").replay()

    @property
    def trials(self) -> dict[str, Trial]:
        return fold(self.records).trials

    @property
    def looks(self) -> list[dict]:
        """What workers saw in the ledger when they came to a milestone."""
        return Journal(self.folder / "looks.jsonl").replay()

    def open(self, session: int) -> Scheduler:
        """The stage as driver number `session` finds it."""
        journal = Journal(self.folder / "journal.jsonl")
        books = Books(Ledger.open(self.folder / "ledger.jsonl", convention="coursework"), SWEEP)
        stage = self.stage
        books.open_sweep(stage.allowance + stage.spare + HELD_BACK)
        books.allow("final", HELD_BACK, key="hold-back")
        books.allow(stage.name, stage.allowance, key="1")
        history = fold(journal.replay())
        if not history.stages:
            journal.append({"event": "stage", **stage.to_json()})
            history = fold(journal.replay())
        scheduler = Scheduler(
            stage,
            policy_of(stage),
            books,
            journal.append,
            session=session,
            most_failures=MOST_FAILURES,
            trials=history.trials,
        )
        scheduler.recover()
        return scheduler

    def look_for_idle_holders(self, scheduler: Scheduler) -> None:
        books = Books(Ledger.read(self.folder / "ledger.jsonl"), SWEEP)
        self.idle_holders += [
            f"{name} is {trial.status} and holds {books.held(name)}"
            for name, trial in scheduler.trials.items()
            if trial.status is not Status.RUNNING and books.held(name)
        ]


class Simulator:
    """Virtual time."""

    name = "simulator"

    def carry_out(
        self, scheduler: Scheduler, scene: Scene, folder: Path, heard: Callable[[], None]
    ) -> None:
        conditions = Conditions(workers=WORKERS, crashes=scene.crashes, seed=scene.seed)
        World(Slope(folder), conditions).run_stage(scheduler, heard)

    def end(self) -> None:
        raise DriverKilled


class OnRay:
    """Real workers of a real Ray."""

    name = "ray"

    def carry_out(
        self, scheduler: Scheduler, scene: Scene, folder: Path, heard: Callable[[], None]
    ) -> None:
        from lvray.ray_tune.backend import Interrupted, run_stage
        from lvray.ray_tune.capacity import Workers

        def task_of(grant: Grant) -> Task:
            plan = grant.plan
            return Task(
                plan.trial_id,
                grant.attempt,
                model="none",
                device="cpu",
                data=DataTask(
                    "",
                    (),
                    (),
                    (),
                    {"crashes": scene.crashes, "seed": scene.seed, "lingers": scene.lingers},
                ),
                evaluation=EvaluationTask(0, 0, 0),
                config=plan.config,
                milestones=plan.milestones,
                prices=plan.prices,
                folder=str(folder_of(plan.trial_id)),
                reached=grant.reached,
            )

        def folder_of(trial_id: str) -> Path:
            return folder / "trials" / trial_id

        try:
            run_stage(
                scheduler,
                task_of,
                workers=Workers(cpus=1, gpus=0),
                capacity=lambda: WORKERS,
                changed=heard,
                tick=lambda: None,
                preemption=Preemption(folder / "pause"),
            )
        except Interrupted as error:
            raise DriverKilled from error

    def end(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def made_up_run(
    task: Task,
    report: Callable[[Measurement], None],
    *,
    asked_to_pause: Callable[[], bool],
    begun: Callable[[], object],
) -> None:
    """Stands where `lvray.trainer.loop.run` does: it trains nothing, and breaks once wherever chance has it."""
    folder, lingers = Path(task.folder).parents[1], task.data.codec["lingers"]
    slow = bool(lingers) and is_first(folder / "first")
    if slow and lingers == "ever":
        os.environ[PATIENCE] = "0"
    begun()
    try:
        reach_milestones(task, report)
    except SystemExit:
        if slow:
            (folder / "lingered").touch()
            Event().wait(5 if lingers == "long" else None)  # Ray itself would wait for 2 s
        raise


def is_first(mark: Path) -> bool:
    """Whether nobody has asked before."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def reach_milestones(task: Task, report: Callable[[Measurement], None]) -> None:
    Path(task.folder).mkdir(parents=True, exist_ok=True)
    slope = Slope(Path(task.folder).parents[1])
    before = task.milestones[task.reached].flops if task.reached >= 0 else 0
    for index in range(task.reached + 1, len(task.milestones)):
        here = task.milestones[index]
        chance = random.Random(f"{task.data.codec['seed']}/{task.trial_id}/{index}")
        broken = Path(task.folder) / f"broken-{index}"
        if chance.random() < task.data.codec["crashes"] and not broken.exists():
            broken.touch()
            if chance.random() < 0.5:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("out of memory")
        reading = slope.read(task.config, steps=here.step, flops=here.flops)
        report(
            Measurement(
                task.trial_id,
                task.attempt,
                index,
                here.step,
                here.flops - before,
                reading.validation_loss,
                seconds=1.0,
            )
        )
    raise CheckpointError(f"{task.trial_id} was not told to stop at its last milestone")


def give_a_made_up_trainer() -> None:
    """Runs in every worker as it starts."""
    os.environ.pop(PATIENCE, None)  # as on a node that knows nothing of what the driver sets
    module = ModuleType("lvray.trainer.loop")
    module.run = made_up_run
    sys.modules[module.__name__] = module


@pytest.fixture(scope="module")
def ray_with_a_made_up_trainer() -> Iterator[OnRay]:
    # First, since it sets what Ray reads when it is imported.
    from lvray.ray_tune.session import NOISY

    import ray  # isort: skip
    from ray import cloudpickle  # isort: skip

    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(
        address="local",
        num_cpus=WORKERS,
        logging_level="ERROR",
        log_to_driver=False,
        include_dashboard=False,
        object_store_memory=200 * 1024**2,
        runtime_env={"worker_process_setup_hook": give_a_made_up_trainer},
    )
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    before = signal.getsignal(signal.SIGUSR1)
    yield OnRay()
    signal.signal(signal.SIGUSR1, before)
    ray.shutdown()


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator()


@pytest.fixture(
    scope="module",
    params=[
        "simulator",
        pytest.param(
            "ray_with_a_made_up_trainer",
            id="ray",
            marks=[pytest.mark.ray, pytest.mark.filterwarnings("default")],
        ),
    ],
)
def backend(request):
    return request.getfixturevalue(request.param)


def carry_out(backend: Simulator | OnRay, scene: Scene, folder: Path) -> Outcome:
    """The whole stage, by as many drivers as it takes."""
    outcome = Outcome(scene, folder)
    while True:
        outcome.sessions += 1
        scheduler = outcome.open(outcome.sessions)
        outcome.look_for_idle_holders(scheduler)
        heard = 0

        def changed(scheduler: Scheduler = scheduler) -> None:
            nonlocal heard
            heard += 1
            outcome.look_for_idle_holders(scheduler)
            if outcome.sessions == 1 and heard == scene.ends_after:
                backend.end()

        try:
            backend.carry_out(scheduler, scene, folder, changed)
        except DriverKilled:
            continue
        outcome.winner = scheduler.close()
        return outcome


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory):
    """Gives the outcome of a scene on a backend; each is carried out once."""
    known: dict[tuple[str, Scene], Outcome] = {}

    def outcome(backend: Simulator | OnRay, stage: StagePlan, **weather: float | str) -> Outcome:
        scene = Scene(stage, **weather)
        place = backend.name, scene
        if place not in known:
            known[place] = carry_out(backend, scene, tmp_path_factory.mktemp(backend.name))
        return known[place]

    return outcome
