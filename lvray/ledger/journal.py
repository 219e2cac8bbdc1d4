"""How is a fact written down so that it is still there after a crash?

One JSON object a line, appended, flushed and fsynced before anyone believes it. Loading is replaying.
A last line without its newline is a write that never finished: it is dropped at replay and cut off
before the next append. A damaged line anywhere else is an error that names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lvray.core.errors import JournalCorrupt, RunFolderError


class Journal:
    """An append-only file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        """Bytes read so far: always the end of a whole line."""
        self._lines = 0

    def replay(self) -> list[dict[str, Any]]:
        """Gives every record, in the order in which they were written.

        Raises:
            JournalCorrupt: a line that is neither whole nor a torn last line.
        """
        self._offset = self._lines = 0
        return self.news()

    def news(self) -> list[dict[str, Any]]:
        """Gives the records that were appended, by whomever, since this journal last read or wrote.

        Raises:
            JournalCorrupt: likewise, or the file became shorter than it was.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(0, os.SEEK_END)
                if file.tell() < self._offset:
                    raise JournalCorrupt(
                        f"{self.path}: {self._offset} bytes were read and {file.tell()} are left"
                    )
                file.seek(self._offset)
                fresh = file.read()
        except FileNotFoundError:
            return []
        whole, _, _torn = fresh.rpartition(b"\n")
        if not whole:
            return []
        records = [
            self._record(line, number)
            for number, line in enumerate(whole.split(b"\n"), self._lines + 1)
        ]
        self._offset += len(whole) + 1
        self._lines += len(records)
        return records

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one record, durably, before it returns. Records of others that lie before it stay unread.

        Raises:
            RunFolderError: it cannot be written; the file is as it was.
        """
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not self.path.exists()
            with self.path.open("w+b" if fresh else "r+b") as file:
                end = _whole_end(file)
                try:
                    file.truncate(end)
                    file.seek(end)
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
            if fresh:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: cannot be written: {error.strerror}; nothing was recorded"
            ) from error
        if end == self._offset:  # nobody else wrote in between
            self._offset = end + len(line)
            self._lines += 1

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise JournalCorrupt(f"{self.path}, line {number}: not a whole record: {line[:80]!r}")
        return record


def _whole_end(file: BinaryIO) -> int:
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


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
