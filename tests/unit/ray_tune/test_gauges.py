from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from lvray.core.trial import Status
from lvray.ray_tune.gauges import METRICS, TELL_SECONDS, Gauges, Reading, readings
from lvray.reporting.facts import read_facts
from lvray.reporting.live import Scene

ROOT = Path(__file__).parents[3]
RAY_PREFIX = "ray_"
"""Which Ray puts before the name of every metric that it exports."""


def scene_of(folder) -> Scene:
    facts = read_facts(folder)
    return Scene(facts.history, facts.ledger)


def by_name(scene: Scene, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(reading.labels.values()): reading.value
        for reading in readings(scene)
        if reading.name == name
    }


def test_the_gauges_of_the_ledger_are_its_balances(finished):
    scene = scene_of(finished)
    told = {name: by_name(scene, f"lvray_flops_{name}") for name in ("spent", "budget", "lost")}
    assert told == {
        "spent": {(): float(scene.spent)},
        "budget": {(): 1_000_000.0},
        "lost": {(): float(scene.ledger.lost)},
    }
    assert scene.ledger.lost > 0


def test_the_pieces_of_the_budget_add_up_to_it(finished, unfinished):
    for folder in (finished, unfinished):
        scene = scene_of(folder)
        pieces = ("spent", "reserved", "held_back", "free")
        total = sum(by_name(scene, f"lvray_flops_{piece}")[()] for piece in pieces)
        assert total == by_name(scene, "lvray_flops_budget")[()]


def test_every_gauge_of_the_list_is_read_with_the_labels_it_promises(finished):
    read: dict[str, set[str]] = {}
    for reading in readings(scene_of(finished)):
        read.setdefault(reading.name, set()).update({"sweep", *reading.labels})
    assert read == {name: set(labels) for name, (_, labels) in METRICS.items()}


def test_trials_are_counted_by_stage_and_status_and_a_status_without_any_is_told_as_zero(finished):
    scene = scene_of(finished)
    counts = by_name(scene, "lvray_trials")
    assert set(counts) == {(stage, status) for stage in scene.history.stages for status in Status}
    assert counts["final", "completed"] == 1
    assert counts["final", "running"] == 0
    assert sum(count for (stage, _), count in counts.items() if stage == "search") == 9


def test_the_loss_of_a_stage_is_its_best_trials_and_never_nan(finished):
    scene = scene_of(finished)
    trials = scene.history.stages["search"].trials
    lowest = min(trial.loss for trial in trials.values() if trial.loss is not None)
    assert by_name(scene, "lvray_best_validation_loss_nats")[("search",)] == lowest
    for name, trial in trials.items():
        diverged = tuple(replace(heard, validation_loss=float("nan")) for heard in trial.curve)
        trials[name] = replace(trial, curve=diverged)
    assert ("search",) not in by_name(scene, "lvray_best_validation_loss_nats")


def test_the_pace_is_that_of_the_running_trials(finished):
    scene = scene_of(finished)
    assert by_name(scene, "lvray_accounted_flops_per_second") == {(): 0.0}
    trials = scene.history.stages["search"].trials
    for name in ("search-00", "search-01"):
        trials[name] = replace(trials[name], status=Status.RUNNING)
    heard = [trials[name].curve[-1] for name in ("search-00", "search-01")]
    pace = sum(each.flops / each.seconds for each in heard)
    assert by_name(scene, "lvray_accounted_flops_per_second") == {(): pace}


def test_without_a_ray_to_export_them_gauges_do_nothing_and_say_nothing(finished, capfd):
    scene = scene_of(finished)
    seconds = [0.0]
    gauges = Gauges(scene.history, scene.ledger, clock=lambda: seconds[0])
    gauges.changed()
    seconds[0] = TELL_SECONDS + 1
    gauges.tick()
    assert capfd.readouterr() == ("", "")


def dashboard() -> dict:
    return json.loads((ROOT / "cluster" / "grafana.json").read_text(encoding="utf-8"))


def expressions(panels: list[dict]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_the_dashboard_asks_for_every_gauge_and_for_no_other():
    asked = " ".join(expressions(dashboard()["panels"]))
    assert set(re.findall(rf"\b{RAY_PREFIX}(lvray_\w+)", asked)) == set(METRICS)
    assert not re.search(r"(?<!ray_)\blvray_", asked), "Ray puts its prefix before every name"


def test_the_dashboard_filters_by_labels_that_the_gauges_have():
    for expression in expressions(dashboard()["panels"]):
        names = re.findall(rf"{RAY_PREFIX}(lvray_\w+)", expression)
        used = set(re.findall(r"(\w+)=~?\"", expression))
        for labels in re.findall(r"by \(([^)]*?)\)", expression):
            used |= set(labels.split(", "))
        assert all(used <= set(METRICS[name][1]) for name in names), expression


def test_the_dashboard_asks_whoever_imports_it_for_the_source():
    panels = dashboard()["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    variables = {each["name"]: each["type"] for each in dashboard()["templating"]["list"]}
    assert variables == {"datasource": "datasource", "sweep": "query"}


def test_a_reading_is_a_float_even_of_the_largest_budget(finished):
    scene = scene_of(finished)
    scene.ledger.balances["source"] = -(10**30)
    assert by_name(scene, "lvray_flops_budget") == {(): 1e30}
    assert all(
        isinstance(reading, Reading) and type(reading.value) is float for reading in readings(scene)
    )
