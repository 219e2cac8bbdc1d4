"""How is a fact written down so that it is still there after a crash?

One JSON object a line, appended, flushed and fsynced before anyone believes it. Loading is replaying.
A last line without its newline is a write that never finished: it is dropped at replay and cut off
before the next append. A damaged line anywhere else is an error that names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

from lvray.core.errors import JournalCorrupt, RunFolderError
from lvray.core.run_folder import take_lock

Clock = Callable[[], datetime]
"""Says what time it is: the machine's clock, or a simulation's."""


def wall_clock() -> datetime:
    """The machine's time, UTC."""
    return datetime.now(UTC)


def stamp(clock: Clock) -> str:
    """The time as it stands in records, to the millisecond."""
    return clock().isoformat(timespec="milliseconds")


class Log(Protocol):
    """Records in the order in which they were written: a `Journal`, or a `MemoryJournal`."""

    path: Path
    """Where it is; for one that is in no file, what it is called in messages."""
    lines: int
    """Records read so far."""

    def replay(self) -> list[dict[str, Any]]:
        """Gives every record."""
        ...

    def news(self) -> list[dict[str, Any]]:
        """Gives the records appended since the last reading."""
        ...

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one record before it returns; it counts as unread."""
        ...

    def locked(self) -> AbstractContextManager[None]:
        """Holds the log for one transaction."""
        ...


class MemoryJournal:
    """Records that no one else can append to and no crash can tear: those of a simulation."""

    def __init__(self, name: str, *, keep: bool = True) -> None:
        """Begins an empty one.

        Args:
            name: what it is called in messages.
            keep: whether to hold on to records that were read, so that they can be replayed.
        """
        self.path = Path(name)
        self.lines = 0
        self._keep = keep
        self._records: list[dict[str, Any]] = []
        self._read = 0

    def replay(self) -> list[dict[str, Any]]:
        """Gives every record, in the order in which they were written."""
        assert self._keep or not self.lines, f"{self.path}: what was read was not kept"
        self._read = self.lines = 0
        return self.news()

    def news(self) -> list[dict[str, Any]]:
        """Gives the records that were appended since this journal was last read."""
        records = self._records[self._read :]
        self.lines += len(records)
        if self._keep:
            self._read = len(self._records)
        else:
            self._records.clear()
        return records

    def forget(self) -> None:
        """Lets go of everything that it holds."""
        self._records.clear()
        self._read = 0

    def text(self) -> str:
        """All records as a `Journal` would have written them."""
        return "".join(map(_line, self._records))

    def append(self, record: Mapping[str, Any]) -> None:
        """Takes one record."""
        self._records.append(dict(record))

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else is here."""
        return nullcontext()


class Journal:
    """An append-only file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        """Records read so far, which is also the line number of the last one."""
        self._offset = 0
        """Bytes read so far: always the end of a whole line."""
        self._longest = 0
        """Bytes that the file is known to have had: it only ever grows."""

    def replay(self) -> list[dict[str, Any]]:
        """Gives every record, in the order in which they were written.

        Raises:
            JournalCorrupt: a line that is neither whole nor a torn last line.
            RunFolderError: the file cannot be read.
        """
        self._offset = self.lines = 0
        return self.news()

    def news(self) -> list[dict[str, Any]]:
        """Gives the records that were appended, by whomever, since this journal last read.

        Raises:
            JournalCorrupt: likewise, or the file became shorter than it was, or is gone.
            RunFolderError: likewise.
        """
        try:
            with self.path.open("rb") as file:
                self._hold_to_length(file.seek(0, os.SEEK_END))
                file.seek(self._offset)
                fresh = file.read()
        except FileNotFoundError:
            self._hold_to_length(0)
            return []
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be read: {error.strerror}") from error
        whole, _, _torn = fresh.rpartition(b"\n")
        if not whole:
            return []
        records = [
            self._record(line, number)
            for number, line in enumerate(whole.split(b"\n"), self.lines + 1)
        ]
        self._offset += len(whole) + 1
        self._longest = max(self._longest, self._offset)
        self.lines += len(records)
        return records

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one record, durably, before it returns; it counts as unread like the records of others.

        Raises:
            RunFolderError: it cannot be written; the file is as it was.
            JournalCorrupt: what was read of the file is no longer there.
        """
        line = _line(record).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: closing a file must not write what an error has already called unwritten.
            with self.path.open("a+b", buffering=0) as file:
                end = _whole_end(file)
                self._hold_to_length(end)
                file.truncate(end)
                try:
                    _write_all(file, line)
                    os.fsync(file.fileno())
                except BaseException:  # Ctrl-C too: a record is there whole or not at all
                    file.truncate(end)
                    raise
            if end == 0:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: cannot be written: {error.strerror}; nothing was recorded"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the file for one transaction; the lock ends with the process, however it ends.

        Raises:
            RunFolderError: the folder cannot be written, or has no locks.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_name(self.path.name + ".lock").open("a")
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be written: {error.strerror}") from error
        with lock:
            take_lock(lock.fileno(), self.path)
            yield

    def _hold_to_length(self, length: int) -> None:
        if length < self._longest:
            raise JournalCorrupt(
                f"{self.path}: {self._longest} bytes were read and {length} are left"
            )

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise JournalCorrupt(f"{self.path}, line {number}: not a whole record: {line[:80]!r}")
        return record


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"


def _whole_end(file: FileIO) -> int:
    """Where the last whole line ends: what a torn write left behind it does not count."""
    end: int = file.seek(0, os.SEEK_END)
    block = 4096
    position = end
    while position > 0:
        begin = max(0, position - block)
        file.seek(begin)
        found = file.read(position - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        position = begin
    return 0


def _write_all(file: FileIO, line: bytes) -> None:
    while line:
        line = line[file.write(line) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
