"""Which code belongs to a policy's name? `core.policies` has the names; each policy's file ends in its `POLICY`."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from lvray.core.policies import POLICIES
from lvray.core.trial import StagePlan
from lvray.scheduler.policy import Policy, Registered


@cache
def registered(name: str) -> Registered:
    """What the file of a policy registers."""
    held = import_module(f"lvray.scheduler.{POLICIES[name]}").POLICY
    assert isinstance(held, Registered), f"lvray.scheduler.{POLICIES[name]} has no POLICY"
    return held


def policy_of(stage: StagePlan) -> Policy:
    """The policy that `stage` asks for."""
    return registered(stage.policy).make(stage)
