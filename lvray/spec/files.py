"""How is a YAML file read, and how are its mistakes told, in the order of its lines?

What sweep files and cluster profiles have in common: text becomes a tree of values that know their lines, a
key that stands twice is a mistake, and each mistake is one line of `place: path: value: what is wrong`.
"""

from __future__ import annotations

import difflib
import pathlib
from collections.abc import Iterable, Sequence

from lvray.core.errors import SpecError
from lvray.spec import tree
from lvray.spec.mistakes import Mistake
from lvray.spec.tree import Node, Path, Scalar, Table

LARGEST_BYTES = 2**20
"""A sweep file or a profile is a page or two of text."""

MOST_NEAR = 5
"""Files that are named when the one asked for is not there."""


def read(file: pathlib.Path, *, kind: str, needs: str) -> tuple[Table, list[Mistake]]:
    """Gives a file's keys and values, and the keys that stand in it twice as mistakes.

    Args:
        file: a YAML file.
        kind: what messages call it, such as ``sweep file``.
        needs: what it has at least, for one that holds nothing.

    Raises:
        SpecError: the file cannot be read, or is no YAML, or holds no keys.
    """
    root, repeated = tree.read(_text(file, kind), source=str(file), kind=kind)
    if not isinstance(root, Table):
        wrong = "is empty" if root == Scalar(root.place, "") else "holds no keys"
        raise SpecError([f"{file}: {wrong}; a {kind} has at least {needs}"])
    return root, [_repetition(again) for again in repeated]


def told(mistakes: Iterable[Mistake], root: Table, overrides: Sequence[str] = ()) -> list[str]:
    """One line a mistake: those of the file in the order of its lines, then those of overrides in theirs."""
    sources = [source_of(override) for override in overrides]
    lines: dict[str, tuple[int, int]] = {}
    for mistake in mistakes:
        place = mistake.place or tree.place_of(root, mistake.path)
        path = _written(root, mistake.path)
        node = tree.find(root, path)
        value = tree.shorten(node.shown()) if mistake.value and node is not None else ""
        parts = (str(place), _named(root, path), value, mistake.wrong)
        order = (
            (0, place.line or 0)
            if place.source not in sources
            else (1, sources.index(place.source))
        )
        lines.setdefault(": ".join(part for part in parts if part), order)
    return sorted(lines, key=lines.__getitem__)


def source_of(override: str) -> str:
    """Gives what messages call an override."""
    return f"--set {override}"


def _written(root: Node, path: Path) -> Path:
    """The path as far as the file spells it out: ``policy``, where ``policy: halving`` is short for its name."""
    for length in range(len(path)):
        node = tree.find(root, path[:length])
        if isinstance(node, Scalar) and node.plain() is not None:
            return path[:length]
    return path


def _named(root: Node, path: Path) -> str:
    """A path for people: dots between keys, stages by their names, other list items by number from 1."""
    parts: list[str] = []
    for index, part in enumerate(path):
        if isinstance(part, str):
            parts.append(part)
            continue
        item = tree.find(root, path[: index + 1])
        name = name_of(item) if item is not None and index + 1 < len(path) else None
        if name:
            parts.append(name)
        else:
            parts[-1] += f"[{part + 1}]"
    return dotted(parts)


def dotted(path: Iterable[str | int]) -> str:
    """Gives a path as people write it."""
    return ".".join(str(part) for part in path)


def name_of(item: Node) -> str | None:
    """Gives the name that a table has among its keys; None without."""
    name = item.entries.get("name") if isinstance(item, Table) else None
    return name.text if isinstance(name, Scalar) else None


def _text(file: pathlib.Path, kind: str) -> str:
    try:
        if file.is_dir():
            raise SpecError([f"{file}: is a folder, not a {kind}{_near(file, file)}"])
        with file.open("rb") as handle:
            content = handle.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise SpecError([f"{file}: there is no such file{_near(file.parent, file)}"]) from None
    except OSError as error:
        raise SpecError([f"{file}: cannot be read: {error.strerror}"]) from error
    if len(content) > LARGEST_BYTES:
        raise SpecError([f"{file}: more than {LARGEST_BYTES} bytes; that is no {kind}"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError([f"{file}:{line}: not UTF-8 text; save it as UTF-8"]) from error


def _near(folder: pathlib.Path, wanted: pathlib.Path) -> str:
    """Names the YAML files of a folder, those that are called most alike first."""
    if not folder.is_dir():
        return f"; there is no folder {folder} either"
    names = sorted(file.name for file in folder.iterdir() if file.suffix in {".yaml", ".yml"})
    names.sort(key=lambda name: -difflib.SequenceMatcher(None, name, wanted.name).ratio())
    if not names:
        return f"; no YAML file is in {folder}"
    return f"; near it: {', '.join(str(folder / name) for name in names[:MOST_NEAR])}"


def _repetition(again: tree.Repeated) -> Mistake:
    wrong = f"stands twice, the first time in line {again.first.line}; leave one out"
    return Mistake(again.path, wrong, value=False, place=again.place)
