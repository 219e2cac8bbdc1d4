"""Extrapolation, held to curves whose law is known."""

from __future__ import annotations

import math

import pytest

from lvray.curves.power_law import FEWEST_POINTS, Outlook, outlook


def law(flops: float, *, floor: float = 0.3, gain: float = 0.5, exponent: float = 0.5) -> float:
    return floor + gain * flops**-exponent


@pytest.mark.parametrize("exponent", [0.3, 0.5, 1.0])
def test_a_power_law_is_followed_to_four_times_its_last_point(exponent):
    flops = [1.0, 2.0, 4.0, 8.0, 16.0]
    told = outlook(flops, [law(x, exponent=exponent) for x in flops], at=64.0)
    assert told is not None
    assert told.mean == pytest.approx(law(64.0, exponent=exponent), abs=0.01)


def test_fewer_points_than_four_say_nothing():
    flops = [float(x) for x in range(1, FEWEST_POINTS)]
    assert outlook(flops, [1 / x for x in flops], at=100.0) is None


def test_noise_widens_what_is_expected():
    flops = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    clean = [law(x) for x in flops]
    noisy = [loss + 0.03 * (-1) ** i for i, loss in enumerate(clean)]
    assert outlook(flops, noisy, at=64.0).error > 3 * outlook(flops, clean, at=64.0).error


def test_no_curve_is_expected_to_rise_from_where_it_is():
    lucky = outlook([1.0, 2.0, 3.0, 4.0], [0.5, 0.5, 0.5, 0.3], at=8.0)
    assert lucky.mean == 0.3  # the fit itself lies above its last point


def test_no_curve_is_expected_to_fall_further_than_it_has_fallen():
    steep = outlook([1.0, 1.1, 1.2, 1.3], [1.0, 0.9, 0.8, 0.7], at=1e6)
    assert steep.mean == pytest.approx(0.4)  # the fit itself goes far below zero


def test_the_unit_of_flops_does_not_matter():
    losses = [law(x) for x in (1.0, 2.0, 4.0, 8.0)]
    small = outlook([1.0, 2.0, 4.0, 8.0], losses, at=30.0)
    large = outlook([1e26, 2e26, 4e26, 8e26], losses, at=3e27)
    assert small.mean == pytest.approx(large.mean)
    assert small.error == pytest.approx(large.error)


def test_expected_improvement_is_the_gain_where_nothing_is_uncertain_and_more_where_much_is():
    assert Outlook(0.4, 0.0).improvement(0.5) == pytest.approx(0.1)
    assert Outlook(0.6, 0.0).improvement(0.5) == 0.0
    sure, unsure = Outlook(0.5, 0.01), Outlook(0.5, 0.1)
    assert sure.improvement(0.5) == pytest.approx(0.01 / math.sqrt(2 * math.pi))
    assert unsure.improvement(0.5) > sure.improvement(0.5)
