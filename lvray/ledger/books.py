"""The accounts of one sweep, in the words of those who work with them: draw, allow, reserve, spend, lose, release, return.

Each word is one transfer on the ledger, under a key that says which one it is, so that saying it again is harmless.
"""

from __future__ import annotations

from lvray.core.errors import BudgetTooSmall, RunFolderError
from lvray.core.units import format_flops
from lvray.ledger.ledger import (
    BUDGET,
    SOURCE,
    SPENT,
    Ledger,
    Transfer,
    stage_account,
    sweep_account,
    trial_account,
)


class Books:
    """The accounts of one sweep, in the words of the scheduler."""

    def __init__(self, ledger: Ledger, sweep: str) -> None:
        self.ledger = ledger
        self.sweep = sweep

    def open_sweep(self, budget: int, *, total: int | None = None, place: str = "") -> int:
        """Takes what the sweep may draw on the ledger's budget, once; a new ledger is granted its budget first.

        Args:
            budget: FLOPs that the sweep asks for. It gets less where other sweeps have left less.
            total: FLOPs of the whole ledger; None for what it has, or for `budget` if it is new.
            place: the run folder. Two sweeps of one name would mix their accounts.

        Returns:
            FLOPs that the sweep has drawn, now or before.

        Raises:
            RunFolderError: the ledger was opened with another total, or by another sweep of this name.
            BudgetTooSmall: the others have left nothing.
        """
        key = f"{self.sweep}/open"

        def draw() -> list[Transfer]:
            known = self.ledger.transfer(key)
            granted = -self.ledger.balance(SOURCE) or None
            if granted is not None and total is not None and granted != total:
                raise RunFolderError(
                    f"{self.ledger.path} has a budget of {format_flops(granted)} FLOPs, and sweep {self.sweep} "
                    f"takes it for {format_flops(total)}; sweeps that share a ledger share its budget"
                )
            if known is not None and known.memo != place:
                raise RunFolderError(
                    f"{self.ledger.path} knows a sweep {self.sweep} of {known.memo}, and this one is of {place}; "
                    "give one of them another name"
                )
            if self.drawn:
                return []
            whole = granted or total or budget
            left = whole if granted is None else self.ledger.balance(BUDGET)
            if left == 0:
                raise BudgetTooSmall(
                    f"{self.ledger.path}: nothing is left of {format_flops(whole)} FLOPs for sweep {self.sweep}: "
                    f"{self.ledger.describe_sweeps()}"
                )
            grant = Transfer(whole, SOURCE, BUDGET, "grant", "the whole budget", "grant")
            # A sweep that found too little gave it back, and draws again when it is run again.
            again = f"{key}/{self.ledger.count}" if known else key
            drawn = Transfer(
                min(budget, left), BUDGET, sweep_account(self.sweep), "allow", place, again
            )
            return [drawn] if granted else [grant, drawn]

        self.ledger.decide(draw)
        return self.drawn

    @property
    def drawn(self) -> int:
        """FLOPs that the sweep took of the ledger's budget and has not given back."""
        own = sweep_account(self.sweep)
        return self.ledger.taken["allow", own] - self.ledger.returned[own]

    @property
    def free(self) -> int:
        """FLOPs of the sweep that no stage has."""
        return self.ledger.balance(sweep_account(self.sweep))

    @property
    def spent(self) -> int:
        """FLOPs that trials of this sweep have used, lost ones included."""
        own = trial_account(self.sweep, "")
        return sum(
            transfer.flops
            for transfer in self.ledger.transfers
            if transfer.taker == SPENT and transfer.giver.startswith(own)
        )

    def available(self, stage: str) -> int:
        """FLOPs in a stage's account."""
        return self.ledger.balance(stage_account(self.sweep, stage))

    def held(self, trial_id: str) -> int:
        """FLOPs that are reserved for a trial."""
        return self.ledger.balance(trial_account(self.sweep, trial_id))

    def allowed(self, stage: str) -> int:
        """FLOPs that a stage was given so far."""
        return self.ledger.taken["allow", stage_account(self.sweep, stage)]

    def allow(self, stage: str, flops: int, *, key: str) -> None:
        """Gives a stage FLOPs of the sweep."""
        key = f"{self.sweep}/{stage}/{key}/allow"
        self._move(
            "allow",
            sweep_account(self.sweep),
            stage_account(self.sweep, stage),
            flops,
            f"allowance of {stage}",
            key=key,
        )

    def reserve(self, stage: str, trial_id: str, flops: int, *, key: str) -> None:
        """Reserves a stretch for a trial.

        Raises:
            Overdraft: the stage has less.
        """
        giver, taker = stage_account(self.sweep, stage), trial_account(self.sweep, trial_id)
        self._move(
            "reserve",
            giver,
            taker,
            flops,
            f"a stretch of {trial_id}",
            key=f"{self.sweep}/{key}/reserve",
        )

    def spend(self, trial_id: str, flops: int, *, key: str) -> None:
        """Spends what a trial was heard to have used."""
        memo = f"heard of {trial_id}"
        self._move(
            "spend",
            trial_account(self.sweep, trial_id),
            SPENT,
            flops,
            memo,
            key=f"{self.sweep}/{key}/spend",
        )

    def lose(self, trial_id: str, flops: int, *, key: str) -> None:
        """Spends a reservation of which nobody heard how much was used."""
        memo = f"lost by {trial_id}"
        self._move(
            "lose",
            trial_account(self.sweep, trial_id),
            SPENT,
            flops,
            memo,
            key=f"{self.sweep}/{key}/lose",
        )

    def release(self, trial_id: str, stage: str, flops: int, *, key: str) -> None:
        """Gives back to the stage what a trial did not use."""
        giver, taker = trial_account(self.sweep, trial_id), stage_account(self.sweep, stage)
        self._move(
            "release",
            giver,
            taker,
            flops,
            f"unused by {trial_id}",
            key=f"{self.sweep}/{key}/release",
        )

    def give_back(self, stage: str) -> int:
        """Returns to the sweep all that a stage has left, and says how much that was."""
        left = self.available(stage)
        if left:
            key = f"{self.sweep}/{stage}/{self.ledger.count}/return"
            giver, taker = stage_account(self.sweep, stage), sweep_account(self.sweep)
            self._move("return", giver, taker, left, f"left over by {stage}", key=key)
        return left

    def close_sweep(self) -> None:
        """Returns to the budget all that the sweep has left."""
        if self.free:
            key = f"{self.sweep}/{self.ledger.count}/close"
            self._move(
                "return",
                sweep_account(self.sweep),
                BUDGET,
                self.free,
                "left over by the sweep",
                key=key,
            )

    def _move(self, kind: str, giver: str, taker: str, flops: int, memo: str, *, key: str) -> None:
        self.ledger.transact([Transfer(flops, giver, taker, kind, memo, key)])
