"""What is promised, kept by many drivers at once: sweeps that share a ledger, killed and begun again at any moment.

Every sweep is walked in a thread of its own, in virtual time. It rests before each transaction and after each event,
and only one of them is awake: chance says who goes on. After each turn the ledger is read by an eye of our
own, which shares no code with the accounts that it looks after.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Semaphore, Thread
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from lvray.core.errors import BudgetTooSmall, TrialFailed
from lvray.core.run_folder import RunFolder
from lvray.core.trial import Status
from lvray.driver.accounts import Evidence, findings
from lvray.driver.walk import Run, begin_session, draw, walk
from lvray.ledger.books import Books
from lvray.ledger.journal import Clock, Journal, Log, MemoryJournal
from lvray.ledger.ledger import Ledger
from lvray.planner.stages import hold_back, outline
from lvray.scheduler.replay import fold
from lvray.scheduler.scheduler import Scheduler
from lvray.simulator.landscapes import Invented
from lvray.simulator.world import RESTART_SECONDS, Conditions, DriverKilled, World
from lvray.spec.rules import check
from lvray.spec.schema import Sweep

VARIABLES = 2
CHEAP_STEP = 976
"""FLOPs of one step and its evaluation on `SMALLEST`, so that a budget of a few thousand buys something."""
SMALLEST = {
    "model_type": "llama",
    "hidden_size": 1,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 1,
    "vocab_size": 1,
}
MOST_KILLS = 8
"""Of one sweep, so that it ends."""
MOST_TURNS = 30_000
"""Beyond this many turns the sweeps never end."""


class Over(BaseException):
    """The test is over, and a thread that still rests goes home."""


@dataclass(frozen=True)
class Place:
    """Where the logs are: in files below a folder, or in memory."""

    folder: Path | None
    shared: MemoryJournal

    def ledger(self) -> Log:
        """The one ledger, for one more reader."""
        return Reader(self.shared) if self.folder is None else Journal(self.folder / "ledger.jsonl")

    def journal(self, name: str) -> Log:
        """A sweep's own journal."""
        return (
            MemoryJournal(name) if self.folder is None else Journal(self.folder / f"{name}.jsonl")
        )


class Reader(MemoryJournal):
    """One driver's view of a journal in memory that several write to: each has read up to a place of its own."""

    def __init__(self, shared: MemoryJournal) -> None:
        super().__init__("ledger")
        self._records = shared._records


class Fragile:
    """A log before whose transactions others may act, and at whose writes its driver may die."""

    def __init__(self, log: Log, driver: Driver) -> None:
        self.log = log
        self.path = log.path
        self.driver = driver

    @property
    def lines(self) -> int:
        return self.log.lines

    def replay(self) -> list[dict[str, Any]]:
        return self.log.replay()

    def news(self) -> list[dict[str, Any]]:
        return self.log.news()

    def append(self, record) -> None:
        fate = self.driver.fate()
        if fate == "torn" and isinstance(self.log, Journal):
            with self.log.path.open("a") as file:
                file.write(json.dumps(record)[:20])
        elif fate in {"spared", "dies after"}:
            self.log.append(record)
        if fate != "spared":
            raise DriverKilled

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.driver.rest()
        with self.log.locked():
            yield


def opened(sweep: Sweep, ledger: Log, journal: Log, clock: Clock) -> Run:
    """A sweep as `driver.walk.open_run` opens it, but without data."""
    outline(sweep, variables=VARIABLES)
    return Run(
        sweep,
        RunFolder(Path(sweep.name)),
        journal,
        fold(journal.replay()),
        Books(Ledger.open(ledger, convention=sweep.convention, clock=clock), sweep.name),
        VARIABLES,
        data=None,
        publish=lambda winner: None,
        clock=clock,
    )


def begin(run: Run) -> None:
    """Draws its FLOPs, unless it has ended."""
    if not run.history.ended:
        asked = run.sweep
        draw(run)
        begin_session(run, asked, {})


class Driver:
    """One sweep, from its first driver to its last."""

    def __init__(self, sweep: Sweep, conditions: Conditions, kills: float, place: Place) -> None:
        self.sweep = sweep
        self.world = World(Invented(windows=1, scale=max(1, sweep.budget // 100)), conditions)
        self.place = place
        self.journal = place.journal(sweep.name)
        self.run: Run | None = None
        self.settled = False
        """Whether it rests between two events, so that its trials are what its books say."""
        self.ending = ""
        """How it came to its end: ended, refused, or without a way on."""
        self._chance = random.Random(f"{sweep.name} {conditions.seed}")
        self._kills = kills
        self.killed = 0
        self._wake, self._resting = Semaphore(0), Semaphore(0)
        self._error: BaseException | None = None
        self._over = False
        self._thread = Thread(target=self._live, daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Lets it act until it rests again; what went wrong in it goes wrong here."""
        self._wake.release()
        self._resting.acquire()
        if self._error is not None:
            raise self._error

    def rest(self) -> None:
        self._resting.release()
        self._wake.acquire()
        if self._over:
            raise Over

    def leave(self) -> None:
        self._over = True
        self._wake.release()
        self._thread.join()

    def fate(self) -> str:
        """What happens to the driver at a write."""
        if self.killed == MOST_KILLS or self._chance.random() >= self._kills:
            return "spared"
        self.killed += 1
        return self._chance.choice(["dies before", "dies after", "torn"])

    def _live(self) -> None:
        try:
            self._wake.acquire()
            if not self._over:
                self.ending = self._sessions()
        except Over:
            return
        except BaseException as error:  # noqa: BLE001 -- it is raised again where the test waits
            self._error = error
        self._resting.release()

    def _sessions(self) -> str:
        refusals = 0
        while True:
            try:
                self._session()
            except DriverKilled:
                self.run, self.settled = None, False
                self.world.now += RESTART_SECONDS
            except (BudgetTooSmall, TrialFailed) as error:
                if self.run is not None and self.run.books.drawn:
                    return f"no way on: {error}"
                refusals += 1
                if refusals == 3:
                    return f"refused: {error}"
            else:
                return "ended"
            self.rest()

    def _session(self) -> None:
        ledger, journal = Fragile(self.place.ledger(), self), Fragile(self.journal, self)
        self.run = opened(self.sweep, ledger, journal, self.world.clock)
        begin(self.run)
        if not self.run.history.ended:
            walk(self.run, self._carry_out)

    def _carry_out(self, run: Run, scheduler: Scheduler) -> None:
        self.world.run_stage(scheduler, self._between_events)

    def _between_events(self) -> None:
        self.settled = True
        self.rest()
        self.settled = False


class Eye:
    """Reads the ledger as a list of transfers, and knows nothing of what they are for."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.balances: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        """FLOPs that were spent as heard of, by sweep."""
        self.lost: Counter[str] = Counter()

    def look(self, total: int) -> None:
        """Takes in what was written, transfer by transfer, and holds the accounts to what is promised."""
        for record in self._log.news():
            for transfer in record.get("transfers", ()):
                flops, giver = int(transfer["flops"]), transfer["giver"]
                self.balances[giver] -= flops
                self.balances[transfer["taker"]] += flops
                sums = {"spend": self.heard, "lose": self.lost}.get(transfer["kind"])
                if sums is not None:
                    sums[owner(giver)] += flops
            for account, flops in self.balances.items():
                assert flops >= 0 or account == "source", f"{account} stands at {flops}"
            spent = self.balances["spent"]
            assert spent <= total, "more is spent than there was"
            assert spent == self.heard.total() + self.lost.total()

    def left_to(self, sweep: str, *kinds: str) -> int:
        """FLOPs in a sweep's accounts of these kinds."""
        mine = (account for account in self.balances if owner(account) == sweep)
        return sum(self.balances[account] for account in mine if account.partition(":")[0] in kinds)


def owner(account: str) -> str:
    """The sweep that an account is of."""
    return account.partition(":")[2].partition("/")[0]


def hold_to_its_word(driver: Driver, eye: Eye) -> None:
    """What holds of a sweep between two events."""
    run = driver.run
    run.books.ledger.refresh()
    believed = run.books.ledger.balances
    assert sum(believed.values()) == 0
    assert {account: flops for account, flops in believed.items() if flops} == {
        account: flops for account, flops in eye.balances.items() if flops
    }, "what is believed is not what is written"
    trials = run.history.trials
    for name, trial in trials.items():
        running = trial.status is Status.RUNNING
        ahead = trial.plan.flops_at(trial.granted) - trial.plan.flops_at(trial.reached)
        held = run.books.held(name)
        assert held == (ahead if running else 0), f"{name} is {trial.status} and holds {held}"
    heard = sum(trial.flops_heard for trial in trials.values())
    assert eye.heard[driver.sweep.name] == heard, "what is charged is not what was heard"
    for stage in run.sweep.stages:
        if stage.name not in run.history.stages:
            assert run.books.available(stage.name) == hold_back(run.sweep, stage)


def share(drivers: list[Driver], place: Place, total: int, chance: random.Random) -> Eye:
    """Lets all of them go on, in an order that chance draws, to the end of the last one."""
    eye = Eye(place.ledger())
    for _ in range(MOST_TURNS):
        going = [driver for driver in drivers if not driver.ending]
        if not going:
            return eye
        driver = chance.choice(going)
        driver.go_on()
        eye.look(total)
        if driver.settled:
            hold_to_its_word(driver, eye)
    raise AssertionError("the sweeps never end")


# What is drawn.


@st.composite
def flops(draw: st.DrawFn) -> int:
    """From 1 to 1e26, each order of magnitude as likely as any other."""
    digits = draw(st.integers(0, 25))
    return draw(st.integers(10**digits, 10 ** (digits + 1)))


def rates(count: int) -> dict[str, list[float]]:
    """Learning rates of so many trials; the highest of them make a trial diverge."""
    return {"learning_rate": [0.0001 * 1.5**index for index in range(count)]}


@st.composite
def stages(draw: st.DrawFn, budget: int) -> list[dict[str, Any]]:
    """A baseline, a search and a final run, or some of them."""
    listed: list[dict[str, Any]] = []
    if draw(st.booleans()):
        listed.append({"name": "baseline", "zero_shot": True})
    kind = draw(st.sampled_from(["fixed", "halving", "none"]))
    if kind == "halving":
        listed.append(
            {"name": "search", "policy": "halving", "space": rates(draw(st.integers(3, 15)))}
        )
    if kind == "fixed":
        count, tenths = draw(st.integers(1, 8)), draw(st.integers(1, 10))
        steps = budget * tenths // (10 * count * CHEAP_STEP)
        listed.append(
            {
                "name": "search",
                "space": rates(count),
                "steps": min(max(1, steps), 10**9),
                "evaluations": draw(st.integers(1, 5)),
            }
        )
    if not listed or draw(st.booleans()):
        final = {"name": "final", "steps": "fill", "evaluations": draw(st.integers(1, 6))}
        if kind != "none":
            final |= {"from": "search", "continue": draw(st.booleans())}
        shares = [0.1, 0.3, 0.6] if kind == "halving" else [None, 0.1, 0.6]
        listed.append(final | {"hold_back": draw(st.sampled_from(shares))})
    return listed


@st.composite
def conditions(draw: st.DrawFn, budget: int) -> Conditions:
    return Conditions(
        workers=draw(st.integers(1, 16)),
        flops_per_second=max(1, budget) / 100,
        spread=draw(st.sampled_from([0.0, 0.5])),
        straggling=draw(st.sampled_from([0.0, 0.1, 0.5])),
        crashes=draw(st.sampled_from([0.0, 0.05, 0.3])),
        repeats=draw(st.sampled_from([0.0, 0.1, 0.5])),
        seed=draw(st.integers(0, 10**6)),
    )


def sweep_of(name: str, budget: int, total: int, model: Path, listed, **more: Any) -> Sweep:
    sweep = Sweep.model_validate(
        {
            "name": name,
            "budget": budget,
            "model": str(model),
            "evaluation": {
                "windows": 1,
                "context_length": 2,
                "forecast": {"systems": 1, "context_steps": 1, "horizon": 1},
            },
            "trial": {
                "lora": {"rank": 1, "targets": ["q_proj"]},
                "context_length": 2,
                "stride": 2,
                "batch_size": 1,
            },
            "stages": listed,
            "ledger": {"path": "ledger.jsonl", "budget": total},
            **more,
        }
    )
    assert check(sweep) == []
    return sweep


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The smallest model that there can be; nobody loads it."""
    folder = tmp_path_factory.mktemp("smallest")
    (folder / "config.json").write_text(json.dumps(SMALLEST))
    return folder


@contextmanager
def somewhere(*, in_files: bool) -> Iterator[Place]:
    with TemporaryDirectory() if in_files else ExitStack() as folder:
        yield Place(Path(folder) if in_files else None, MemoryJournal("ledger"))


@settings(max_examples=60)
@given(st.data())
def test_whatever_happens_to_sweeps_that_share_a_ledger_the_books_hold(model, data):
    total = data.draw(flops(), "total")
    in_files = data.draw(st.sampled_from([False] * 9 + [True]), "in files")
    drivers: list[Driver] = []
    with somewhere(in_files=in_files) as place, ExitStack() as home:
        for index in range(data.draw(st.integers(1, 4), "sweeps")):
            budget = max(1, total * data.draw(st.integers(1, 10), "tenths") // 10)
            listed = data.draw(stages(budget), "stages")
            failures = data.draw(st.integers(0, 3), "failures")
            sweep = sweep_of(
                f"s{index}", budget, total, model, listed, resources={"max_failures": failures}
            )
            kills = data.draw(st.sampled_from([0.0, 0.01, 0.05]), "kills")
            driver = Driver(sweep, data.draw(conditions(budget), "conditions"), kills, place)
            home.callback(driver.leave)
            drivers.append(driver)
        order = random.Random(data.draw(st.integers(0, 10**6), "order"))
        eye = share(drivers, place, total, order)
        for driver in drivers:
            event(driver.ending.partition(":")[0])
            name = driver.sweep.name
            assert eye.left_to(name, "trial") == 0
            if not (driver.killed or driver.world.tally.crashes):
                assert eye.lost[name] == 0, "something was lost and nothing broke"
            if driver.ending.startswith("no way on"):
                assert eye.lost[name] > 0 or "has none: no trial has a finite loss" in driver.ending
            assert eye.left_to(name, "sweep", "stage") == 0, f"{name} has not given back"
            if driver.ending == "ended":
                history = fold(driver.journal.replay())
                assert findings(Evidence(driver.run.books.ledger, history, name)) == []


@given(st.data())
def test_a_budget_that_is_too_small_is_refused_and_leaves_the_ledger_as_it_was(model, data):
    listed = [
        {
            "name": "search",
            "steps": data.draw(st.integers(1, 10**9), "steps"),
            "space": rates(data.draw(st.integers(1, 4), "trials")),
        }
    ]
    (plan,) = outline(sweep_of("s", 10**26, 10**26, model, listed), variables=VARIABLES)
    near = st.integers(-3, 3).map(lambda off: plan.price + off) | st.integers(1, 2 * plan.price)
    asked, left = data.draw(near, "asked"), data.draw(near, "left by others")
    total = left + data.draw(flops(), "taken by others")
    sweep = sweep_of("s", asked, total, model, listed)
    ledger = MemoryJournal("ledger")
    others = Books(Ledger.open(ledger, convention=sweep.convention), "others")
    others.open_sweep(total - left, total=total, place="elsewhere")
    before, text = dict(others.ledger.balances), ledger.text()
    world = World(Invented(windows=1), Conditions())
    journal = MemoryJournal("journal")
    if plan.price <= min(asked, left):
        run = opened(sweep, Reader(ledger), journal, world.clock)
        begin(run)
        walk(run, lambda run, scheduler: world.run_stage(scheduler))
        others.ledger.refresh()
        assert others.ledger.balance("budget") == left - run.books.spent
        assert others.ledger.balance("sweep:others") == total - left
        return
    with pytest.raises(BudgetTooSmall):
        begin(opened(sweep, Reader(ledger), journal, world.clock))
    assert journal.text() == ""
    if asked < plan.price:
        assert ledger.text() == text
    others.ledger.refresh()
    told = {account: flops for account, flops in others.ledger.balances.items() if flops}
    assert told == {account: flops for account, flops in before.items() if flops}


# Deaths between two writes that belong together.


class Mortal(MemoryJournal):
    """A journal whose driver dies once, just before it writes what `when` picks out."""

    def __init__(self, when: Callable[[Mapping[str, Any]], bool]) -> None:
        super().__init__("journal")
        self.when = when
        self.died = False

    def append(self, record: Mapping[str, Any]) -> None:
        if not self.died and self.when(record):
            self.died = True
            raise DriverKilled
        super().append(record)


def walked(sweep: Sweep, journal: Mortal) -> Run:
    """The sweep at its end, its driver having died once on the way."""
    ledger = MemoryJournal("ledger")
    world = World(Invented(windows=1, scale=sweep.budget / 100), Conditions(workers=2))
    while True:
        run = opened(sweep, ledger, journal, world.clock)
        try:
            begin(run)
            walk(run, lambda run, scheduler: world.run_stage(scheduler))
        except DriverKilled:
            continue
        assert journal.died
        return run


DIVERGES = {"learning_rate": [0.0001, 1.0]}


@pytest.mark.parametrize(
    "listed",
    [
        [
            {"name": "search", "policy": "halving", "space": rates(4)},
            {"name": "final", "from": "search", "steps": "fill", "hold_back": 0.3},
        ],
        [{"name": "search", "steps": 100, "space": DIVERGES}],
    ],
    ids=["a stage with a hold-back", "a stage that ended early"],
)
def test_a_driver_that_dies_just_before_the_end_of_its_sweep_is_followed_by_another(model, listed):
    sweep = sweep_of("s", 10**6, 10**6, model, listed)
    run = walked(sweep, Mortal(lambda record: record["event"] == "sweep_end"))
    assert run.history.ended
    assert run.books.ledger.balance("budget") == 10**6 - run.books.spent


def test_a_driver_that_dies_before_a_stage_is_written_down_does_not_give_its_share_twice(model):
    listed = [{"name": "search", "policy": "halving", "space": rates(4), "share": 0.3}]
    sweep = sweep_of("s", 10**6, 10**6, model, listed)
    run = walked(sweep, Mortal(lambda record: record["event"] == "stage"))
    assert run.books.allowed("search") <= 300_000
