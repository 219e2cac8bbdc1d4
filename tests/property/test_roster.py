"""The roster's lists, kept up to date change by change, are what a look at every trial would find."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lvray.core.trial import Measurement, Status, StepPrices, Trial, TrialConfig, TrialPlan
from lvray.scheduler.milestones import unroll
from lvray.scheduler.roster import Roster

PRICES = StepPrices(train_step=10, evaluation=3, forecast=0)
STOPS = [(1, None), (2, 0), (4, None), (6, 1), (9, None), (18, 2)]
RUNGS = {0: 1, 1: 3, 2: 5}
MILESTONES = unroll(PRICES, STOPS, forecast=False)


@st.composite
def changes(draw: st.DrawFn) -> list[Trial]:
    """Trials in any state, in any order, many of them the same trial once more."""
    made = []
    for _ in range(draw(st.integers(1, 25))):
        name = f"t{draw(st.integers(0, 6))}"
        reached = draw(st.integers(-1, len(STOPS) - 1))
        losses = st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan, math.inf])
        curve = tuple(
            Measurement(name, 1, index, STOPS[index][0], 1, draw(losses), 1.0)
            for index in range(reached + 1)
        )
        status = draw(st.sampled_from(Status))
        ahead = draw(st.integers(reached, len(STOPS) - 1)) if status is Status.RUNNING else reached
        plan = TrialPlan(name, "search", TrialConfig(), MILESTONES, PRICES)
        made.append(Trial(plan, status, curve, attempt=draw(st.integers(0, 3)), granted=ahead))
    return made


def judged(trial: Trial, rung: int) -> float | None:
    if trial.reached < RUNGS[rung] or trial.status is Status.FAILED:
        return None
    score = trial.curve[RUNGS[rung]].validation_loss
    return score if math.isfinite(score) else None


@given(changes())
def test_what_is_kept_is_what_a_look_at_every_trial_finds(made):
    roster = Roster()
    known: dict[str, Trial] = {}
    for trial in made:
        roster.put(trial)
        known[trial.plan.trial_id] = trial
    trials = list(known.values())
    assert dict(roster) == known
    for status in Status:
        assert list(roster.with_status(status)) == [
            t.plan.trial_id for t in trials if t.status is status
        ]
    at_rungs = set(RUNGS.values())
    assert list(roster.interrupted()) == [
        t.plan.trial_id for t in trials if t.status is Status.PAUSED and t.reached not in at_rungs
    ]
    assert roster.ahead == sum(
        t.plan.price - t.plan.flops_at(t.granted) for t in trials if not t.status.final
    )
    assert roster.granted == sum(t.plan.flops_at(t.granted) for t in trials)
    assert roster.attempts == sum(t.attempt for t in trials)
    for rung, index in RUNGS.items():
        ranked = sorted(
            (score, t.plan.trial_id) for t in trials if (score := judged(t, rung)) is not None
        )
        names = [name for _, name in ranked]
        left = [name for name in names if max(known[name].granted, known[name].reached) > index]
        assert roster.standing(rung) == len(ranked)
        assert roster.best_at(rung, 2) == names[:2]
        assert roster.gone(rung) == len(left)
        assert list(roster.waiting(rung)) == [
            name for name in names if name not in left and not known[name].status.final
        ]
        for trial in trials:
            if trial.reached >= index:
                name = trial.plan.trial_id
                place = names.index(name) if name in names else None
                assert roster.rank(trial, rung) == place
        below = RUNGS.get(rung - 1, -1)
        underway = [
            t
            for t in trials
            if not t.status.final
            and t.reached < index
            and (rung == 0 or (t.reached >= below and max(t.granted, t.reached) > below))
        ]
        assert roster.underway(rung) == len(underway)


def test_a_trial_without_rungs_counts_by_status_alone():
    plan = TrialPlan("t", "s", TrialConfig(), unroll(PRICES, [(3, None)], forecast=False), PRICES)
    roster = Roster([Trial(plan)])
    assert roster.highest() == -1
    roster.put(replace(roster["t"], status=Status.REFUSED))
    assert roster.count(Status.PLANNED) == 0
    assert list(roster.with_status(Status.REFUSED)) == ["t"]
