from __future__ import annotations

import io

from rich.console import Console

from lvray.reporting.facts import read_facts
from lvray.reporting.live import LiveView, Scene, bar, render


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
