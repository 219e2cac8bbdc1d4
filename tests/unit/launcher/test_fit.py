"""Whether a plan fits into the wall time."""

from __future__ import annotations

import pytest

from lvray.core.trial import StagePlan, StepPrices, TrialConfig, TrialPlan
from lvray.launcher.fit import longest_unpausable, refusal, requeues, to_pause, warning
from lvray.scheduler.milestones import unroll

PRICES = StepPrices(train_step=1_000_000, evaluation=4_000, forecast=50_000)


def stage(name, *, forecast):
    trial = TrialPlan(
        f"{name}-1", name, TrialConfig(), unroll(PRICES, [(10, None)], forecast=forecast), PRICES
    )
    return StagePlan(name, (trial,), trial.price, "fixed")


def test_steps_can_be_paused_and_evaluations_with_forecasts_cannot():
    plain, forecasting = stage("search", forecast=False), stage("final", forecast=True)
    assert longest_unpausable([plain]).flops == 4_000
    longest = longest_unpausable([forecasting, plain])
    assert (longest.stage, longest.flops, longest.forecasts) == ("final", 54_000, True)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1, 0), (900, 0), (901, 1), (1800, 1), (1801, 2)]
)
def test_a_job_works_until_its_notice(seconds, expected):
    assert requeues(seconds, wall=1000, notice=100) == expected


def test_what_fits_into_a_job_to_the_second_is_not_refused():
    longest = longest_unpausable([stage("final", forecast=True)])
    assert refusal(longest, flops_per_second=60, wall=1000, notice=100) is None
    told = refusal(longest, flops_per_second=59, wall=1000, notice=100)
    assert "stage final: an evaluation with its forecasts costs 5.40e4 FLOPs, about 15 min" in told
    assert "forecast fewer systems" in told


def test_what_is_longer_than_the_notice_is_warned_of():
    longest = longest_unpausable([stage("search", forecast=False)])
    assert warning(longest, flops_per_second=40, wall=1000, notice=160) is None
    told = warning(longest, flops_per_second=39, wall=1000, notice=160)
    assert "raise notice_seconds" in told
    assert "evaluate fewer windows" in told


@pytest.mark.parametrize(("notice", "expected"), [(300, 240), (71, 11), (70, 10), (30, 10)])
def test_the_last_minute_of_the_notice_is_not_for_trials(notice, expected):
    assert to_pause(notice) == expected
