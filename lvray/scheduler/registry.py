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
    entry = POLICIES[name]
    held = import_module(f"lvray.scheduler.{entry.module}").POLICY
    assert isinstance(held, Registered), f"lvray.scheduler.{entry.module} has no POLICY"
    assert entry.plans_steps == (held.lay_out is not None), f"{name}: plans_steps says otherwise"
    return held


def policy_of(stage: StagePlan) -> Policy:
    """The policy that `stage` asks for."""
    return registered(stage.policy).make(stage)
