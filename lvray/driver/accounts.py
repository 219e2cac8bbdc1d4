"""Are the books in order, and where did the FLOPs go?

Checks are small functions over the evidence, a ledger and where there is one the run's journal; each yields what it
finds wrong. The statement tells what each stage got, used and gave back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lvray.core.trial import Status
from lvray.ledger.ledger import SOURCE, SPENT, Ledger, Transfer, trial_account
from lvray.scheduler.replay import History


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the checks look at: the ledger, and the journal of the run folder if there is one."""

    ledger: Ledger
    history: History | None
    sweep: str | None
    """The run folder's sweep; None when a ledger file was given alone."""

    @property
    def reserved(self) -> int:
        """FLOPs in the accounts of trials."""
        return sum(
            flops for account, flops in self.ledger.balances.items() if account.startswith("trial:")
        )

    def by_giver(self, kind: str) -> Counter[str]:
        """FLOPs of all transfers of one kind, by the account that gave them."""
        return self._sums(kind, lambda transfer: transfer.giver)

    def by_taker(self, kind: str) -> Counter[str]:
        """FLOPs of all transfers of one kind, by the account that took them."""
        return self._sums(kind, lambda transfer: transfer.taker)

    def _sums(self, kind: str, account: Callable[[Transfer], str]) -> Counter[str]:
        sums: Counter[str] = Counter()
        for transfer in self.ledger.transfers:
            if transfer.kind == kind:
                sums[account(transfer)] += transfer.flops
        return sums


def conserved(evidence: Evidence) -> Iterator[str]:
    """All balances add up to zero."""
    total = sum(evidence.ledger.balances.values())
    if total:
        yield f"the balances add up to {total} FLOPs, not to 0"


def within_budget(evidence: Evidence) -> Iterator[str]:
    """No account but source is below zero, so spent is at most the budget."""
    for account, flops in evidence.ledger.balances.items():
        if account != SOURCE and flops < 0:
            yield f"{account} stands at {flops} FLOPs"
    granted, spent = -evidence.ledger.balance(SOURCE), evidence.ledger.balance(SPENT)
    if spent > granted:
        yield f"{spent} FLOPs are spent of {granted}"


def spent_is_heard_and_lost(evidence: Evidence) -> Iterator[str]:
    """What is spent was heard of or lost."""
    spent = evidence.ledger.balance(SPENT)
    heard, lost = evidence.by_giver("spend").total(), evidence.by_giver("lose").total()
    if spent != heard + lost:
        yield f"spent {spent} is not heard {heard} + lost {lost}"


def the_idle_hold_nothing(evidence: Evidence) -> Iterator[str]:
    """A trial that is not running holds no reservation."""
    if evidence.history is None or evidence.sweep is None:
        return
    for name, trial in evidence.history.trials.items():
        held = evidence.ledger.balance(trial_account(evidence.sweep, name))
        if held and trial.status is not Status.RUNNING:
            yield f"trial {name} is {trial.status} and holds {held} FLOPs"


def heard_is_what_was_measured(evidence: Evidence) -> Iterator[str]:
    """Each trial was charged what its measurements say; of one that runs, the last may not be paid yet."""
    if evidence.history is None or evidence.sweep is None:
        return
    charged = evidence.by_giver("spend")
    for name, trial in evidence.history.trials.items():
        account = trial_account(evidence.sweep, name)
        paid, heard = charged.get(account, 0), trial.flops_heard
        unpaid = evidence.ledger.balance(account) if trial.status is Status.RUNNING else 0
        if not paid <= heard <= paid + unpaid:
            yield f"trial {name} was charged {paid} FLOPs and its measurements say {heard}"


CHECKS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    conserved,
    within_budget,
    spent_is_heard_and_lost,
    the_idle_hold_nothing,
    heard_is_what_was_measured,
)
"""Every check; the first line of each one's docstring says what holds when it finds nothing."""


@dataclass(frozen=True, slots=True)
class StageLine:
    """One stage in the statement; everything in FLOPs."""

    name: str
    """``<sweep>/<stage>``."""
    allowance: int
    heard: int
    lost: int
    returned: int
    reserved: int
    available: int
    trials: Mapping[str, tuple[int, int, int]]
    """Heard, lost and reserved, by trial."""

    @property
    def sweep(self) -> str:
        """The sweep that the stage is of."""
        return self.name.partition("/")[0]

    @property
    def stage(self) -> str:
        """The stage's name in its sweep."""
        return self.name.partition("/")[2]

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values, FLOPs as strings."""
        return {
            "name": self.stage,
            "sweep": self.sweep,
            "allowance": str(self.allowance),
            "spent": str(self.heard + self.lost),
            "heard": str(self.heard),
            "lost": str(self.lost),
            "returned": str(self.returned),
            "reserved": str(self.reserved),
            "available": str(self.available),
            "trials": {
                name: {"heard": str(heard), "lost": str(lost), "reserved": str(reserved)}
                for name, (heard, lost, reserved) in self.trials.items()
            },
        }


def statement(ledger: Ledger) -> list[StageLine]:
    """What each stage got, used and gave back, and each of its trials, sweep by sweep, in the order of their first transfer."""
    evidence = Evidence(ledger, None, None)
    spent, lost, returned = (evidence.by_giver(kind) for kind in ("spend", "lose", "return"))
    allowed = evidence.by_taker("allow")
    trials: dict[str, dict[str, None]] = {}
    for transfer in ledger.transfers:
        if transfer.kind == "reserve":
            trials.setdefault(transfer.giver, {})[transfer.taker] = None
    lines = []
    stages = [account for account in ledger.balances if account.startswith("stage:")]
    sweeps = list(dict.fromkeys(_sweep_of(stage) for stage in stages))
    for stage in sorted(stages, key=lambda stage: sweeps.index(_sweep_of(stage))):
        mine = {
            trial.partition("/")[2]: (spent[trial], lost[trial], ledger.balance(trial))
            for trial in trials.get(stage, ())
        }
        lines.append(
            StageLine(
                name=stage.removeprefix("stage:"),
                allowance=allowed[stage],
                heard=sum(heard for heard, _, _ in mine.values()),
                lost=sum(gone for _, gone, _ in mine.values()),
                returned=returned[stage],
                reserved=sum(held for _, _, held in mine.values()),
                available=ledger.balance(stage),
                trials=mine,
            )
        )
    return lines


def _sweep_of(stage: str) -> str:
    return stage.removeprefix("stage:").partition("/")[0]


def findings(evidence: Evidence) -> list[str]:
    """What the checks find wrong, a sentence each; empty when the books are in order."""
    return [finding for check in CHECKS for finding in check(evidence)]
