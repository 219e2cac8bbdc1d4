"""The generated systems: the course's own, value by value, and the classical ones by what they conserve."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lvray.core.errors import DataError
from lvray.series import predator_prey

COURSE_FILE = Path(__file__).parents[4] / "shared" / "data" / "lotka_volterra_data.h5"


def test_the_course_begins_as_its_recipe_says(course):
    first = [[0.94991744, 1.04062402], [0.74055135, 0.77954191]]
    np.testing.assert_allclose(course[0, :2], first, atol=1e-6)
    assert course.shape == (1000, 100, 2)
    assert course.dtype == np.float32


def test_the_course_has_its_known_moments(course):
    prey, predator = course[..., 0].astype(float), course[..., 1].astype(float)
    assert prey.mean() == pytest.approx(1.698, abs=5e-4)
    assert predator.mean() == pytest.approx(0.5696, abs=5e-5)
    assert prey.max() == pytest.approx(13.740, abs=5e-4)
    assert (course.max(axis=(1, 2)) > 10).sum() == 5


def test_the_course_is_the_file_that_was_handed_out(course):
    if not COURSE_FILE.exists():
        pytest.skip("the course's file is not beside the repository")
    with h5py.File(COURSE_FILE) as file:
        assert np.abs(course - file["trajectories"][:]).max() <= 1e-6
        np.testing.assert_array_equal(predator_prey.times(), file["time"][:])


def test_fewer_systems_are_the_first_of_more(course):
    np.testing.assert_array_equal(predator_prey.coursework(0, 3), course[:3])
    classical = predator_prey.lotka_volterra(4, 5)
    np.testing.assert_array_equal(predator_prey.lotka_volterra(4, 2), classical[:2])


def test_more_than_a_thousand_systems_begin_with_the_thousand():
    thousand = predator_prey._draw_coursework(0, 1000)
    more = predator_prey._draw_coursework(0, 1001)
    assert more[:1000] == thousand
    assert more[1000] not in thousand


@pytest.mark.parametrize("equations", [predator_prey.coursework, predator_prey.lotka_volterra])
def test_another_seed_gives_other_systems_again_and_again(equations):
    np.testing.assert_array_equal(equations(1, 3), equations(1, 3))
    assert np.abs(equations(1, 3) - equations(0, 3)).max() > 0.1


def test_classical_orbits_conserve_their_invariant():
    series = predator_prey.lotka_volterra(11, 20)
    for parameters, orbit in zip(predator_prey.draw_classical(11, 20), series, strict=True):
        invariant = parameters.invariant(orbit)
        np.testing.assert_allclose(invariant, invariant[0], rtol=1e-7)
        assert orbit[0] == pytest.approx((parameters.prey, parameters.predator))


def test_the_invariant_would_notice_a_thousandth():
    parameters = predator_prey.draw_classical(11, 1)[0]
    orbit = predator_prey.lotka_volterra(11, 1)[0]
    orbit[50, 0] *= 1.001
    invariant = parameters.invariant(orbit)
    assert abs(invariant[50] / invariant[0] - 1) > 1e-6


@pytest.mark.parametrize("equations", [predator_prey.coursework, predator_prey.lotka_volterra])
@pytest.mark.parametrize(("seed", "systems", "word"), [(-1, 1, "seed -1"), (0, 0, "0 systems")])
def test_seeds_and_numbers_that_cannot_be_are_refused(equations, seed, systems, word):
    with pytest.raises(DataError, match=word):
        equations(seed, systems)
