"""What a journal says of nodes that came and went."""

from __future__ import annotations

import pytest

from lvray.core.trial import StagePlan
from lvray.scheduler.replay import fold

STAGE = {"event": "stage", **StagePlan("s", (), 1, "fixed").to_json()}


def workers(count: int) -> dict:
    return {"event": "workers", "stage": "s", "count": count}


def capacity(count: int) -> dict:
    return {"event": "capacity", "stage": "s", "count": count}


@pytest.mark.parametrize(
    ("records", "most"),
    [
        ([workers(4)], 4),
        ([workers(2), capacity(3), capacity(1)], 3),
        ([workers(2), capacity(0), capacity(2)], 2),
        ([workers(9), workers(2), capacity(3)], 3),  # another session, on other nodes
    ],
)
def test_the_most_trials_at_once_are_those_of_the_last_session(records, most):
    assert fold([STAGE, *records]).stages["s"].workers == most
