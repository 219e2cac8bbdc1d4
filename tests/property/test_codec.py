"""What the codec promises of any series and of any text whatever."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lvray.core.errors import DataError
from lvray.series.codec import METHODS, Codec, Scale

values = st.floats(-1e6, 1e6) | st.sampled_from([0.0, -0.0, 0.005, -0.005, 9.995, np.nan])
series = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays.arrays(np.float64, shape, elements=values)
)
formats = st.sampled_from([{}, {"point": False}, {"trailing_zeros": False}])
codecs = st.tuples(
    st.integers(1, 4),
    st.sampled_from(sorted(METHODS)),
    st.sampled_from(["data", "series", "part"]),
    formats,
)


def fitted(history, arguments) -> Codec:
    """A codec of one system, which plays every part."""
    decimals, method, per, options = arguments
    others = {"validation": history[None], "test": history[None]}
    return Codec.fit(
        history[None], decimals=decimals, method=method, per=per, others=others, **options
    )


texts = st.text() | st.text(alphabet="0123456789.,;-", max_size=60) | st.text("0.1,;", max_size=60)


@given(series, codecs)
def test_a_round_trip_is_right_to_half_a_unit(history, arguments):
    decimals = arguments[0]
    codec = fitted(history, arguments)
    scale = codec.scale_of(history, part="test")
    text = codec.encode(history, scale)
    found = codec.decode(text, scale)
    half_unit = 0.5 * 10.0**-decimals * np.array(scale.scale)
    assert text.count(";") == len(history)
    assert found.shape == history.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(history))
    known = ~np.isnan(history)
    slack = 1e-12 * (np.abs(history) + np.abs(np.array(scale.offset)) + np.array(scale.scale))
    assert (np.abs(found - history) <= half_unit + slack)[known].all()


@given(series, st.integers(1, 4), formats)
def test_text_read_and_written_again_is_the_same_text(history, decimals, options):
    codec = Codec.fit(history[None], decimals=decimals, method="fixed", alpha=1, **options)
    scale = codec.scale_of(history)
    text = codec.encode(history, scale)
    assert codec.encode(codec.decode(text, scale), scale) == text
    assert set(text) <= set("0123456789.,;-")
    fields = text.replace(";", ",").split(",")
    assert not any(field.startswith("-") and float(field) == 0 for field in fields)


@given(series, st.integers(1, 4), st.sampled_from([{"point": False}, {"trailing_zeros": False}]))
def test_a_format_changes_how_a_number_looks_and_not_what_it_is(history, decimals, options):
    usual = Codec.fit(history[None], decimals=decimals, method="fixed", alpha=1)
    other = Codec.fit(history[None], decimals=decimals, method="fixed", alpha=1, **options)
    scale = usual.scale_of(history)
    np.testing.assert_array_equal(
        other.decode(other.encode(history, scale), scale),
        usual.decode(usual.encode(history, scale), scale),
    )


@given(texts, st.integers(1, 3), st.booleans(), formats)
def test_any_text_gives_numbers_and_never_an_exception(text, variables, missing, options):
    codec = Codec.fit(np.ones((1, 1, variables)), decimals=2, method="fixed", alpha=3, **options)
    scale = codec.scale_of(np.ones((1, variables)))
    found = codec.decode(text, scale, missing=missing)
    assert found.ndim == 2
    assert found.shape[1] == variables
    assert len(found) <= text.count(";")
    assert not np.isinf(found).any()
    if not missing:
        assert np.isfinite(found).all()


@given(series, st.text("0.1,;x", max_size=20), st.integers(0, 200))
def test_a_cut_text_keeps_its_whole_steps_and_what_follows_does_no_harm(history, tail, place):
    codec = Codec.fit(history[None], decimals=2, method="fixed", alpha=1)
    scale = codec.scale_of(history)
    text = codec.encode(history, scale)
    whole = codec.decode(text, scale)
    beginning = text[:place]
    np.testing.assert_array_equal(codec.decode(beginning, scale), whole[: beginning.count(";")])
    np.testing.assert_array_equal(codec.decode(text + tail, scale)[: len(whole)], whole)


@given(series, codecs)
def test_a_codec_is_the_same_after_json(history, arguments):
    codec = fitted(history, arguments)
    again = Codec.from_json(codec.to_json())
    assert again == codec
    assert again.scale_of(history, part="test") == codec.scale_of(history, part="test")


@given(
    arrays.arrays(np.float64, (3, 2), elements=st.floats(allow_nan=True, allow_infinity=True)),
    codecs,
)
@example(np.array([[5e307, 0.0], [0.0, 0.0], [0.0, 0.0]]), (2, "fixed", "data", {}))
def test_the_strangest_numbers_are_written_or_refused_in_words(history, arguments):
    try:
        codec = fitted(history, arguments)
        scale = codec.scale_of(history, part="test")
        text = codec.encode(history, scale)
    except DataError:
        return
    assert isinstance(scale, Scale)
    codec.decode(text, scale)


@pytest.mark.parametrize("variables", [1, 2, 5])
def test_the_number_of_characters_of_a_step_is_kept(variables):
    training = np.random.default_rng(1).uniform(0, 9.9, size=(2, 40, variables))
    codec = Codec.fit(training, decimals=2, method="fixed", alpha=1)
    assert codec.step_characters == 5 * variables
