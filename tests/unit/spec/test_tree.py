"""YAML 1.2, with lines, and without what is dangerous."""

import math

import pytest

from lvray.core.errors import SpecError
from lvray.spec.tree import Place, find, place_of, read, shorten


def plain(text):
    return read(text, source="x.yaml")[0].plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e17", 1e17),
        ("1.0e17", 1e17),
        ("1e-4", 1e-4),
        ("1E+3", 1e3),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("0777", 777),
        ("0o17", 15),
        ("0x1F", 31),
        ("+12", 12),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("-.inf", -math.inf),
    ],
)
def test_numbers_booleans_and_null_are_those_of_yaml_1_2(text, value):
    read_value = plain(f"x: {text}")["x"]
    assert (read_value, type(read_value)) == (value, type(value))


def test_nan_is_a_number():
    assert math.isnan(plain("x: .nan")["x"])


@pytest.mark.parametrize(
    "text", ["no", "yes", "on", "off", "n", "1_000", "12:30", "2024-01-01", "1e", "0b11", "e5", "."]
)
def test_what_yaml_1_1_turns_into_something_else_stays_text(text):
    assert plain("x: " + "9" * 5000) == {
        "x": math.inf
    }  # no count of anything, and `int` refuses it


def test_every_value_knows_its_line():
    tree, _ = read("a: 1\nb:\n  c: [1,\n    2]\n  d:\n    - 3\n", source="x.yaml")

    assert str(place_of(tree, ("a",))) == "x.yaml:1"
    assert str(place_of(tree, ("b", "c", 1))) == "x.yaml:4"
    assert str(place_of(tree, ("b", "d"))) == "x.yaml:5"
    assert str(place_of(tree, ("b", "d", 0))) == "x.yaml:6"


def test_what_is_missing_stands_where_it_would_have_stood():
    tree, _ = read("a: 1\nb:\n  c: 2\n", source="x.yaml")

    assert place_of(tree, ("b", "nowhere", "deeper")) == Place("x.yaml", 2)
    assert find(tree, ("b", "nowhere")) is None
    assert find(tree, ("a", "nowhere")) is None


def test_of_equal_keys_the_first_counts_and_the_others_are_told():
    tree, repeated = read("a: 1\nb: {a: 2, a: 3}\na: 4\n", source="x.yaml")

    assert tree.plain() == {"a": 1, "b": {"a": 2}}
    assert [(again.path, again.place.line, again.first.line) for again in repeated] == [
        (("b", "a"), 2, 2),
        (("a",), 3, 1),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "x.yaml:1: not YAML: "),
        ("a: 1\n\tb: 2", "x.yaml:2: not YAML: "),
        ("a: 1\nb: \x01", "x.yaml:2: not YAML: the character '\\x01'"),
        ("a: &x 1\nb: *x", "x.yaml:2: *x: aliases are not read"),
        ("a: &a [*a]", "x.yaml:1: *a: aliases are not read"),
        ("a: !!python/object/apply:os.system [ls]", "x.yaml:1: tag:yaml.org,2002:python"),
        ("? [a]\n: 1", "x.yaml:1: a key must be a word"),
        ("a: 1\n---\nb: 2", "x.yaml:2: a second document"),
        ("[" * 500_000, "x.yaml:1: nested deeper than 12 levels"),
        ("- " * 100_000, "x.yaml:1: nested deeper than 12 levels"),
    ],
)
def test_what_is_no_yaml_or_dangerous_is_refused_with_its_line(text, message):
    with pytest.raises(SpecError) as told:
        read(text, source="x.yaml")
    assert str(told.value).startswith(message)


def test_a_long_value_is_shown_in_one_short_line():
    assert shorten("a\n  b") == "a b"
    assert shorten("x" * 100) == "x" * 39 + "…"
