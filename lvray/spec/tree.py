"""What does YAML 1.2 text say, and where does it say it?

PyYAML follows YAML 1.1: it reads ``1e17`` and ``1e-4`` as text, ``no`` as false, ``0777`` as 511, and of
two equal keys it keeps the last without a word. So only its parser is used, which turns text into
events; values are made of them here by the core schema of YAML 1.2 (yaml.org/spec/1.2.2, 10.3.2), each
with the line it stands on. Tags, aliases and several documents in one file are refused: a sweep file
needs none of them, and they are what makes YAML dangerous.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import yaml

from lvray.core.errors import SpecError

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list positions from the root to a value."""

DEEPEST = 12
"""Levels of nesting; a sweep file needs six, a profile three."""

LONGEST_SHOWN = 40
"""Characters of a value that a message shows."""

NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
TRUE = re.compile(r"(?:true|True|TRUE)\Z")
FALSE = re.compile(r"(?:false|False|FALSE)\Z")
# More digits than 400 are no count of anything, and `int` refuses to read very long ones.
INT = re.compile(r"[-+]?[0-9]{1,400}\Z")
OCTAL = re.compile(r"0o[0-7]{1,400}\Z")
HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,400}\Z")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z")
NAN = re.compile(r"\.(?:nan|NaN|NAN)\Z")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a line of a file, or an override as it was typed."""

    source: str
    line: int | None = None
    """From 1; None for an override."""

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, and the text it was written as."""

    place: Place
    text: str
    quoted: bool = False

    def plain(self) -> object:
        """Gives the value by the core schema of YAML 1.2; quoted text stays text."""
        return self.text if self.quoted else resolve(self.text)

    def shown(self) -> str:
        """Gives the value as a message shows it."""
        return repr(self.text) if self.quoted else self.text or "null"


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of values."""

    place: Place
    items: tuple[Node, ...]

    def plain(self) -> list[object]:
        """Gives the list."""
        return [item.plain() for item in self.items]

    def shown(self) -> str:
        """Gives the list as a message shows it."""
        return f"[{', '.join(item.shown() for item in self.items)}]"


@dataclass(frozen=True, slots=True)
class Table:
    """Values by key, in the order of the file."""

    place: Place
    entries: Mapping[str, Node]
    keys: Mapping[str, Place]
    """Where each key stands."""

    def plain(self) -> dict[str, Any]:
        """Gives the mapping."""
        return {key: node.plain() for key, node in self.entries.items()}

    def shown(self) -> str:
        """Gives the mapping as a message shows it."""
        return f"{{{', '.join(f'{key}: {node.shown()}' for key, node in self.entries.items())}}}"

    def with_entry(self, key: str, node: Node, place: Place) -> Table:
        """Gives the table with one entry put in or replaced."""
        return Table(self.place, {**self.entries, key: node}, {**self.keys, key: place})


Node: TypeAlias = Scalar | Listing | Table


@dataclass(frozen=True, slots=True)
class Repeated:
    """A key that stands in its table a second time."""

    path: Path
    place: Place
    first: Place


def resolve(text: str) -> object:
    """Reads an unquoted scalar: null, a boolean, a number, or else the text itself."""
    if NULL.match(text):
        return None
    if TRUE.match(text) or FALSE.match(text):
        return bool(TRUE.match(text))
    if INT.match(text):
        return int(text)
    if OCTAL.match(text) or HEXADECIMAL.match(text):
        return int(text, base=0)
    if FLOAT.match(text):
        return float(text)
    if INFINITE.match(text) or NAN.match(text):
        return float(text.replace(".", "", 1))
    return text


def read(
    text: str, *, source: str, one_line: bool = False, kind: str = "sweep file"
) -> tuple[Node, tuple[Repeated, ...]]:
    """Reads YAML text; empty text is null. Of equal keys the first counts, the others are given beside.

    Args:
        text: the YAML.
        source: what messages call it.
        one_line: leaves line numbers out, for text that came from a command line.
        kind: what messages call a file of this kind.

    Raises:
        SpecError: it is no YAML, or uses what is refused here (see the module).
    """
    builder = _Builder(source, one_line=one_line, kind=kind)
    try:
        node = builder.document(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        wrong = " ".join(part for part in (error.context, error.problem) if part)
        raise SpecError([f"{builder.place(error.problem_mark)}: not YAML: {wrong}"]) from error
    except yaml.reader.ReaderError as error:
        line = None if one_line else text.count("\n", 0, error.position) + 1
        wrong = f"the character {chr(error.character)!r} may not stand there"
        raise SpecError([f"{Place(source, line)}: not YAML: {wrong}"]) from error
    return node, tuple(builder.repeated)


def find(node: Node, path: Path) -> Node | None:
    """Gives the node at `path`; None where there is none."""
    for part in path:
        if isinstance(node, Table) and part in node.entries:
            node = node.entries[str(part)]
        elif isinstance(node, Listing) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        else:
            return None
    return node


def place_of(node: Node, path: Path) -> Place:
    """Gives where the value at `path` stands: its key, its list item, or the nearest thing around it."""
    place = node.place
    for part in path:
        if isinstance(node, Table) and part in node.entries:
            place, node = node.keys[str(part)], node.entries[str(part)]
        elif isinstance(node, Listing) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            place = node.place
        else:
            break
    return place


def shorten(text: str) -> str:
    """Cuts what a message shows of a value to one line of `LONGEST_SHOWN` characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SHOWN else f"{line[: LONGEST_SHOWN - 1]}…"


class _Builder:
    """Makes nodes of the parser's events, one pass, depth first."""

    def __init__(self, source: str, *, one_line: bool, kind: str) -> None:
        self._source = source
        self._kind = kind
        self._one_line = one_line
        self.repeated: list[Repeated] = []

    def place(self, at: yaml.Event | yaml.Mark | None) -> Place:
        mark = at.start_mark if isinstance(at, yaml.Event) else at
        return Place(self._source, None if mark is None or self._one_line else mark.line + 1)

    def document(self, events: Iterator[yaml.Event]) -> Node:
        node: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if node is not None:
                    self._refuse(event, f"a second document begins here; a {self._kind} is one")
                node = self._node(next(events), events, ())
        return node if node is not None else Scalar(self.place(None), "")

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> Node:
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"*{event.anchor}: aliases are not read; write the value out")
        if len(path) > DEEPEST:
            self._refuse(event, f"nested deeper than {DEEPEST} levels; a {self._kind} needs six")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._refuse(event, f"{tag}: tags are not read; leave it out")
        place = self.place(event)
        if isinstance(event, yaml.MappingStartEvent):
            return self._table(place, events, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._listing(place, events, path)
        assert isinstance(event, yaml.ScalarEvent), f"{event} where a value begins"
        return Scalar(place, event.value, quoted=event.style is not None)

    def _listing(self, place: Place, events: Iterator[yaml.Event], path: Path) -> Listing:
        items: list[Node] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self._node(event, events, (*path, len(items))))
        return Listing(place, tuple(items))

    def _table(self, place: Place, events: Iterator[yaml.Event], path: Path) -> Table:
        entries: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self._refuse(event, "a key must be a word; quote it if it begins with a sign")
            key, at = event.value, self.place(event)
            node = self._node(next(events), events, (*path, key))
            if key in entries:
                self.repeated.append(Repeated((*path, key), at, keys[key]))
            else:
                entries[key], keys[key] = node, at
        return Table(place, entries, keys)

    def _refuse(self, event: yaml.Event, wrong: str) -> NoReturn:
        raise SpecError([f"{self.place(event)}: {wrong}"])
