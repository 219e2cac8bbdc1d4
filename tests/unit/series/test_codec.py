"""The text of a series: what it looks like, and the numbers that the earlier systems scaled with."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lvray.core.errors import DataError
from lvray.series.codec import PARTS, Codec, Scale


def plain(variables: int = 2, decimals: int = 2, **options: bool) -> Codec:
    """A codec that leaves the values as they are."""
    training = np.ones((1, 2, variables))
    return Codec.fit(training, decimals=decimals, method="fixed", alpha=1, **options)


def text(codec: Codec, series: object) -> str:
    return codec.encode(np.array(series), codec.scale_of(np.array(series)))


# Text


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([[0.95, 1.04], [0.7405, 0.7795]], "0.95,1.04;0.74,0.78;"),
        ([[-1.5, 0.0]], "-1.50,0.00;"),
        ([[-0.001, 0.001]], "0.00,0.00;"),
        ([[12.345, 1234.5]], "12.35,1234.50;"),
        ([[np.nan, 1.0], [2.0, np.nan], [np.nan, np.nan]], ",1.00;2.00,;,;"),
        (np.zeros((0, 2)), ""),
    ],
)
def test_series_look_like_this(series, expected):
    assert text(plain(), series) == expected


@pytest.mark.parametrize(
    ("decimals", "expected"), [(1, "1.2;"), (2, "1.23;"), (3, "1.235;"), (4, "1.2346;")]
)
def test_decimals_are_fixed_and_rounded(decimals, expected):
    assert text(plain(1, decimals), [[1.23456]]) == expected


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [
        (0.71, 2, "71"),
        (12.5, 2, "1250"),
        (0.05, 2, "5"),
        (0.0, 2, "0"),
        (-0.001, 2, "0"),
        (-0.05, 2, "-5"),
        (-12.5, 2, "-1250"),
        (100.0, 1, "1000"),
        (0.0004, 4, "4"),
        (np.nan, 2, ""),
    ],
)
def test_without_the_point_numbers_count_units_of_the_last_decimal(value, decimals, expected):
    codec = plain(1, decimals, point=False)
    assert text(codec, [[value]]) == f"{expected};"
    read = codec.decode(f"{expected};", codec.scale_of([[value]]))
    np.testing.assert_array_equal(read, [[np.round(value, decimals)]])


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [
        (0.46, 3, "0.46"),
        (0.4, 3, "0.4"),
        (1.0, 3, "1.0"),
        (0.0, 3, "0.0"),
        (-0.0001, 3, "0.0"),
        (10.0, 3, "10.0"),
        (-0.05, 3, "-0.05"),
        (1.005, 2, "1.0"),
        (0.5, 1, "0.5"),
        (7.0, 1, "7.0"),
        (np.nan, 3, ""),
    ],
)
def test_without_trailing_zeros_numbers_look_as_python_prints_them(value, decimals, expected):
    codec = plain(1, decimals, trailing_zeros=False)
    assert text(codec, [[value]]) == f"{expected};"
    read = codec.decode(f"{expected};", codec.scale_of([[value]]))
    np.testing.assert_array_equal(read, [[float(expected or "nan")]])


@pytest.mark.parametrize(
    ("broken", "steps"),
    [
        ("95,104;74,78;", 2),
        ("95,104;74,78", 1),
        ("95,104;0.74,78;", 1),
        ("95,104;74,7-8;", 1),
        ("95,104;--74,78;", 1),
        ("95,104;٧٤,78;", 1),
        ("95,104;" + "9" * 400 + ",1;", 1),
        ("095,0104;74,78;", 2),
    ],
)
def test_without_the_point_the_longest_valid_beginning_is_read_too(broken, steps):
    codec = plain(point=False)
    assert codec.scale is not None
    np.testing.assert_array_equal(
        codec.decode(broken, codec.scale), np.array([[0.95, 1.04], [0.74, 0.78]])[:steps]
    )


@pytest.mark.parametrize(
    ("broken", "steps"),
    [
        ("0.95,1.04;0.74,0.78;", 2),
        ("0.95,1.04;0.74,0.78", 1),
        ("0.95,1.04;0.74;0.50,0.50;", 1),
        ("0.95,1.04;1,2,3;", 1),
        ("0.95,1.04;0.7.4,1.00;", 1),
        ("0.95,1.04;0.74,0.78x;0.50,0.50;", 1),
        ("0.95,1.04; 0.74,0.78;", 1),
        ("0.95,1.04;1e5,1.00;", 1),
        ("0.95,1.04;nan,inf;", 1),
        ("0.95,1.04;--1,+1;", 1),
        ("0.95,1.04;٣.٥٠,1.00;", 1),
        ("0.95,1.04;.50,1.;", 1),
        ("0.95,1.04;" + "9" * 400 + ",1;", 1),
        ("", 0),
        (";", 0),
        ("x", 0),
    ],
)
def test_the_longest_valid_beginning_is_read(broken, steps):
    codec = plain()
    assert codec.scale is not None
    np.testing.assert_array_equal(
        codec.decode(broken, codec.scale), np.array([[0.95, 1.04], [0.74, 0.78]])[:steps]
    )


def test_an_empty_field_is_a_missing_value_unless_none_may_be():
    codec = plain()
    assert codec.scale is not None
    np.testing.assert_array_equal(
        codec.decode("1.00,2.00;,3.00;,;", codec.scale), [[1, 2], [np.nan, 3], [np.nan] * 2]
    )
    found = codec.decode("1.00,2.00;,3.00;4.00,4.00;", codec.scale, missing=False)
    np.testing.assert_array_equal(found, [[1, 2]])


def test_numbers_with_other_decimals_are_read_too():
    codec = plain()
    assert codec.scale is not None
    assert codec.decode("1,2.5;007.125,-3;", codec.scale).tolist() == [[1, 2.5], [7.125, -3]]


def test_what_is_infinite_over_its_scale_is_refused():
    codec = plain(1)
    with pytest.raises(DataError, match="inf at step 1, variable 0"):
        codec.encode([[1.0], [np.inf]], Scale((0.0,), (1.0,)))
    with pytest.raises(DataError, match="cannot be written as text"):
        codec.encode([[1e300]], Scale((0.0,), (1e-300,)))


# Scaling

TRAINING = np.array([[[0.0, 1.0], [2.0, 3.0], [4.0, 20.0]]])


@pytest.mark.parametrize(
    ("method", "parameters", "scale"),
    [
        ("fixed", {"alpha": 5}, 5.0),
        ("max", {}, 20 / 9.9),
        ("max", {"to": 1}, 20.0),
        ("percentile", {"percentile": 50, "to": 10}, 0.25),
    ],
)
def test_data_scalings_share_one_scale(method, parameters, scale):
    codec = Codec.fit(TRAINING, decimals=2, method=method, **parameters)
    assert codec.scale == Scale((0.0, 0.0), (pytest.approx(scale),) * 2)
    assert codec.scale_of(TRAINING[0] * 7) == codec.scale


def test_negative_values_count_by_their_size():
    assert Codec.fit(-TRAINING, decimals=2, method="max", to=10).scale == Scale((0, 0), (2, 2))


def test_series_scalings_see_their_history_alone():
    codec = Codec.fit(TRAINING, decimals=2, method="max", per="series", to=10)
    assert codec.scale is None
    assert codec.scale_of([[5.0, 0.0], [1.0, 2.0]]) == Scale((0, 0), (0.5, 0.5))


def test_offset_quantile_takes_every_variable_apart():
    codec = Codec.fit(TRAINING, decimals=3, method="offset-quantile", offset=0.5, quantile=1.0)
    assert codec.per == "series"
    assert codec.scale_of(TRAINING[0]) == Scale((-2.0, -8.5), (6.0, 28.5))


@pytest.mark.parametrize("to", [1.0, 7.0])
def test_offset_quantile_is_what_its_formula_says(to):
    history = np.random.default_rng(5).normal(size=(80, 2))
    codec = Codec.fit(history[None], decimals=3, method="offset-quantile", to=to)
    scale = codec.scale_of(history)
    for variable, x in enumerate(history.T):
        offset = x.min() - 0.3 * (x.max() - x.min())
        assert scale.offset[variable] == pytest.approx(offset)
        assert scale.scale[variable] == pytest.approx(np.quantile(x - offset, 0.99) / to)


@pytest.mark.parametrize("method", ["max", "percentile", "offset-quantile"])
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, np.nan])
def test_constant_series_are_written_and_read_like_others(method, value):
    history = np.full((4, 2), value)
    codec = Codec.fit(history[None], decimals=2, method=method, per="series")
    scale = codec.scale_of(history)
    assert all(size > 0 for size in scale.scale)
    np.testing.assert_allclose(
        codec.decode(codec.encode(history, scale), scale), history, atol=0.01
    )


@pytest.mark.parametrize("method", ["max", "percentile", "offset-quantile"])
def test_missing_values_do_not_move_the_scale(method):
    history = np.random.default_rng(2).normal(size=(30, 2))
    holed = np.insert(history, 7, np.nan, axis=0)
    codec = Codec.fit(history[None], decimals=2, method=method, per="series")
    assert codec.scale_of(holed) == codec.scale_of(history)


def test_a_series_wider_than_floating_point_is_refused():
    with pytest.raises(DataError, match="spans more than"):
        Codec.fit([[[-1.7e308], [1.7e308]]], decimals=2, method="offset-quantile")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "median"}, "'median': it is one of fixed, max, percentile, offset-quantile"),
        ({"method": "max", "alpha": 3}, "no parameter 'alpha', only to"),
        ({"method": "fixed", "alpha": 0}, "alpha is 0, it must be above 0"),
        ({"method": "fixed", "alpha": np.nan}, "alpha is nan"),
        ({"method": "percentile", "percentile": 101}, "above 0 and at most 100"),
        ({"method": "offset-quantile", "quantile": 1.5}, "at most 1"),
        ({"method": "max", "decimals": 0}, "0 decimals: series are written with 1 to 4"),
        ({"method": "max", "decimals": 5}, "5 decimals"),
        ({"method": "max", "per": "variable"}, "'data', 'part' or 'series'"),
        ({"method": "max", "per": "part"}, "fitted to the validation systems too"),
        (
            {"method": "max", "per": "part", "others": {"validation": TRAINING}},
            "fitted to the test systems too",
        ),
        ({"method": "max", "point": False, "trailing_zeros": False}, "without a point have all"),
    ],
)
def test_scalings_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        Codec.fit(TRAINING, **{"decimals": 2, **arguments})


@pytest.mark.parametrize("shape", [(3, 2), (0, 3, 2)])
def test_a_scaling_needs_series_to_be_fitted_to(shape):
    with pytest.raises(DataError, match="fitted to"):
        Codec.fit(np.ones(shape), decimals=2, method="max")


def test_every_part_has_a_scale_of_its_own():
    codec = Codec.fit(
        TRAINING,
        decimals=2,
        method="max",
        per="part",
        to=10,
        others={"validation": TRAINING * 2, "test": TRAINING[:, :2]},
    )
    assert codec.scale is None
    found = {part: codec.scale_of(TRAINING[0], part=part).scale for part in PARTS}
    assert found == {"train": (2.0, 2.0), "validation": (4.0, 4.0), "test": (0.3, 0.3)}
    with pytest.raises(AssertionError, match="one of"):
        codec.scale_of(TRAINING[0])


def test_a_part_whose_largest_value_is_below_the_limit_stays_as_it_is():
    others = {"validation": TRAINING / 2, "test": TRAINING}
    codec = Codec.fit(TRAINING, decimals=2, method="max", per="part", above=15.0, others=others)
    assert codec.scale_of(TRAINING[0], part="validation").scale == (1.0, 1.0)
    assert codec.scale_of(TRAINING[0], part="test").scale == pytest.approx((20 / 9.9,) * 2)


def test_only_a_scaling_per_part_looks_at_other_systems():
    others = {"validation": TRAINING * 2, "test": TRAINING * 3}
    for per in ("data", "series"):
        plainly = Codec.fit(TRAINING, decimals=2, method="max", per=per)
        assert Codec.fit(TRAINING, decimals=2, method="max", per=per, others=others) == plainly


# Steps, floors, JSON


@pytest.mark.parametrize(("decimals", "characters"), [(1, 8), (2, 10), (3, 12), (4, 14)])
def test_two_variables_below_ten_take_this_many_characters(decimals, characters):
    training = np.random.default_rng(0).uniform(0, 9.9, size=(3, 50, 2))
    codec = Codec.fit(training, decimals=decimals, method="fixed", alpha=1)
    assert codec.step_characters == characters
    assert len(text(codec, training[0])) == 50 * characters


@pytest.mark.parametrize("decimals", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "options", [{}, {"point": False}, {"trailing_zeros": False}], ids=["point", "units", "short"]
)
def test_a_usual_step_is_as_long_as_the_texts_say(decimals, options):
    training = np.random.default_rng(3).normal(0, 3, size=(3, 400, 2))
    training[:, ::7, 0] = np.nan
    training[:, ::5, 1] = np.round(training[:, ::5, 1])
    training[0, 0, 0] = 0.0
    codec = Codec.fit(training, decimals=decimals, method="fixed", alpha=1, **options)
    steps = ";".join(text(codec, series) for series in training).split(";")
    lengths = np.array([len(step) + 1 for step in steps if step])
    assert len(lengths) == 1200
    assert codec.step_characters == np.quantile(lengths, 0.95, method="inverted_cdf")


@pytest.mark.parametrize("value", [0.0, 0.4, 0.46, 0.05, 1.0, 20.0])
def test_a_usual_step_without_trailing_zeros_is_counted_without_them(value):
    training = np.full((1, 20, 1), value)
    codec = Codec.fit(training, decimals=3, method="fixed", alpha=1, trailing_zeros=False)
    assert codec.step_characters == len(f"{value};")


def test_a_usual_step_counts_signs_and_digits_but_not_the_rare_outlier():
    usual = np.full((1, 99, 1), -25.0)
    outlier = np.full((1, 1, 1), 1e6)
    codec = Codec.fit(np.hstack([usual, outlier]), decimals=2, method="fixed", alpha=1)
    assert codec.step_characters == len("-25.00;")


@pytest.mark.parametrize("method", ["fixed", "max", "percentile", "offset-quantile"])
def test_a_codec_survives_json(method):
    codec = Codec.fit(TRAINING, decimals=2, method=method)
    assert Codec.from_json(codec.to_json()) == codec


@pytest.mark.parametrize("options", [{"point": False}, {"trailing_zeros": False}, {"per": "part"}])
def test_a_codec_with_options_survives_json(options):
    others = {"validation": TRAINING * 2, "test": TRAINING * 3}
    codec = Codec.fit(TRAINING, decimals=2, method="max", others=others, **options)
    again = Codec.from_json(json.loads(json.dumps(codec.to_json())))
    assert again == codec
    assert again.scale_of(TRAINING[0], part="test") == codec.scale_of(TRAINING[0], part="test")


def test_a_codec_of_an_older_run_is_read():
    row = {
        "decimals": 2,
        "variables": 2,
        "method": "fixed",
        "per": "data",
        "parameters": {"alpha": 5.0},
        "scale": {"offset": [0.0, 0.0], "scale": [5.0, 5.0]},
        "step_characters": 10,
    }
    today = Codec.fit(TRAINING, decimals=2, method="fixed", alpha=5)
    assert Codec.from_json(row) == replace(today, integer_digits=3, signed=True)


def test_rounding_alone_makes_a_quarter_of_a_unit():
    codec = Codec.fit(TRAINING, decimals=2, method="fixed", alpha=10)
    series = np.random.default_rng(0).uniform(0, 20, size=(20_000, 2))
    scale = codec.scale_of(series)
    error = np.abs(codec.decode(codec.encode(series, scale), scale) - series).mean()
    assert codec.rounding_floor(scale) == pytest.approx(0.025)
    assert error == pytest.approx(0.025, rel=0.02)


# The earlier systems, on the course's data


def test_the_maximum_of_850_systems_gives_the_known_scale(course):
    codec = Codec.fit(course[:850], decimals=2, method="max")
    assert codec.scale is not None
    assert codec.scale.scale[0] == pytest.approx(1.38789, abs=5e-6)
    assert codec.step_characters == 10


def test_parts_in_file_order_give_the_known_scales(course):
    others = {"validation": course[850:], "test": course[850:]}
    whole = Codec.fit(course[:850], decimals=2, method="max", per="part", above=10.0, others=others)
    assert whole.scale_of(course[0], part="train").scale[0] == pytest.approx(1.38789, abs=5e-6)
    assert whole.scale_of(course[0], part="validation").scale[0] == pytest.approx(1.06031, abs=5e-6)
    assert whole.scale_of(course[0], part="test").scale[0] == pytest.approx(1.06031, abs=5e-6)
    some = Codec.fit(course[:170], decimals=2, method="max", per="part", above=10.0, others=others)
    assert some.scale_of(course[0], part="train").scale[0] == pytest.approx(1.11082, abs=5e-6)


def test_the_percentile_of_800_systems_gives_the_known_factor(course):
    training = np.random.RandomState(42).permutation(1000)[200:]  # as scikit-learn splits 80/20
    codec = Codec.fit(course[training], decimals=2, method="percentile", percentile=99.7, to=10)
    assert codec.scale is not None
    assert 1 / codec.scale.scale[0] == pytest.approx(1.2174875, abs=5e-7)
    assert codec.rounding_floor(codec.scale) == pytest.approx(0.00206, abs=2e-5)


def test_offset_quantile_puts_the_course_where_it_is_known_to_lie(course):
    codec = Codec.fit(course[:800, :80], decimals=3, method="offset-quantile")
    scaled = np.stack([codec.scale_of(series).apply(series) for series in course[:, :80]])
    assert scaled.min() == pytest.approx(0.23, abs=0.005)
    assert scaled.max() == pytest.approx(1.30, abs=0.005)
