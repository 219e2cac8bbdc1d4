"""What is wrong with a sweep file, where, and what would have been right?

pydantic finds what one field can tell, `rules` the rest; both end as a `Mistake`, which becomes one line:

    sweeps/x.yaml:12: stages.search.trial.learning_rate: -1: must be above 0 and at most 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from lvray.spec.tree import Path, Place

TAGGED: Mapping[str, str] = {"scaling": "method"}
"""Fields that are one of several models, and the key that says which. pydantic names the model in a
mistake's location right behind the field."""

EXPECTED: Mapping[str, str] = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text; quote it if it looks like a number, true, false or null",
    "string_too_short": "must not be empty",
    "tuple_type": "must be a list, such as [2, 4, 8]",
    "dict_type": "must be keys with values, such as {lora.rank: [2, 4]}",
    "mapping_type": "must be keys with values, such as {lora.rank: [2, 4]}",
}
"""What pydantic's types of mistake that need no more than a word mean to a person."""


NEAR = 0.7
"""How alike two words must be, from 0 to 1, for the one to be meant by the other: ``gpu`` is not ``cpu``."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong with a sweep file."""

    path: Path
    wrong: str
    """What is wrong and what would have been right; it follows the path and the value."""
    about: tuple[Path, ...] = ()
    """Further fields that it was drawn from; it is not told when one of them is a mistake itself."""
    value: bool = True
    """Whether the value is shown."""
    place: Place | None = None
    """Where it stands, if not where the path leads."""


def nearest(word: object, known: Iterable[str]) -> str:
    """Gives ``did you mean x?`` where a known word is near, else ``it is one of …``."""
    return _meant(word, known) or _one_of(known)


def _meant(word: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(word).lower(), sorted(set(known)), n=1, cutoff=NEAR)
    return f"did you mean {near[0]}?" if near else ""


def _one_of(known: Iterable[str]) -> str:
    return f"it is one of {', '.join(sorted(set(known)))}"


def _unknown_word(word: object, known: Sequence[str]) -> str:
    """Like `nearest`, and all choices beside: a word that is near may still mean something else."""
    return " ".join(part for part in ("unknown;", _meant(word, known), _one_of(known)) if part)


def unknown_key(path: Path, known: Iterable[str]) -> Mistake:
    """A key that does not exist, and the one that may have been meant."""
    first, dot, rest = str(path[-1]).partition(".")
    if dot and first in known:
        wrong = f"keys have dots in space only; write it nested, as {first}: {{{rest}: …}}"
        return Mistake(path, wrong, value=False)
    return Mistake(path, f"unknown key; {nearest(path[-1], known)}", value=False)


def explain(error: ValidationError, root: type[BaseModel], *, at: Path = ()) -> list[Mistake]:
    """Turns what pydantic found in a `root` that stands at path `at` into mistakes."""
    return [
        _explain(detail["type"], (*at, *_untagged(detail["loc"])), detail, root)
        for detail in error.errors(include_url=False)
    ]


def _explain(kind: str, path: Path, detail: Mapping[str, Any], root: type[BaseModel]) -> Mistake:
    loc, context = detail["loc"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(path, _keys(_model_at(root, loc[:-1])))
    if kind == "missing":
        return Mistake(path, "missing; give it a value", value=False)
    if kind in {"model_type", "model_attributes_type"}:
        if loc and loc[-1] in TAGGED:
            choices = ", ".join(_tags(_type_at(root, loc)))
            return Mistake(path, f"must be one of {choices}, or keys with values")
        return Mistake(path, f"must be keys with values: {', '.join(_keys(_model_at(root, loc)))}")
    if kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
        field = _field_at(root, loc)
        return Mistake(path, f"must be {_range(field, context)}")
    if kind == "literal_error":
        return Mistake(path, _unknown_word(detail["input"], _choices(_type_at(root, loc))))
    if kind == "union_tag_invalid":
        key, word = TAGGED[str(loc[-1])], context["tag"]
        return Mistake((*path, key), _unknown_word(word, _tags(_type_at(root, loc))))
    if kind == "union_tag_not_found":
        key = TAGGED[str(loc[-1])]
        tags = ", ".join(sorted(_tags(_type_at(root, loc))))
        return Mistake((*path, key), f"missing; it is one of {tags}", value=False)
    if kind == "value_error":
        wrong = str(context["error"])
        return Mistake(path, wrong, value=not wrong.startswith(repr(detail["input"])))
    value = detail["input"]
    if kind == "int_type" and isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return Mistake(path, f"{EXPECTED[kind]}; write {int(value)}")
    return Mistake(path, EXPECTED.get(kind, detail["msg"]))


def _untagged(loc: Sequence[str | int]) -> Path:
    """The path in the file: pydantic's location without the tags of unions."""
    return tuple(
        part for index, part in enumerate(loc) if index == 0 or loc[index - 1] not in TAGGED
    )


def _model_at(root: object, loc: Sequence[str | int]) -> type[BaseModel]:
    model = _type_at(root, loc)
    assert isinstance(model, type), f"no model at {loc}: {model}"
    assert issubclass(model, BaseModel), f"no model at {loc}: {model}"
    return model


def _type_at(root: object, loc: Sequence[str | int]) -> object:
    """The type that pydantic expected at `loc`: a model, a union of models, a Literal."""
    kind = root
    for part in loc:
        kind = _below(_unwrapped(kind), part)
    return _unwrapped(kind)


def _below(kind: object, part: str | int) -> object:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _field(kind, part).annotation
    if get_origin(kind) in {Union, UnionType}:  # `part` is the tag of one of its models
        return next(model for model in get_args(kind) if part in _tags(model))
    arguments = get_args(kind)
    return arguments[0] if isinstance(part, int) else arguments[-1]  # of a tuple, or a mapping


def _unwrapped(kind: object) -> object:
    """A type without ``Annotated`` around it and without ``| None`` beside it."""
    if hasattr(kind, "__metadata__"):
        return _unwrapped(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        others = [_unwrapped(member) for member in get_args(kind) if member is not type(None)]
        return others[0] if len(others) == 1 else kind
    return kind


def _field_at(root: type[BaseModel], loc: Sequence[str | int]) -> FieldInfo:
    return _field(_model_at(root, loc[:-1]), loc[-1])


def _field(model: type[BaseModel], key: str | int) -> FieldInfo:
    return next(field for name, field in model.model_fields.items() if key in {name, field.alias})


def _keys(model: type[BaseModel]) -> list[str]:
    """The keys of a model, as a file spells them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _tags(kind: object) -> list[str]:
    """The words that choose one of a union's models."""
    models = get_args(kind) or (kind,)
    return [
        model.model_fields[key].default
        for model in models
        for key in ("method", "name")
        if key in model.model_fields
    ]


def _choices(kind: object) -> tuple[str, ...]:
    assert get_origin(kind) is Literal, f"{kind} has no choices"
    return get_args(kind)


def _range(field: FieldInfo, context: Mapping[str, Any]) -> str:
    """The whole range of a field in words; only the end that was passed where the field does not tell."""
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    bounds = {
        name: getattr(bound, name)
        for bound in (*field.metadata, *_metadata(field.annotation))
        for name in words
        if hasattr(bound, name)
    } or context
    if bounds.keys() == {"ge", "le"}:
        return f"from {bounds['ge']} to {bounds['le']}"
    return " and ".join(f"{words[name]} {limit}" for name, limit in bounds.items())


def _metadata(kind: object) -> Iterator[object]:
    """What ``Annotated`` adds to a type or, where None may stand beside it, to its members."""
    for extra in getattr(kind, "__metadata__", ()):
        yield from extra.metadata if isinstance(extra, FieldInfo) else (extra,)
    if get_origin(kind) in {Union, UnionType}:
        for member in get_args(kind):
            yield from _metadata(member)
