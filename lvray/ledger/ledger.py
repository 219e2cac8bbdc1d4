"""Who has paid? Double entry for FLOPs: a transfer moves them from giver to taker; nothing makes or loses them.

    source ─grant▶ budget ─allow▶ sweep ─allow▶ stage ─reserve▶ trial ─spend, lose▶ spent
                     ◀──────return──────  ◀─return─  ◀─release──

No account but `source` is ever below zero, so what is spent never exceeds the budget, and a trial never
uses what was not reserved for it. Every write is a transaction under a lock on the file: read what others
appended, check, append, fsync. So several sweeps, in several processes, may draw on one ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lvray.core.errors import JournalCorrupt, Overdraft, RunFolderError
from lvray.core.units import format_flops
from lvray.ledger.journal import Clock, Journal, Log, stamp, wall_clock

SOURCE, BUDGET, SPENT = "source", "budget", "spent"
FORMAT = "lvray-ledger/1"

ROUTES: Mapping[str, frozenset[tuple[str, str]]] = {
    "grant": frozenset({("source", "budget")}),
    "allow": frozenset({("budget", "sweep"), ("sweep", "stage")}),
    "reserve": frozenset({("stage", "trial")}),
    "spend": frozenset({("trial", "spent")}),
    "lose": frozenset({("trial", "spent")}),
    "release": frozenset({("trial", "stage")}),
    "return": frozenset({("stage", "sweep"), ("sweep", "budget")}),
}
"""From what kind of account to what kind each kind of transfer may go."""


def sweep_account(sweep: str) -> str:
    """The account of a sweep."""
    return f"sweep:{sweep}"


def stage_account(sweep: str, stage: str) -> str:
    """The account of one stage of a sweep."""
    return f"stage:{sweep}/{stage}"


def trial_account(sweep: str, trial_id: str) -> str:
    """The account of one trial of a sweep: what is reserved for it now."""
    return f"trial:{sweep}/{trial_id}"


@dataclass(frozen=True, slots=True)
class Transfer:
    """FLOPs from one account to another, once: the key makes saying it again harmless."""

    flops: int
    giver: str
    taker: str
    kind: str
    memo: str
    key: str

    def __post_init__(self) -> None:
        """Holds transfers to whole, positive amounts between different accounts."""
        assert isinstance(self.flops, int), f"{self.key}: {self.flops!r} is no whole number"
        assert self.flops > 0, f"{self.key}: a transfer of {self.flops} FLOPs"
        assert self.giver != self.taker, f"{self.key}: from {self.giver} to itself"

    def to_json(self) -> dict[str, str]:
        """Gives plain JSON values, FLOPs as a string."""
        return {
            "flops": str(self.flops),
            "giver": self.giver,
            "taker": self.taker,
            "kind": self.kind,
            "memo": self.memo,
            "key": self.key,
        }

    @classmethod
    def from_json(cls, row: object) -> Transfer:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: it is something else; says what.
        """
        if not isinstance(row, Mapping) or row.keys() != TRANSFER_FIELDS:
            raise ValueError(
                f"a transfer has {', '.join(sorted(TRANSFER_FIELDS))}, this is {row!r}"
            )
        strange = [name for name, value in row.items() if not isinstance(value, str)]
        if strange:
            raise ValueError(f"{strange[0]} is a string, not {row[strange[0]]!r}")
        flops = row["flops"]
        if not (flops.isascii() and flops.isdigit() and int(flops) > 0):
            raise ValueError(f"flops is a whole number above zero, not {flops!r}")
        if row["giver"] == row["taker"]:
            raise ValueError(f"{row['key']} goes from {row['giver']} to itself")
        return cls(**{**row, "flops": int(flops)})


TRANSFER_FIELDS = frozenset(field.name for field in fields(Transfer))


Check = Callable[[Mapping[str, int], Sequence[Transfer]], str | None]
"""Looks at the balances after some transfers and says what is wrong, or None."""


def routes_are_kept(balances: Mapping[str, int], transfers: Sequence[Transfer]) -> str | None:
    """Each kind of transfer goes only where it may."""
    for transfer in transfers:
        route = (transfer.giver.partition(":")[0], transfer.taker.partition(":")[0])
        if route not in ROUTES.get(transfer.kind, ()):
            return f"{transfer.key}: {transfer.kind} from {transfer.giver} to {transfer.taker} is no route"
    return None


def nobody_is_overdrawn(balances: Mapping[str, int], transfers: Sequence[Transfer]) -> str | None:
    """No account but `source` is below zero."""
    for transfer in transfers:
        if transfer.giver != SOURCE and balances[transfer.giver] < 0:
            lacking = -balances[transfer.giver]
            return (
                f"{transfer.giver} has {format_flops(transfer.flops - lacking)} FLOPs and {transfer.key} asks for "
                f"{format_flops(transfer.flops)}"
            )
    return None


def nothing_is_made_or_lost(
    balances: Mapping[str, int], transfers: Sequence[Transfer]
) -> str | None:
    """All balances add up to zero."""
    total = sum(balances.values())
    return f"balances add up to {total}, not to 0" if total else None


WRITE_CHECKS: tuple[Check, ...] = (routes_are_kept, nobody_is_overdrawn)
"""Hold at every write and every replay; each looks at the accounts that the transfers touch."""


class Ledger:
    """One file of transfers, and the balances that they make."""

    def __init__(self, journal: Log, convention: str, clock: Clock = wall_clock) -> None:
        self._journal = journal
        self._clock = clock
        self._known: dict[str, Transfer] = {}
        self._whole = False
        """Whether all that was read was also taken; at first, and after an error or Ctrl-C in between, all is read."""
        self.balances: dict[str, int] = dict.fromkeys((SOURCE, BUDGET, SPENT), 0)
        """FLOPs by account; `source` is below zero by what was granted."""
        self.taken: Counter[tuple[str, str]] = Counter()
        """FLOPs that accounts took in all, by kind of transfer and account."""
        self.returned: Counter[str] = Counter()
        """FLOPs that stages and sweeps gave back, by account."""
        self.convention = convention

    @classmethod
    def open(cls, place: Path | Log, *, convention: str, clock: Clock = wall_clock) -> Ledger:
        """Creates the ledger or replays it.

        Args:
            place: its file, or a log that is somewhere else.
            convention: how its FLOPs are counted.
            clock: tells the time of transfers.

        Raises:
            RunFolderError: it is kept under another convention, or cannot be written.
            JournalCorrupt: it is damaged.
        """
        ledger = cls(Journal(place) if isinstance(place, Path) else place, convention, clock)
        with ledger._journal.locked():
            ledger.refresh()
            if not ledger._journal.lines:
                ledger._journal.append({"format": FORMAT, "convention": convention})
                ledger.refresh()
        return ledger

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Replays a ledger that is there, by its own convention, and writes nothing.

        Raises:
            RunFolderError: there is none.
            JournalCorrupt: it is damaged, or was ever overdrawn.
        """
        ledger = cls(Journal(path), convention="")
        ledger.refresh()
        if not ledger._journal.lines:
            raise RunFolderError(f"{path}: no ledger is there")
        return ledger

    @property
    def path(self) -> Path:
        """The ledger's file."""
        return self._journal.path

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """Every transfer, in order."""
        return tuple(self._known.values())

    @property
    def count(self) -> int:
        """How many transfers there are."""
        return len(self._known)

    def transfer(self, key: str) -> Transfer | None:
        """The transfer of that key, as last read; None if there is none."""
        return self._known.get(key)

    @property
    def lost(self) -> int:
        """FLOPs that were spent unheard, of all sweeps."""
        return self.taken["lose", SPENT]

    @property
    def sweeps(self) -> tuple[str, ...]:
        """Every sweep that drew on the budget, the first one first."""
        return tuple(
            account.removeprefix("sweep:")
            for kind, account in self.taken
            if kind == "allow" and account.startswith("sweep:")
        )

    def describe_sweep(self, sweep: str) -> str:
        """What a sweep took of the budget, and gave back, in words."""
        account = sweep_account(sweep)
        took, back = self.taken["allow", account], self.returned[account]
        gave = f" and gave back {format_flops(back)}" if back else ""
        return f"took {format_flops(took)}{gave}"

    def describe_sweeps(self, *, but: str = "") -> str:
        """What every sweep (`but` one) took of the budget, and gave back, in words."""
        others = [sweep for sweep in self.sweeps if sweep != but]
        return ", ".join(f"{sweep} {self.describe_sweep(sweep)}" for sweep in others)

    def balance(self, account: str) -> int:
        """FLOPs in an account as last read; 0 for one that was never used."""
        return self.balances.get(account, 0)

    def refresh(self) -> None:
        """Reads what was appended, by whomever.

        Raises:
            JournalCorrupt: it is damaged, or was ever overdrawn.
            RunFolderError: it is kept under another convention, or cannot be read.
        """
        again = not self._whole
        self._whole = False
        if again:
            self._known.clear()
            self.taken.clear()
            self.returned.clear()
            self.balances = dict.fromkeys((SOURCE, BUDGET, SPENT), 0)
        records = self._journal.replay() if again else self._journal.news()
        for line, record in enumerate(records, self._journal.lines - len(records) + 1):
            if line == 1:
                self._take_head(record)
            else:
                self._take(record, line)
        self._whole = True

    def transact(self, transfers: Sequence[Transfer]) -> None:
        """Makes all of `transfers` or none of them; those whose key is known were made before.

        Raises:
            Overdraft: an account would fall below zero. Nothing was written.
            JournalCorrupt: a key is known with another content, or the file is damaged.
            RunFolderError: the file cannot be written. Nothing was.
        """
        self.decide(lambda: transfers)

    def decide(self, choose: Callable[[], Sequence[Transfer]]) -> None:
        """Makes the transfers that `choose` gives, all or none; nobody else writes between its look and the write.

        Raises:
            Overdraft, JournalCorrupt, RunFolderError: as `transact` does.
        """
        with self._journal.locked():
            self.refresh()
            fresh = self._unknown(choose())
            if not fresh:
                return
            self._check(fresh)
            self._journal.append(
                {
                    "at": stamp(self._clock),
                    "transfers": [transfer.to_json() for transfer in fresh],
                }
            )
            self.refresh()  # what is believed is what stands in the file

    def _unknown(self, transfers: Sequence[Transfer]) -> list[Transfer]:
        fresh: dict[str, Transfer] = {}
        for transfer in transfers:
            known = self._known.get(transfer.key) or fresh.get(transfer.key)
            if known is None:
                fresh[transfer.key] = transfer
            elif known != transfer:
                raise JournalCorrupt(
                    f"{self.path}: {transfer.key} was {known} and is now {transfer}"
                )
        return list(fresh.values())

    def _check(self, fresh: Sequence[Transfer]) -> None:
        after = {
            account: self.balance(account)
            for transfer in fresh
            for account in (transfer.giver, transfer.taker)
        }
        for transfer in fresh:
            after[transfer.giver] -= transfer.flops
            after[transfer.taker] += transfer.flops
        for check in WRITE_CHECKS:
            if finding := check(after, fresh):
                raise Overdraft(finding)

    def _take_head(self, record: Mapping[str, Any]) -> None:
        convention = record.get("convention")
        if record.get("format") != FORMAT or not isinstance(convention, str):
            raise JournalCorrupt(f"{self.path}, line 1: not the head of a ledger: {record!r}")
        if not self.convention:
            self.convention = convention
        if convention != self.convention:
            raise RunFolderError(
                f"{self.path} counts FLOPs by the convention {convention}, and the sweep by {self.convention}: "
                "their figures cannot stand in one ledger"
            )

    def _take(self, record: Mapping[str, Any], line: int) -> None:
        try:
            transfers = [Transfer.from_json(row) for row in record["transfers"]]
            fresh = self._unknown(transfers)
            self._check(fresh)
        except (KeyError, TypeError, ValueError, Overdraft, JournalCorrupt) as error:
            raise JournalCorrupt(f"{self.path}, line {line}: {error}") from error
        if len(fresh) < len(transfers):
            raise JournalCorrupt(f"{self.path}, line {line}: a transfer that was made before")
        for transfer in transfers:
            self._known[transfer.key] = transfer
            self.balances[transfer.giver] = self.balance(transfer.giver) - transfer.flops
            self.balances[transfer.taker] = self.balance(transfer.taker) + transfer.flops
            self.taken[transfer.kind, transfer.taker] += transfer.flops
            if transfer.kind == "return":
                self.returned[transfer.giver] += transfer.flops
