"""How does a sweep file become a `Sweep`, and how are all its mistakes told at once?

Text and overrides become one tree of values that know their lines (`tree`), the tree is checked field by
field (`schema`) and across fields (`rules`), and whatever was found is told in the order of the file.
"""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from lvray.core.errors import SpecError
from lvray.spec import files, tree
from lvray.spec.mistakes import Mistake, explain, nearest
from lvray.spec.rules import check
from lvray.spec.schema import SHORTHANDS, Sweep
from lvray.spec.tree import Listing, Node, Path, Place, Scalar, Table


def load(path: str | pathlib.Path, *, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep file.

    Args:
        path: the file.
        overrides: ``path=value`` each, as in ``model=tiny``, ``stages.search.steps=100``, ``trial.lora.rank=4``;
            stages go by name, values are YAML.

    Raises:
        SpecError: the file cannot be read, or it or the overrides have mistakes: all of them, a line each.
    """
    file = pathlib.Path(path)
    root, found = files.read(file, kind="sweep file", needs="budget: and stages:")
    for override in overrides:
        root, mistakes = _overridden(root, override)
        found += mistakes
    if "name" not in root.entries:
        place = Place(str(file))
        root = root.with_entry("name", Scalar(place, file.stem, quoted=True), place)
    sweep, mistakes = _checked(_plain(root))
    found += mistakes
    if found or sweep is None:
        raise SpecError(files.told(found, root, overrides))
    return sweep


def dump(sweep: Sweep) -> str:
    """Gives the resolved sweep as YAML that `load` reads back to an equal one."""
    row = {**sweep.to_json(), "budget": sweep.budget}
    return yaml.dump(
        row, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )


def brought_up_to_date(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Gives a resolved sweep (`Sweep.to_json`) that an earlier version may have written, fields that are new at their defaults.

    One that this version cannot read is given as it is.
    """
    try:
        return Sweep.model_validate(row).to_json()
    except ValidationError:
        return row


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Tells how two resolved sweeps (`Sweep.to_json`) differ, a line a field: ``trial.batch_size: 4 → 8``."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return [
        f"{path}: {before.get(path, 'not there')} → {after.get(path, 'not there')}"
        for path in {**before, **after}
        if before.get(path) != after.get(path)
    ]


def _overridden(root: Table, override: str) -> tuple[Table, list[Mistake]]:
    """The tree with one override put in; as it was where the override is a mistake."""
    place = Place(files.source_of(override))
    target, equals, text = override.partition("=")
    keys = target.strip().split(".")
    if not equals or not all(keys):
        wrong = "must be path=value, such as trial.lora.rank=4"
        return root, [Mistake((), wrong, value=False, place=place)]
    value, repeated = tree.read(text, source=place.source, one_line=True)
    if repeated:
        wrong = f"{repeated[0].path[-1]} stands twice; leave one out"
        return root, [Mistake((), wrong, value=False, place=place)]
    try:
        grafted = _grafted(root, keys, value, place, ())
    except _NoSuchPlace as error:
        return root, [Mistake((), str(error), value=False, place=place)]
    assert isinstance(grafted, Table), "an override took the root away"
    return grafted, []


class _NoSuchPlace(Exception):
    """An override that leads nowhere; the message says where it went wrong."""


def _grafted(node: Node, keys: Sequence[str], value: Node, place: Place, path: Path) -> Node:
    """The node with `value` put in at `keys`; tables that are missing on the way are made."""
    if not keys:
        return value
    if isinstance(node, Listing):
        return _grafted_by_name(node, keys, value, place, path)
    if isinstance(node, Scalar):
        node = _as_table(node, place, path)
    first, rest = keys[0], keys[1:]
    if path and path[-1] == "space":  # its keys have dots of their own
        first, rest = ".".join(keys), ()
    below = node.entries.get(first, Scalar(place, ""))
    return node.with_entry(
        first,
        _grafted(below, rest, value, place, (*path, first)),
        node.keys.get(first, place) if rest else place,
    )


def _as_table(node: Scalar, place: Place, path: Path) -> Table:
    """What a single value stands for where keys are put into it: nothing yet, or a field in one word."""
    value = node.plain()
    if value is None or (isinstance(value, bool) and path == ("wandb",)):
        return Table(place, {}, {})
    if path and (key := SHORTHANDS.get(str(path[-1]))) is not None:
        return Table(node.place, {key: node}, {key: node.place})
    raise _NoSuchPlace(f"{files.dotted(path)} is {node.shown()}, one value without keys")


def _grafted_by_name(
    node: Listing, keys: Sequence[str], value: Node, place: Place, path: Path
) -> Node:
    names = [files.name_of(item) for item in node.items]
    if keys[0] not in names:
        known = [name for name in names if name is not None]
        raise _NoSuchPlace(f"{files.dotted(path)} has no {keys[0]!r}; {nearest(keys[0], known)}")
    index = names.index(keys[0])
    item = _grafted(node.items[index], keys[1:], value, place, (*path, index))
    return Listing(node.place, (*node.items[:index], item, *node.items[index + 1 :]))


def _plain(root: Table) -> dict[str, Any]:
    """The values of the tree; budgets as their text, because floats stop counting by ones above 2^53."""
    data = root.plain()
    ledger = root.entries.get("ledger")
    data |= _budget_as_text(root, data)
    if isinstance(ledger, Table):
        data["ledger"] |= _budget_as_text(ledger, data["ledger"])
    return data


def _budget_as_text(table: Table, values: Mapping[str, Any]) -> dict[str, str]:
    budget = table.entries.get("budget")
    if isinstance(budget, Scalar) and isinstance(values["budget"], float):
        return {"budget": budget.text}
    return {}


def _checked(data: Mapping[str, Any]) -> tuple[Sweep | None, list[Mistake]]:
    """The sweep, and the mistakes that its fields and rules find.

    Where fields are mistakes, rules are asked of the sweep without them, and what they say about those fields
    is left out.
    """
    try:
        sweep = Sweep.model_validate(data)
    except ValidationError as error:
        mistakes = explain(error, Sweep)
    else:
        return sweep, check(sweep)
    partial = _without_mistakes(data, [mistake.path for mistake in mistakes])
    for mistake in check(partial) if partial is not None else ():
        looked_at = (mistake.path, *mistake.about)
        if not any(_overlap(path, bad.path) for path in looked_at for bad in mistakes):
            mistakes.append(mistake)
    return None, mistakes


def _overlap(one: Path, other: Path) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _without_mistakes(data: Mapping[str, Any], paths: Iterable[Path]) -> Sweep | None:
    """The sweep with defaults in place of what is wrong; None where that makes no sweep either."""
    rest = copy.deepcopy(dict(data))
    for _ in range(
        3
    ):  # a field that goes may leave another without sense, such as a policy without its name
        for path in paths:
            _take_out(rest, path)
        try:
            return Sweep.model_validate(rest)
        except ValidationError as error:
            paths = [mistake.path for mistake in explain(error, Sweep)]
    return None


def _take_out(data: dict[str, Any], path: Path) -> None:
    """Takes the value at `path` out, or what is around it where it is missing; puts in what has to be there."""
    if path == ("budget",):
        data["budget"] = 1
        return
    if path[0] == "stages" and (len(path) < 3 or path[2:] == ("name",)):
        _put_stage(data, path)
        return
    tables = list(_tables_along(data, path))
    table, key = next((entry for entry in reversed(tables) if entry[1] in entry[0]), (data, ""))
    table.pop(key, None)


def _tables_along(data: dict[str, Any], path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Every table on the way to `path`, with the key that leads on."""
    node: Any = data
    for part in path:
        if isinstance(node, dict) and isinstance(part, str):
            yield node, part
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int):
            node = node[part]
        else:
            return


def _put_stage(data: dict[str, Any], path: Path) -> None:
    """Stands a nameless stage in for one that cannot be read."""
    if len(path) == 1:
        data["stages"] = [{"name": "stage", "zero_shot": True}]
        return
    index = int(path[1])
    if len(path) == 2:
        data["stages"][index] = {"name": f"stage-{index}", "zero_shot": True}
    else:
        data["stages"][index]["name"] = f"stage-{index}"


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every field of a resolved sweep by its dotted path, its value as text; stages by name."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        names = [str(item.get("name", index)) for index, item in enumerate(value)]
        yield path, f"[{', '.join(names)}]"
        for name, item in zip(names, value, strict=True):
            yield from _leaves(item, f"{path}.{name}")
    else:
        yield (
            path,
            yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10**6)
            .split("\n...")[0]
            .strip(),
        )


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would not read as text, and nothing else."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, Any]]] = {}  # noqa: RUF012 -- PyYAML's own table, of its base class


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds line breaks in other styles, and some of them do not come back.
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    )


_Dumper.add_representer(str, _represent_text)
for _tag, _patterns in {
    "null": (tree.NULL,),
    "bool": (tree.TRUE, tree.FALSE),
    "int": (tree.INT, tree.OCTAL, tree.HEXADECIMAL),
    "float": (tree.FLOAT, tree.INFINITE, tree.NAN),
}.items():
    for _pattern in _patterns:
        _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, None)
