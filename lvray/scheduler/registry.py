"""Which policies are there? A new one is a file of its own and a line here."""

from __future__ import annotations

from collections.abc import Callable

from lvray.core.trial import StagePlan
from lvray.scheduler.fixed import Fixed
from lvray.scheduler.halving import Halving
from lvray.scheduler.policy import Policy

POLICIES: dict[str, Callable[[StagePlan], Policy]] = {
    "fixed": lambda stage: Fixed(),
    "halving": lambda stage: Halving(stage.rungs),
}
"""Each makes the policy of one stage from the stage's plan."""


def policy_of(stage: StagePlan) -> Policy:
    """The policy that `stage` asks for."""
    return POLICIES[stage.policy](stage)
