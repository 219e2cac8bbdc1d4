"""Rungs as rows, so that the eye sees 9, 3, 2."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvray.core.errors import BudgetTooSmall
from lvray.core.trial import (
    Action,
    LoraConfig,
    Measurement,
    Status,
    StepPrices,
    Trial,
    TrialConfig,
    TrialPlan,
)
from lvray.scheduler.halving import Halving, ladder, plan_halving
from lvray.scheduler.milestones import unroll
from lvray.scheduler.roster import Roster, rung_of

PRICES = StepPrices(train_step=10, evaluation=100, forecast=0)


def plan(name: str, prices: StepPrices = PRICES) -> TrialPlan:
    return TrialPlan(
        name, "search", TrialConfig(), unroll(prices, [(1, None)], forecast=False), prices
    )


def stage(count: int, allowance: int = 600_000, **changes: int):
    settings = {"final_run": 300_000, "reduction_factor": 3.0} | changes
    trials = [plan(f"t{index}") for index in range(count)]
    return plan_halving("search", trials, allowance=allowance, **settings)


@pytest.mark.parametrize(
    ("candidates", "counts"),
    [
        (3, (3, 2)),
        (4, (4, 2)),
        (9, (9, 3, 2)),
        (12, (12, 4, 2)),
        (27, (27, 9, 3, 2)),
        (81, (81, 27, 9, 3, 2)),
    ],
)
def test_a_third_of_each_rung_goes_on_until_two_are_left(candidates, counts):
    rungs = ladder(
        candidates=candidates, floor=100, top=100_000, allowance=10**7, reduction_factor=3
    )
    assert rungs.counts == counts


@pytest.mark.parametrize("allowance", [2_000, 10_000, 123_457, 10**9, 10**26])
def test_a_ladder_never_costs_more_than_its_allowance_and_nearly_all_of_it(allowance):
    rungs = ladder(
        candidates=9, floor=50, top=allowance // 6, allowance=allowance, reduction_factor=3
    )
    assert rungs.price <= allowance
    if rungs.counts[0] == 9:  # with fewer, the next candidate is what could not be paid
        assert rungs.price >= allowance - 9 * len(rungs.counts)


def test_no_jump_between_rungs_is_wider_than_four():
    rungs = ladder(candidates=27, floor=10, top=10**9, allowance=10**12, reduction_factor=4)
    jumps = [high / low for low, high in zip(rungs.levels, rungs.levels[1:], strict=False)]
    assert max(jumps) <= 4.001


def test_fewer_candidates_start_when_the_budget_pays_for_no_more():
    rungs = ladder(candidates=100, floor=1000, top=9000, allowance=60_000, reduction_factor=3)
    assert 3 <= rungs.counts[0] < 100
    assert rungs.levels[0] >= 1000
    assert 59_900 < rungs.price <= 60_000  # what one candidate less leaves over raises every rung


def test_a_search_among_fewer_than_three_is_refused():
    with pytest.raises(BudgetTooSmall, match="among 3 candidates"):
        ladder(candidates=9, floor=1000, top=3000, allowance=2_500, reduction_factor=3)
    with pytest.raises(BudgetTooSmall, match="has 2; widen the space"):
        stage(2)


def test_a_planned_stage_costs_at_most_its_allowance_and_names_its_rungs():
    search = stage(9)
    assert search.rungs == (9, 3, 2)
    assert search.price <= 600_000
    assert [milestone.rung for milestone in search.trials[0].milestones] == [0, 1, 2]


def test_a_cap_on_steps_that_leaves_no_room_for_the_rungs_is_refused():
    with pytest.raises(BudgetTooSmall, match="at most 3 steps leave no room for 3 rungs"):
        stage(9, most_steps=3)
    assert max(trial.steps for trial in stage(9, most_steps=500).trials) == 500


def test_more_budget_than_the_candidates_need_promotes_more_and_then_buys_further_seeds():
    modest, ample, lavish = (
        stage(4, allowance, final_run=20_000) for allowance in (40_000, 60_000, 120_000)
    )
    assert modest.rungs == (4, 2)
    assert len(ample.trials) == 4
    assert len(ample.rungs) > len(modest.rungs) or ample.rungs[1] >= modest.rungs[1]
    assert len(lavish.trials) > 4
    assert max(trial.price for trial in lavish.trials) <= 20_000
    assert "each config is tried with" in lavish.notes[-1]
    seeds = {trial.config.seed for trial in lavish.trials}
    assert len(seeds) * 4 == len(lavish.trials) == len({t.trial_id for t in lavish.trials})


def test_no_budget_makes_more_seeds_than_say_anything():
    endless = stage(4, 10**12, final_run=20_000)
    assert len(endless.trials) == 64
    assert endless.price <= 10**12


def test_unequal_costs_meet_at_equal_flops():
    dear = StepPrices(train_step=40, evaluation=100, forecast=0)
    trials = [plan("cheap0"), plan("cheap1"), plan("cheap2"), plan("dear", dear)]
    search = plan_halving("search", trials, allowance=100_000, final_run=0, reduction_factor=3)
    cheap, costly = search.trials[0], search.trials[3]
    for low, high in zip(cheap.milestones, costly.milestones, strict=True):
        if low.rung is not None:
            assert abs(low.flops - high.flops) <= 40
    assert cheap.steps > 3 * costly.steps


# Who goes on: trials with their losses at each rung, written as rows.


def heard(name: str, losses: list[float], *, status: Status, granted: int | None = None) -> Trial:
    laid_out = stage(9).trials[0]
    trial_plan = replace(laid_out, trial_id=name)
    curve = tuple(
        Measurement(name, 1, index, trial_plan.milestones[index].step, 1, loss, 1.0)
        for index, loss in zip(range(len(losses)), losses, strict=True)
    )
    reached = curve[-1].milestone if curve else -1
    return Trial(
        trial_plan, status, curve, attempt=1, granted=reached if granted is None else granted
    )


def rung_zero(*losses: float, planned: int = 0, running: int = 0) -> dict[str, Trial]:
    trials = {
        f"t{i}": heard(f"t{i}", [loss], status=Status.PAUSED) for i, loss in enumerate(losses)
    }
    for index in range(planned):
        trials[f"p{index}"] = heard(f"p{index}", [], status=Status.PLANNED)
    for index in range(running):
        trials[f"r{index}"] = heard(f"r{index}", [], status=Status.RUNNING, granted=0)
    return trials


HALVING = Halving((9, 3, 2))


def candidates(trials: dict[str, Trial]) -> list[str]:
    return list(HALVING.candidates(Roster(trials.values())))


def test_nobody_is_promoted_before_half_of_the_rung_has_reported():
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, running=5)
    assert candidates(trials) == []


def test_from_half_a_rung_on_the_best_third_of_those_heard_is_promoted_rather_than_idle():
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, 0.5, running=4)  # 5 · 3 // 9 = 1
    assert candidates(trials) == ["t4"]
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, running=3)  # 6 · 3 // 9 = 2
    assert candidates(trials) == ["t5", "t4"]


def test_nobody_is_promoted_while_there_is_a_trial_to_start():
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, planned=1, running=1)
    assert candidates(trials) == ["p0", "t6", "t5"]
    now = heard("r0", [0.1], status=Status.RUNNING)
    decision = HALVING.judge(now, Roster((trials | {"r0": now}).values()))
    assert decision.action is Action.PAUSE
    assert decision.reason == "rung 0: loss 0.1000, rank 1 of 8: waits at rung 0"


def test_a_full_rung_promotes_its_best_three_and_no_more():
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    assert candidates(trials) == ["t8", "t7", "t6"]


def test_a_failed_trial_leaves_its_place_to_the_next():
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    trials["t8"] = replace(trials["t8"], status=Status.FAILED)
    assert candidates(trials) == ["t7", "t6", "t5"]


def test_promotions_go_from_the_lowest_rung_up():
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    for index, loss in enumerate([0.3, 0.2, 0.1]):
        trials[f"u{index}"] = heard(f"u{index}", [0.35 - index / 100, loss], status=Status.PAUSED)
    assert candidates(trials) == ["u2", "u1"]
    trials["u0"] = heard("u0", [0.35], status=Status.PAUSED)
    assert candidates(trials) == ["u0", "u2"]


def test_a_full_rung_waits_for_those_on_their_way():
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    trials["u0"] = heard("u0", [0.3, 0.2], status=Status.PAUSED)
    for name in ("u1", "u2"):
        trials[name] = heard(name, [0.3], status=Status.RUNNING, granted=1)
    assert candidates(trials) == []


def test_judging_pauses_the_mediocre_and_lets_the_best_go_on():
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, 0.5, running=3)
    best = heard("now", [0.1], status=Status.RUNNING)
    assert HALVING.judge(best, Roster((trials | {"now": best}).values())).action is Action.CONTINUE
    worst = heard("now", [0.95], status=Status.RUNNING)
    decision = HALVING.judge(worst, Roster((trials | {"now": worst}).values()))
    assert decision.action is Action.PAUSE
    assert decision.reason == "rung 0: loss 0.9500, rank 6 of 6: waits at rung 0"


def test_judging_asks_nothing_of_the_past_and_changes_nothing():
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    before = dict(trials)
    decisions = [HALVING.judge(trials["t0"], Roster(trials.values())) for _ in range(3)]
    assert decisions[0] == decisions[1] == decisions[2]
    assert trials == before


def test_a_loss_that_is_no_number_stops_the_trial_with_a_reason():
    lost = heard("now", [float("nan")], status=Status.RUNNING)
    decision = HALVING.judge(lost, Roster(({"now": lost}).values()))
    assert decision.action is Action.STOP
    assert decision.reason.startswith("diverged: validation loss is nan")


def test_the_winner_is_the_lowest_of_those_that_climbed_highest():
    trials = rung_zero(0.05, 0.8)
    trials["u0"] = heard("u0", [0.3, 0.2, 0.15], status=Status.COMPLETED)
    trials["u1"] = heard("u1", [0.3, 0.2, 0.12], status=Status.COMPLETED)
    winner = HALVING.winner(Roster(trials.values()))
    assert winner is not None
    assert winner.trial_id == "u1"
    assert "next u0 with 0.1500" in winner.reason
    assert rung_of(trials["u1"]) == 2


def test_a_trial_that_diverged_after_its_promotion_does_not_win():
    trials = rung_zero(0.5, 0.4)
    trials["u0"] = heard("u0", [0.1, float("nan")], status=Status.STOPPED)
    winner = HALVING.winner(Roster(trials.values()))
    assert winner.trial_id == "t1"
    lost = {"u0": trials["u0"]}
    assert HALVING.winner(Roster(lost.values())) is None


def with_windows(trial: Trial, *last: float) -> Trial:
    """The trial with window losses at its last measurement."""
    curve = (*trial.curve[:-1], replace(trial.curve[-1], window_losses=last))
    return replace(trial, curve=curve)


def finalists(*windows: tuple[float, ...]) -> Roster:
    """Two trials at the last rung, the first with the lower loss, the second falling faster."""
    first = heard("u0", [0.3, 0.21, 0.20], status=Status.COMPLETED)
    second = heard("u1", [0.3, 0.25, 0.21], status=Status.COMPLETED)
    if not windows:
        return Roster([first, second])
    return Roster([with_windows(first, *windows[0]), with_windows(second, *windows[1])])


def test_the_winner_is_told_beside_the_next_window_by_window():
    winner = HALVING.winner(finalists((0.1, 0.2, 0.3), (0.2, 0.1, 0.33)))
    assert winner.trial_id == "u0"
    assert winner.reason == (
        "validation loss 0.2000 at rung 2, the lowest of 2; "
        "next u1 with 0.2100, which may be chance (+0.0100 ± 0.0586 over 3 windows)"
    )


def test_a_clear_difference_window_by_window_is_called_one_however_small():
    winner = HALVING.winner(finalists((0.10, 0.20, 0.30), (0.11, 0.21, 0.311)))
    assert "next u1 with 0.2100, clearly worse (+0.0103 ± 0.0003 over 3 windows)" in winner.reason


def with_rank(trial: Trial, rank: int) -> Trial:
    config = replace(trial.plan.config, lora=LoraConfig(rank=rank))
    return replace(trial, plan=replace(trial.plan, config=config))


@pytest.mark.parametrize(
    ("windows", "winner"),
    [((0.2, 0.1, 0.33), "u1"), ((0.11, 0.21, 0.311), "u0")],
    ids=["a difference that may be chance", "a clear one"],
)
def test_of_those_not_clearly_worse_the_highest_rank_wins(windows, winner):
    both = finalists((0.1, 0.2, 0.3), windows)
    chosen = HALVING.winner(Roster([with_rank(both["u0"], 4), with_rank(both["u1"], 16)]))
    assert chosen.trial_id == winner
    if winner == "u1":
        assert chosen.reason == (
            "validation loss 0.2100 at rung 2, of higher rank than the lowest, u0 with 0.2000, "
            "and not clearly worse (+0.0100 ± 0.0586 over 3 windows)"
        )


def test_without_windows_to_compare_by_the_next_is_told_alone():
    assert HALVING.winner(finalists()).reason.endswith("the lowest of 2; next u1 with 0.2100")


def left_over(windows: tuple[float, ...]) -> list[str]:
    """Who is offered what is left when every rung is full: three left rung 1's lower half, two its upper."""
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    for index in range(3):
        status = Status.PAUSED if index == 2 else Status.COMPLETED
        losses = [0.3 + index / 100, 0.2 + index / 100] + [0.1] * (index < 2)
        trials[f"u{index}"] = heard(f"u{index}", losses, status=status)
    trials["u0"] = replace(
        trials["u0"],
        curve=tuple(replace(m, window_losses=(0.1, 0.2, 0.3)) for m in trials["u0"].curve),
    )
    trials["u2"] = with_windows(trials["u2"], *windows)
    return candidates(trials)


def test_what_is_left_goes_to_the_next_in_line_unless_it_is_clearly_worse():
    assert left_over((0.12, 0.17, 0.33)) == ["u2"]
    assert left_over((0.2, 0.3, 0.41)) == []


def test_who_is_left_behind_is_told_why():
    trials = rung_zero(0.9, 0.8, 0.7, 0.6, 0.5, 0.1)
    for index in range(3):
        trials[f"u{index}"] = heard(f"u{index}", [0.3 + index / 100, 0.2], status=Status.PAUSED)
    told = {name: HALVING.parting(trials[name], Roster(trials.values())) for name in ("t0", "t5")}
    assert told["t0"] == "rung 0: loss 0.9000, rank 9 of 9; 3 went on"
    assert told["t5"] == (
        "rung 0: loss 0.1000, rank 1 of 9; 3 went on, promoted before this one was heard"
    )
