"""A sweep whose trials train nothing: the same walk, with books in memory and no data, model or run folder."""

from __future__ import annotations

from lvray import __version__
from lvray.core.run_folder import RunFolder
from lvray.driver.walk import Run, begin_session, draw
from lvray.ledger.books import Books
from lvray.ledger.journal import Clock, Log
from lvray.ledger.ledger import Ledger
from lvray.planner.data import variables_of
from lvray.planner.environment import Environment
from lvray.planner.stages import outline
from lvray.scheduler.replay import fold
from lvray.spec.schema import Sweep

SURROUNDINGS = Environment(
    lvray=__version__,
    commit="",
    python="",
    system="virtual time",
    processor="simulated machine",
    cores=0,
    packages={},
)
"""What stands where a real run has versions, commit and machine: the same wherever it is simulated."""


def open_virtual(
    sweep: Sweep, folder: RunFolder, *, journal: Log, ledger: Log, clock: Clock
) -> Run:
    """Opens a sweep on the logs it is given, anew or as a driver before us left them.

    Args:
        sweep: as asked.
        folder: where the run would lie; nothing is written there.
        journal: of measurements and decisions.
        ledger: of transfers; a ledger that the sweep shares with others is not touched.
        clock: tells virtual time.

    Raises:
        BudgetTooSmall: the budget does not pay for some stage.
        DataError: the data file of the sweep cannot be read.
    """
    alone = sweep.model_copy(update={"ledger": None})
    variables = variables_of(alone)
    outline(alone, variables=variables)
    books = Books(Ledger.open(ledger, convention=alone.convention, clock=clock), alone.name)
    run = Run(
        alone,
        folder,
        journal,
        fold(journal.replay()),
        books,
        variables,
        data=None,
        publish=lambda winner: None,
        clock=clock,
    )
    if not run.history.ended:
        draw(run)
        begin_session(run, alone, SURROUNDINGS.to_json())
    return run
