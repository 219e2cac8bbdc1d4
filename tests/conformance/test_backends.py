"""One list of behaviours, asked of every backend: a simulated stage and one on real Ray differ in their clocks alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import pytest

from lvray.core.trial import LoraConfig, StagePlan, Status, StepPrices, TrialConfig, TrialPlan
from lvray.driver.accounts import Evidence, findings
from lvray.ledger.ledger import SOURCE, SPENT, stage_account, sweep_account, trial_account
from lvray.scheduler.halving import plan_halving
from lvray.scheduler.milestones import evenly, unroll
from lvray.scheduler.replay import fold


def candidates(count: int, *, steps: int, diverging: int | None = None) -> tuple[TrialPlan, ...]:
    """Trials of which each is a little dearer than the one before it."""
    plans = []
    for index in range(count):
        rate = 1.0 if index == diverging else 0.01 * (1 + (5 * index + 3) % count)
        config = TrialConfig(LoraConfig(rank=index + 1), learning_rate=rate, seed=index)
        prices = StepPrices(train_step=1_000 + 7 * index, evaluation=501, forecast=0)
        stops = [(step, None) for step in evenly(steps, 3)]
        milestones = unroll(prices, stops, forecast=False)
        plans.append(TrialPlan(f"t{index}", "search", config, milestones, prices))
    return tuple(plans)


def fixed(*, short: int = 0, spare: int = 0, diverging: int | None = None) -> StagePlan:
    plans = candidates(5, steps=30, diverging=diverging)
    price = sum(plan.price for plan in plans)
    return StagePlan("search", plans, price - short, "fixed", spare=spare)


def halving(allowance: int, *, diverging: int | None = None) -> StagePlan:
    return plan_halving(
        "search",
        candidates(9, steps=1, diverging=diverging),
        allowance=allowance,
        final_run=600_000,
        reduction_factor=3.0,
        most_steps=200,
    )


SCENES = {
    "fixed": {"stage": fixed()},
    "fixed, short of FLOPs": {"stage": fixed(short=40_000)},
    "fixed, in a storm": {"stage": fixed(spare=500_000, diverging=2), "crashes": 0.15, "seed": 231},
    "halving": {"stage": halving(700_000)},
    "halving, in a storm": {
        "stage": halving(1_500_000, diverging=4),
        "crashes": 0.06,
        "seed": 4631,
    },
    "halving, ended and taken up": {"stage": halving(900_000), "ends_after": 9},
}
STORMS = ("fixed, in a storm", "halving, in a storm")
LADDERS = [name for name in SCENES if name.startswith("halving")]

every_scene = pytest.mark.parametrize("scene", SCENES)
every_storm = pytest.mark.parametrize("scene", STORMS)
every_ladder = pytest.mark.parametrize("scene", LADDERS)


@pytest.fixture
def play(backend, carried_out):
    """Gives the outcome of a scene, by its name."""
    return lambda name: carried_out(backend, **SCENES[name])


def rungs_judged(outcome) -> Counter[int]:
    """How many trials that have not failed were judged, by rung."""
    return Counter(
        milestone.rung
        for trial in outcome.trials.values()
        if trial.status is not Status.FAILED
        for milestone in trial.plan.milestones[: trial.reached + 1]
        if milestone.rung is not None
    )


def before_each(outcome, *events: str):
    """Pairs of a record of one of `events` and the trial it is about, as it stood before."""
    records = outcome.records
    for place, record in enumerate(records):
        if record["event"] in events:
            yield record, fold(records[:place]).trials[record["trial_id"]]


def stands_at_a_rung(trial) -> bool:
    return bool(trial.curve) and trial.plan.milestones[trial.reached].rung is not None


def heard(outcome) -> list[dict]:
    return [row["measurement"] for row in outcome.records if row["event"] == "measurement"]


# FLOPs.


@every_scene
def test_every_flop_that_is_spent_was_reserved_before(play, scene):
    held: Counter[str] = Counter()
    spent = 0
    for transfer in play(scene).ledger.transfers:
        if transfer.kind == "reserve":
            held[transfer.taker] += transfer.flops
        elif transfer.kind in {"spend", "lose", "release"}:
            held[transfer.giver] -= transfer.flops
            spent += transfer.flops
            assert held[transfer.giver] >= 0, f"{transfer} was not reserved"
    assert spent > 0


@every_scene
def test_a_worker_that_comes_to_a_milestone_finds_its_way_there_paid_for(play, scene):
    outcome = play(scene)
    assert len(outcome.looks) >= len(heard(outcome)) > 0
    for look in outcome.looks:
        plan = outcome.trials[look["trial"]].plan
        index = [milestone.step for milestone in plan.milestones].index(look["step"])
        assert look["held"] >= plan.flops_at(index) - plan.flops_at(index - 1), look


@every_scene
def test_what_is_spent_is_at_most_the_budget(play, scene):
    outcome = play(scene)
    stage, ledger = outcome.stage, outcome.ledger
    assert 0 < ledger.balance(SPENT) <= stage.allowance + stage.spare
    assert sum(ledger.balances.values()) == 0
    assert [name for name, flops in ledger.balances.items() if flops < 0] == [SOURCE]


@every_scene
def test_what_does_not_run_holds_nothing(play, scene):
    assert play(scene).idle_holders == []


@every_scene
def test_when_the_stage_has_ended_no_trial_and_no_stage_holds_anything(play, scene):
    outcome = play(scene)
    kept = {name for name, flops in outcome.ledger.balances.items() if flops}
    assert kept <= {SOURCE, SPENT, sweep_account("s"), stage_account("s", "final")}


@every_scene
def test_what_is_held_back_for_a_later_stage_is_not_touched(play, scene):
    ledger = play(scene).ledger
    final = stage_account("s", "final")
    touched = [t for t in ledger.transfers if final in {t.giver, t.taker}]
    assert [transfer.key for transfer in touched] == ["s/final/hold-back/allow"]
    assert ledger.balance(final) == touched[0].flops > 0


@every_scene
def test_the_audit_finds_nothing(play, scene):
    outcome = play(scene)
    assert findings(Evidence(outcome.ledger, fold(outcome.records), "s")) == []


def test_a_fixed_stage_in_which_all_goes_well_spends_its_price_to_the_flop(play):
    outcome = play("fixed")
    assert outcome.ledger.lost == 0
    assert outcome.ledger.balance(SPENT) == outcome.stage.price == outcome.stage.allowance
    assert {trial.status for trial in outcome.trials.values()} == {Status.COMPLETED}
    assert all(trial.flops_heard == trial.plan.price for trial in outcome.trials.values())


def test_a_halving_stage_in_which_all_goes_well_fills_every_rung_within_its_price(play):
    outcome = play("halving")
    assert outcome.ledger.lost == 0
    assert outcome.ledger.balance(SPENT) <= outcome.stage.price
    assert rungs_judged(outcome) == dict(enumerate(outcome.stage.rungs))


# Trials.


@every_scene
def test_every_trial_ends_in_a_final_status_and_says_why(play, scene):
    for name, trial in play(scene).trials.items():
        assert trial.status.final, f"{name} is {trial.status}"
        assert trial.reason, f"{name} is {trial.status} and says nothing"


def test_a_trial_that_cannot_be_paid_for_is_refused_or_left_where_the_flops_ended(play):
    outcome = play("fixed, short of FLOPs")
    unfinished = [t for t in outcome.trials.values() if t.status is not Status.COMPLETED]
    assert unfinished
    for trial in unfinished:
        assert trial.status is (Status.STOPPED if trial.curve else Status.REFUSED)
        assert "its next stretch costs" in trial.reason


@every_scene
def test_measurements_come_in_order_of_milestones_and_each_once(play, scene):
    outcome = play(scene)
    milestones = defaultdict(list)
    for row in heard(outcome):
        milestones[row["trial_id"]].append(row["milestone"])
    assert milestones
    for name, indices in milestones.items():
        assert indices == list(range(len(indices))), f"{name} was heard at {indices}"


@every_scene
def test_an_attempt_reports_its_own_steps_and_flops(play, scene):
    outcome = play(scene)
    starts = {
        (row["trial_id"], row["attempt"]): row for row in outcome.records if row["event"] == "start"
    }
    for row in heard(outcome):
        plan = outcome.trials[row["trial_id"]].plan
        begun = starts[row["trial_id"], row["attempt"]]["reached"]
        assert row["step"] == plan.milestones[row["milestone"]].step
        assert int(row["flops"]) == plan.flops_at(row["milestone"]) - plan.flops_at(begun)


@every_scene
def test_an_attempt_starts_where_the_trial_was_last_heard_and_pays_for_the_rest_alone(play, scene):
    starts = list(before_each(play(scene), "start"))
    assert starts
    for record, trial in starts:
        plan = trial.plan
        assert trial.status in {Status.PLANNED, Status.PAUSED}
        assert (record["reached"], record["attempt"]) == (trial.reached, trial.attempt + 1)
        assert int(record["flops"]) == plan.flops_at(record["granted"]) - plan.flops_at(
            trial.reached
        )


@every_ladder
def test_a_paused_trial_that_is_promoted_goes_on_from_its_rung(play, scene):
    outcome = play(scene)
    promoted = {
        (trial.plan.trial_id, record["attempt"]): trial.reached + 1
        for record, trial in before_each(outcome, "start")
        if stands_at_a_rung(trial)
    }
    first = {}
    for row in heard(outcome):
        first.setdefault((row["trial_id"], row["attempt"]), row["milestone"])
    went_on = promoted.keys() & first.keys()
    assert went_on
    assert {attempt: first[attempt] for attempt in went_on} == {
        attempt: promoted[attempt] for attempt in went_on
    }


@every_ladder
def test_no_more_trials_are_judged_at_a_rung_than_it_is_for(play, scene):
    outcome = play(scene)
    counts = rungs_judged(outcome)
    assert counts[0] > counts[len(outcome.stage.rungs) - 1] > 0
    for rung, most in enumerate(outcome.stage.rungs):
        assert counts[rung] <= most


@every_ladder
def test_the_winner_is_the_best_of_those_that_climbed_highest(play, scene):
    outcome = play(scene)
    standing = [
        trial
        for trial in outcome.trials.values()
        if trial.status is not Status.FAILED and trial.curve and math.isfinite(trial.loss)
    ]
    highest = max(trial.reached for trial in standing)
    top = [trial for trial in standing if trial.reached == highest]
    best = min(top, key=lambda trial: trial.loss)
    assert outcome.winner.trial_id == best.plan.trial_id
    assert outcome.records[-1]["best"] == best.plan.trial_id


@every_scene
def test_a_trial_that_diverges_is_stopped_at_once(play, scene):
    outcome = play(scene)
    wrong = [trial for trial in outcome.trials.values() if trial.plan.config.learning_rate == 1.0]
    assert bool(wrong) == ("storm" in scene)
    for trial in wrong:
        losses = [math.isfinite(measured.validation_loss) for measured in trial.curve]
        assert losses == sorted(losses, reverse=True), "went on after it diverged"
        assert trial.status is Status.FAILED or trial.reason.startswith("diverged")


# What breaks.


@pytest.mark.parametrize("scene", [*STORMS, "halving, ended and taken up"])
def test_what_a_crash_or_an_ending_burnt_is_charged_as_lost_and_nothing_else_is(play, scene):
    outcome = play(scene)
    burnt: Counter[str] = Counter()
    for _, trial in before_each(outcome, "failure", "interruption"):
        stretch = trial.plan.flops_at(trial.granted) - trial.plan.flops_at(trial.reached)
        burnt[trial_account("s", trial.plan.trial_id)] += stretch
    assert burnt
    assert Evidence(outcome.ledger, None, None).by_giver("lose") == burnt


@every_storm
def test_after_a_crash_a_trial_is_tried_again_until_it_failed_too_often(play, scene):
    outcome = play(scene)
    failures = list(before_each(outcome, "failure"))
    assert failures
    started = {
        (row["trial_id"], row["attempt"]) for row in outcome.records if row["event"] == "start"
    }
    for record, trial in failures:
        name, again = record["trial_id"], (record["trial_id"], record["attempt"] + 1)
        assert record["reason"]
        assert trial.attempt == record["attempt"]
        if trial.failures == 0 and not stands_at_a_rung(trial):  # where better ones may pass it
            assert again in started, f"{name} was not tried again"
        if trial.failures == 1:
            assert outcome.trials[name].status is Status.FAILED
            assert again not in started


def test_a_stage_that_was_ended_and_taken_up_again_hears_nothing_twice_and_forgets_nothing(play):
    outcome = play("halving, ended and taken up")
    assert outcome.sessions == 2
    cut_off = [row for row in outcome.records if row["event"] == "interruption"]
    assert cut_off
    places = [(row["trial_id"], row["milestone"]) for row in heard(outcome)]
    assert len(places) == len(set(places))
    begun_again = [row for row in outcome.records if row["event"] == "start" and row["attempt"] > 1]
    assert {row["trial_id"] for row in cut_off} <= {row["trial_id"] for row in begun_again}
    assert rungs_judged(outcome) == dict(enumerate(outcome.stage.rungs))


@every_scene
def test_a_stage_that_has_ended_and_is_opened_again_stays_as_it_is(play, scene):
    outcome = play(scene)
    files = [outcome.folder / name for name in ("ledger.jsonl", "journal.jsonl")]
    before = [file.read_text() for file in files]
    trials = repr(outcome.trials)
    scheduler = outcome.open(outcome.sessions + 1)
    assert scheduler.next_grant() is None
    assert scheduler.finished
    assert [file.read_text() for file in files] == before
    assert repr(dict(scheduler.trials)) == trials


# Both.


@pytest.mark.ray
@pytest.mark.filterwarnings("default")
def test_both_backends_say_the_same_of_a_stage_in_which_all_goes_well(
    simulator, ray_with_a_made_up_trainer, carried_out
):
    told = []
    for backend in (simulator, ray_with_a_made_up_trainer):
        outcome = carried_out(backend, **SCENES["fixed"])
        transfers = Counter(
            (transfer.kind, transfer.giver, transfer.taker, transfer.flops)
            for transfer in outcome.ledger.transfers
        )
        trials = {
            name: (trial.status, trial.reason, [(m.step, m.validation_loss) for m in trial.curve])
            for name, trial in outcome.trials.items()
        }
        told.append((transfers, trials, outcome.winner))
    assert told[0] == told[1]
