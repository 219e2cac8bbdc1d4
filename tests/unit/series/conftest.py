"""The course's data set, generated once for all tests of the room."""

import numpy as np
import pytest

from lvray.series import predator_prey


@pytest.fixture(scope="session")
def course() -> np.ndarray:
    values = predator_prey.coursework()
    values.setflags(write=False)
    return values
