from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from lvray.core.errors import Blame
from lvray.core.trial import Measurement, StagePlan, StepPrices, TrialConfig, TrialPlan
from lvray.reporting.facts import read_facts
from lvray.reporting.live import (
    MOST_ROWS,
    LiveView,
    Scene,
    bar,
    cells,
    render,
    rung_of,
    trial_seconds_left,
)
from lvray.scheduler.milestones import unroll
from lvray.scheduler.registry import policy_of
from lvray.scheduler.scheduler import Scheduler


def scene_of(folder) -> Scene:
    facts = read_facts(folder)
    return Scene(facts.history, facts.ledger)


def shown(renderable, width: int = 100) -> str:
    text = io.StringIO()
    Console(file=text, width=width, no_color=True).print(renderable)
    return text.getvalue()


def test_the_view_shows_books_trials_and_reasons_in_100_columns(finished):
    text = shown(render(scene_of(finished), elapsed=65, spent_before=0, width=100))
    assert "of 1.00e6 FLOPs spent" in text
    assert "1 min 05 s gone" in text
    assert "search-22" in text
    assert "ran to its end" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_the_bar_is_as_long_as_asked_and_shows_what_is_spent(finished):
    scene = scene_of(finished)
    drawn = bar(scene, 50).plain
    assert len(drawn) == 50
    assert drawn.count("█") == scene.spent * 50 // scene.budget


def test_the_time_left_goes_by_what_this_session_has_spent(finished):
    scene = scene_of(finished)
    assert scene.seconds_left(elapsed=10, spent_before=scene.spent) is None
    first_words = scene.spent - scene.budget // 100
    assert scene.seconds_left(elapsed=10, spent_before=first_words) is None, "too little to tell"
    left = scene.seconds_left(elapsed=10, spent_before=0)
    assert left is not None
    assert 0 <= left < 1


def test_in_a_file_each_event_is_a_line_and_told_once(finished):
    facts = read_facts(finished)
    text = io.StringIO()
    console = Console(file=text, width=100)
    with LiveView(facts.history, facts.ledger, console=console) as view:
        view.changed()
        view.tick()
    lines = text.getvalue().splitlines()
    assert len(lines) == len(facts.history.trials)
    assert "\x1b" not in text.getvalue()


def begin(run, count: int = 1) -> Scheduler:
    """Begins a stage of `count` trials of three stretches, 100 steps of 100 FLOPs each."""
    prices = StepPrices(train_step=100, evaluation=400, forecast=1)
    stretches = unroll(prices, [(100, None), (200, None), (300, None)], forecast=False)
    plans = tuple(
        TrialPlan(f"search-{index}", "search", TrialConfig(), stretches, prices)
        for index in range(count)
    )
    stage = StagePlan("search", plans, sum(plan.price for plan in plans), "fixed")
    run.books.allow("search", stage.allowance, key="1")
    run.record({"event": "stage", **stage.to_json()})
    return Scheduler(stage, policy_of(stage), run.books, run.record)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_sentence_is_told_on_a_terminal_as_in_a_file(finished, terminal):
    text, scene = io.StringIO(), scene_of(finished)
    console = Console(file=text, width=100, force_terminal=terminal, highlight=False)
    with LiveView(scene.history, scene.ledger, console=console) as view:
        view.say("no node has a core to give (n0: [0] CPU)")
    assert text.getvalue().count("no node has a core to give (n0: [0] CPU)") == 1


def test_the_bar_tells_what_is_held_back_from_what_is_free(invented):
    invented.books.allow("final", 250_000, key="hold-back")
    scheduler = begin(invented)
    grant = scheduler.next_grant()
    scene = Scene(invented.history, invented.books.ledger)
    assert scene.pieces == {
        "spent": 0,
        "reserved": grant.flops,
        "held back": 250_000,
        "free": 750_000 - grant.flops,
    }
    assert bar(scene, 100).plain.count("▒") == 25
    assert [len(bar(scene, width)) for width in range(1, 120)] == list(range(1, 120))
    assert "held back 2.50e5" in shown(render(scene, elapsed=1, spent_before=0, width=100))


def test_what_a_stage_that_has_begun_holds_is_not_held_back(invented):
    begin(invented)
    assert Scene(invented.history, invented.books.ledger).held_back == 0


def test_a_running_trial_tells_the_time_to_the_end_of_its_grant(invented):
    scheduler = begin(invented)
    grant = scheduler.next_grant()
    first, second, _ = grant.plan.milestones
    name = grant.plan.trial_id
    assert trial_seconds_left(invented.history.trials[name]) is None
    scheduler.hear(Measurement(name, grant.attempt, 0, first.step, first.flops, 0.9, 60.0))
    trial = invented.history.trials[name]
    ahead = grant.plan.flops_at(trial.granted) - first.flops
    assert ahead == second.flops - first.flops
    assert trial_seconds_left(trial) == 60.0 * ahead / first.flops
    assert cells(trial)[7] == "1 min 00 s"


def test_running_trials_stand_first_and_the_rest_is_counted(invented):
    scheduler = begin(invented, count=MOST_ROWS + 5)
    for _ in range(3):
        scheduler.next_grant()
    scheduler.fail("search-0", "no such layer", blame=Blame.TRIAL)
    scene = Scene(invented.history, invented.books.ledger)
    assert [trial.plan.trial_id for trial in scene.trials[:2]] == ["search-1", "search-2"]
    text = shown(render(scene, elapsed=1, spent_before=0, width=100))
    assert "… 5 more" in text
    assert len(text.splitlines()) <= 25


def test_a_path_in_brackets_in_a_reason_is_shown_as_it_is(retold):
    def change(row):
        if row["event"] in {"decision", "close"} and row["status"] == "stopped":
            row["reason"] = "OSError: [/tmp/x]\nis full"

    facts = read_facts(retold(change))
    reason = "OSError: [/tmp/x] is full"
    assert reason in shown(
        render(scene_of(facts.folder.root), elapsed=1, spent_before=0, width=120)
    )
    text = io.StringIO()
    with LiveView(facts.history, facts.ledger, console=Console(file=text, width=100)):
        pass
    assert reason in text.getvalue()


def test_the_latest_stage_stands_above_those_before_it(finished):
    stages = [trial.plan.stage for trial in scene_of(finished).trials]
    assert list(dict.fromkeys(stages)) == ["final", "search", "default", "baseline"]


def test_a_trial_tells_the_rung_it_reached_where_there_are_rungs(finished):
    trials = scene_of(finished).history.trials
    top = max(m.rung for m in trials["search-00"].plan.milestones if m.rung is not None)
    rungs = {name: rung_of(trial) for name, trial in trials.items()}
    assert rungs["baseline"] == rungs["final"] == ""
    assert rungs.pop("search-00") in {f"{rung}/{top}" for rung in range(top + 1)}
    assert f"{top}/{top}" in rungs.values()
    waiting = replace(trials["search-00"], curve=())
    assert rung_of(waiting) == f"–/{top}"
