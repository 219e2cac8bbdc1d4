"""A stage with its books and its journal, for tests that look at a scheduler over several sessions."""

from __future__ import annotations

import pytest

from lvray.core.trial import StagePlan, Status
from lvray.ledger.books import Books
from lvray.ledger.journal import MemoryJournal
from lvray.ledger.ledger import Ledger
from lvray.scheduler.registry import policy_of
from lvray.scheduler.replay import fold
from lvray.scheduler.scheduler import Scheduler


class Desk:
    """A stage, its books and its journal; `next_session` replays them."""

    def __init__(self, stage: StagePlan, most_failures: int = 2) -> None:
        self.stage = stage
        self.most_failures = most_failures
        self.journal = MemoryJournal("journal")
        self.ledger = MemoryJournal("ledger")
        self.journal.append({"event": "stage", **stage.to_json()})
        self.session = 0
        self.next_session()

    def next_session(self) -> Scheduler:
        self.session += 1
        self.books = Books(Ledger.open(self.ledger, convention="coursework"), "s")
        self.books.open_sweep(self.stage.allowance)
        self.books.allow("search", self.stage.allowance, key="all")
        told = fold(self.journal.replay()).stages["search"]
        self.scheduler = Scheduler(
            told.plan,
            policy_of(told.plan),
            self.books,
            self.journal.append,
            session=self.session,
            most_failures=self.most_failures,
            trials=told.trials,
        )
        self.scheduler.recover()
        return self.scheduler

    def lost(self) -> int:
        return sum(row.flops for row in self.books.ledger.transfers if row.kind == "lose")

    def status(self, name: str) -> Status:
        return self.scheduler.trials[name].status


@pytest.fixture
def desk_of() -> type[Desk]:
    return Desk
