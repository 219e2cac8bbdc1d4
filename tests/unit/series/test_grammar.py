"""The grammar of numeric text: all that the codec writes, and nothing that it cannot read."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lvray.series.codec import Codec
from lvray.series.grammar import ALPHABET, Grammar

MOST = 999.0
"""Three digits before the point: what every number here may have."""

FORMATS = ({}, {"point": False}, {"trailing_zeros": False})


def codec_of(variables, decimals, options):
    training = np.full((1, 2, variables), -MOST)
    return Codec.fit(training, decimals=decimals, method="fixed", alpha=1, **options)


CODECS = st.builds(codec_of, st.integers(1, 4), st.integers(1, 4), st.sampled_from(FORMATS))


def choices(length):
    return st.binary(min_size=length, max_size=length)


def walk(grammar, choices, horizon):
    """Writes `horizon` steps, choosing among the allowed characters as `choices` says."""
    place, text = grammar.start, ""
    for choice in choices:
        allowed = grammar.allowed(place)
        character = allowed[choice % len(allowed)]
        place, text = grammar.after(place, character), text + character
        if text.count(";") == horizon:
            break
    return text


def accepts(grammar, text):
    place = grammar.start
    for character in text:
        if character not in grammar.allowed(place):
            return False
        place = grammar.after(place, character)
    return place == grammar.start


@st.composite
def written(draw):
    """A codec and a series whose values have at most three digits before the point, rounded ones included."""
    codec = draw(CODECS)
    numbers = st.floats(-MOST, MOST) | st.sampled_from(
        [0.0, -0.0, 0.05, -0.004, 0.4, 1.0, -10.0, 100.5, MOST]
    )
    shape = (draw(st.integers(1, 6)), codec.variables)
    return codec, draw(arrays.arrays(np.float64, shape, elements=numbers))


@given(written())
def test_every_text_of_the_codec_is_accepted(made):
    codec, series = made
    text = codec.encode(series, codec.scale_of(series))
    assert accepts(Grammar.of(codec), text), text


@given(CODECS, choices(200))
def test_every_walk_decodes_to_the_steps_that_it_closed(codec, choices):
    grammar = Grammar.of(codec)
    text = walk(grammar, choices, horizon=4)
    scale = codec.scale_of(np.ones((1, codec.variables)))
    decoded = codec.decode(text, scale, missing=False)
    assert text.count(";") == 4, (
        "4 steps of 4 numbers take at most 4 × 4 × (1 + 3 + 1 + 4 + 1) characters"
    )
    assert decoded.shape == (4, codec.variables)
    unit = 1.0 if codec.point else 10.0**-codec.decimals
    expected = [
        [float(number) * unit for number in step.split(",")] for step in text.split(";")[:-1]
    ]
    np.testing.assert_allclose(decoded, expected, rtol=1e-12)


@given(CODECS, choices(200))
def test_a_walk_is_what_the_codec_would_write_of_its_numbers(codec, choices):
    text = walk(Grammar.of(codec), choices, horizon=4)
    scale = codec.scale_of(np.ones((1, codec.variables)))
    again = codec.encode(codec.decode(text, scale), scale)
    # The one liberty of the grammar: a zero with decimals may have a sign.
    assert again == re.sub(r"-(0\.0+)(?=[,;])", r"\1", text)


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ({}, r"-?(0|[1-9]\d{0,2})\.\d{3}"),
        ({"point": False}, r"(0|-?[1-9]\d{0,5})"),
        ({"trailing_zeros": False}, r"-?(0|[1-9]\d{0,2})\.(\d|\d{1,2}[1-9])"),
    ],
)
@given(choices=choices(300))
def test_numbers_have_this_form(options, number, choices):
    text = walk(Grammar.of(codec_of(2, 3, options)), choices, horizon=5)
    assert re.fullmatch(f"({number},{number};)*", text)


@pytest.mark.parametrize(
    ("options", "good", "bad"),
    [
        ({}, ("0.00", "-0.05", "999.99"), ("00.00", "0.0", "1000.00", ".50", "5", "+1.00", "")),
        ({"point": False}, ("0", "5", "-5", "99999"), ("05", "-0", "100000", "5.0", "-", "")),
        (
            {"trailing_zeros": False},
            ("0.0", "0.4", "1.0", "0.05", "-12.34"),
            ("0.40", "0.00", "1", "1.", "0.055", ""),
        ),
    ],
)
def test_these_numbers_are_in_and_those_are_not(options, good, bad):
    grammar = Grammar.of(codec_of(1, 2, options))
    assert [number for number in good if not accepts(grammar, f"{number};")] == []
    assert [number for number in bad if accepts(grammar, f"{number};")] == []


@given(CODECS, choices(60))
def test_the_tables_walk_as_the_automaton_does(codec, choices):
    grammar = Grammar.of(codec)
    allowed, following = grammar.tables()
    place, number = grammar.start, 0
    for choice in choices:
        characters = grammar.allowed(place)
        assert {ALPHABET[c] for c in np.flatnonzero(allowed[number])} == set(characters)
        character = characters[choice % len(characters)]
        place = grammar.after(place, character)
        number = following[number, ALPHABET.index(character)]
    assert allowed.any(axis=1).all(), "no place is a dead end"
    assert len(allowed) <= 20 * codec.variables


@pytest.mark.parametrize(
    ("training", "good", "bad"),
    [
        ([0.2, 1.3], ("0.00", "9.99"), ("10.00", "-0.10")),
        ([0.2, 9.996], ("10.00", "99.99"), ("100.00",)),  # it is written 10.00
        ([0.2, 9.9], ("9.99",), ("10.00",)),
        ([-0.004, 1.3], ("1.30",), ("-1.30",)),  # it is written 0.00
        ([-0.006, 1.3], ("-1.30",), ("10.00",)),
        ([0.0, np.nan], ("5.00",), ("10.00", "-5.00")),
    ],
)
def test_no_forecast_has_more_digits_or_another_sign_than_the_training_systems(training, good, bad):
    codec = Codec.fit(np.array([training])[:, :, None], decimals=2, method="fixed", alpha=1)
    grammar = Grammar.of(codec)
    assert [number for number in good if not accepts(grammar, f"{number};")] == []
    assert [number for number in bad if accepts(grammar, f"{number};")] == []


@pytest.mark.parametrize(
    ("method", "to"), [("max", 1.0), ("max", 9.0), ("percentile", 4.0), ("offset-quantile", 5.0)]
)
def test_a_series_scaled_by_its_own_history_may_grow_to_four_times_its_size(method, to):
    """Training series are scaled by all that they are, and never leave their scale; a forecast goes on."""
    wave = 2 + np.sin(np.arange(40.0))[None, :, None]
    codec = Codec.fit(wave, decimals=2, method=method, per="series", to=to)
    history = wave[0]
    ahead = codec.encode(3.9 * history.max(keepdims=True), codec.scale_of(history))
    assert accepts(Grammar.of(codec), ahead)
    shared = Codec.fit(wave, decimals=2, method="max", to=9.0)
    assert not accepts(Grammar.of(shared), shared.encode([[3.9 * 3]], shared.scale))
